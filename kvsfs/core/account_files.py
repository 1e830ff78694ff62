"""Open files, inodes and sizes of an account: each is some store's."""

from __future__ import annotations

import errno

from kvsfs.core.entered import Entered, EnteredStores
from kvsfs.core.inodes import Inode
from kvsfs.core.numbers import place_of
from kvsfs.core.store_folders import StoreFolders
from kvsfs.errors import FileError


class AccountFiles:
    """The open files of all stores, by handles whose numbers tell which. EBADF for one that there is not."""

    def __init__(self, entered: EnteredStores) -> None:
        self._entered = entered
        self._device: int | None = None

    @property
    def device(self) -> int | None:
        """st_dev of the mount."""
        return self._device

    @device.setter
    def device(self, device: int | None) -> None:
        self._device = device
        for entered in self._entered:
            entered.filesystem.files.device = device

    async def read(self, fh: int, offset: int, length: int) -> bytes:
        """Read bytes."""
        with self._of(fh) as filesystem:
            return await filesystem.files.read(fh, offset, length)

    async def write(self, fh: int, offset: int, data: bytes) -> None:
        """Write bytes."""
        with self._of(fh) as filesystem:
            await filesystem.files.write(fh, offset, data)

    async def flush(self, fh: int) -> None:
        """Do what close(2) of a descriptor waits for."""
        with self._of(fh) as filesystem:
            await filesystem.files.flush(fh)

    async def fsync(self, fh: int) -> None:
        """Wait until its bytes are safe."""
        with self._of(fh) as filesystem:
            await filesystem.files.fsync(fh)

    async def release(self, fh: int) -> None:
        """Close a handle."""
        with self._of(fh) as filesystem:
            await filesystem.files.release(fh)

    def _of(self, fh: int) -> Entered:
        entered = self._entered.at(place_of(fh))
        if entered is None:
            raise FileError(errno.EBADF)
        return entered


class AccountInodes:
    """What the kernel knows of all stores."""

    def __init__(self, folders: StoreFolders, entered: EnteredStores) -> None:
        self._folders = folders
        self._entered = entered

    def looked_up(self, inode: Inode) -> None:
        """Count one lookup."""
        inode.lookup_count += 1

    def forget(self, number: int, nlookup: int) -> None:
        """Count lookups back. What a store had before it was closed is forgotten already."""
        group, folder = self._folders.group(number), self._folders.at(place_of(number))
        if group is not None:
            self._folders.forget(group, nlookup)
        elif folder is not None and folder.number == number:
            self._folders.forget(folder, nlookup)
        elif (entered := self._entered.at(place_of(number))) is not None:
            entered.filesystem.inodes.forget(number, nlookup)

    def __len__(self) -> int:
        return len(self._folders) + sum(len(entered.filesystem.inodes) for entered in self._entered)


class AccountUsage:
    """What the stores hold, as far as it was heard."""

    def __init__(self, folders: StoreFolders) -> None:
        self._folders = folders

    def used_bytes(self) -> int:
        """Give the stored bytes last heard. No checkpoint."""
        return sum(folder.info.stats.storage_bytes for folder in self._folders)
