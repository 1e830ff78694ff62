"""What a run of a row finds: sizes, servers, files to copy, an empty folder of its own, and a stop-watch."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from _rows import RCLONE, S3FS, SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _stores import Server, Servers

KIB, MIB = 1024, 1024 * 1024

FILE_BYTES = 4 * KIB
COMMAND_SECONDS = 1800
POLL_SECONDS = 0.005
DROP_CACHES = Path("/proc/sys/vm/drop_caches")


@dataclass(frozen=True)
class Sizes:
    rounds: int
    files: int
    """Of 4 KiB each."""
    keys: int
    """In the store that is only listed."""
    large: int
    """Bytes of the one large record."""
    stale_after: float = 6.0
    """Seconds after which a mount of ours asks whether a cached file has changed: its --revalidate is 5."""


FULL = Sizes(rounds=3, files=1000, keys=100_000, large=1024 * MIB)
QUICK = Sizes(rounds=2, files=200, keys=20_000, large=256 * MIB)
TINY = Sizes(rounds=1, files=8, keys=50, large=MIB, stale_after=0.0)


class Scene:
    """Everything in one temporary folder; `folder` is the present contestant's own, on the same disk."""

    def __init__(self, base: Path, sizes: Sizes, servers: Servers, *, without: Sequence[str] = ()) -> None:
        self.sizes = sizes
        self.servers = servers
        self._base = base
        self._without = frozenset(without)
        self._turns = 0
        self.folder = base
        self.drops_caches = os.access(DROP_CACHES, os.W_OK)

    def has(self, who: str) -> bool:
        """Tell whether a contestant is installed, and wanted."""
        return who not in self._without and (who not in (RCLONE, S3FS) or shutil.which(who) is not None)

    def fresh(self) -> Scene:
        """Give the next contestant an empty folder."""
        self._turns += 1
        self.folder = self._base / f"turn-{self._turns}"
        self.folder.mkdir()
        return self

    def close(self) -> None:
        """Give that folder's space back: it may hold gigabytes. Its files stay, empty, until the end of the run.

        Before ext4 gives out an inode it looks at each that was removed in the last minutes: behind 3,000 removed
        files a new one took 0.8 ms instead of 0.03, in any folder, and so the next one's turn.
        """
        for folder, _, names in os.walk(self.folder):
            for name in names:
                if not os.path.islink(path := os.path.join(folder, name)):
                    os.truncate(path, 0)

    def path(self, name: str) -> Path:
        """Make a folder in the present one, or find it."""
        path = self.folder / name
        path.mkdir(exist_ok=True)
        return path

    def source(self) -> Path:
        """Give the folder of small files: of text that does not repeat, so that nobody gains by compressing."""
        folder = self._base / "source"
        if not folder.exists():
            chance = random.Random(6)
            folder.mkdir()
            for number in range(self.sizes.files):
                words = chance.randbytes(FILE_BYTES // 2).hex()
                (folder / f"record-{number:05}.json").write_text(words)
        return folder

    def large(self) -> Path:
        """Give the large file."""
        path = self._base / "large"
        if not path.exists():
            piece = random.Random(7).randbytes(MIB)
            with path.open("wb") as file:
                for _ in range(self.sizes.large // MIB):
                    file.write(piece)
        return path

    def drop_caches(self) -> None:
        """Empty the kernel's page, entry and inode caches where that is allowed; else only new mounts are cold."""
        os.sync()
        if self.drops_caches:
            DROP_CACHES.write_text("3")


def seconds(*command: str | Path, cwd: Path | None = None) -> float:
    """Time a command. Raises with what it wrote to stderr when it fails."""
    started = time.perf_counter()
    ended = subprocess.run(
        command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_SECONDS, check=False
    )
    elapsed = time.perf_counter() - started
    if ended.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with {ended.returncode}: {ended.stderr.decode()[-500:]}")
    return elapsed


class Watch:
    """Counts what a server is asked while something is timed."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._place = server.log_size()
        self._started = time.perf_counter()

    def elapsed(self) -> float:
        return time.perf_counter() - self._started

    def requests(self, *, well: bool = False) -> Counter[str]:
        return self._server.requests_since(self._place, well=well)

    def wait_for(self, method: str, count: int) -> float:
        """Wait until so many requests were answered well; the seconds since the start."""
        while self.requests(well=True)[method] < count:
            if self.elapsed() > COMMAND_SECONDS:
                raise TimeoutError(f"{method}: {self.requests()} instead of {count}")
            time.sleep(POLL_SECONDS)
        return self.elapsed()

    def figures(self, elapsed: float) -> dict[str, float]:
        """Give the seconds, and the requests by method."""
        return {SECONDS: elapsed, **{f"{name}s": float(count) for name, count in self.requests().items()}}
