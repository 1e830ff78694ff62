"""Open files and folders."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from kvsfs.core.content import Content
from kvsfs.core.inodes import File, Folder, ListingPass
from kvsfs.core.numbers import Numbers
from kvsfs.errors import FileError

H = TypeVar("H")


@dataclass(slots=True, eq=False)
class FileHandle:
    """One open(2) of a file.

    Dirtiness belongs to the handle that wrote: `written` is the content's version at its last change, so the
    handle is dirty until the store has that version, whoever uploads it.
    """

    file: File
    content: Content
    flags: int
    opener: int | None
    """Thread group that opened it; None when unknown."""
    written: int = 0

    @property
    def appends(self) -> bool:
        """Whether every write goes to the end."""
        return bool(self.flags & os.O_APPEND)

    @property
    def dirty(self) -> bool:
        """Whether this handle's changes are not all in the store."""
        return self.written > self.content.stored_version

    @property
    def writable(self) -> bool:
        """Whether it was opened to write."""
        return self.flags & os.O_ACCMODE != os.O_RDONLY

    def mark_written(self) -> None:
        """Note that this handle made the content's newest change."""
        self.written = self.content.version

    def answer_for(self, other: FileHandle) -> None:
        """Take over what a handle of the same process wrote, if this one could have written it."""
        if self.writable and self.content is other.content and self.opener == other.opener:
            self.written = max(self.written, other.written)


@dataclass(slots=True, eq=False)
class FolderHandle:
    """One opendir(3): the order in which this reader sees the entries.

    Offsets are places in `order`, which only grows: no entry moves under a reader, whatever is created or
    removed meanwhile.
    """

    folder: Folder
    order: list[File | Folder] = field(default_factory=list)
    listing: ListingPass | None = None
    arrived: int = 0
    """How many of the listing pass's arrivals were looked at."""
    unnamed: list[File | Folder] = field(default_factory=list)
    """Arrivals that are not in `order` yet, because their names are not known."""
    finished: bool = False

    def rewind(self, listing: ListingPass) -> None:
        """Start over, with a pass that may be newer."""
        self.order, self.listing, self.arrived, self.finished = [], listing, 0, False
        self.unnamed = []

    def take_arrivals(self, has_name: Callable[[File | Folder], bool]) -> None:
        """Go on with what the pass has found meanwhile, but for what was removed or moved elsewhere since.

        What a record is shown as depends on whether there is a folder of that name, which a later page may
        tell: it waits until `has_name`.
        """
        assert self.listing is not None
        new = self.unnamed + self.listing.arrivals[self.arrived :]
        self.arrived = len(self.listing.arrivals)
        self.unnamed = []
        for inode in new:
            if not has_name(inode):  # asked once: it was 14 % of what `ls` of a large store costs
                self.unnamed.append(inode)
            elif inode.parent is self.folder:
                self.order.append(inode)

    def finish(self, folder: Folder) -> None:
        """End with what is known beside the pass: made here, and not seen by it."""
        there = set(map(id, self.order))
        self.order += [inode for inode in folder.children() if id(inode) not in there]
        self.finished = True


class HandleTable(Generic[H]):
    """Open handles by number."""

    def __init__(self, numbers: Numbers | None = None) -> None:
        self._handles: dict[int, H] = {}
        self._numbers = (numbers or Numbers()).handles

    def add(self, handle: H) -> int:
        """Give a handle a number."""
        fh = next(self._numbers)
        self._handles[fh] = handle
        return fh

    def get(self, fh: int) -> H:
        """Find a handle. Raises FileError(EBADF)."""
        try:
            return self._handles[fh]
        except KeyError:
            raise FileError(errno.EBADF) from None

    def remove(self, fh: int) -> H:
        """Take a handle out. Raises FileError(EBADF)."""
        handle = self.get(fh)
        del self._handles[fh]
        return handle

    def __iter__(self) -> Iterator[H]:
        return iter(list(self._handles.values()))

    def __len__(self) -> int:
        return len(self._handles)
