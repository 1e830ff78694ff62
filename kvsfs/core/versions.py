"""Which version of a record a file shows: close-to-open consistency."""

from __future__ import annotations

import errno
import logging
import math
import time
from collections.abc import Callable, Sequence
from email.utils import parsedate_to_datetime

import trio

from kvsfs.cache.blobs import Blob
from kvsfs.cache.eviction import CleanBlobs
from kvsfs.cache.folder import CacheFolder
from kvsfs.core import provenance
from kvsfs.core.attributes import KeptAttributes
from kvsfs.core.content import Content
from kvsfs.core.fetching import Fetch
from kvsfs.core.inodes import File, Folder, InodeTable
from kvsfs.core.kernel import KernelCaches
from kvsfs.core.tuning import Tuning
from kvsfs.errors import FileError, RecordNotFound, StoreTimeout, StoreUnreachable
from kvsfs.store.protocol import Store
from kvsfs.types import RecordHead

log = logging.getLogger(__name__)

DAMAGED = "%s was closed by an earlier mount, and the disk has damaged it since: what is left of it is in %s"


class Versions:
    """Gives files their content, and takes it back.

    Every content that is given out counts one user more, until `release`. Content that nobody uses stays as
    the cache, evictable while it is clean. Which content is a file's current one changes with the file's
    `remote` lock held, or by a write: handles that are open on an older version keep it, and when one of them
    is written to, that version is the newest again (`make_current`). The last one to close wins.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - a version is in a store, in a folder, in the cache and in the kernel
        self,
        store: Store,
        inodes: InodeTable,
        cache: CacheFolder,
        attributes: KeptAttributes,
        kernel: KernelCaches,
        nursery: trio.Nursery,
        tuning: Tuning,
        clean: CleanBlobs[File] | None = None,
    ) -> None:
        """`clean`: where several stores share one cache, what all of them have in it."""
        self._store = store
        self._inodes = inodes
        self._cache = cache
        self._blobs = cache.blobs
        self.attributes = attributes
        """What of the files outlasts the mount."""
        self._clean = clean_files(tuning.cache_bytes) if clean is None else clean
        cache.blobs.make_room = self._clean.make_room
        self._nursery = nursery
        self._revalidate = tuning.revalidate
        self._kernel = kernel
        self.names_of: Callable[[File | Folder], Sequence[bytes]] = _only_name
        """All names by which the kernel may know what is in a folder."""
        self.origin_gone: Callable[[File], None]
        """Hears of a moved file whose old record, which had its bytes, is not in the store any more."""

    def close(self) -> None:
        """Leave the cache to the other stores that share it."""
        for file in self._inodes.files():
            if file.content is not None:
                self._clean.take(file)

    def free_bytes(self) -> int:
        """Give the room that the disk has left; none where it cannot tell. No checkpoint."""
        try:
            return self._blobs.free_bytes()
        except OSError:
            return 0

    @property
    def cached_bytes(self) -> int:
        """Bytes of the clean files that nobody has open."""
        return self._clean.used_bytes

    async def acquire(self, file: File, *, at_most: int | None = None) -> Content:
        """Give the file's current content; asks the store unless that is known to be current.

        A copy that is here as a whole stands in for a store that is out of reach.

        `at_most`: bytes that are fetched where all must be, because nothing tells the length: then RecordTooLarge.
        Raises StoreError, OSError; RecordNotFound when the record is gone: no name leads to the file then,
        unless it is open. FileError(ESTALE) where none did before: what is written there would go nowhere,
        and the key may be another file's by now. Checkpoints only when it asks.
        """
        _require_name(file)
        if not self.is_current(file):
            async with file.remote:
                _require_name(file)
                if not self.is_current(file):
                    return await self._fetch(file, at_most)
        return self.hold(file)

    async def fetch_whole(self, file: File, *, patience: float, at_most: int) -> None:
        """Have the current version here before it is asked for, all of it unless it has more than `at_most` bytes.

        Raises as `acquire` does; StoreTimeout when the store has not said which version that is after `patience`
        seconds. Cancelled, it leaves what is known.
        """
        with trio.move_on_after(patience) as scope:
            content = await self.acquire(file, at_most=at_most)
        if scope.cancelled_caught:
            raise StoreTimeout(f"{file.key}: no answer within {patience:g} s")
        try:
            if content.size <= at_most:
                await content.complete_blob()
        finally:
            self.release(file, content)

    def adopt_bytes(self, file: File, content: bytes, asked_at: float, date: str | None) -> bool:
        """Take the bytes of a record that came without headers, in an answer to a question of `asked_at`.

        They count as validated then, and no longer: which version they are, only a HEAD may prove (`date`: the
        store's time at that answer). Where the same bytes are here, those are validated. False, and nothing taken,
        where anything newer, or better known, is here or under way. Raises OSError.
        """
        if not _takes_bytes(file, len(content), asked_at):
            return False
        if file.content is not None:
            if file.content.holds(content):
                file.validated_at = asked_at
                return True
            if file.head is not None:  # a GET tells when it was changed, too
                return False
            self.drop(file)
        adopted = self.empty()
        try:
            adopted.blob.pwrite(content, 0)
        except BaseException:
            adopted.release()
            adopted.blob.remove()
            raise
        adopted.unproven, adopted.asked_for = True, date
        self._learn_length(file, len(content))
        file.content, file.validated_at = adopted, asked_at
        self.attributes.note(file)
        self.release(file, adopted)
        return True

    def hold(self, file: File) -> Content:
        """Give the content that is here, current or not."""
        content = file.content
        assert content is not None
        self._clean.take(file)
        content.acquire()
        return content

    def acquire_empty(self, file: File) -> Content:
        """Give content that is about to be truncated: nothing is fetched. Then `make_current` follows.

        Raises OSError, FileError(ESTALE) as `acquire` does.
        """
        _require_name(file)
        return self.empty() if file.content is None else self.hold(file)

    def empty(self) -> Content:
        """Make content for a new file. Raises OSError."""
        return Content(self._cache, self._blobs.create())

    def resumed(self, blob: Blob, row: int, checksum: int | None) -> Content:
        """Make content of a closed version that an earlier mount has left. Raises OSError."""
        blob.acquire()
        content = Content(self._cache, blob)
        content.resume(row, checksum)
        content.release()
        return content

    def make_current(self, file: File, content: Content) -> None:
        """Let content that was changed here be the file's newest version, whatever it was opened on."""
        old = file.content
        if old is content:
            return
        file.content = content
        if old is not None and not old.users:
            self._clean.take(file)
            self._discard(file, old)

    def release(self, file: File, content: Content) -> None:
        """Count one user of a content less."""
        content.release()
        if content.users:
            return
        if file.removed or content is not file.content:
            self._discard(file, content)
        elif content.dirty or content.local_only:
            pass
        elif content.complete or content.resumable:
            self._clean.add(file, content.blob)
        else:
            self._discard(file, content)

    def drop(self, file: File) -> None:
        """Let go of the content of a file that was removed; handles that are open keep it until they close."""
        if file.content is not None and file.content.local_only:
            file.content.blob.remove()  # now: its place is under its name, which another file may get
        if file.content is not None:
            file.content.abandon()
        if file.content is not None and not file.content.users:
            self._clean.take(file)
            self._discard(file, file.content)

    def vanished(self, file: File) -> None:
        """Take the name away: the store says that there is no such record.

        Not from an open file: whoever has it open may write it, and then it is a record again. Its last close
        takes the name away, unless it was written or seen again (`closed`). Nor from one with bytes that the store
        lacks: they are to be a record.
        """
        if file.handles or file.dirty:
            self.missed(file)
        else:
            file.stored = False
            if file.origin is not None:
                self.origin_gone(file)
            self.attributes.forget(file)
            self.detach(file)
            self.drop(file)

    def damaged(self, file: File, content: Content) -> None:
        """Set bytes aside that the disk has changed: the store keeps its version, and the file shows that."""
        path = content.set_aside()
        log.error(DAMAGED, file.key, path)
        if file.content is content:
            file.content, file.length, file.validated_at = None, None, -math.inf
            file.changed_at = -math.inf
            if file.parent is not None:
                file.parent.listing = None  # the next one tells whether there is a record
        self._kernel.pages_changed(file.number)
        if not file.in_store:
            self.vanished(file)

    def missed(self, file: File) -> None:
        """Note that the store has no such record, while the file is open or has bytes that the store lacks."""
        file.missed_at = trio.current_time()

    def closed(self, file: File) -> None:
        """Take the name away of a file whose record went while it was open. The last handle is gone."""
        if file.missed_at > file.changed_at and not file.dirty:
            self.vanished(file)

    def outdated(self, file: File, head: RecordHead | None) -> None:
        """Know that the store has another version, and its headers if they were seen.

        The clean bytes that are here go, and what the kernel keeps of them. Of an open file they stay, its size
        too: by the size of another version the kernel would cut what its handles read. The next open asks.
        """
        file.validated_at = -math.inf
        if file.handles or file.dirty or file.local_only or (file.content and file.content.users):
            return
        self.drop(file)
        file.length = None
        if head is not None:
            self._compare(file, head)
            file.head, file.length = head, head.length
            if head.content_type != file.content_type:
                file.content_type, file.type_guessed = head.content_type, False
            self.attributes.note(file)
        self._kernel.pages_changed(file.number)

    def detach(self, inode: File | Folder) -> None:
        """Take the name away of what is gone from the store, here and in the kernel."""
        self.names_gone(inode)
        self._inodes.detach(inode)

    def names_gone(self, inode: File | Folder) -> None:
        """Have the kernel look the names up anew that an inode has so far. No checkpoint."""
        if inode.parent is not None:
            for name in self.names_of(inode):
                self._kernel.entry_gone(inode.parent.number, name, inode.number)

    async def learn_type(self, file: File) -> None:
        """Know the content type of a stored record: from its headers, if nothing has told it yet.

        Raises StoreError; RecordNotFound when the record is gone.
        """
        if file.content_type is None and file.in_store:
            await self.learn_head(file, only_type=True)

    async def learn_head(self, file: File, *, only_type: bool = False) -> None:
        """Know what the headers of a stored record tell: its type, and its length if nothing has told it yet.

        Of bytes that came without headers it may prove that they are the version which the headers name.
        Raises StoreError; RecordNotFound when the record is gone.
        """
        async with file.remote:
            if only_type and file.content_type is not None:
                return  # whoever asked meanwhile has learned it
            content, asked_at = file.content, trio.current_time()
            head = await self._store.head_record(file.record_key)
            if head is None:
                self.vanished(file)
                raise RecordNotFound(f"{file.record_key} is not in the store any more")
            file.content_type, file.type_guessed = head.content_type, False
            if content is not None and content is file.content and content.unproven and not content.dirty:
                self._prove(file, content, head, asked_at)
            if file.content is None:
                self._compare(file, head)
                file.head = head
                if head.length is not None:
                    self._learn_length(file, head.length)
            self.attributes.note(file)

    def check_invariants(self) -> None:
        """For tests."""
        self._clean.check_invariants()
        for file in self._clean:
            assert file.content is not None
            assert not file.content.users
            assert not file.dirty
        for file in self._inodes.files():
            if file.content is not None:
                file.content.check_invariants()
            else:
                assert file.in_store or file.removed

    def is_current(self, file: File) -> bool:
        """Tell whether what is here needs no question: ours alone, or validated a moment ago."""
        if file.content is None:
            return False
        fresh = trio.current_time() - file.validated_at < self._revalidate and not file.content.contradicted
        return file.content.dirty or not file.stored or fresh

    async def _fetch(self, file: File, at_most: int | None) -> Content:
        if file.content is None:
            return await self._ask(file, None, at_most)
        old = self.hold(file)  # or it might be evicted before the store said that it is current
        try:
            return await self._ask(file, old, at_most)
        except StoreUnreachable as error:
            if at_most is not None or not old.complete or old.contradicted:
                raise
            # As for a folder's listing: whoever works off line has what is here, all of it.
            log.warning("showing the copy of %s that is here: %s", file.key, error)
            return self.hold(file)
        finally:
            self.release(file, old)

    async def _ask(self, file: File, old: Content | None, at_most: int | None) -> Content:
        known = file.head if old is not None and _is_proven(old) else None
        blob = self._blobs.create()
        fetch = Fetch(self._store, file.record_key, blob, self._nursery)
        try:
            modified = await fetch.open(known, at_most=at_most)
        except BaseException as error:
            fetch.stop()
            blob.release()
            blob.remove()
            if isinstance(error, RecordNotFound):
                self.vanished(file)
            raise
        changed_here = file.content is not old or file.dirty  # and so newer than any answer
        if modified and not changed_here:
            file.validated_at = trio.current_time()
            return self._adopt(file, Content(self._cache, blob, fetch))
        if not changed_here:
            file.validated_at = trio.current_time()
        fetch.stop()
        blob.release()
        blob.remove()
        return self.hold(file)

    def _adopt(self, file: File, content: Content) -> Content:
        assert content.fetch is not None
        head = content.fetch.head
        assert head is not None
        self._compare(file, head)
        if head.content_type != file.content_type:
            file.content_type, file.type_guessed = head.content_type, False
        self._learn_length(file, content.size)
        file.content, file.head = content, head
        self.attributes.note(file)
        return content

    def _prove(self, file: File, content: Content, head: RecordHead, asked_at: float) -> None:
        """Take headers for those of bytes that came without any, if they can be of no others.

        Else they are only the newest seen: what is here stays unproven, and is fetched anew by the next question.
        """
        self._compare(file, head)
        file.head = head
        if provenance.is_of(content, head):
            content.unproven = False
            file.validated_at = max(file.validated_at, asked_at)
        elif head.length is not None:
            file.length = head.length

    def _compare(self, file: File, head: RecordHead) -> None:
        """Notice by the newest headers that somebody else has written the record."""
        if file.head is not None and file.head.validator not in (None, head.validator):
            self.attributes.changed_remotely(file, _modified_ns(head))
            self._kernel.attributes_changed(file.number)

    def _learn_length(self, file: File, length: int) -> None:
        if length != file.size or not file.size_is_exact:
            self._kernel.attributes_changed(file.number)
        file.length = length

    def _discard(self, file: File, content: Content) -> None:
        if content.dirty and not file.removed and self._blobs.is_dirty(content.blob):
            path = content.set_aside()
            log.warning("a version of %s that the store did not take is kept in %s", file.key, path)
        else:
            content.blob.remove()
        content.abandon()
        if file.content is content:
            file.content = None
            self._inodes.drop_unused(file)


def _takes_bytes(file: File, length: int, asked_at: float) -> bool:
    """Tell whether a file has no use for any other bytes than those that came unasked."""
    if file.removed or file.handles or file.is_asked_for or not file.stored or file.origin is not None:
        return False
    here = file.content
    if here is not None and (here.users or here.dirty or here.local_only or not here.complete):
        return False
    if file.unanswered or max(file.validated_at, file.changed_at) >= asked_at:
        return False
    # Of another length than the version of known headers: let a GET tell what has become of it.
    return file.head is None or file.length in (None, length)


def _is_proven(content: Content) -> bool:
    return not content.lacks_headers and (content.complete or content.resumable)


def _only_name(inode: File | Folder) -> Sequence[bytes]:
    return [] if inode.parent is None else [inode.parent.name_of(inode)]


def _require_name(file: File) -> None:
    if file.removed and not file.handles:
        raise FileError(errno.ESTALE)


def clean_files(capacity: int) -> CleanBlobs[File]:
    """Make a cache of so many bytes."""
    return CleanBlobs[File](capacity, _forget_content)


def _forget_content(file: File) -> None:
    file.content = None


def _modified_ns(head: RecordHead) -> int:
    """Give when the store says that the record was changed, else now: we have just noticed."""
    if head.last_modified is not None:
        try:
            return int(parsedate_to_datetime(head.last_modified).timestamp()) * 1_000_000_000
        except ValueError:
            pass
    return time.time_ns()
