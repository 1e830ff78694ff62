"""What the kernel's requests and the daemon ask of whatever is mounted: one store, or an account with many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from kvsfs.core.inodes import Inode
from kvsfs.core.requests import Changes, OpenFile
from kvsfs.core.steering import Pending
from kvsfs.core.unstored import Report, Totals
from kvsfs.core.usage import CacheUsage
from kvsfs.core.warming import Warmth


class KnownInodes(Protocol):
    """What the kernel knows. No method checkpoints or raises."""

    def looked_up(self, inode: Inode) -> None:
        """Count one lookup: the kernel was told of the inode."""

    def forget(self, number: int, nlookup: int) -> None:
        """Count lookups back."""

    def __len__(self) -> int:
        """Give the number of all inodes."""


class OpenedFiles(Protocol):
    """See `core.open_files.OpenFiles`."""

    device: int | None
    """st_dev of the mount."""

    async def read(self, fh: int, offset: int, length: int) -> bytes:
        """Read bytes."""

    async def write(self, fh: int, offset: int, data: bytes) -> None:
        """Write bytes."""

    async def flush(self, fh: int) -> None:
        """Do what close(2) of a descriptor waits for."""

    async def fsync(self, fh: int) -> None:
        """Wait until its bytes are safe."""

    async def release(self, fh: int) -> None:
        """Close a handle."""


class Used(Protocol):
    """What `df` shows."""

    def used_bytes(self) -> int:
        """Give the stored bytes last heard. No checkpoint."""


class Unsent(Protocol):
    """See `core.unstored.Unstored`."""

    def totals(self) -> Totals:
        """Count."""

    def report(self) -> Report:
        """Tell all."""


class Steerable(Protocol):
    """See `core.steering.Steering`. Paths are from the mount's root, as file names."""

    def pending(self, path: str) -> list[Pending]:
        """Give what is pending at or below a path."""

    async def try_now(self, chosen: list[Pending], *, failed_too: bool) -> None:
        """Have each tried now."""

    async def discard(self, pending: Pending) -> None:
        """Let go of what the store has not taken."""

    def bytes_of(self, path: str) -> tuple[int, int]:
        """Give a descriptor to read a file's unstored bytes from, and their number."""

    async def refresh(self, path: str) -> None:
        """Trust nothing that is known at and below a path."""

    async def warm(self, path: str, tell: Callable[[Warmth], None]) -> None:
        """Have what is at and below a path in the cache."""


class Mountable(Protocol):
    """See `core.filesystem.FileSystem` for what each method promises."""

    @property
    def inodes(self) -> KnownInodes:
        """Those that the kernel knows."""

    @property
    def files(self) -> OpenedFiles:
        """The open files."""

    @property
    def usage(self) -> Used:
        """What `df` shows."""

    @property
    def unstored(self) -> Unsent:
        """What no store has yet."""

    @property
    def steering(self) -> Steerable:
        """What a person decides about that."""

    async def lookup(self, parent: int, name: bytes) -> Inode:
        """Find a name."""

    def opendir(self, number: int) -> int:
        """Open a folder to read its entries."""

    async def readdir(self, fh: int, start: int) -> Sequence[tuple[bytes, Inode, int]]:
        """Give entries from a place on."""

    def releasedir(self, fh: int) -> None:
        """Close a folder."""

    async def getattr(self, number: int) -> Inode:
        """Find an inode that the kernel knows."""

    async def setattr(self, number: int, changes: Changes, fh: int | None) -> Inode:
        """Change attributes."""

    async def getxattr(self, number: int, name: bytes) -> bytes:
        """Give an extended attribute."""

    async def listxattr(self, number: int) -> Sequence[bytes]:
        """Give the names of extended attributes."""

    async def setxattr(self, number: int, name: bytes, value: bytes) -> None:
        """Change an extended attribute."""

    async def removexattr(self, number: int, name: bytes) -> None:
        """Remove an extended attribute."""

    async def open(self, number: int, flags: int, pid: int) -> OpenFile:
        """Open a file."""

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, pid: int
    ) -> tuple[Inode, OpenFile]:
        """Make a file and open it."""

    async def unlink(self, parent: int, name: bytes) -> None:
        """Remove a file's name."""

    async def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, *, replace: bool
    ) -> None:
        """Give a file or a folder another name."""

    async def mkdir(self, parent: int, name: bytes, mode: int) -> Inode:
        """Make a folder."""

    async def rmdir(self, parent: int, name: bytes) -> None:
        """Remove an empty folder."""

    async def drain(self) -> None:
        """Upload all that is dirty."""

    async def hand_over(self) -> None:
        """Leave what was closed to the next mount."""

    def left(self) -> list[str]:
        """Tell what no store has yet, at the end."""

    def cache_usage(self) -> CacheUsage:
        """Tell what the cache holds."""

    def close(self) -> None:
        """Write down what was learned."""
