"""The least that pyfuse3 can do: a file system of one file, `large`, that is read from another with pread(2).

    python bench/_passthrough.py FILE MOUNTPOINT

What kvsfs adds to a read of cached bytes is measured against it.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

import pyfuse3
import trio

FILE = pyfuse3.InodeT(2)
NAME = b"large"


class OneFile(pyfuse3.Operations):
    def __init__(self, path: str) -> None:
        super().__init__()
        self._descriptor = os.open(path, os.O_RDONLY)
        size = os.fstat(self._descriptor).st_size
        self._attributes = {
            pyfuse3.ROOT_INODE: _attributes(pyfuse3.ROOT_INODE, stat.S_IFDIR | 0o755, 0),
            FILE: _attributes(FILE, stat.S_IFREG | 0o644, size),
        }

    async def getattr(
        self, inode: pyfuse3.InodeT, _ctx: pyfuse3.RequestContext | None = None
    ) -> pyfuse3.EntryAttributes:
        return self._attributes[inode]

    async def lookup(
        self, _parent_inode: pyfuse3.InodeT, name: bytes, _ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        if name != NAME:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return self._attributes[FILE]

    async def open(
        self, inode: pyfuse3.InodeT, _flags: int, _ctx: pyfuse3.RequestContext
    ) -> pyfuse3.FileInfo:
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(inode), keep_cache=True)

    async def read(self, _fh: pyfuse3.FileHandleT, off: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, off)


def _attributes(inode: pyfuse3.InodeT, mode: int, size: int) -> pyfuse3.EntryAttributes:
    entry = pyfuse3.EntryAttributes()
    entry.st_ino, entry.st_mode, entry.st_nlink, entry.st_size = inode, mode, 1, size
    entry.entry_timeout = entry.attr_timeout = 60.0
    return entry


def main() -> None:
    path, mount_point = sys.argv[1:]
    pyfuse3.init(OneFile(path), mount_point, {*pyfuse3.default_options, "fsname=passthrough"})
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close()


if __name__ == "__main__":
    main()
