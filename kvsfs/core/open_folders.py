"""Open folders: what readdir(3) shows of them."""

from __future__ import annotations

from kvsfs.core.extensions import ShownNames
from kvsfs.core.handles import FolderHandle, HandleTable
from kvsfs.core.heads import ENTRIES_AT_A_TIME, Heads
from kvsfs.core.inodes import File, Folder
from kvsfs.core.listing import Lister
from kvsfs.core.numbers import Numbers


class OpenFolders:
    """The open folders of one mount, by the number of their handle. Raises as `FileSystem` does."""

    def __init__(self, lister: Lister, shown: ShownNames, heads: Heads | None, numbers: Numbers) -> None:
        """`heads` learns the sizes that are to be exact; None where listed ones do."""
        self._lister = lister
        self._shown = shown
        self._heads = heads
        self.handles: HandleTable[FolderHandle] = HandleTable(numbers)

    def open(self, folder: Folder) -> int:
        """Open a folder to read its entries. No checkpoint."""
        return self.handles.add(FolderHandle(folder))

    async def read(self, fh: int, start: int) -> list[tuple[bytes, File | Folder, int]]:
        """Give entries from place `start` on; see `FileSystem.readdir`."""
        handle = self.handles.get(fh)
        found: list[tuple[bytes, File | Folder, int]] = []
        while not found:
            entries = await self._lister.read(handle, start)
            if not entries:
                break
            entries = await self._with_names_and_sizes(entries)
            places = enumerate(entries, start + 1)
            found = [(self._shown.name_of(e), e, place) for place, e in places if e.parent is handle.folder]
            start += len(entries)
        return found

    async def _with_names_and_sizes(self, entries: list[File | Folder]) -> list[File | Folder]:
        """Wait until some of the entries, from the first on, can be shown."""
        entries = await self._shown.learn(entries)
        if self._heads is not None:
            self._heads.ahead(entries)
            entries = entries[:ENTRIES_AT_A_TIME]
            await self._heads.exact(entries)
        return entries

    def release(self, fh: int) -> None:
        """Close a folder. No checkpoint."""
        self.handles.remove(fh)
