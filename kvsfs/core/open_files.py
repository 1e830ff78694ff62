"""Open files: what read(2), write(2), close(2) and their kin do with the bytes behind a handle."""

from __future__ import annotations

import errno
import os

import trio

from kvsfs.core import descriptors
from kvsfs.core.background import Background
from kvsfs.core.content import Content
from kvsfs.core.handles import FileHandle, HandleTable
from kvsfs.core.inodes import File, InodeTable
from kvsfs.core.numbers import Numbers
from kvsfs.core.prefetch import Prefetch
from kvsfs.core.requests import OpenFile
from kvsfs.core.uploads import Uploads
from kvsfs.core.usage import Opened
from kvsfs.core.versions import Versions
from kvsfs.errors import FileError, RecordNotFound

RETRY_SECONDS = 1.0
"""After ESTALE the kernel looks the name up and opens it again at once: microseconds, on a busy machine more."""


class OpenFiles:
    """The open files of one mount, by the number of their handle. Raises as `FileSystem` does."""

    def __init__(
        self,
        inodes: InodeTable,
        versions: Versions,
        uploads: Uploads,
        prefetch: Prefetch,
        background: Background,
        opened: Opened,
        numbers: Numbers,
    ) -> None:
        self._inodes = inodes
        self._versions = versions
        self._uploads = uploads
        self._prefetch = prefetch
        self._background = background
        self._opened = opened
        self.handles: HandleTable[FileHandle] = HandleTable(numbers)
        self.device: int | None = None
        """st_dev of the mount; None until mounted."""

    async def open(self, file: File, flags: int, pid: int) -> OpenFile:
        """Open a file for process `pid`; see `FileSystem.open`."""
        number, truncate = file.number, bool(flags & os.O_TRUNC)
        if truncate:
            self._prefetch.forget(file)
        elif flags & os.O_ACCMODE == os.O_RDONLY:
            self._prefetch.opened(file)
        content = await self._acquire(file, truncate=truncate)
        self._part_from_older(file, content)
        if file.number != number:
            self._background.start(self._hold_for_retry, file, content)
            raise FileError(errno.ESTALE)
        writes = truncate or flags & os.O_ACCMODE != os.O_RDONLY
        # 30 µs, and only a dirty handle's flush asks.
        opener = descriptors.thread_group(pid) if writes else None
        handle = FileHandle(file, content, flags, opener)
        file.handles += 1
        if truncate:
            try:
                await content.truncate(0, file.key)
            except BaseException:
                self._close(handle)
                raise
            self._written(handle)
        if self._is_open_on_another_version(handle):
            return OpenFile(self.handles.add(handle), keep_pages=True, direct=True)
        keep_pages = file.kernel_content is content
        file.kernel_content = content
        return OpenFile(self.handles.add(handle), keep_pages)

    def made(self, file: File, content: Content, flags: int, pid: int) -> OpenFile:
        """Open a file that was just made; it has `content`, acquired once. No checkpoint."""
        handle = FileHandle(file, content, flags, descriptors.thread_group(pid))
        handle.mark_written()
        file.handles += 1
        file.kernel_content = content
        return OpenFile(self.handles.add(handle), keep_pages=True)

    async def set_size(self, file: File, size: int, fh: int | None) -> None:
        """Cut or lengthen a file: as a change of a handle, or at once in the store (truncate(2))."""
        if fh is not None:
            handle = self.handles.get(fh)
            await handle.content.truncate(size, file.key)
            self._written(handle)
            return
        if size == 0:
            self._prefetch.forget(file)
        content = await self._acquire(file, truncate=size == 0)
        try:
            await content.truncate(size, file.key)
            self._versions.make_current(file, content)
            file.touch()
            await self._uploads.close(file, content)
        finally:
            self._versions.release(file, content)

    async def read(self, fh: int, offset: int, length: int) -> bytes:
        """Read; shorter than asked only at the end of the file. Waits only for bytes that are missing."""
        return await self.handles.get(fh).content.read(length, offset)

    async def write(self, fh: int, offset: int, data: bytes) -> None:
        """Write all of `data`, to the cache file."""
        handle = self.handles.get(fh)
        if handle.appends:
            await handle.content.append(data, handle.file.key)
        else:
            await handle.content.write(data, offset, handle.file.key)
        self._written(handle)

    async def flush(self, fh: int) -> None:
        """One descriptor was closed: upload, if it was the last to write by of the process that opened the handle.

        Where that process goes on by another handle, that one's close answers for these bytes as well.
        """
        handle = self.handles.get(fh)
        if not handle.dirty:
            return
        if not self._opener_goes_on(handle):
            await self._uploads.close(handle.file, handle.content)
        elif handle.file.handles > 1:
            for other in self.handles:
                other.answer_for(handle)

    async def fsync(self, fh: int) -> None:
        """Upload what the handle's file has that the store has not."""
        handle = self.handles.get(fh)
        await self._uploads.close(handle.file, handle.content)

    async def release(self, fh: int) -> None:
        """Close a handle; what is still dirty is uploaded in the background. No checkpoint."""
        handle = self.handles.remove(fh)
        if handle.dirty and not handle.file.removed:
            self._uploads.released(handle.file, handle.content)
        self._close(handle)

    async def _acquire(self, file: File, *, truncate: bool) -> Content:
        if truncate:
            return self._versions.acquire_empty(file)
        if not self._versions.is_current(file):
            await self._prefetch.wait_for(file)
        before, current = file.content, self._versions.is_current(file)
        try:
            content = await self._versions.acquire(file)
        except RecordNotFound:
            if file.removed:
                raise FileError(errno.ESTALE) from None
            raise
        self._opened.count(current=current, same=content is before)
        if file.removed and not file.handles:  # by a listing, meanwhile
            self._versions.release(file, content)
            raise FileError(errno.ESTALE)
        return content

    async def _hold_for_retry(self, file: File, content: Content) -> None:
        """Let the fetch of a version go on until the kernel asks for it by its new number."""
        try:
            await trio.sleep(RETRY_SECONDS)
        finally:
            self._versions.release(file, content)

    def _part_from_older(self, file: File, content: Content) -> None:
        """Leave the inode to those who read an older version of the record, and take a new one.

        Pages and size belong to the inode: with the size of a newer version that is shorter, the kernel would cut
        their reads, and kill who has the rest mapped (SIGBUS). Not from writers: what they write is to be
        the newest version.
        """
        others = [handle for handle in self.handles if handle.file is file]
        if not others or len(others) < file.handles:
            return
        if any(h.writable or h.content.dirty or h.content is content for h in others):
            return
        older = self._inodes.part(file)
        older.content = others[0].content
        for handle in others:
            handle.file = older

    def _is_open_on_another_version(self, handle: FileHandle) -> bool:
        """Tell whether the kernel's pages, which belong to the inode, are of another version than this handle.

        Such a handle does without them (direct I/O, and so no shared mmap): it is rare, since only writers share
        their inode with a newer version, and the other way out is to mix old and new bytes.
        """
        file, content = handle.file, handle.content
        return file.handles > 1 and any(h.file is file and h.content is not content for h in self.handles)

    def _written(self, handle: FileHandle) -> None:
        handle.mark_written()
        self._versions.make_current(handle.file, handle.content)
        handle.file.touch()

    def _close(self, handle: FileHandle) -> None:
        handle.file.handles -= 1
        self._versions.release(handle.file, handle.content)
        if not handle.file.handles:
            self._versions.closed(handle.file)
        self._inodes.drop_unused(handle.file)

    def _opener_goes_on(self, handle: FileHandle) -> bool:
        if handle.opener is None or self.device is None:
            return False
        return descriptors.holds_open_to_write(handle.opener, handle.file.number, self.device)
