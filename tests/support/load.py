"""A mixed load on a folder, and what is known of its files when it is cut off at any moment.

Run as a script this is one worker: it changes files of its own, one step after the other, as programs do, and
notes beside the folder what each step is about to do and what came of it (`python load.py FOLDER LOG SEED STATE`).
It ends when its stdin does, or when the mount is dead. `History` reads the notes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import random
import select
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

Piece = tuple[str, int, int]
"""Bytes of the stream that a seed gives, from the one place to the other."""

Value = tuple[Piece, ...]
"""The bytes of a file."""

State = dict[str, Value]

DEAD = (errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV)
"""What a mount whose daemon was killed answers."""

FILES = 4
FOLDERS = 3
LARGE = 400_000

WORKER_SECONDS = 30.0
"""For a worker's last step: above all time-outs of the mount."""


def bytes_of(value: Value) -> bytes:
    return b"".join(hashlib.shake_128(seed.encode()).digest(stop)[start:] for seed, start, stop in value)


def length_of(value: Value) -> int:
    return sum(stop - start for _, start, stop in value)


def cut(value: Value, start: int, stop: int) -> Value:
    """Give a part of a value."""
    found, place = [], 0
    for seed, first, last in value:
        low, high = max(start - place, 0), min(stop - place, last - first)
        if low < high:
            found.append((seed, first + low, first + high))
        place += last - first
    return tuple(found)


class Worker:
    """Works until it is stopped. INVARIANT: of each path in `known` it is known what is in it."""

    def __init__(self, folder: str, log: str, seed: str, known: State) -> None:
        os.chdir(
            folder
        )  # and every path is from there: what lies below a dead mount is not ours; then the log says so
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._name = seed.partition(".")[0]
        self._seed = seed
        self._random = random.Random(seed)
        self._versions = 0
        self.known = known
        self.unknown: set[str] = set()
        """Where a step has failed: it may have been done."""

    def run(self) -> None:
        steps = [
            (self._overwrite, 6),
            (self._grow, 3),
            (self._patch, 2),
            (self._truncate, 1),
            (self._unlink, 3),
            (self._rename, 3),
            (self._rename_folder, 2),
            (self._save_as_vim, 3),
            (self._save_as_rsync, 3),
            (self._look, 2),
        ]
        functions, weights = [step for step, _ in steps], [weight for _, weight in steps]
        while not select.select([sys.stdin], [], [], 0)[0]:
            try:
                self._random.choices(functions, weights)[0]()
            except OSError as error:
                if error.errno in DEAD:
                    return

    # --- what programs do ---------------------------------------------------------------------------

    def _overwrite(self) -> None:
        """Write all anew; half of the time with an fsync amid it."""
        path = self._any_path()
        self._make_folder(path)
        self._write(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, synced=self._random.random() < 0.3)

    def _grow(self) -> None:
        if path := self._known_path():
            value = self.known[path]
            piece = self._piece()
            self._change(
                path, os.O_WRONLY | os.O_APPEND, value + piece, lambda fd: _write_all(fd, bytes_of(piece))
            )

    def _patch(self) -> None:
        if path := self._known_path():
            value, piece = self.known[path], self._piece()
            length = length_of(value)
            start = self._random.randrange(length + 1)
            after = cut(value, 0, start) + piece + cut(value, start + length_of(piece), length)
            self._change(path, os.O_RDWR, after, lambda fd: os.pwrite(fd, bytes_of(piece), start))

    def _truncate(self) -> None:
        if path := self._known_path():
            size = self._random.randrange(length_of(self.known[path]) + 1)
            with self._step({path: cut(self.known[path], 0, size)}):
                os.truncate(path, size)

    def _unlink(self) -> None:
        if path := self._known_path():
            self._remove(path)

    def _rename(self) -> None:
        if path := self._known_path():
            new = self._any_path()
            self._make_folder(new)
            self._move(path, new)

    def _rename_folder(self) -> None:
        old, new = self._random.sample([self._folder_name(number) for number in range(FOLDERS)], 2)
        below = [path for path in (*self.known, *self.unknown) if path.startswith(f"{old}/")]
        if not below or not set(below) <= set(self.known):
            return
        if any(path.startswith(f"{new}/") for path in (*self.known, *self.unknown)):
            return
        moved = {new + path.removeprefix(old): self.known[path] for path in below}
        with self._step(
            {**dict.fromkeys(below), **moved}, pairs=[(p, new + p.removeprefix(old)) for p in below]
        ):
            os.rename(old, new)

    def _save_as_vim(self) -> None:
        """The old file becomes the backup, a new one is written in its place, the backup goes."""
        if path := self._known_path(temporary=False):
            backup = f"{path}~"
            self._move(path, backup)
            self._write(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, synced=True)
            self._remove(backup)

    def _save_as_rsync(self) -> None:
        """Write a temporary file, as mkstemp(3) makes it, and put it in the place of the real one."""
        path = self._any_path()
        self._make_folder(path)
        folder, _, name = path.rpartition("/")
        self._versions += 1
        temporary = f"{folder}{'/' if folder else ''}.{name}.{self._seed}-{self._versions}"
        self._write(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, synced=self._random.random() < 0.5)
        os.utime(temporary, (1_600_000_000, 1_600_000_000 + self._versions))
        self._move(temporary, path)

    def _look(self) -> None:
        os.listdir()
        if path := self._known_path():
            with open(path, "rb") as file:
                assert file.read() == bytes_of(self.known[path]), f"{path} reads differently"

    # --- steps ----------------------------------------------------------------------------------------

    def _write(self, path: str, flags: int, *, synced: bool) -> None:
        value = self._piece()
        if not synced:
            self._change(path, flags, value, lambda fd: _write_all(fd, bytes_of(value)))
            return
        with self._opened(path, flags, value) as fd:
            with self._step({path: value}):
                _write_all(fd, bytes_of(value))
                os.fsync(fd)
            more = self._piece()
            with self._step({path: value + more}):
                _write_all(fd, bytes_of(more))
                os.close(fd)

    @contextlib.contextmanager
    def _opened(self, path: str, flags: int, value: Value) -> Iterator[int]:
        """Open; when the block ends the file is closed, or was before. Its bytes are to be `value`, if it fails."""
        with self._step({path: value}, done=False):
            fd = os.open(path, flags, 0o600)
        try:
            yield fd
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(fd)
            raise

    def _change(self, path: str, flags: int, value: Value, write: Callable[[int], object]) -> None:
        with self._opened(path, flags, value) as fd, self._step({path: value}):
            write(fd)
            os.close(fd)

    def _remove(self, path: str) -> None:
        with self._step({path: None}):
            os.unlink(path)

    def _move(self, path: str, new: str) -> None:
        if path == new:
            return
        with self._step({path: None, new: self.known[path]}, pairs=[(path, new)]):
            os.rename(path, new)

    @contextlib.contextmanager
    def _step(
        self,
        effects: Mapping[str, Value | None],
        *,
        pairs: Iterable[tuple[str, str]] = (),
        done: bool = True,
    ) -> Iterator[None]:
        """Note what is about to be, and what came of it. Without `done` it is only begun when the block ends.

        Of each pair the one has what the other had, whatever happens.
        """
        self._note("begin", effects, list(pairs))
        before = {path: self.known.pop(path) for path in effects if path in self.known}
        try:
            yield
        except OSError as error:
            if error.errno not in DEAD:
                self._note("failed", error.errno)
                self.unknown.update(effects)
            raise
        if not done:
            self.known |= before
            return
        self._note("done")
        self.unknown.difference_update(effects)
        self.known |= {path: value for path, value in effects.items() if value is not None}

    def _note(self, *what: object) -> None:
        os.write(self._log, json.dumps(what).encode() + b"\n")

    # --- names and bytes ------------------------------------------------------------------------------

    def _piece(self) -> Value:
        self._versions += 1
        kind = self._random.random()
        size = LARGE if kind > 0.95 else 0 if kind < 0.05 else self._random.randrange(1, 40_000)
        return ((f"{self._seed}-{self._versions}", 0, size),)

    def _any_path(self) -> str:
        name = f"f{self._random.randrange(FILES)}"
        place = self._random.randrange(FOLDERS + 2)
        return f"{self._name}-{name}" if place >= FOLDERS else f"{self._folder_name(place)}/{name}"

    def _known_path(self, *, temporary: bool = True) -> str | None:
        paths = sorted(p for p in self.known if temporary or not p.endswith("~"))
        return self._random.choice(paths) if paths else None

    def _folder_name(self, number: int) -> str:
        return f"{self._name}-d{number}"

    def _make_folder(self, path: str) -> None:
        folder = path.rpartition("/")[0]
        if folder:
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder)


def _write_all(fd: int, data: bytes) -> None:
    """Write in pieces: a kill meets files that are half written."""
    for start in range(0, len(data), 30_000):
        os.write(fd, data[start : start + 30_000])


@contextlib.contextmanager
def working(folder: Path, log: Path, seed: str, known: State) -> Iterator[subprocess.Popen[bytes]]:
    """Let a worker of the log's name work in a folder as long as the block runs, or the mount lives."""
    state = log.with_suffix(".state")
    state.write_text(json.dumps({path: v for path, v in known.items() if path.startswith(f"{log.name}-")}))
    command = [sys.executable, "-S", __file__, str(folder), str(log), f"{log.name}.{seed}", str(state)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        _, told = process.communicate(timeout=WORKER_SECONDS)
    assert process.returncode == 0, told.decode()


class History:
    """What may be in each path, by what the workers have noted: the newest that was answered, or what came later."""

    def __init__(self) -> None:
        self.possible: dict[str, set[Value | None]] = {}
        self.pairs: list[tuple[str, str, Value]] = []
        """One of the two paths has this value."""
        self._former: dict[str, set[Value | None]] = {}
        """What was in a path before. When it was removed, and until what comes in its place was closed, the store may
        have that: so it never has neither."""
        self.acknowledged = 0
        self.failed = 0

    def read(self, log: Path) -> None:
        """Read a worker's notes."""
        effects: dict[str, Value | None] = {}
        for line in log.read_text().splitlines():
            what, *rest = json.loads(line)
            if what == "begin":
                effects = {path: _value(value) for path, value in rest[0].items()}
                self._begin(effects, rest[1])
            elif what == "done":
                self._done(effects)
            else:
                self.failed += 1

    def _begin(self, effects: Mapping[str, Value | None], pairs: list[list[str]]) -> None:
        self._forget_pairs(effects)
        for old, new in pairs:
            value = effects[new]
            assert value is not None
            self.pairs.append((old, new, value))
        for path, value in effects.items():
            possible = self.possible.setdefault(path, {None})
            if value is not None and None in possible:
                possible |= self._former.get(path, set())
            possible.add(value)

    def _done(self, effects: Mapping[str, Value | None]) -> None:
        self.acknowledged += 1
        self._forget_pairs(effects)
        for path, value in effects.items():
            before, self.possible[path] = self.possible[path], {value}
            self._former.setdefault(path, set()).update(before)

    def _forget_pairs(self, effects: Iterable[str]) -> None:
        self.pairs = [
            (old, new, v) for old, new, v in self.pairs if old not in effects and new not in effects
        ]

    def faults(self, found: Mapping[str, bytes]) -> list[str]:
        """Compare with what is there; one line for each path that has what it cannot have."""
        faults = []
        for path in sorted({*self.possible, *found}):
            possible = self.possible.get(path, {None})
            if found.get(path) not in {_bytes(value) for value in possible}:
                faults.append(f"{path}: {_told(found.get(path))}, none of {[_shown(v) for v in possible]}")
        for old, new, value in self.pairs:
            if bytes_of(value) not in (found.get(old), found.get(new)):
                faults.append(f"neither {old} nor {new} has {_shown(value)}")
        return faults

    def settle(self, found: Mapping[str, bytes]) -> State:
        """Take what is there for what is known."""
        state = {}
        for path, possible in self.possible.items():
            value = next((v for v in possible if _bytes(v) == found.get(path)), None)
            if value is not None:
                state[path] = value
        self.possible = {path: {value} for path, value in state.items()}
        self.pairs = []
        self._former = {}
        return state


def _value(noted: list[list[Any]] | None) -> Value | None:
    return None if noted is None else tuple((seed, start, stop) for seed, start, stop in noted)


def _bytes(value: Value | None) -> bytes | None:
    return None if value is None else bytes_of(value)


def _told(content: bytes | None) -> str:
    return "nothing" if content is None else f"{len(content)} bytes"


def _shown(value: Value | None) -> str:
    return "nothing" if value is None else f"{length_of(value)} bytes {value}"


def main() -> None:
    folder, log, seed, state = sys.argv[1:]
    known = {path: _value(value) or () for path, value in json.loads(Path(state).read_text()).items()}
    Worker(folder, log, seed, known).run()


if __name__ == "__main__":
    main()
