"""What changes the store: a file's bytes become a record, a record goes, a record gets another key."""

from __future__ import annotations

import errno
import math
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass

import trio

from kvsfs.core import content_types, names
from kvsfs.core.compression import Compression
from kvsfs.core.content import Content
from kvsfs.core.deletes import DeferredDeletes, Ghost
from kvsfs.core.fetching import AHEAD_BYTES
from kvsfs.core.inodes import File, Folder, InodeTable
from kvsfs.core.name_rules import NameRules
from kvsfs.core.versions import Versions
from kvsfs.errors import FileError, RecordChanged, StoreError, StoreUnreachable
from kvsfs.store.protocol import Store
from kvsfs.types import RecordHead, RecordKey

TYPE_SAMPLE_BYTES = 64 * 1024
"""How much of a file is looked at to guess its type: magic numbers sit in the first KiB, text needs a fair
sample."""


@dataclass(frozen=True, slots=True)
class _Sent:
    """A version of a file's bytes that the store has taken."""

    content: Content
    version: int
    size: int
    stored_size: int
    head: RecordHead


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
        rules: NameRules,
        compression: Compression,
        filled: Callable[[Folder], None],
    ) -> None:
        """Tell `filled` of each folder in which the store has a new record."""
        self._deletes = deletes
        self._attributes = versions.attributes
        self._rules = rules
        self._compression = compression
        self._filled = filled
        self._store = store
        self._inodes = inodes
        self._versions = versions

    async def upload(self, file: File, content: Content, *, again: bool = False) -> None:
        """Store the newest bytes of `content`, unless the store has them or the file was removed.

        The caller uses the content. It becomes the file's current one, if another one was opened since. A removal
        ends it. Trying `again`, after somebody was told that it failed, raises RecordChanged if somebody else
        has written the record meanwhile.
        """
        async with file.remote:
            if not content.dirty or file.removed:
                return
            with trio.CancelScope() as file.uploading:
                if again:
                    await self._require_unchanged(file)
                self._versions.make_current(file, content)
                await self._deletes.exhume(file.key)
                await self._put(file, content)

    async def retype(self, file: File, content_type: str) -> None:
        """Store the record's bytes again, with another content type. Raises FileError(ESTALE) if it is gone."""
        content = await self._versions.acquire(file)
        before = file.content_type, file.type_guessed
        try:
            async with file.remote:
                _require_name(file)
                file.content_type, file.type_guessed = content_type, False
                await self._put(file, content)
        except BaseException:
            file.content_type, file.type_guessed = before
            raise
        finally:
            self._versions.release(file, content)

    async def remove(self, file: File) -> None:
        """Delete the record, if there is one, and take the name away: of an open file after the grace."""
        file.uploading.cancel()
        async with file.remote:
            await self._keep_for_readers(file)
            if file.stored and file.handles and file.parent is not None:
                self._deletes.bury(file)
            elif file.stored:
                await self._store.delete_record(file.key)
            self._take_name(file)

    async def rename(self, file: File, folder: Folder, component: bytes, target: File | None) -> None:
        """Give a file another name, in the place of `target`.

        A record is PUT under its new key and then deleted under the old one: at no moment does neither name
        hold the bytes. When the DELETE fails both do, and the error is raised. A file that the store does not
        have only moves, as long as it is open: its last close uploads it. Under a temporary name it stays here,
        and its record is deleted after the grace. (Two locks at once are safe: the kernel lets
        no two renames of the same names cross, and nothing else holds two.)
        """
        content = await self._versions.acquire(file)
        if target is not None:
            target.uploading.cancel()
        try:
            async with file.remote, nullcontext() if target is None else target.remote:
                _require_name(file)
                await self._rename(file, folder, component, target)
        finally:
            self._versions.release(file, content)

    async def _put(self, file: File, content: Content) -> None:
        """Store the current bytes under the file's key. The lock is held."""
        try:
            sent = await self._send(file, content, file.key, file.component)
        except (StoreUnreachable, trio.Cancelled):
            file.stored = True  # for all we know: an unlink must delete it, or it would come back
            raise
        _confirm(file, sent)
        if file.parent is not None:
            self._filled(file.parent)
        self._attributes.note(file)

    async def _send(self, file: File, content: Content, key: RecordKey, component: bytes) -> _Sent:
        """Store the current bytes under a key. The lock is held, the content in use."""
        try:
            await content.complete_blob()
            content_type = await self._type_for_upload(file, content, component)
            version = content.version
            with content.frozen() as blob:
                size = blob.size
                async with self._compression.body(blob, content_type) as (body, encoding):
                    if encoding is None:  # else its headers will not tell its length
                        file.unanswered.add(size)
                    head = await self._store.set_record(
                        key, body, content_type=content_type, content_encoding=encoding
                    )
        except StoreError as error:
            file.failure = error
            raise
        return _Sent(content, version, size, body.length, head)

    async def _type_for_upload(self, file: File, content: Content, component: bytes) -> str:
        """Keep the record's type; guess one for a new record, and again while it was only guessed."""
        await self._learn_type(file)
        if file.content_type is None or file.type_guessed:
            sample = content.blob.pread(TYPE_SAMPLE_BYTES, 0)
            whole = content.size <= TYPE_SAMPLE_BYTES
            file.content_type = content_types.guess(component, sample, whole=whole)
            file.type_guessed = True
        return file.content_type

    async def _require_unchanged(self, file: File) -> None:
        """Raise RecordChanged when the record is neither what we started from nor, by its size, what we sent.

        Without validators there is nothing to tell it by. The lock is held.
        """
        head = await self._store.head_record(file.key)
        if head is None or head.validator is None or head.length in file.unanswered:
            return
        if file.head is None:  # never asked for: all that is known of what was there is its listed size
            unchanged = file.listed_size > 0 and head.length in (None, file.listed_size)
        else:
            unchanged = file.head.validator == head.validator
        if not unchanged:
            raise RecordChanged(
                f"{file.key} was written by somebody else since our upload failed: not replaced"
            )

    async def _learn_type(self, file: File) -> None:
        """Ask for the type of a record that is about to be replaced, unless it is known. The lock is held.

        That of an empty record which nobody could tell (`touch`) is no better than a guess.
        """
        if file.content_type is not None or not file.stored:
            return
        head = await self._store.head_record(file.key)
        if head is not None and file.content_type is None:
            file.head = file.head or head
            file.content_type = head.content_type
            file.type_guessed = not file.listed_size and head.content_type == content_types.UNKNOWN

    async def _rename(self, file: File, folder: Folder, component: bytes, target: File | None) -> None:
        key, name = self._rules.key(folder, component), names.display(component)
        ghost = await self._deletes.exhume(key)
        was_local = file.local_only
        try:
            await self._inherit_type(file, target or ghost)
            if target is not None:
                await self._keep_for_readers(target)
            local_only = self._rules.is_local_only(folder, name)
            if file.content is not None and was_local and not local_only:
                file.content.make_ours(key)
                file.content.closed_version = file.content.version
            stays = self._rules.is_temporary(name) or local_only
            sends = not stays and (file.stored or _is_closed(file))
            if sends:
                await self._send_under(file, key, folder, component)
            elif file.stored:
                await self._keep_here(file, key)
        except BaseException:
            self._deletes.put_back(ghost)
            if was_local and file.content is not None and file.parent is not None:
                file.content.make_local(file.parent.shown_path(names.display(file.component)))
            raise
        in_store = sends or ghost is not None or (target is not None and target.stored)
        self._move(file, folder, component, key, target)
        if sends:
            self._filled(folder)
        else:  # what the store has under this key is not what it had under the other
            file.head = None if target is None else target.head
            file.listed_size = 0 if target is None else target.listed_size
            file.unanswered.clear()
        file.stored, file.temporary = in_store, self._rules.is_temporary(name)
        file.changed_at = trio.current_time() if sends else math.inf
        self._attributes.note(file)

    def _move(
        self, file: File, folder: Folder, component: bytes, key: RecordKey, target: File | None
    ) -> None:
        """Give a file its new name here, in the place of `target`."""
        name = names.display(component)
        if target is not None:
            self._take_name(target)
        if self._rules.is_local_only(folder, name) and file.content is not None:
            file.content.make_local(folder.shown_path(name))
        if file.parent is not None:
            file.parent.note_removal(file.component, trio.current_time())
        seen = folder.files.get(component)
        if seen is not None:  # a listing found the new record before we were done
            self._inodes.detach(seen)
        self._attributes.forget(file)
        self._inodes.move(file, folder, component, key)

    async def _send_under(self, file: File, key: RecordKey, folder: Folder, component: bytes) -> None:
        """Store a file under another key, and delete the record that it had."""
        content = self._versions.hold(file)
        try:
            sent = await self._send(file, content, key, component)
            if file.stored:
                await self._delete_old(file, folder)
            _confirm(file, sent)
        finally:
            self._versions.release(file, content)

    async def _keep_here(self, file: File, key: RecordKey) -> None:
        """Take a record's bytes out of the store, for a temporary name: they are ours alone from now on."""
        content = self._versions.hold(file)
        try:
            await content.complete_blob()
            content.make_ours(key)
            await content.make_durable()
            self._deletes.bury(file, heir=file)
        finally:
            self._versions.release(file, content)

    async def _delete_old(self, file: File, folder: Folder) -> None:
        try:
            await self._store.delete_record(file.key)
        except StoreError:
            folder.listing = None  # the record is there under both keys: let the next listing show it
            raise

    async def _inherit_type(self, file: File, target: File | Ghost | None) -> None:
        """Let a file that replaces another have that one's type, unless its own is more than a guess."""
        if target is None or not (file.content_type is None or file.type_guessed):
            return
        if isinstance(target, File):
            await self._learn_type(target)
        if target.content_type is not None and not target.type_guessed:
            file.content_type, file.type_guessed = target.content_type, False

    async def _keep_for_readers(self, file: File) -> None:
        """Fetch the rest of a file that is open and about to lose its record, if that is not too much.

        What cannot be fetched fails its readers: it is no reason to keep the record.
        """
        content = file.content
        if content is not None and content.users and not content.complete and content.size <= AHEAD_BYTES:
            with suppress(StoreError):
                await content.complete_blob()

    def _take_name(self, file: File) -> None:
        if file.parent is not None:
            file.parent.note_removal(file.component, trio.current_time())
        file.stored = False
        self._attributes.forget(file)
        self._inodes.detach(file)
        self._versions.drop(file)


def _is_closed(file: File) -> bool:
    """Tell whether a file has bytes that the store lacks, and no writer that is to close it yet.

    Its handle may still be there: RELEASE comes some time after the close.
    """
    content = file.content
    return (
        file.dirty and content is not None and (not file.handles or content.closed_version == content.version)
    )


def _require_name(file: File) -> None:
    if file.removed:
        raise FileError(errno.ESTALE)


def _confirm(file: File, sent: _Sent) -> None:
    """Note that the store has a version, under the key that the file has or is about to get."""
    sent.content.confirm(sent.version)
    now = trio.current_time()
    file.stored, file.failure = True, None
    file.unanswered.clear()
    file.changed_at = file.validated_at = now
    file.listed_size, file.length = sent.stored_size, sent.size
    file.head = sent.head
    folder = file.parent
    while folder is not None and folder.changed_at == math.inf and not folder.local_only:
        folder.changed_at = now
        folder = folder.parent
