"""What changes the store: a file's bytes become a record, a record goes, a record gets another type."""

from __future__ import annotations

import errno
import logging
import math
import os
import stat
from collections.abc import Callable
from contextlib import suppress

import trio

from kvsfs.cache.blobs import Blob
from kvsfs.cache.journal import Closed
from kvsfs.core import content_types
from kvsfs.core.compression import Compression
from kvsfs.core.conflicts import Conflicts
from kvsfs.core.content import Content, Sent
from kvsfs.core.deletes import DeferredDeletes
from kvsfs.core.fetching import AHEAD_BYTES
from kvsfs.core.inodes import File, Folder, InodeTable
from kvsfs.core.versions import Versions
from kvsfs.errors import FileError, StoreError, StoreUnreachable
from kvsfs.store.protocol import Store
from kvsfs.types import RecordKey

log = logging.getLogger(__name__)

TYPE_SAMPLE_BYTES = 64 * 1024
"""How much of a file is looked at to guess its type: magic numbers sit in the first KiB, text needs a fair
sample."""


class Records:
    """Moves whole files into the store.

    Each operation holds the file's `remote` lock from its first to its last await, so that a record's uploads,
    deletions, renames and changes of version come one after the other; writes by the kernel go on meanwhile.
    Every operation checkpoints and raises StoreError or OSError; after an error the file is as it was, and what
    was dirty is dirty still. Cancelled amid a request, it is not known whether the store did it.
    """

    def __init__(
        self,
        store: Store,
        inodes: InodeTable,
        versions: Versions,
        deletes: DeferredDeletes,
        conflicts: Conflicts,
        compression: Compression,
        filled: Callable[[Folder | None], None],
    ) -> None:
        """Tell `filled` of each folder in which the store has a new record."""
        self.attributes = versions.attributes
        self.filled = filled
        self._store = store
        self._inodes = inodes
        self._versions = versions
        self._deletes = deletes
        self._conflicts = conflicts
        self._compression = compression
        deletes.secure = self.secure
        versions.origin_gone = self._origin_gone

    # --- the journal ------------------------------------------------------------------------------

    def keep(self, file: File, content: Content) -> None:
        """Journal the bytes of `content`, which must be complete, as closed, unless they are. Raises OSError.

        Not those of a removed file: nothing is to bring it back.
        """
        if content.dirty and not content.closed and not file.removed:
            content.keep(_closed(file, content.blob))

    def describe(self, file: File) -> None:
        """Journal the name and the attributes that a closed version has by now. Raises OSError."""
        if file.content is not None and file.content.kept is not None:
            file.content.describe(_closed(file, file.content.kept.blob))

    # --- operations -------------------------------------------------------------------------------

    async def upload(self, file: File, content: Content) -> None:
        """Store the closed version of `content`, unless the store has it or the file was removed.

        The caller uses the content. It becomes the file's current one, if another one was opened since. A removal
        ends it; a rename begins it anew, under the new name. A record under another key that the bytes came from is
        deleted after that.
        """
        while not file.removed and (content.dirty or file.origin is not None):
            await self._deletes.rescue(
                file.key, by=file
            )  # before the lock: that file may wait for this one's
            async with file.remote:
                if self._deletes.reader(file.key) not in {None, file}:  # it got another name meanwhile
                    continue
                with trio.CancelScope() as file.uploading:
                    await self._upload(file, content)
                    return

    async def retype(self, file: File, content_type: str) -> None:
        """Store the record's bytes again, with another content type. Raises FileError(ESTALE) if it is gone.

        Those that somebody writes just now get the type with their close.
        """
        content = await self._versions.acquire(file)
        before = file.content_type, file.type_guessed
        try:
            async with file.remote:
                require_name(file)
                file.content_type, file.type_guessed = content_type, False
                await self._put(file, content)
        except BaseException:
            file.content_type, file.type_guessed = before
            raise
        finally:
            self._versions.release(file, content)

    async def remove(self, file: File) -> None:
        """Delete the record, if there is one, and take the name away: of an open file after the grace."""
        file.stop_upload()
        async with file.remote:
            await self.keep_for_readers(file)
            if file.stored and file.handles and file.parent is not None:
                self._deletes.bury(file)
            elif file.stored:
                await self._store.delete_record(file.key)
            origin = file.origin
            self.take_name(file)
        if origin is not None:
            with suppress(StoreError):  # it is journalled, and tried again
                await self._deletes.delete_now(origin)

    async def secure(self, file: File) -> None:
        """Have the bytes of a moving file here, in the journal: the record that has them is about to be replaced."""
        content = await self._versions.acquire(file)
        try:
            async with file.remote:
                if file.origin is not None and not file.removed:
                    await self.keep_here(file, content)
        finally:
            self._versions.release(file, content)

    def _origin_gone(self, file: File) -> None:
        if file.move is not None:
            file.move.finished(file)
        self._deletes.origin_gone(file)

    # --- their parts; the lock is held, the content in use ------------------------------------------

    async def send(self, file: File, content: Content, key: RecordKey, component: bytes) -> Sent | None:
        """Store the closed version under a key; of clean content the bytes that are there.

        None where somebody has begun to write it, maybe meanwhile: no store is to have half of that.
        """
        try:
            await content.complete_blob()
            await self.learn_type(file)
            if _is_half_written(file, content):
                return None
            with content.frozen() as (blob, version):
                content_type = _type_for_upload(file, blob, component)
                async with self._compression.body(blob, content_type) as (body, encoding):
                    file.unanswered |= {blob.size if encoding is None else None}
                    file.sending = body
                    head = await self._store.set_record(
                        key, body, content_type=content_type, content_encoding=encoding
                    )
                    return Sent(content, version, blob.size, body.length, head)
        except StoreError as error:
            file.failure = error
            raise
        finally:
            file.sending = None

    async def learn_type(self, file: File) -> None:
        """Ask for the type of a record that is about to be replaced, unless it is known.

        That of an empty record which nobody could tell (`touch`) is no better than a guess.
        """
        if file.content_type is not None or not file.in_store:
            return
        head = await self._store.head_record(file.record_key)
        if head is not None and file.content_type is None:
            file.head = file.head or head
            file.content_type = head.content_type
            file.type_guessed = not file.listed_size and head.content_type == content_types.UNKNOWN

    async def keep_here(self, file: File, content: Content) -> None:
        """Fetch a record's bytes and journal them: they are ours alone from now on."""
        await content.complete_blob()
        content.make_ours(file.key)
        self.keep(file, content)
        await content.make_durable()
        self._deletes.secured(file)

    async def keep_for_readers(self, file: File) -> None:
        """Fetch the rest of a file that is open and about to lose its record, if that is not too much.

        What cannot be fetched fails its readers: it is no reason to keep the record.
        """
        content = file.content
        if content is not None and content.users and not content.complete and content.size <= AHEAD_BYTES:
            with suppress(StoreError):
                await content.complete_blob()

    def take_name(self, file: File) -> None:
        """Let no name lead to a file any more. No checkpoint."""
        if file.parent is not None:
            file.parent.note_removal(file.component, trio.current_time())
        file.stored, file.origin = False, None
        if file.move is not None:
            file.move.finished(file)
        self.attributes.forget(file)
        self._inodes.detach(file)
        with suppress(OSError):  # a removed record that came back by a crash is what remains
            self._deletes.inherited(file)
        self._versions.drop(file)

    def confirm(self, file: File, sent: Sent) -> None:
        """Note that the store has a version, under the key that the file has or is about to get. No checkpoint."""
        if sent.content.version <= sent.version:
            self._deletes.heir_stored(file)  # first: or a crash would take the old record for the newer one
        _confirm(file, sent)

    async def _upload(self, file: File, content: Content) -> None:
        if file.removed or _is_half_written(file, content):
            return
        self._versions.make_current(file, content)
        ghost = await self._deletes.exhume(file.key, by=file)
        if ghost is not None:
            file.replaces(ghost.base)
        other = await self._conflicts.look(file, content) if content.dirty else None
        if other is None:
            if await self._put(file, content):
                await self._delete_origin(file)
        elif (sent := await self._conflicts.compare(file, content, other)) is not None:
            self._stored(file, sent)
        else:
            await self._conflicts.store_beside(file, content, other)

    def _stored(self, file: File, sent: Sent) -> None:
        self.confirm(file, sent)
        self.filled(file.parent)
        self.attributes.note(file)

    async def _put(self, file: File, content: Content) -> bool:
        """Store the closed version; False if it is written just now: its close will."""
        try:
            sent = await self.send(file, content, file.key, file.component)
        except (StoreUnreachable, trio.Cancelled):
            file.stored = True  # for all we know: an unlink must delete it, or it would come back
            raise
        if sent is not None:
            self._stored(file, sent)
        return sent is not None

    async def _delete_origin(self, file: File) -> None:
        """Delete the record that a moved file's bytes came from, now that its own has them."""
        origin, file.origin = file.origin, None
        if file.move is not None:
            file.move.finished(file)
        if origin is not None:
            try:
                await self._deletes.delete_now(origin)
            except StoreError as error:
                log.warning("%s was renamed to %s, and is still in the store: %s", origin, file.key, error)


def _confirm(file: File, sent: Sent) -> None:
    sent.content.confirm(sent.version)
    now = trio.current_time()
    file.stored, file.failure, file.late = True, None, False
    file.unanswered = frozenset()
    file.changed_at = file.validated_at = now
    file.listed_size, file.length = sent.stored_size, sent.size
    file.head = sent.head
    folder = file.parent
    while folder is not None and folder.changed_at == math.inf and not folder.local_only:
        folder.changed_at = now
        folder = folder.parent


def _is_half_written(file: File, content: Content) -> bool:
    """Tell whether somebody writes the newest bytes just now, and none were closed that the store lacks."""
    return content.dirty and content.kept is None and file.handles > 0


def require_name(file: File) -> None:
    """Raise FileError(ESTALE) for a file that no name leads to."""
    if file.removed:
        raise FileError(errno.ESTALE)


def _type_for_upload(file: File, blob: Blob, component: bytes) -> str:
    """Keep the record's type; guess one for a new record, and again while it was only guessed."""
    if file.content_type is None or file.type_guessed:
        sample = blob.pread(TYPE_SAMPLE_BYTES, 0)
        whole = blob.size <= TYPE_SAMPLE_BYTES
        file.content_type, file.type_guessed = content_types.guess(component, sample, whole=whole), True
    return file.content_type


def _closed(file: File, blob: Blob) -> Closed:
    return Closed(
        key=file.key,
        blob=os.path.basename(blob.path),
        size=blob.size,
        content_type=file.content_type,
        type_guessed=file.type_guessed,
        base=file.base,
        mtime_ns=file.mtime_ns,
        mode=stat.S_IMODE(file.mode),
        uid=file.uid,
        gid=file.gid,
    )
