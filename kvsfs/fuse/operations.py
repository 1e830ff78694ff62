"""Kernel request -> core call -> kernel reply. Nothing is decided here."""

from __future__ import annotations

import errno
import functools
import logging
import os
import stat
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, ParamSpec, TypeVar

import pyfuse3
from pyfuse3 import EntryAttributes, FileHandleT, FileInfo, FileNameT, FlagT, InodeT, ModeT, XAttrNameT

from kvsfs.core.inodes import File, Inode
from kvsfs.core.mountable import Mountable
from kvsfs.core.requests import NAME_MAX, Changes, OpenFile
from kvsfs.core.usage import FREE_BYTES
from kvsfs.fuse.errnos import errno_of
from kvsfs.logs import begin_operation

log = logging.getLogger(__name__)

ENTRY_TIMEOUT = ATTR_TIMEOUT = 1.0
"""Seconds that the kernel answers by itself: one is enough for the gain (stat 15,800 -> 41,000/s)."""

BLOCK_BYTES = 4096
"""f_bsize, and the unit of f_blocks."""

IO_BYTES = 1024 * 1024
"""st_blksize: what cp and cat then read and write at a time."""

requests: Counter[str] = Counter()
"""What the kernel has asked so far, by handler, but for what it forgot: each costs 17 to 50 µs, whatever it does.
One for the process, as pyfuse3's own state is."""

failures: Counter[str] = Counter()
"""What the kernel was answered instead, by errno's name: ENOENT is daily bread, EIO is not."""

P = ParamSpec("P")
R = TypeVar("R")
_Handler = Callable[P, Coroutine[Any, Any, R]]


def _total(handler: _Handler[P, R]) -> _Handler[P, R]:
    """Turn every exception into an errno: any other than FUSEError would end the mount.

    Cancellation passes through: it only comes when the whole daemon ends.
    """
    name = getattr(handler, "__name__", "request")

    @functools.wraps(handler)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        requests[name] += 1
        begin_operation()
        if log.isEnabledFor(logging.DEBUG):  # else not even a tuple is made
            log.debug("%s%s", name, _subjects(args))
        try:
            return await handler(*args, **kwargs)
        except pyfuse3.FUSEError:
            raise
        except Exception as error:
            number, level = errno_of(error)
            failures[errno.errorcode.get(number, str(number))] += 1
            if level is None:
                log.exception("%s failed unexpectedly", name)
            else:
                log.log(level, "%s: %s", name, error)
            raise pyfuse3.FUSEError(number) from None

    return wrapper


def _subjects(args: Sequence[Any]) -> str:
    """Write the inode or file handle that a request is about, and the name below it: never its bytes."""
    return "".join(f" {argument!r}" for argument in args[1:3] if isinstance(argument, int | bytes))


class Operations(pyfuse3.Operations):
    """The handlers of one mount. See `core.filesystem.FileSystem` for what each promises."""

    supports_dot_lookup = True
    enable_writeback_cache = False  # gains only for tiny writes, and takes size and mtime out of our hands
    enable_acl = False

    def __init__(self, filesystem: Mountable) -> None:
        super().__init__()
        self._fs = filesystem

    @_total
    async def lookup(
        self, parent_inode: InodeT, name: FileNameT, ctx: pyfuse3.RequestContext
    ) -> EntryAttributes:
        inode = await self._fs.lookup(parent_inode, name)
        return self._entry(inode)

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        for inode, nlookup in inode_list:
            self._fs.inodes.forget(inode, nlookup)

    @_total
    async def getattr(self, inode: InodeT, ctx: pyfuse3.RequestContext) -> EntryAttributes:
        return _attributes(await self._fs.getattr(inode))

    @_total
    async def setattr(
        self,
        inode: InodeT,
        attr: EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: FileHandleT | None,
        ctx: pyfuse3.RequestContext,
    ) -> EntryAttributes:
        changes = Changes(
            size=attr.st_size if fields.update_size else None,
            mode=attr.st_mode if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
        )
        return _attributes(await self._fs.setattr(inode, changes, fh))

    @_total
    async def open(self, inode: InodeT, flags: FlagT, ctx: pyfuse3.RequestContext) -> FileInfo:
        return _file_info(await self._fs.open(inode, flags, ctx.pid))

    @_total
    async def create(
        self,
        parent_inode: InodeT,
        name: FileNameT,
        mode: ModeT,
        flags: FlagT,
        ctx: pyfuse3.RequestContext,
    ) -> tuple[FileInfo, EntryAttributes]:
        file, opened = await self._fs.create(parent_inode, name, mode & ~ctx.umask, flags, ctx.pid)
        file.uid, file.gid = ctx.uid, ctx.gid
        return _file_info(opened), self._entry(file)

    @_total
    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        return await self._fs.files.read(fh, off, size)

    @_total
    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        await self._fs.files.write(fh, off, buf)
        return len(buf)

    @_total
    async def flush(self, fh: FileHandleT) -> None:
        await self._fs.files.flush(fh)

    @_total
    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:  # noqa: FBT001 - pyfuse3's signature
        await self._fs.files.fsync(fh)

    @_total
    async def release(self, fh: FileHandleT) -> None:
        await self._fs.files.release(fh)

    @_total
    async def opendir(self, inode: InodeT, ctx: pyfuse3.RequestContext) -> FileHandleT:
        return FileHandleT(self._fs.opendir(inode))

    @_total
    async def readdir(self, fh: FileHandleT, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        template = EntryAttributes()  # readdir_reply copies it: one for all is a third of the time
        _describe_entry(template)
        while entries := await self._fs.readdir(fh, start_id):
            for name, inode, place in entries:
                _describe(template, inode)
                if not pyfuse3.readdir_reply(token, FileNameT(name), template, place):
                    return
                inode.lookup_count += 1
            start_id = entries[-1][2]

    @_total
    async def releasedir(self, fh: FileHandleT) -> None:
        self._fs.releasedir(fh)

    @_total
    async def unlink(self, parent_inode: InodeT, name: FileNameT, ctx: pyfuse3.RequestContext) -> None:
        await self._fs.unlink(parent_inode, name)

    @_total
    async def rename(
        self,
        parent_inode_old: InodeT,
        name_old: FileNameT,
        parent_inode_new: InodeT,
        name_new: FileNameT,
        flags: FlagT,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        if flags & ~pyfuse3.RENAME_NOREPLACE:
            raise pyfuse3.FUSEError(errno.EINVAL)
        replace = not flags & pyfuse3.RENAME_NOREPLACE
        await self._fs.rename(parent_inode_old, name_old, parent_inode_new, name_new, replace=replace)

    @_total
    async def mkdir(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, ctx: pyfuse3.RequestContext
    ) -> EntryAttributes:
        folder = await self._fs.mkdir(parent_inode, name, mode & ~ctx.umask)
        folder.uid, folder.gid = ctx.uid, ctx.gid
        return self._entry(folder)

    @_total
    async def rmdir(self, parent_inode: InodeT, name: FileNameT, ctx: pyfuse3.RequestContext) -> None:
        await self._fs.rmdir(parent_inode, name)

    @_total
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        used, free = (size // BLOCK_BYTES for size in (self._fs.usage.used_bytes(), FREE_BYTES))
        status = pyfuse3.StatvfsData()
        status.f_bsize = status.f_frsize = BLOCK_BYTES
        status.f_blocks = used + free
        status.f_bfree = status.f_bavail = free
        status.f_files = len(self._fs.inodes)
        status.f_ffree = status.f_favail = FREE_BYTES // BLOCK_BYTES
        status.f_namemax = NAME_MAX
        return status

    @_total
    async def getxattr(self, inode: InodeT, name: XAttrNameT, ctx: pyfuse3.RequestContext) -> bytes:
        return await self._fs.getxattr(inode, name)

    @_total
    async def listxattr(self, inode: InodeT, ctx: pyfuse3.RequestContext) -> Sequence[XAttrNameT]:
        return [XAttrNameT(name) for name in await self._fs.listxattr(inode)]

    @_total
    async def setxattr(
        self, inode: InodeT, name: XAttrNameT, value: bytes, ctx: pyfuse3.RequestContext
    ) -> None:
        await self._fs.setxattr(inode, name, value)

    @_total
    async def removexattr(self, inode: InodeT, name: XAttrNameT, ctx: pyfuse3.RequestContext) -> None:
        await self._fs.removexattr(inode, name)

    @_total
    async def link(
        self,
        inode: InodeT,
        new_parent_inode: InodeT,
        new_name: FileNameT,
        ctx: pyfuse3.RequestContext,
    ) -> EntryAttributes:
        raise pyfuse3.FUSEError(errno.EPERM)  # link(2): the file system has no hard links

    @_total
    async def symlink(
        self,
        parent_inode: InodeT,
        name: FileNameT,
        target: FileNameT,
        ctx: pyfuse3.RequestContext,
    ) -> EntryAttributes:
        raise pyfuse3.FUSEError(errno.EPERM)  # symlink(2)

    @_total
    async def mknod(
        self,
        parent_inode: InodeT,
        name: FileNameT,
        mode: ModeT,
        rdev: int,
        ctx: pyfuse3.RequestContext,
    ) -> EntryAttributes:
        if not stat.S_ISREG(mode):
            raise pyfuse3.FUSEError(errno.EPERM)  # mknod(2): neither devices nor fifos
        flags = FlagT(os.O_WRONLY | os.O_EXCL)  # GNU tar makes files so, to set attributes before the bytes
        file, opened = await self._fs.create(parent_inode, name, mode & ~ctx.umask, flags, ctx.pid)
        file.uid, file.gid = ctx.uid, ctx.gid
        await self._fs.files.release(opened.fh)
        return self._entry(file)

    def _entry(self, inode: Inode) -> EntryAttributes:
        """Answer with an inode and count the lookup: the kernel will forget it one time more."""
        self._fs.inodes.looked_up(inode)
        return _attributes(inode)


def _attributes(inode: Inode) -> EntryAttributes:
    entry = EntryAttributes()
    _describe_entry(entry)
    _describe(entry, inode)
    return entry


def _describe_entry(entry: EntryAttributes) -> None:
    """Set what all inodes have in common."""
    entry.generation = 0
    entry.entry_timeout = ENTRY_TIMEOUT
    # For a listed size, too, which may be a compressed one: whoever learns the true one tells the kernel at once.
    entry.attr_timeout = ATTR_TIMEOUT
    entry.st_blksize = IO_BYTES


def _describe(entry: EntryAttributes, inode: Inode) -> None:
    """Set what differs from inode to inode."""
    entry.st_ino = InodeT(inode.number)
    entry.st_mode = ModeT(inode.mode)
    entry.st_uid, entry.st_gid = inode.uid, inode.gid
    entry.st_atime_ns, entry.st_mtime_ns, entry.st_ctime_ns = inode.atime_ns, inode.mtime_ns, inode.ctime_ns
    if isinstance(inode, File):
        size = inode.size
        entry.st_nlink = 0 if inode.removed else 1
        entry.st_size, entry.st_blocks = size, -(-size // 512)
    else:
        entry.st_nlink = 1  # "unknown" to find(1), which then looks at each entry instead of counting folders
        entry.st_size = entry.st_blocks = 0


def _file_info(opened: OpenFile) -> FileInfo:
    return FileInfo(fh=FileHandleT(opened.fh), keep_cache=opened.keep_pages, direct_io=opened.direct)
