"""A record gets another key: there is no call for that, so its bytes are stored anew and the old record is deleted."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace

import trio

from kvsfs.cache.journal import NO_RECORD
from kvsfs.core import names
from kvsfs.core.content import Content, Sent
from kvsfs.core.deletes import DeferredDeletes, Ghost
from kvsfs.core.inodes import File, Folder, InodeTable
from kvsfs.core.name_rules import NameRules
from kvsfs.core.records import Records, require_name
from kvsfs.core.tuning import Tuning
from kvsfs.core.versions import Versions
from kvsfs.errors import StoreError, StoreUnreachable
from kvsfs.store.protocol import Store
from kvsfs.types import RecordKey

log = logging.getLogger(__name__)

REPLY_SECONDS = 5.0
"""After this long a rename is done here, and goes on by itself: while the kernel waits for it, `ls`, create and `rm`
wait in both folders (KERNEL.md)."""


class Renames:
    """Renames files. What holds the file's `remote` lock, and the target's, is said in `Records`.

    Two locks at once are safe: the kernel lets no two renames of the same names cross, and nothing else holds two.
    """

    def __init__(
        self,
        store: Store,
        inodes: InodeTable,
        versions: Versions,
        deletes: DeferredDeletes,
        records: Records,
        rules: NameRules,
        tuning: Tuning,
    ) -> None:
        self._store = store
        self._inodes = inodes
        self._versions = versions
        self._deletes = deletes
        self._records = records
        self._rules = rules
        self._tuning = tuning

    async def rename(self, file: File, folder: Folder, component: bytes, target: File | None) -> None:
        """Give a file another name, in the place of `target`.

        A record is PUT under its new key and then deleted under the old one: at no moment does neither name
        hold the bytes. When the DELETE fails both do, and the error is raised. What takes longer than
        `REPLY_SECONDS` is done here and journalled; the file's upload, which the caller queues, does the rest. A file
        that somebody writes just now only moves: its close uploads it. Under a temporary name a file stays here, and
        its record is deleted after the grace. Raises StoreError, OSError: the file is then as it was. Checkpoints.
        """
        for_good = self._rules.is_local_only(
            folder, names.display(component)
        )  # its bytes have to be here first
        with trio.move_on_after(math.inf if for_good else REPLY_SECONDS) as scope:
            await self._at_once(file, folder, component, target)
        if scope.cancelled_caught and not (file.parent is folder and file.component == component):
            await self._later(file, folder, component, target)

    def move_here(self, file: File, folder: Folder, component: bytes, target: File | Ghost | None) -> None:
        """Give a file its new name here; the store learns of it from the file's upload. Raises OSError.

        The locks are held; no deletion of the new key is waiting: `target` is what was exhumed. No checkpoint.
        """
        base = NO_RECORD if target is None else target.base
        if file.stored:
            if not file.dirty and file.origin is None:
                file.origin = file.key
            local_only = self._rules.is_local_only(folder, names.display(component))
            key = None if local_only else names.encode(folder.path + component, folder.longest_key)
            self._deletes.bury(file, heir=file, heir_key=key)
        self._take_place(file, folder, component, target if isinstance(target, File) else None)
        if file.origin == file.key:  # back again: what is known of its record stays true
            file.origin, file.stored, file.changed_at = None, True, trio.current_time()
        else:
            file.replaces(base)
            file.changed_at = math.inf
        self._deletes.inherited(file)
        self._records.describe(file)

    async def _at_once(self, file: File, folder: Folder, component: bytes, target: File | None) -> None:
        content = await self._versions.acquire(file)
        try:
            async with _locks(file, target):
                await self._rename(file, content, folder, component, target)
        finally:
            self._versions.release(file, content)

    async def _later(self, file: File, folder: Folder, component: bytes, target: File | None) -> None:
        file.stop_upload()
        async with _locks(file, target):
            key = self._rules.key(folder, component)
            ghost = await self._deletes.exhume(key, by=file)
            _inherit_type(file, target or ghost)
            self.move_here(file, folder, component, target or ghost)
            file.stored = True  # for all we know: a PUT may have been under way
            file.temporary = self._rules.is_temporary(names.display(component))
        log.info("%s is %s here; the store follows in the background", file.origin or "a file", file.key)

    async def _rename(
        self, file: File, content: Content, folder: Folder, component: bytes, target: File | None
    ) -> None:
        key, name = self._rules.key(folder, component), names.display(component)
        ghost = await self._deletes.exhume(key, by=file)
        was_local, sent = content.local_only, None
        try:
            await self._learn_type_to_inherit(file, target or ghost)
            if target is not None:
                await self._records.keep_for_readers(target)
            sent = await self._send_or_keep(file, content, folder, component, key, target or ghost)
            if sent is not None and file.in_store:
                await self._delete_old(file, folder)
        except BaseException as error:
            if sent is not None and isinstance(error, trio.Cancelled):
                self._move_sent(file, folder, component, target or ghost, sent)
                raise
            self._deletes.put_back(ghost)
            if was_local and file.parent is not None:
                content.make_local(file.parent.shown_path(names.display(file.component)))
            raise
        if sent is not None:
            self._records.confirm(file, sent)
            self._take_place(file, folder, component, target)
            file.changed_at = trio.current_time()
            self._records.filled(folder)
            self._records.attributes.note(file)
        else:
            self.move_here(file, folder, component, target or ghost)
        file.temporary = self._rules.is_temporary(name)

    async def _send_or_keep(
        self,
        file: File,
        content: Content,
        folder: Folder,
        component: bytes,
        key: RecordKey,
        replaced: File | Ghost | None,
    ) -> Sent | None:
        """Do what the store, or the disk, must have done before a file gets its new name; give what the store has."""
        name = names.display(component)
        local_only = self._rules.is_local_only(folder, name)
        if content.local_only and not local_only:
            content.make_ours(key)
            self._records.keep(file, content)
        if local_only or self._rules.is_temporary(name):
            if file.in_store and not file.dirty:
                await self._records.keep_here(file, content)
            return None
        if file.origin == key or not (file.in_store or content.closed) or self._waits(file, content):
            return None
        try:
            return await self._records.send(file, content, key, component)
        except (StoreUnreachable, trio.Cancelled):
            self._note_unanswered(tuple(file.unanswered), folder, key, replaced)
            raise

    def _move_sent(
        self, file: File, folder: Folder, component: bytes, target: File | Ghost | None, sent: Sent
    ) -> None:
        """Give a file its new name, of which the store has the record; the old one goes in the background."""
        self.move_here(file, folder, component, target)
        origin, file.origin = file.origin, None
        self._records.confirm(file, sent)
        self._deletes.let_go(origin)
        self._records.filled(folder)
        self._records.attributes.note(file)

    def _note_unanswered(
        self, sizes: tuple[int | None, ...], folder: Folder, key: RecordKey, replaced: File | Ghost | None
    ) -> None:
        """Note that our bytes may be under the new key, for all we know, though no file gets it."""
        if replaced is None:
            self._deletes.bury_stray(key, folder, sizes)
        elif isinstance(replaced, Ghost):
            replaced.base = replace(replaced.base, sent=(*replaced.base.sent, *sizes))
        else:
            replaced.unanswered |= frozenset(sizes)

    def _waits(self, file: File, content: Content) -> bool:
        """Tell whether a file's upload comes later: somebody writes it just now, or it waits for its write-back."""
        if not content.dirty:
            return False
        return (not content.closed and file.handles > 0) or self._tuning.write_back is not None

    async def _delete_old(self, file: File, folder: Folder) -> None:
        try:
            if file.stored:
                await self._store.delete_record(file.key)
            if file.origin is not None:
                origin, file.origin = file.origin, None
                await self._deletes.delete_now(origin)
        except StoreError:
            folder.listing = None  # the record is there under both keys: let the next listing show it
            raise

    async def _learn_type_to_inherit(self, file: File, target: File | Ghost | None) -> None:
        if isinstance(target, File) and _has_no_type_of_its_own(file):
            await self._records.learn_type(target)
        _inherit_type(file, target)

    def _take_place(self, file: File, folder: Folder, component: bytes, target: File | None) -> None:
        """Let the new name lead to a file, and the old one to none."""
        name, key = names.display(component), self._rules.key(folder, component)
        if target is not None:
            self._records.take_name(target)
        if self._rules.is_local_only(folder, name) and file.content is not None:
            file.content.make_local(folder.shown_path(name))
        if file.parent is not None:
            file.parent.note_removal(file.component, trio.current_time())
        seen = folder.files.get(component)
        if seen is not None:  # a listing found the new record before we were done
            self._inodes.detach(seen)
        self._records.attributes.forget(file)
        self._inodes.move(file, folder, component, key)


@asynccontextmanager
async def _locks(file: File, target: File | None) -> AsyncIterator[None]:
    """Hold the locks of a file and of what it replaces. Raises FileError(ESTALE) if no name leads to it any more."""
    if target is not None:
        target.stop_upload()
    async with file.remote, nullcontext() if target is None else target.remote:
        require_name(file)
        yield


def _has_no_type_of_its_own(file: File) -> bool:
    return file.content_type is None or file.type_guessed


def _inherit_type(file: File, target: File | Ghost | None) -> None:
    """Let a file that replaces another have that one's type, unless its own is more than a guess."""
    if target is None or not _has_no_type_of_its_own(file):
        return
    if target.content_type is not None and not target.type_guessed:
        file.content_type, file.type_guessed = target.content_type, False
