"""The bytes of a file as this mount sees them: fetched, written, and which of them the store has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from kvsfs.cache.blobs import Blob, BlobFolder
from kvsfs.core.fetching import Fetch


class Content:
    """One version of a file's bytes; all handles that were opened on it share it.

    `version` counts changes, `stored_version` is the newest that the store confirmed. While a version is
    uploaded its bytes are frozen: the first write then goes to a copy of the cache file, so that a record in
    the store is never a mixture of two versions and no writer waits for the network. (Making writers wait was
    the alternative: an `fsync` of 3 s then blocks every append.)

    INVARIANT: `stored_version <= version`; while `users` > 0 the blob is acquired; a blob that is frozen is
    complete; `fetch` is None or fills `blob`.
    """

    def __init__(self, blobs: BlobFolder, blob: Blob, fetch: Fetch | None = None) -> None:
        """Take over a blob that is acquired once: the caller is the first user."""
        self._blobs = blobs
        self.blob = blob
        self.fetch = fetch
        self.version = 0
        self.stored_version = 0
        self.closed_version = 0
        """The newest that was durable on disk when its writer closed it."""
        self.users = 1
        self.local_only = False
        """No store is to have it: its blob lies under the file's own name."""
        self._frozen: Blob | None = None
        self._unsharing = trio.Lock()

    @property
    def size(self) -> int:
        """Bytes."""
        return self.blob.size

    @property
    def dirty(self) -> bool:
        """Whether the store lacks the newest version, and is to have it."""
        return self.version > self.stored_version and not self.local_only

    @property
    def uploading(self) -> bool:
        """Whether a version is frozen for an upload."""
        return self._frozen is not None

    @property
    def complete(self) -> bool:
        """Whether every byte is in the cache file."""
        return self.fetch is None or self.fetch.complete

    @property
    def contradicted(self) -> bool:
        """Whether the store no longer stands by what it said of this version: to be fetched anew."""
        return self.fetch is not None and self.fetch.contradicted

    @property
    def resumable(self) -> bool:
        """Whether what is missing can be fetched later."""
        return self.fetch is not None and self.fetch.resumable

    def acquire(self) -> None:
        """Count one more user. Raises OSError."""
        if self.users == 0:
            self.blob.acquire()
        self.users += 1

    def release(self) -> None:
        """Count one user less; with the last one fetching stops."""
        self.users -= 1
        if self.users == 0:
            if self.fetch is not None:
                self.fetch.stop()
            self.blob.release()

    async def read(self, length: int, offset: int) -> bytes:
        """Read `length` bytes, fewer only at the end of the file: a shorter answer means that to the kernel.

        Raises StoreError, OSError. Checkpoints only when bytes are missing.
        """
        if self.fetch is not None:
            await self.fetch.ensure(offset, min(offset + length, self.size))
        return self.blob.pread(length, offset)

    async def write(self, data: bytes, offset: int, key: str) -> None:
        """Write all of `data`. Raises OSError. Checkpoints only when the version is frozen just now."""
        await self._unshare()
        with self._changing(key):
            self.blob.pwrite(data, offset)

    async def append(self, data: bytes, key: str) -> None:
        """Write at the end, wherever that is by now: the kernel's idea of it may be a provisional size."""
        await self._unshare()
        with self._changing(key):
            self.blob.pwrite(data, self.size)

    async def truncate(self, size: int, key: str) -> None:
        """Cut or lengthen to `size` bytes; bytes cut off are not fetched any more. Raises OSError."""
        await self._unshare(keep=size > 0)
        with self._changing(key):
            self.blob.truncate(size)
            if self.fetch is not None:
                self.fetch.cut(size)

    async def complete_blob(self) -> None:
        """Fetch what is missing. Raises StoreError, OSError."""
        if self.fetch is not None:
            await self.fetch.ensure(0, self.size)

    async def make_durable(self) -> None:
        """Let the bytes that are here outlast a power failure. Raises OSError.

        fsync(2) takes milliseconds and up: it runs in a thread.
        """
        blob = self.blob
        blob.acquire()  # a write that unshares it meanwhile lets go of it
        try:
            await trio.to_thread.run_sync(self._blobs.make_durable, blob)
        finally:
            blob.release()

    @contextmanager
    def frozen(self) -> Iterator[Blob]:
        """Hold the current bytes, which must be complete, unchanged for an upload; one at a time."""
        assert self._frozen is None
        assert self.complete
        blob = self._frozen = self.blob
        blob.acquire()
        try:
            yield blob
        finally:
            self._frozen = None
            blob.release()
            if blob is not self.blob:
                blob.remove()

    def confirm(self, version: int) -> None:
        """Note that the store has `version`."""
        self.stored_version = max(self.stored_version, version)
        if not self.dirty:
            self._blobs.mark_clean(self.blob)

    def check_invariants(self) -> None:
        """For tests."""
        assert 0 <= self.stored_version <= self.version
        assert self.users >= 0
        assert self.blob.in_use or not self.users
        assert self.fetch is None or self.fetch.blob is self.blob
        assert self._frozen is None or self._frozen.complete
        self.blob.check_invariants()

    def make_ours(self, key: str) -> None:
        """Count the bytes as changed here: the store does not have them, or is not to have them any more."""
        self.local_only = False
        with self._changing(key):
            pass

    def make_local(self, path: bytes) -> None:
        """Keep the bytes here for good, under the path that the file is about to get. Raises OSError."""
        self._blobs.make_local(self.blob, path)
        self.local_only = True

    @contextmanager
    def _changing(self, key: str) -> Iterator[None]:
        """Count a change that is made here; one that fails (a full disk) leaves what was clean clean."""
        if not self.local_only:
            self._blobs.mark_dirty(self.blob, key)
        try:
            yield
        except BaseException:
            if not self.dirty:
                self._blobs.mark_clean(self.blob)
            raise
        self.version += 1

    async def _unshare(self, *, keep: bool = True) -> None:
        """Make the blob ours alone when an upload holds it frozen; without `keep` the bytes are about to go."""
        if self._frozen is not self.blob:
            return
        async with self._unsharing:
            if self._frozen is not self.blob:
                return
            shared, copy = self.blob, self._blobs.create()
            try:
                if keep:
                    await trio.to_thread.run_sync(shared.copy_to, copy)
            except BaseException:
                copy.release()
                copy.remove()
                raise
            # `shared` stays acquired by `frozen`; our own use of it moves to the copy.
            self.blob, self.fetch = copy, None
            shared.release()
            if self._frozen is not shared:
                shared.remove()
