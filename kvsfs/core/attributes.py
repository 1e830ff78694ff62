"""What outlasts a mount beside the bytes: learned lengths and types, times, mode and owner that were set here.

A record's row is trusted while a listing shows the stored size that it was written for; what was set here ends when
the record's validator turns out to be another one, which is found out when the file is opened. Nothing here makes a
request, and nothing raises.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Sequence
from typing import get_args

import trio

from kvsfs.cache.attributes import AttributeRows, Attributes, Place
from kvsfs.core.inodes import File, Folder, InodeTable
from kvsfs.types import ContentEncoding, RecordHead

WRITE_DELAY = 0.5
"""Seconds that a change may wait for others to be written with it."""

LOCAL = -1
"""The stored size of a file that no store has: no listing shows it."""

_TIMES = 2**63
"""Times before the year 2262 are what a row can hold."""

_ENCODINGS: dict[str | None, ContentEncoding] = {encoding: encoding for encoding in get_args(ContentEncoding)}


class KeptAttributes:
    """Writes the attributes of inodes into the cache folder's database, and gives them to new inodes.

    Only what is true of the store is written: a file with bytes that the store lacks keeps its old row until it was
    uploaded. Else a killed mount would leave the new time on the old bytes, and rsync would believe it.
    """

    def __init__(self, rows: AttributeRows, inodes: InodeTable, nursery: trio.Nursery) -> None:
        self._rows = rows
        self._inodes = inodes
        self._nursery = nursery
        self._writing_later = False

    def restore(self, new: Sequence[File | Folder]) -> None:
        """Give inodes that a listing, or the disk, has just shown what is known of them: one SELECT for all."""
        rows = self._rows.read([_key(inode) for inode in new]) if new else {}
        if not rows:
            return
        for inode in new:
            row = rows.get((_key(inode), isinstance(inode, Folder)))
            if row is None:
                continue
            if row.stored_size == _stored_size(inode):
                self._give(inode, row)
            else:
                self.forget(inode)

    def note(self, inode: File | Folder) -> None:
        """Keep an inode's attributes as they are now: they were set or learned. No checkpoint."""
        if inode.removed:
            return
        if isinstance(inode, File):
            if inode.local_only:
                _keep_time(inode)
            elif inode.dirty or not inode.stored:
                return
        self._rows.put(_place(inode), self._row(inode))
        self._write_later()

    def forget(self, inode: File | Folder) -> None:
        """Forget what was kept under an inode's key: it is gone, is moved away, or was changed by others."""
        self._rows.forget(_place(inode))
        self._write_later()

    def forget_all(self) -> None:
        """Forget what was kept of the whole store."""
        self._rows.forget_all()

    def moved_below(self, prefix: str, to: str) -> None:
        """Note that a folder has got another prefix, with all below it."""
        self._rows.move_below(prefix, to)
        self._write_later()

    def changed_remotely(self, file: File, mtime_ns: int) -> None:
        """Take back what was set here: the record is another one, written at `mtime_ns`."""
        defaults = self._inodes.ownership
        file.mode = stat.S_IFREG | defaults.file_mode
        file.uid, file.gid = defaults.uid, defaults.gid
        file.mtime_ns = file.ctime_ns = mtime_ns

    def flush(self) -> None:
        """Write what waits to be written."""
        self._rows.flush()

    def _give(self, inode: File | Folder, row: Attributes) -> None:
        if isinstance(inode, File) and not inode.local_only:
            _teach(inode, row)
        if row.mtime_ns is not None:
            inode.mtime_ns = inode.ctime_ns = row.mtime_ns
        if row.mode is not None:
            inode.mode = stat.S_IFMT(inode.mode) | row.mode
        inode.uid = inode.uid if row.uid is None else row.uid
        inode.gid = inode.gid if row.gid is None else row.gid

    def _row(self, inode: File | Folder) -> Attributes:
        """Without what is as of an inode that nobody has touched: other options may show that differently."""
        defaults, mode = self._inodes.ownership, stat.S_IMODE(inode.mode)
        default_mode = defaults.file_mode if isinstance(inode, File) else defaults.folder_mode
        learned = _learned(inode) if isinstance(inode, File) else Attributes(0)
        return learned._replace(
            mtime_ns=inode.mtime_ns if self._has_time(inode) else None,
            mode=None if mode == default_mode else mode,
            uid=None if inode.uid == defaults.uid else inode.uid,
            gid=None if inode.gid == defaults.gid else inode.gid,
        )

    def _has_time(self, inode: File | Folder) -> bool:
        """Tell whether an inode's time is for a row: not the cache file's, and not the one that all others have."""
        if isinstance(inode, File) and inode.local_only:
            return False
        return inode.mtime_ns != self._inodes.default_time_ns and abs(inode.mtime_ns) < _TIMES

    def _write_later(self) -> None:
        if self._rows.waiting and not self._writing_later:
            self._writing_later = True
            self._nursery.start_soon(self._wait_and_write)

    async def _wait_and_write(self) -> None:
        await trio.sleep(WRITE_DELAY)
        self._writing_later = False
        self._rows.flush()


def _key(inode: File | Folder) -> str:
    return inode.key if isinstance(inode, File) else inode.prefix


def _place(inode: File | Folder) -> Place:
    return Place(_key(inode), isinstance(inode, Folder))


def _stored_size(inode: File | Folder) -> int:
    if isinstance(inode, Folder):
        return 0
    return LOCAL if inode.local_only else inode.listed_size


def _learned(file: File) -> Attributes:
    if file.local_only:
        return Attributes(LOCAL)
    head = file.head
    return Attributes(
        file.listed_size,
        None if head is None else head.validator,
        file.length,
        file.content_type,
        None if head is None else head.content_encoding,
    )


def _teach(file: File, row: Attributes) -> None:
    file.length = row.length
    if row.content_type is not None:
        file.content_type = sys.intern(row.content_type)  # a store of 100,000 pages has one type
        file.head = _head(row, file.content_type)


def _head(row: Attributes, content_type: str) -> RecordHead:
    """Give the headers that a row remembers, as far as versions are told apart by them."""
    encoding = _ENCODINGS.get(row.content_encoding)
    return RecordHead.remembered(content_type, row.validator, content_encoding=encoding, length=row.length)


def _keep_time(file: File) -> None:
    """Keep the time of a file that no store has: it is its cache file's, which every write sets."""
    assert file.content is not None
    with contextlib.suppress(OSError):
        os.utime(file.content.blob.path, ns=(file.atime_ns, file.mtime_ns))
