"""The operations of the file system, in plain Python: what each kernel request means for files and records.

Names of methods and their errors follow the FUSE low-level operations and the man pages of the system calls
behind them (open(2), unlink(2), rename(2), …). Every method raises `KvsfsError` or OSError; the boundary in
`fuse/` turns each into an errno. Methods checkpoint only when they ask the store, unless they say otherwise.
"""

from __future__ import annotations

import errno
import math
import os
import stat
from collections import Counter
from collections.abc import Callable

import trio

from kvsfs.cache.attributes import AttributeRows
from kvsfs.cache.eviction import CleanBlobs
from kvsfs.cache.folder import CacheFolder
from kvsfs.core import names
from kvsfs.core.attributes import KeptAttributes
from kvsfs.core.background import Background
from kvsfs.core.bulk import Bulk
from kvsfs.core.compression import Compression
from kvsfs.core.conflicts import Conflicts
from kvsfs.core.deletes import DeferredDeletes
from kvsfs.core.ending import Ending
from kvsfs.core.extensions import NamesWithExtensions, ShownNames
from kvsfs.core.following import Follower
from kvsfs.core.heads import sizes_of
from kvsfs.core.inodes import File, Folder, InodeTable, Ownership
from kvsfs.core.kernel import KernelCaches
from kvsfs.core.learning import Learner
from kvsfs.core.listing import Lister
from kvsfs.core.local_only import LocalOnly
from kvsfs.core.markers import Markers
from kvsfs.core.merging import Merger
from kvsfs.core.moves import Moves
from kvsfs.core.name_rules import NameRules
from kvsfs.core.numbers import Numbers
from kvsfs.core.open_files import OpenFiles
from kvsfs.core.open_folders import OpenFolders
from kvsfs.core.pages_ahead import Pages
from kvsfs.core.polling import Poller
from kvsfs.core.prefetch import Prefetch
from kvsfs.core.records import Records
from kvsfs.core.renames import Renames
from kvsfs.core.requests import Changes, OpenFile
from kvsfs.core.resuming import Resumption
from kvsfs.core.steering import Steering
from kvsfs.core.tuning import Tuning
from kvsfs.core.unstored import Unstored
from kvsfs.core.uploads import Uploads
from kvsfs.core.usage import CacheUsage, Opened, Usage
from kvsfs.core.versions import Versions
from kvsfs.core.warming import Warmth, warm
from kvsfs.core.xattrs import Xattrs
from kvsfs.errors import FileError, StoreUnreachable
from kvsfs.store.counting import CountingStore
from kvsfs.store.following import FollowingStore
from kvsfs.store.protocol import Store
from kvsfs.types import StoreInfo


class FileSystem:
    """One mounted store.

    INVARIANT (checked by tests after every step): each handle's content has a user for it; each file in a
    folder has that folder as its parent; a file that is dirty and not removed has its bytes in `dirty/`.
    """

    def __init__(  # noqa: PLR0913 - what a store is mounted with
        self,
        store: Store,
        info: StoreInfo,
        cache: CacheFolder,
        nursery: trio.Nursery,
        *,
        tuning: Tuning,
        ownership: Ownership,
        kernel: KernelCaches | None = None,
        numbers: Numbers | None = None,
        clean: CleanBlobs[File] | None = None,
    ) -> None:
        """`numbers` and `clean` (the cache) are given to one of several stores in a mount."""
        numbers = numbers or Numbers()
        counted = CountingStore(store)
        store = counted
        kernel = kernel or KernelCaches()
        created_ns = int(info.created_at.timestamp() * 1_000_000_000)
        self._tuning = tuning
        self._rules = NameRules.of(tuning)
        self._blobs = cache.blobs
        self._background = Background(nursery)
        self.inodes = InodeTable(ownership, created_ns, numbers, has_layout=tuning.layout is not None)
        self._attributes = KeptAttributes(AttributeRows(cache.database), self.inodes, nursery)
        self._attributes.restore([self.inodes.root])
        self._versions = Versions(
            store,
            self.inodes,
            cache,
            self._attributes,
            kernel,
            nursery,
            tuning,
            clean,
        )
        self._learner = Learner(self._versions, self._background)
        self._bulk = Bulk(store, self._versions, self._background, self._learner.came, tuning)
        self._prefetch = Prefetch(self._versions, self._bulk, self._background, tuning)
        self._local = LocalOnly(self.inodes, cache, self._attributes, self._rules)
        self._deletes = DeferredDeletes(store, cache.journal, self._background, tuning.grace)
        self._lister = Lister(
            Pages(store, self._background),
            Merger(self.inodes, self._versions, self._local, self._attributes, self._deletes.hides),
            self._attributes,
            tuning.listing_ttl,
        )
        self._local.restore(self.inodes.root)
        self._shown = (
            NamesWithExtensions(self._lister, self._versions, kernel, self._background)
            if tuning.extensions
            else ShownNames(self._lister)
        )
        self._markers = Markers(
            store, self._lister, self._deletes, self._background, tuning.grace, self._rules.is_fixed
        )
        compression = Compression(cache.blobs, tuning.compress)
        conflicts = Conflicts(store, self.inodes, self._rules, keep_both=tuning.keep_both)
        self._records = Records(
            store,
            self.inodes,
            self._versions,
            self._deletes,
            conflicts,
            compression,
            self._markers.filled,
        )
        self._renames = Renames(
            store, self.inodes, self._versions, self._deletes, self._records, self._rules, tuning
        )
        self._uploads = Uploads(self._records, self._versions, cache.journal, nursery, tuning)
        self._moves = Moves(
            self.inodes,
            self._lister,
            self._versions,
            cache.journal,
            self._deletes,
            self._records,
            self._uploads,
            self._markers,
            self._rules,
        )
        self._take_up(Resumption(self.inodes, self._versions, cache, self._deletes, self._uploads))
        self.xattrs = Xattrs(store, self._versions, self._records, self._rules)
        self.xattrs.type_asked = self._learner.begin
        self._heads = sizes_of(self._versions, self._background) if tuning.exact_sizes else None
        if tuning.poll is not None:
            poller = Poller(counted, info, self.inodes, self._lister, self._versions)
            nursery.start_soon(poller.run, tuning.poll)
        self._follower: Follower | None = None
        self.usage = Usage(store, info, self._background)
        self._opened = Opened()
        self.files = OpenFiles(
            self.inodes,
            self._versions,
            self._uploads,
            self._prefetch,
            self._background,
            self._opened,
            numbers,
        )
        self._folders = OpenFolders(self._lister, self._shown, self._heads, numbers)
        self._ending = Ending(
            self.inodes,
            self.files.handles,
            self._uploads,
            self._deletes,
            self._markers,
            self._records,
            self._background,
        )
        self.unstored = Unstored(self.inodes, cache.journal, self._uploads, self._deletes, self.files.handles)
        self.steering = Steering(
            store,
            self.inodes,
            self._lister,
            self._versions,
            self._uploads,
            self._deletes,
            self.unstored,
            self._check_emptied,
            self._shown.child,
        )
        self.steering.warm_inode = self.warm
        self.steering.before_refresh = self._prefetch.stop
        nursery.start_soon(self._uploads.sweep, self.files.handles)

    def _take_up(self, left: Resumption) -> None:
        """Go on with what an earlier mount has left, where something may be sent at all."""
        if self._tuning.read_only:
            left.leave()
        else:
            left.resume()

    def follow(self, store: FollowingStore) -> None:
        """Change over whenever `store`, which is asked below, leads elsewhere. Only for a mount that is read-only."""
        assert self._tuning.read_only
        self._follower = Follower(
            store, self.inodes, self._versions, self._attributes, self._tuning.revalidate
        )
        if self._tuning.poll is not None:
            self._background.nursery.start_soon(self._follower.run, self._tuning.poll)

    # --- names ------------------------------------------------------------------------------------

    async def lookup(self, parent: int, name: bytes) -> File | Folder:
        """Find a name; known ones, and absent ones of a listed folder, without a request. Raises ENOENT."""
        folder = self.inodes.folder(parent)
        inode: File | Folder | None
        if name in (b".", b".."):
            inode = folder if name == b"." else folder.parent or folder
        else:
            inode = await self._shown.find(folder, name)
        if inode is None:
            raise FileError(errno.ENOENT)
        if self._heads is not None:
            await self._heads.exact([inode])
            if inode.removed:
                raise FileError(errno.ENOENT)
        return inode

    def opendir(self, number: int) -> int:
        """Open a folder to read its entries. No checkpoint."""
        return self._folders.open(self.inodes.folder(number))

    async def readdir(self, fh: int, start: int) -> list[tuple[bytes, File | Folder, int]]:
        """Give entries from place `start` on as (name, inode, place to go on from); none at the end.

        `.` and `..` are left to the boundary. Waits for at most one page of the listing, and for
        sizes that are to be exact.
        """
        if start == 0 and self._follower is not None:
            await self._follower.follow()
        return await self._folders.read(fh, start)

    def releasedir(self, fh: int) -> None:
        """Close a folder."""
        self._folders.release(fh)

    # --- attributes -------------------------------------------------------------------------------

    async def getattr(self, number: int) -> File | Folder:
        """Find an inode that the kernel knows; waits only for sizes that are to be exact. ESTALE."""
        inode = self.inodes.get(number)
        if self._heads is not None:
            await self._heads.exact([inode])
        return inode

    async def setattr(self, number: int, changes: Changes, fh: int | None) -> File | Folder:
        """Change attributes. Times, mode and owner stay on this machine; a new size is a write.

        With a handle the size is that handle's change, uploaded by its close; without one (truncate(2)) it is
        uploaded before this returns. Setting times never uploads anything.
        """
        self._require_writable()
        inode = self.inodes.get(number)
        if changes.size is not None:
            if isinstance(inode, Folder):
                raise FileError(errno.EISDIR)
            await self.files.set_size(inode, changes.size, fh)
        if changes.mode is not None:
            inode.mode = stat.S_IFMT(inode.mode) | stat.S_IMODE(changes.mode)
        inode.uid = inode.uid if changes.uid is None else changes.uid
        inode.gid = inode.gid if changes.gid is None else changes.gid
        inode.atime_ns = inode.atime_ns if changes.atime_ns is None else changes.atime_ns
        inode.mtime_ns = inode.mtime_ns if changes.mtime_ns is None else changes.mtime_ns
        if isinstance(inode, File):
            self._records.describe(inode)
        self._attributes.note(inode)
        return inode

    async def getxattr(self, number: int, name: bytes) -> bytes:
        """Give an extended attribute."""
        return await self.xattrs.get(self.inodes.get(number), name)

    async def listxattr(self, number: int) -> list[bytes]:
        """Give the names of the extended attributes that backups should carry."""
        return await self.xattrs.list(self.inodes.get(number))

    async def setxattr(self, number: int, name: bytes, value: bytes) -> None:
        """Change an extended attribute."""
        self._require_writable()
        inode = self.inodes.get(number)
        with self._shown.changing(inode):
            await self.xattrs.set(inode, name, value)

    async def removexattr(self, number: int, name: bytes) -> None:
        """Remove an extended attribute."""
        self._require_writable()
        await self.xattrs.remove(self.inodes.get(number), name)

    # --- open files -------------------------------------------------------------------------------

    async def open(self, number: int, flags: int, pid: int) -> OpenFile:
        """Open a file: validate what is cached, or start to fetch it; with O_TRUNC neither.

        ESTALE if no name leads to it any more, or the name leads to a newer version under another number: the
        kernel then looks the name up anew, and creates the file where O_CREAT says so.
        """
        if self._follower is not None:
            await self._follower.follow()
        file = self.inodes.file(number)
        if file.superseded:
            raise FileError(errno.ESTALE)
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
            self._require_writable()
        return await self.files.open(file, flags, pid)

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, pid: int
    ) -> tuple[File, OpenFile]:
        """Make a file and open it. No request, but to append: the kernel has looked the name up before."""
        self._require_writable()
        folder = self.inodes.folder(parent)
        seen = self._shown.child(folder, name)
        if seen is None and flags & os.O_APPEND and not flags & os.O_EXCL:
            # Whoever appends wants what is there: that nothing was, the listing said up to 30 s ago.
            seen = await self._lister.ask(folder, name) or await self._shown.find(folder, name)
        if isinstance(seen, File) and not flags & os.O_EXCL:  # a listing showed it since the kernel looked
            return seen, await self.open(seen.number, flags, pid)
        own_name = self._shown.name_for(folder, name)
        component = self._new_component(folder, own_name)
        key = self._rules.key(folder, component, flags)
        # Before the name is there and a deletion is given up: the disk may be full.
        content = (
            self._local.new_content(folder, own_name)
            if self._rules.is_local_only(folder, own_name)
            else self._versions.empty()
        )
        try:
            await content.truncate(0, key)
            ghost = await self._deletes.exhume(key)
        except BaseException:
            content.release()
            content.blob.remove()
            raise
        listed = folder.files.get(component)
        if listed is not None:  # while we waited; this file replaces it
            self.inodes.detach(listed)
        file = self.inodes.add_file(folder, component, key)
        file.content = content
        file.temporary = self._rules.is_temporary(own_name, flags)
        if ghost is not None:
            ghost.pass_on(file)
        self._shown.restore_type(file, folder, name, own_name)
        file.mode = stat.S_IFREG | stat.S_IMODE(mode)
        file.changed_at = math.inf
        file.touch()
        file.atime_ns = file.mtime_ns
        self._attributes.note(file)
        return file, self.files.made(file, content, flags, pid)

    # --- names that change ------------------------------------------------------------------------

    async def unlink(self, parent: int, name: bytes) -> None:
        """Delete the record behind a name; a file that the store never had costs nothing."""
        self._require_writable()
        folder = self.inodes.folder(parent)
        inode = await self.lookup(parent, name)
        if isinstance(inode, Folder):
            raise FileError(errno.EISDIR)
        self._prefetch.forget(inode)
        with self._shown.changing(inode):
            await self._records.remove(inode)
        self._check_emptied(folder)

    async def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, *, replace: bool
    ) -> None:
        """Give a file another key, or a folder's records. EXDEV where `mv` had better copy."""
        self._require_writable()
        folder, new_folder = self.inodes.folder(parent), self.inodes.folder(new_parent)
        inode = await self.lookup(parent, name)
        target = await self._shown.find(new_folder, new_name)
        if target is inode:
            return
        if target is not None and not replace:
            raise FileError(errno.EEXIST)
        if isinstance(inode, Folder):
            await self._rename_folder(inode, new_folder, new_name, target)
        else:
            if isinstance(target, Folder):
                raise FileError(errno.EISDIR)
            if target is not None:
                self._prefetch.forget(target)
            await self._shown.learn([inode])
            own_name = self._shown.name_for(new_folder, new_name, inode)
            component = target.component if target else self._new_component(new_folder, own_name)
            if target is None:
                self._shown.restore_type(inode, new_folder, new_name, own_name)
            with self._shown.changing(inode):
                await self._renames.rename(inode, new_folder, component, target)
            await self._uploads.renamed(inode)
        self._check_emptied(folder)

    async def _rename_folder(
        self, folder: Folder, parent: Folder, name: bytes, target: File | Folder | None
    ) -> None:
        if isinstance(target, File):
            raise FileError(errno.ENOTDIR)
        if folder.local_only or self._rules.is_local_only(parent, name):
            raise FileError(errno.EXDEV)  # between what a store is to have and what not: `mv` copies
        if target is not None:
            await self.rmdir(parent.number, name)
        await self._moves.rename(folder, parent, self._new_component(parent, name))

    async def mkdir(self, parent: int, name: bytes, mode: int) -> Folder:
        """Make a folder: here at once, in the store when something is in it or it stays empty. No checkpoint."""
        self._require_writable()
        parent_folder = self.inodes.folder(parent)
        component = self._new_component(parent_folder, name)
        if self._rules.is_local_only(parent_folder, name):
            folder = self._local.make_folder(parent_folder, name)
        else:
            self._rules.require_folder(parent_folder.path + component + b"/")
            folder = self.inodes.add_folder(parent_folder, component)
            self._local.restore(folder)
        folder.mode = stat.S_IFDIR | stat.S_IMODE(mode)
        folder.touch()
        self._attributes.note(folder)
        self._lister.made_empty(folder)
        self._markers.emptied(folder)
        return folder

    async def rmdir(self, parent: int, name: bytes) -> None:
        """Remove an empty folder, and its marker if the store has one. ENOTEMPTY, ENOTDIR."""
        self._require_writable()
        folder = await self.lookup(parent, name)
        if isinstance(folder, File):
            raise FileError(errno.ENOTDIR)
        await self.vacate(folder)
        self._local.remove_folder(folder)
        parent_folder = self.inodes.folder(parent)
        parent_folder.removals[folder.component + b"/"] = trio.current_time()
        self._attributes.forget(folder)
        self.inodes.detach(folder)
        self._check_emptied(parent_folder)

    async def vacate(self, folder: Folder) -> None:
        """See to it that the store has nothing left of an empty folder. ENOTEMPTY, StoreError."""
        if not await self._lister.is_empty(folder):
            raise FileError(errno.ENOTEMPTY)
        self._rules.require_not_fixed(folder)
        for heir in self._deletes.heirs(folder.prefix):
            await self._uploads.hurry(heir)
        if await self._deletes.settle(folder.prefix):
            raise StoreUnreachable("what was removed from the folder is still in the store: try again")
        await self._markers.remove(folder)

    # --- the cache --------------------------------------------------------------------------------

    async def warm(self, inode: File | Folder, tell: Callable[[Warmth], None]) -> None:
        """Have a file, or all below a folder, in the cache; `tell` hears of each. Raises as `warming.warm` does."""
        await warm(self._lister, self._versions, self._bulk, inode, tell, largest=self._tuning.cache_bytes)
        self._learner.begin()

    # --- the end ----------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Upload all that is dirty. Checkpoints as `Ending.drain` does."""
        self._stop_guesses()
        await self._ending.drain()

    async def hand_over(self) -> None:
        """Leave what was closed to the next mount. Checkpoints as `Ending.hand_over` does."""
        self._stop_guesses()
        await self._ending.hand_over()

    def left(self) -> list[str]:
        """Tell, for people, what the store does not have yet; what was never closed is set aside. No checkpoint."""
        return self._ending.left()

    def cache_usage(self) -> CacheUsage:
        """Tell what the cache holds. No checkpoint."""
        return CacheUsage(self._versions.cached_bytes, self._opened)

    def close(self) -> None:
        """Write what was learned and not written yet: the database may be closed then. No checkpoint."""
        self._attributes.flush()
        self._versions.close()

    @property
    def idle(self) -> bool:
        """Whether it can be closed, and nobody would notice when it is opened again. Raises OSError.

        A subfolder that the kernel knows may be where some shell is.
        """
        at_rest = not self.files.handles and not self._folders.handles and not self._background.busy
        return (
            at_rest
            and self.all_stored
            and not any(
                folder.lookup_count for folder in self.inodes.folders() if folder is not self.inodes.root
            )
        )

    @property
    def all_stored(self) -> bool:
        """Whether there is nothing here that the store is to have. Raises OSError."""
        return self.unstored.totals().nothing and not self._ending.unstored()

    def check_invariants(self) -> None:
        """For tests."""
        self.inodes.check_invariants()
        self._versions.check_invariants()
        handles = Counter(handle.file for handle in self.files.handles)
        users = Counter(handle.content for handle in self.files.handles)
        for content, count in users.items():
            content.check_invariants()
            assert content.users >= count
        for file in self.inodes.files():
            assert file.handles >= handles[file]  # more while an open truncates
            if file.dirty and not file.removed and file.content is not None:
                assert self._blobs.is_dirty(file.content.blob)

    # --- shared -----------------------------------------------------------------------------------

    def _new_component(self, folder: Folder, name: bytes) -> bytes:
        """Give the component for a new name. EINVAL for what is reserved, EEXIST for what is there."""
        strict = self._tuning.strict_names and not self._rules.is_local_only(folder, name)
        component = names.strict_component(name) if strict else names.component(name)
        there = component in folder.files or component in folder.folders
        if there or self._shown.child(folder, name) is not None:
            raise FileError(errno.EEXIST)
        return component

    def _stop_guesses(self) -> None:
        self._prefetch.stop()
        self._learner.stop()

    def _check_emptied(self, folder: Folder) -> None:
        folder.touch()
        self._attributes.note(folder)
        if folder.bare:
            self._markers.emptied(folder)

    def _require_writable(self) -> None:
        if self._tuning.read_only:
            raise FileError(errno.EROFS)
