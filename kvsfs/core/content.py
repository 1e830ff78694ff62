"""The bytes of a file as this mount sees them: fetched, written, and which of them the store has."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

import trio

from kvsfs.cache.blobs import Blob
from kvsfs.cache.durable import all_synced
from kvsfs.cache.folder import CacheFolder
from kvsfs.cache.journal import Closed
from kvsfs.core.fetching import Fetch
from kvsfs.types import RecordHead

log = logging.getLogger(__name__)


INLINE_BYTES = 256 * 1024
"""What a checksum is made of inline: 0.1 ms, as much as the way to a thread and back."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A version that somebody closed, in the journal until the store has confirmed it."""

    version: int
    blob: Blob
    row: int
    checksum: int | None = None
    """Of a version that an earlier mount has left: what its bytes are to be compared with."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A version of a file's bytes that the store has taken."""

    content: Content
    version: int
    size: int
    stored_size: int
    head: RecordHead


class Content:
    """One version of a file's bytes; all handles that were opened on it share it.

    `version` counts changes, `stored_version` is the newest that the store confirmed, `kept` the newest that was
    closed and is not confirmed. Bytes that are kept or just being uploaded are frozen: the first write then goes to
    a copy of the cache file, so that neither a record nor what a crash leaves is ever a mixture of two versions, and
    no writer waits for the network. (Making writers wait was the alternative: an `fsync` of 3 s then blocks every
    append.)

    INVARIANT: `stored_version <= version`; while `users` > 0 the blob is acquired; a blob that is frozen is
    complete; `kept` is newer than `stored_version`; `fetch` is None or fills `blob`.
    """

    def __init__(self, cache: CacheFolder, blob: Blob, fetch: Fetch | None = None) -> None:
        """Take over a blob that is acquired once: the caller is the first user."""
        self._blobs = cache.blobs
        self._journal = cache.journal
        self.blob = blob
        self.fetch = fetch
        self.version = 0
        self.stored_version = 0
        self.kept: Kept | None = None
        self.owed = 0
        """The newest version that nobody is to close any more: it was released, or the mount ends."""
        self.users = 1
        self.local_only = False
        """No store is to have it: its blob lies under the file's own name."""
        self.dirty_since = 0.0
        """When the first change was made that nobody has closed yet (trio time)."""
        self.superseded = False
        """Somebody else's version has taken its place in the store."""
        self.unproven = False
        """Came without headers: no validator seen so far is known to be of these bytes."""
        self.asked_for: str | None = None
        """The store's time before which it had these bytes already, where they came without headers."""
        self._frozen: Blob | None = None
        self._replaced: list[Blob] = []
        """Closed before `kept`, whose row took the place of theirs: until that outlasts a power failure, the journal
        on the disk may still name them."""
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
    def closed(self) -> bool:
        """Whether the newest version was closed and is not confirmed yet."""
        return self.kept is not None and self.kept.version == self.version

    @property
    def is_owed(self) -> bool:
        """Whether a version that nobody is to close is neither kept nor in the store."""
        return self.owed > max(self.stored_version, 0 if self.kept is None else self.kept.version)

    @property
    def lacks_headers(self) -> bool:
        """Whether no headers that were seen are known to be of the version that these bytes are, or came from."""
        return self.unproven and not self.stored_version  # else they are those of what was uploaded

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

    def holds(self, data: bytes) -> bool:
        """Tell whether the bytes, which must be complete, are these. Raises OSError."""
        if self.size != len(data):
            return False
        self.blob.acquire()
        try:
            return self.blob.pread(len(data), 0) == data
        finally:
            self.blob.release()

    async def complete_blob(self) -> None:
        """Fetch what is missing. Raises StoreError, OSError."""
        if self.fetch is not None:
            await self.fetch.ensure(0, self.size)

    def keep(self, closed: Closed) -> None:
        """Journal the bytes, which must be complete, as a version that was closed. Raises OSError."""
        assert self.complete
        old = self.kept
        row = self._journal.closed(closed, replaces=None if old is None else old.row)
        self.kept = Kept(self.version, self.blob, row)
        if old is not None and old.blob is not self.blob:
            self._replaced.append(old.blob)

    def describe(self, closed: Closed) -> None:
        """Journal what has changed of a closed version but its bytes. Raises OSError."""
        if self.kept is not None:
            self._journal.changed(self.kept.row, closed)

    def note_failure(self, failure: str, *, final: bool) -> None:
        """Journal that an attempt to upload the closed version has failed. No error: it is only for people."""
        if self.kept is not None:
            with suppress(OSError):
                self._journal.failed(self.kept.row, failure, final=final)

    def resume(self, row: int, checksum: int | None) -> None:
        """Take the blob for a version that an earlier mount had journalled."""
        self.version = 1
        self.kept = Kept(1, self.blob, row, checksum)

    async def is_damaged(self) -> bool:
        """Tell, once, whether the disk has changed what an earlier mount closed. Raises OSError."""
        kept = self.kept
        if kept is None or kept.checksum is None:
            return False
        self.kept = replace(kept, checksum=None)
        return await _checksum(kept.blob) != kept.checksum

    async def make_durable(self) -> None:
        """Let the bytes that are here, and the journal, outlast a power failure. Raises OSError.

        In any order: a crash amid them may leave a row without its bytes, as it may without any sync, and the next
        mount knows them by their length and checksum.
        """
        kept, replaced = self.kept, self._replaced.copy()
        blob = self.blob if kept is None else kept.blob
        blob.acquire()  # a write that unshares it meanwhile lets go of it
        try:
            if kept is not None:
                self._journal.checked(kept.row, await _checksum(blob))
            await all_synced([*self._blobs.syncs(blob), self._journal.make_durable])
            self._drop(replaced)
        finally:
            blob.release()

    @contextmanager
    def frozen(self) -> Iterator[tuple[Blob, int]]:
        """Hold a version unchanged for an upload: the closed one, else the current bytes, which must be complete.

        One at a time.
        """
        assert self._frozen is None
        blob, version = (
            (self.blob, self.version) if self.kept is None else (self.kept.blob, self.kept.version)
        )
        assert blob.complete
        blob.acquire()
        self._frozen = blob
        try:
            yield blob, version
        finally:
            self._frozen = None
            blob.release()
            if blob is not self.blob and not self._is_journalled(blob):
                blob.remove()

    def confirm(self, version: int) -> None:
        """Note that the store has `version`."""
        self.stored_version = max(self.stored_version, version)
        kept = self.kept
        if not self.dirty:
            try:
                self._blobs.mark_clean(self.blob)
            except (
                OSError
            ) as error:  # the disk takes no changes any more: the store has the bytes all the same
                log.warning("the cache folder: %s", error)
        if kept is not None and kept.version <= self.stored_version:
            self._let_go(kept)

    def abandon(self) -> None:
        """Take what was closed out of the journal: nobody wants it in the store any more. No error."""
        if self.kept is not None:
            self._let_go(self.kept)

    def set_aside(self) -> str:
        """Keep the newest bytes where only a person finds them: nothing uploads them by itself. Gives the path.

        An older version that was closed stays in the journal.
        """
        if self.kept is not None and self.kept.blob is self.blob:
            self.abandon()
        return self._blobs.set_aside(self.blob)

    def check_invariants(self) -> None:
        """For tests."""
        assert 0 <= self.stored_version <= self.version
        assert self.users >= 0
        assert self.blob.in_use or not self.users
        assert self.fetch is None or self.fetch.blob is self.blob
        assert self._frozen is None or self._frozen.complete
        if self.kept is not None:
            assert self.stored_version < self.kept.version <= self.version
            assert self.kept.blob.complete
            assert self._blobs.is_dirty(self.kept.blob)
            assert self.kept.blob is self.blob or self.kept.version < self.version
        self.blob.check_invariants()

    def make_ours(self, key: str) -> None:
        """Count the bytes as changed here: the store does not have them, or is not to have them any more."""
        self.local_only = False
        with self._changing(key):
            pass

    def make_local(self, path: bytes) -> None:
        """Keep the bytes here for good, under the path that the file is about to get. Raises OSError."""
        self._blobs.make_local(self.blob, path)
        self.abandon()
        self.local_only = True

    def _let_go(self, kept: Kept) -> None:
        """Take a version out of the journal. A row that stays for an error is harmless: its blob is gone."""
        self.kept = None
        self._drop(self._replaced)
        if kept.blob is not self.blob:
            kept.blob.remove()
        try:
            self._journal.forget(kept.row)
        except OSError as error:
            log.warning("%s", error)

    def _is_journalled(self, blob: Blob) -> bool:
        """Whether the journal names a blob, or its last state on the disk may."""
        return blob in self._replaced or (self.kept is not None and blob is self.kept.blob)

    def _drop(self, blobs: list[Blob]) -> None:
        """Remove blobs that no row names any more; whoever uploads one has it open."""
        self._replaced = [blob for blob in self._replaced if blob not in blobs]
        for blob in blobs:
            blob.remove()

    @contextmanager
    def _changing(self, key: str) -> Iterator[None]:
        """Count a change that is made here; one that fails (a full disk) leaves what was clean clean."""
        if not self.dirty or self.closed:
            self.dirty_since = trio.current_time()
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
        if not self._is_frozen():
            return
        async with self._unsharing:
            if not self._is_frozen():
                return
            shared, copy = self.blob, self._blobs.create()
            try:
                if keep:
                    await trio.to_thread.run_sync(shared.copy_to, copy)
            except BaseException:
                copy.release()
                copy.remove()
                raise
            # `shared` stays acquired by `frozen`, or is kept; our own use of it moves to the copy.
            self.blob, self.fetch = copy, None
            shared.release()
            if self._frozen is not shared and not self._is_journalled(shared):
                shared.remove()

    def _is_frozen(self) -> bool:
        return self._frozen is self.blob or (self.kept is not None and self.kept.blob is self.blob)


async def _checksum(blob: Blob) -> int:
    """Make the checksum of an acquired blob that nobody changes."""
    return blob.checksum() if blob.size <= INLINE_BYTES else await trio.to_thread.run_sync(blob.checksum)
