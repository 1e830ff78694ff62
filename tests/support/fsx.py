"""Random operations on one file, each held against the same bytes in memory: a verifier in the manner of fsx.

    python tests/support/fsx.py PATH --seed 1 --operations 1500

It runs in a process of its own: a page fault in a mount that hangs can be ended only with its process. At the
points that matter to a store it prints a line and waits for one:

    closed SHA256     the last descriptor was closed: the store has these bytes now
    released SHA256   a memory map outlived the last descriptor: the store has them soon
    remount           nothing of the file is open: the line that comes back is the path to go on with

The first difference ends it with status 1; the seed, the last operations and the place are printed to stderr.
"""

# ruff: noqa: T201 - a program: it prints

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import hashlib
import mmap
import os
import random
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator

MAX_FILE = 256 * 1024
"""Bytes: two of the kernel's readahead windows, so that pages come, stay and go."""

MAX_PIECE = 48 * 1024

HISTORY = 40
"""Operations that are printed after a failure."""

PUNCH_HOLE_KEEP_SIZE = 0x03
_libc = ctypes.CDLL(None, use_errno=True)  # not from tests.support.linux: this file is run by its path
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong)


class Difference(Exception):
    """The file is not what it should be."""


class Exerciser:
    """One file, three descriptors (one to read and write, two to append), and the bytes that it must hold."""

    def __init__(self, path: str, seed: int, *, remounts: bool, tell: Callable[[str], str]) -> None:
        self.path = path
        self.expected = bytearray()
        self.log: deque[str] = deque(maxlen=HISTORY)
        self.counts: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._tell = tell
        self._fd = -1
        self._appending: list[int] = []
        weights: dict[Callable[[], str], int] = {
            self.read: 20,
            self.write: 20,
            self.map_read: 10,
            self.map_write: 10,
            self.append: 10,
            self.truncate_by_path: 4,
            self.truncate_by_handle: 6,
            self.extend: 3,
            self.allocate: 2,
            self.look: 4,
            self.sync: 2,
            self.reopen: 4,
            self.overwrite: 1,
            self.map_beyond_close: 1,
            self.remount: 2 if remounts else 0,
        }
        self._operations, self._weights = list(weights), list(weights.values())

    def run(self, operations: int) -> None:
        """Do so many operations. Raises Difference, OSError."""
        self._open(os.O_CREAT)
        for number in range(operations):
            (operation,) = self._random.choices(self._operations, self._weights)
            self.counts[operation.__name__] += 1
            self.log.append(f"{number}: {operation.__name__} …")
            self.log[-1] = f"{number}: {operation.__name__} {operation()}"
        self._close()
        self._check(_content(self.path), 0)

    # --- operations: each gives what the log shows ---------------------------------------------------

    def read(self) -> str:
        at, length = self._place(), self._random.randint(1, MAX_PIECE)
        self._check(os.pread(self._fd, length, at), at, length)
        return f"{length} at {at}"

    def write(self) -> str:
        at, piece = self._place(), self._piece()
        self._put(at, piece)
        _require("written", os.pwrite(self._fd, piece, at), len(piece))
        return f"{len(piece)} at {at}"

    def append(self) -> str:
        """By either of the two handles; the kernel finds the end."""
        which, piece = self._random.randrange(2), self._piece()
        if len(self.expected) + len(piece) > MAX_FILE:
            return "nothing: full"
        self._put(len(self.expected), piece)
        _require("written", os.write(self._appending[which], piece), len(piece))
        return f"{len(piece)} by {which}"

    def map_read(self) -> str:
        if not self.expected:
            return "nothing: empty"
        at, piece = self._piece_within()
        with mmap.mmap(self._fd, 0, prot=mmap.PROT_READ) as mapped:
            _require("mapped", len(mapped), len(self.expected))
            self._check(mapped[at : at + len(piece)], at, len(piece))
        return f"{len(piece)} at {at}"

    def map_write(self) -> str:
        """Sometimes without msync(2): the kernel then writes the pages when it likes."""
        if not self.expected:
            return "nothing: empty"
        at, piece = self._piece_within()
        flush = self._random.random() < 0.5
        with mmap.mmap(self._fd, 0) as mapped:
            mapped[at : at + len(piece)] = piece
            if flush:
                mapped.flush()
        self._put(at, piece)
        return f"{len(piece)} at {at}, msync: {flush}"

    def truncate_by_path(self) -> str:
        size = self._place()
        os.truncate(self.path, size)
        return self._truncated(size)

    def truncate_by_handle(self) -> str:
        size = self._place()
        os.ftruncate(self._fd, size)
        return self._truncated(size)

    def extend(self) -> str:
        """Leave a hole, and a byte behind it."""
        at = min(len(self.expected) + self._random.randint(1, MAX_PIECE), MAX_FILE - 1)
        self._put(at, b"!")
        _require("written", os.pwrite(self._fd, b"!", at), 1)
        return f"to {at}"

    def allocate(self) -> str:
        """Neither room nor holes can be made, and the refusal says so and changes nothing."""
        mode = self._random.choice([0, PUNCH_HOLE_KEEP_SIZE])
        ended = _libc.fallocate(self._fd, mode, self._place(), 4096)
        _require("fallocate's result", (ended, ctypes.get_errno()), (-1, errno.EOPNOTSUPP))
        return f"mode {mode}"

    def look(self) -> str:
        for status in (os.stat(self.path), os.fstat(self._fd), os.fstat(self._appending[0])):
            _require("size", status.st_size, len(self.expected))
        return str(len(self.expected))

    def sync(self) -> str:
        call = self._random.choice([os.fsync, os.fdatasync])
        call(self._random.choice([self._fd, *self._appending]))
        return call.__name__

    def reopen(self) -> str:
        self._close()
        self._ask("closed")
        self._open()
        return "all"

    def overwrite(self) -> str:
        self._close()
        piece = self._piece()
        with open(self.path, "wb") as file:
            file.write(piece)
        self.expected[:] = piece
        self._ask("closed")
        self._open()
        return str(len(piece))

    def map_beyond_close(self) -> str:
        if not self.expected:
            return "nothing: empty"
        at, piece = self._piece_within()
        mapped = mmap.mmap(self._fd, 0)
        self._close()
        mapped[at : at + len(piece)] = piece
        mapped.close()
        self._put(at, piece)
        self._ask("released")
        self._open()
        return f"{len(piece)} at {at}"

    def remount(self) -> str:
        self._close()
        self._ask("closed")
        self.path = self._tell("remount")
        self._check(_content(self.path), 0)
        self._open()
        return ""

    # --- the file, and what it must hold ---------------------------------------------------------------

    def _open(self, flags: int = 0) -> None:
        self._fd = os.open(self.path, os.O_RDWR | flags, 0o644)
        self._appending = [os.open(self.path, os.O_WRONLY | os.O_APPEND) for _ in range(2)]

    def _close(self) -> None:
        descriptors = [self._fd, *self._appending]
        self._random.shuffle(descriptors)
        for descriptor in descriptors:
            os.close(descriptor)

    def _ask(self, what: str) -> None:
        self._tell(f"{what} {hashlib.sha256(self.expected).hexdigest()}")

    def _put(self, at: int, piece: bytes) -> None:
        self.expected.extend(bytes(max(0, at - len(self.expected))))
        self.expected[at : at + len(piece)] = piece

    def _truncated(self, size: int) -> str:
        old = len(self.expected)
        self.expected[:] = self.expected[:size].ljust(size, b"\0")
        return f"{old} to {size}"

    def _check(self, found: bytes, at: int, length: int = MAX_FILE) -> None:
        expected = self.expected[at : at + length]
        if found != expected:
            differing = [
                i for i, (one, other) in enumerate(zip(found, expected, strict=False)) if one != other
            ]
            place = at + differing[0] if differing else at + min(len(found), len(expected))
            raise Difference(
                f"{len(found)} bytes instead of {len(expected)} at {at}; "
                f"{len(differing)} differ, the first difference is at {place}"
            )

    # --- what chance decides ---------------------------------------------------------------------------

    def _place(self) -> int:
        """Mostly within the file, and often where pages meet."""
        limit = min(MAX_FILE - MAX_PIECE, len(self.expected) + MAX_PIECE)
        at = self._random.randrange(limit)
        return at & ~4095 if self._random.random() < 0.25 else at

    def _piece(self) -> bytes:
        return self._random.randbytes(self._random.choice([1, 100, 4096, self._random.randint(1, MAX_PIECE)]))

    def _piece_within(self) -> tuple[int, bytes]:
        at = self._random.randrange(len(self.expected))
        return at, self._piece()[: len(self.expected) - at]


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _require(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise Difference(f"{what}: {found} instead of {expected}")


def _tell_driver(line: str) -> str:
    print(line, flush=True)
    answer = sys.stdin.readline()
    if not answer:
        raise SystemExit("the driver is gone")
    return answer.rstrip("\n")


@contextlib.contextmanager
def _explained(exerciser: Exerciser, seed: int) -> Iterator[None]:
    try:
        yield
    except (Difference, OSError) as error:
        print(f"seed {seed}, the last operations:", *exerciser.log, error, sep="\n", file=sys.stderr)
        raise SystemExit(1) from None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--operations", type=int, required=True)
    parser.add_argument("--remounts", action="store_true")
    given = parser.parse_args()
    exerciser = Exerciser(given.path, given.seed, remounts=given.remounts, tell=_tell_driver)
    with _explained(exerciser, given.seed):
        exerciser.run(given.operations)
    print("done", *(f"{name}={count}" for name, count in sorted(exerciser.counts.items())), flush=True)


if __name__ == "__main__":
    main()
