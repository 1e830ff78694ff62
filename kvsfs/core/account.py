"""The operations of an account's file system: its stores are folders, and all below one is that store's own affair.

Raises as `FileSystem` does. What is decided here is only what concerns stores: which there are, making, renaming and
removing them. Every other request goes to the file system of the store that the inode's or handle's number tells.
"""

from __future__ import annotations

import errno
import logging
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from kvsfs.core import store_xattrs
from kvsfs.core.account_files import AccountFiles, AccountInodes, AccountUsage
from kvsfs.core.account_steering import AccountSteering, AccountUnstored
from kvsfs.core.entered import EnteredStores
from kvsfs.core.filesystem import FileSystem
from kvsfs.core.handles import HandleTable
from kvsfs.core.inodes import Inode
from kvsfs.core.numbers import Numbers, place_of
from kvsfs.core.requests import Changes, OpenFile
from kvsfs.core.store_folders import StoreFolder, StoreFolders, StoreGroup
from kvsfs.core.store_handles import StoreReader, StoresReader
from kvsfs.core.store_xattrs import StoreXattrs
from kvsfs.core.usage import CacheUsage, Opened
from kvsfs.errors import FileError, StoreNotFound

log = logging.getLogger(__name__)


class Account:
    """The stores of an account, mounted."""

    def __init__(self, folders: StoreFolders, entered: EnteredStores, *, read_only: bool = False) -> None:
        self._folders = folders
        self._entered = entered
        self._read_only = read_only
        folders.is_used = lambda folder: entered.at(folder.place) is not None
        entered.on_closed = folders.drop_if_unknown
        self.inodes = AccountInodes(folders, entered)
        self.files = AccountFiles(entered)
        self.usage = AccountUsage(folders)
        self.steering = AccountSteering(folders, entered)
        self.unstored = AccountUnstored(entered)
        self._readers: HandleTable[StoresReader | StoreReader] = HandleTable(Numbers.at(0))

    # --- names ------------------------------------------------------------------------------------

    async def lookup(self, parent: int, name: bytes) -> Inode:
        """Find a name."""
        group = self._folders.group(parent)
        if group is None:
            if name == b".." and (folder := self._store(parent)) is not None:
                return folder.group or self._folders.root
            async with self._inside(parent) as filesystem:
                return self._shown(await filesystem.lookup(parent, name))
        if name in (b".", b".."):
            return group if name == b"." else self._folders.root
        if group is self._folders.root and name == self._folders.unnamed.component:
            return self._folders.unnamed
        found = await self._folders.find(group, name)
        if found is None:
            raise FileError(errno.ENOENT)
        return self._shown(found)

    def opendir(self, number: int) -> int:
        """Open a folder to read its entries. No checkpoint: a store is entered when it is read."""
        group = self._folders.group(number)
        return self._readers.add(StoreReader(number) if group is None else StoresReader(self._folders, group))

    async def readdir(self, fh: int, start: int) -> Sequence[tuple[bytes, Inode, int]]:
        """Give entries from a place on."""
        reader = self._readers.get(fh)
        if isinstance(reader, StoresReader):
            return await reader.read(start)
        async with self._inside(reader.number) as filesystem:
            if reader.fh is None:
                reader.fh = filesystem.opendir(reader.number)
            return await filesystem.readdir(reader.fh, start)

    def releasedir(self, fh: int) -> None:
        """Close a folder."""
        reader = self._readers.remove(fh)
        if isinstance(reader, StoreReader) and reader.fh is not None:
            entered = self._entered.at(place_of(reader.number))
            if entered is not None:
                entered.filesystem.releasedir(reader.fh)

    # --- attributes -------------------------------------------------------------------------------

    async def getattr(self, number: int) -> Inode:
        """Find an inode that the kernel knows."""
        top = self._top(number)
        if top is not None:
            return self._shown(top)
        async with self._inside(number) as filesystem:
            return await filesystem.getattr(number)

    async def setattr(self, number: int, changes: Changes, fh: int | None) -> Inode:
        """Change attributes. A store's mode and owner last as long as the mount; its times are the API's to tell."""
        top = self._top(number)
        if top is None:
            async with self._inside(number) as filesystem:
                return await filesystem.setattr(number, changes, fh)
        self._require_writable()
        if changes.size is not None:
            raise FileError(errno.EISDIR)
        if changes.mode is not None:
            top.mode = stat.S_IFDIR | stat.S_IMODE(changes.mode)
        top.uid = top.uid if changes.uid is None else changes.uid
        top.gid = top.gid if changes.gid is None else changes.gid
        return top

    async def getxattr(self, number: int, name: bytes) -> bytes:
        """Give an extended attribute. Those of a store are asked for without entering it."""
        top = self._top(number)
        if top is None:
            async with self._inside(number) as filesystem:
                return await filesystem.getxattr(number, name)
        _require_user(name)
        value = None
        if isinstance(top, StoreFolder):
            value = await self._store_xattrs(top).get(name)
        if value is None:
            raise FileError(errno.ENODATA)
        return value.encode()

    async def listxattr(self, number: int) -> Sequence[bytes]:
        """Give the names of extended attributes: a store has none that backups should carry."""
        if self._top(number) is not None:
            return []
        async with self._inside(number) as filesystem:
            return await filesystem.listxattr(number)

    async def setxattr(self, number: int, name: bytes, value: bytes) -> None:
        """Change an extended attribute."""
        top = self._top(number)
        if top is None:
            async with self._inside(number) as filesystem:
                return await filesystem.setxattr(number, name, value)
        self._require_writable()
        _require_user(name)
        if not isinstance(top, StoreFolder) or not name.startswith(b"user.apify."):
            raise FileError(errno.EOPNOTSUPP)
        self._folders.changed(top, await self._store_xattrs(top).set(name, value))
        return None

    async def removexattr(self, number: int, name: bytes) -> None:
        """Remove an extended attribute."""
        if self._top(number) is not None:
            await self.getxattr(number, name)
            raise FileError(errno.EPERM)
        async with self._inside(number) as filesystem:
            await filesystem.removexattr(number, name)

    # --- files ------------------------------------------------------------------------------------

    async def open(self, number: int, flags: int, pid: int) -> OpenFile:
        """Open a file."""
        async with self._inside(number) as filesystem:
            return await filesystem.open(number, flags, pid)

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, pid: int
    ) -> tuple[Inode, OpenFile]:
        """Make a file and open it; EPERM where stores are, not records."""
        if self._folders.group(parent) is not None:
            log.warning(
                "%r: no file can be made beside stores: make it in one", name.decode(errors="replace")
            )
            raise FileError(errno.EPERM)
        async with self._inside(parent) as filesystem:
            return await filesystem.create(parent, name, mode, flags, pid)

    async def unlink(self, parent: int, name: bytes) -> None:
        """Remove a file's name."""
        if self._folders.group(parent) is not None:
            await self.lookup(parent, name)
            raise FileError(errno.EISDIR)
        async with self._inside(parent) as filesystem:
            await filesystem.unlink(parent, name)

    # --- folders ----------------------------------------------------------------------------------

    async def mkdir(self, parent: int, name: bytes, mode: int) -> Inode:
        """Make a folder, or a store: EINVAL for what cannot be its name, EEXIST, EPERM in `.unnamed`."""
        group = self._folders.group(parent)
        if group is None:
            async with self._inside(parent) as filesystem:
                return await filesystem.mkdir(parent, name, mode)
        self._require_writable()
        if group.unnamed:
            log.warning(
                "a store in %s gets its ID from the API: it cannot be made by name", group.component.decode()
            )
            raise FileError(errno.EPERM)
        folder = await self._folders.make(name)
        folder.mode = stat.S_IFDIR | stat.S_IMODE(mode)
        return folder

    async def rmdir(self, parent: int, name: bytes) -> None:
        """Remove an empty folder, or a store: ENOTEMPTY while it has any record, EACCES where it is another's."""
        if self._folders.group(parent) is None:
            async with self._inside(parent) as filesystem:
                return await filesystem.rmdir(parent, name)
        self._require_writable()
        folder = await self.lookup(parent, name)
        if not isinstance(folder, StoreFolder):
            raise FileError(errno.EBUSY)  # rmdir(2): the system needs it
        _require_own(folder)
        async with self._inside(folder.number) as filesystem:
            await self._delete(folder, filesystem)
        await self._entered.discard(folder)
        return None

    async def _delete(self, folder: StoreFolder, filesystem: FileSystem) -> None:
        """Delete a store that has no record at this moment. The API has no way to make that one step."""
        root = filesystem.inodes.root
        await filesystem.vacate(root)
        store = self._folders.store(folder)
        if (await store.list_keys(limit=1)).items:
            root.listing = None  # which did not know
            raise FileError(errno.ENOTEMPTY)
        await store.delete()
        self._folders.deleted(folder)

    async def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, *, replace: bool
    ) -> None:
        """Give a file, a folder or a store another name. EXDEV between stores, so that `mv` copies and removes.

        Nobody but `mv` can do that: it tells at once what failed, and what it has not copied is still there.
        """
        group, new_group = self._folders.group(parent), self._folders.group(new_parent)
        if group is not None and new_group is not None:
            await self._rename_store(group, name, new_group, new_name)
            return
        if group is not None or new_group is not None or place_of(parent) != place_of(new_parent):
            raise FileError(errno.EXDEV)
        async with self._inside(parent) as filesystem:
            await filesystem.rename(parent, name, new_parent, new_name, replace=replace)

    async def _rename_store(
        self, group: StoreGroup, name: bytes, new_group: StoreGroup, new_name: bytes
    ) -> None:
        self._require_writable()
        folder = await self.lookup(group.number, name)
        if not isinstance(folder, StoreFolder):
            raise FileError(errno.EBUSY)
        if new_group is folder.group and new_name == name:
            return
        _require_own(folder)
        if new_group.unnamed:
            log.warning("the API cannot take the name of the store %s away", name.decode())
            raise FileError(errno.EPERM)
        text = new_name.decode(errors="replace")
        store_xattrs.check_name(text)
        if await self._folders.find(new_group, new_name) is not None:
            raise FileError(errno.EEXIST)
        self._folders.changed(folder, await store_xattrs.rename(self._folders.store(folder), text))

    # --- the mount as a whole ---------------------------------------------------------------------

    async def drain(self) -> None:
        """Upload all that is dirty."""
        await self._entered.each(FileSystem.drain)

    async def hand_over(self) -> None:
        """Leave what was closed to the next mount."""
        await self._entered.each(FileSystem.hand_over)

    def left(self) -> list[str]:
        """Tell what no store has yet, at the end."""
        return [
            f"{entered.folder.shown.decode()}/{what}"
            for entered in self._entered
            for what in entered.filesystem.left()
        ]

    def cache_usage(self) -> CacheUsage:
        """Tell what the cache holds, and what it was good for in the stores that are open."""
        usages = [entered.filesystem.cache_usage() for entered in self._entered]
        opened = Opened()
        for usage in usages:
            opened.cached += usage.opened.cached
            opened.confirmed += usage.opened.confirmed
            opened.fetched += usage.opened.fetched
        return CacheUsage(max((usage.clean_bytes for usage in usages), default=0), opened)

    def close(self) -> None:
        """Do nothing: each store is closed with its tasks."""

    def check_invariants(self) -> None:
        """For tests."""
        self._folders.check_invariants()
        for entered in self._entered:
            entered.filesystem.check_invariants()

    # --- shared -----------------------------------------------------------------------------------

    @asynccontextmanager
    async def _inside(self, number: int) -> AsyncIterator[FileSystem]:
        """Give the file system of an inode, which stays open meanwhile. ESTALE for what was there before it closed."""
        folder = self._folders.at(place_of(number))
        if folder is None or (number != folder.number and self._entered.at(folder.place) is None):
            raise FileError(errno.ESTALE)
        with await self._entered.enter(folder) as filesystem:
            try:
                yield filesystem
            except StoreNotFound:
                folder.doubted = True
                raise

    def _top(self, number: int) -> StoreGroup | StoreFolder | None:
        """Find what is shown above all records."""
        return self._folders.group(number) or self._store(number)

    def _store(self, number: int) -> StoreFolder | None:
        folder = self._folders.at(place_of(number))
        return folder if folder is not None and folder.number == number else None

    def _shown(self, inode: Inode) -> Inode:
        """Give what the kernel is told of: of a store its folder, with the time of its last change, here or there."""
        folder = self._store(inode.number)
        if folder is None:
            return inode
        entered = self._entered.at(folder.place)
        if entered is not None:
            folder.mtime_ns = max(folder.mtime_ns, entered.filesystem.inodes.root.mtime_ns)
        return folder

    def _store_xattrs(self, folder: StoreFolder) -> StoreXattrs:
        return StoreXattrs(self._folders.store(folder))

    def _require_writable(self) -> None:
        if self._read_only:
            raise FileError(errno.EROFS)


def _require_own(folder: StoreFolder) -> None:
    if not folder.own:
        log.warning(
            "%s is another user's store: only its owner can rename or delete it", folder.shown.decode()
        )
        raise FileError(errno.EACCES)


def _require_user(name: bytes) -> None:
    if not name.startswith(b"user."):
        raise FileError(errno.EOPNOTSUPP)
