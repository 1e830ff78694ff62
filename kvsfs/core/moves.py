"""Renames of folders: every record below one gets another key, in the background, as the journal says."""

from __future__ import annotations

import errno
import logging
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from kvsfs.cache.journal import NO_RECORD, Journal
from kvsfs.core import names
from kvsfs.core.content import Sent
from kvsfs.core.deletes import DeferredDeletes
from kvsfs.core.inodes import File, Folder, InodeTable
from kvsfs.core.listing import Lister
from kvsfs.core.markers import Markers
from kvsfs.core.name_rules import NameRules
from kvsfs.core.records import Records
from kvsfs.core.renames import REPLY_SECONDS
from kvsfs.core.uploads import Uploads
from kvsfs.core.versions import Versions
from kvsfs.errors import FileError, StoreUnreachable
from kvsfs.types import RecordKey

log = logging.getLogger(__name__)

LISTING_SECONDS = 4.0
"""For the names below a folder, which have to be known: some 200,000 at 50 ms a page. With more of them `mv` gets
EXDEV, and copies."""

PROGRESS_RECORDS = 100
"""Records between two lines in the log."""


@dataclass(slots=True, eq=False)
class Move:
    """A rename of a folder under way: the files that the store has under their old names still."""

    old: bytes
    new: bytes
    """Raw paths."""
    total: int
    left: set[File]
    done: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        if not self.left:
            self.done.set()

    def finished(self, file: File) -> None:
        """Note that a file is where it belongs, or gone."""
        self.left.discard(file)
        file.move = None
        moved = self.total - len(self.left)
        if not self.left:
            self.done.set()
        if not self.left or moved % PROGRESS_RECORDS == 0:
            log.info(
                "renaming %s to %s: %d of %d records", _shown(self.old), _shown(self.new), moved, self.total
            )


@dataclass(frozen=True, slots=True)
class SentFirst:
    """The record that a folder's rename has stored under its new key before anything else."""

    file: File
    key: RecordKey
    version: Sent


class Moves:
    """Renames folders: here at once, record by record in the store."""

    def __init__(  # noqa: PLR0913, PLR0917 - a folder's rename concerns all of them
        self,
        inodes: InodeTable,
        lister: Lister,
        versions: Versions,
        journal: Journal,
        deletes: DeferredDeletes,
        records: Records,
        uploads: Uploads,
        markers: Markers,
        rules: NameRules,
    ) -> None:
        self._rules = rules
        self._inodes = inodes
        self._lister = lister
        self._versions = versions
        self._journal = journal
        self._deletes = deletes
        self._records = records
        self._uploads = uploads
        self._markers = markers

    async def rename(self, folder: Folder, parent: Folder, component: bytes) -> None:
        """Give a folder another name, which no file and no folder has. Replies after a few seconds at most.

        EXDEV where that is not to be had: too many names, or between what a store is to have and what not. The first
        record is stored under its new key before anything changes: an error of the store (no permission, say) is
        raised then, and all is as it was. What fails later is tried again, and shown as the files' state.
        """
        if parent.local_only or any(below.local_only for below in _folders(folder)):
            raise FileError(errno.EXDEV)
        path = parent.path + component + b"/"
        self._rules.require_not_fixed(folder)
        self._rules.require_folder(path)
        with trio.move_on_after(LISTING_SECONDS) as listing:
            await self._lister.know_all(folder)
        if listing.cancelled_caught:
            log.info("%s has too many records to be renamed at once: mv copies", _shown(folder.path))
            raise FileError(errno.EXDEV)
        started, prefix = trio.current_time(), folder.prefix
        _check_names(folder, path, self._rules)
        sent = await self._send_first(folder, path)
        try:
            async with _all_locked(folder):
                _check_names(folder, path, self._rules)
                with self._journal.together():
                    move = self._rename_here(folder, parent, component, sent)
        except BaseException:
            if folder.prefix != prefix:  # it is renamed here, and only the journal does not know
                self._upload_all(_files(folder))
            elif sent is not None:
                self._deletes.bury_stray(sent.key, self._inodes.root)
            raise
        self._records.attributes.moved_below(prefix, folder.prefix)
        await trio.to_thread.run_sync(self._journal.make_durable)
        self._upload_all(move.left)
        with trio.move_on_at(started + REPLY_SECONDS):
            await move.done.wait()

    def _upload_all(self, files: Iterable[File]) -> None:
        for file in list(files):
            self._uploads.retry(file)

    async def _send_first(self, folder: Folder, path: bytes) -> SentFirst | None:
        """Store one record under its new key, if that is quickly done."""
        for file in _files(folder):
            if file.stored and not file.dirty:
                new = self._rules.key_of(path + _below(file, folder))
                sent = None
                with trio.move_on_after(REPLY_SECONDS):
                    sent = await self._send_under(file, new)
                return None if sent is None else SentFirst(file, new, sent)
        return None

    async def _send_under(self, file: File, key: RecordKey) -> Sent | None:
        content = await self._versions.acquire(file)
        try:
            async with file.remote:
                ghost = await self._deletes.exhume(key)
                try:
                    return await self._records.send(file, content, key, file.component)
                except BaseException:
                    self._deletes.put_back(ghost)
                    raise
        except (StoreUnreachable, trio.Cancelled):
            self._deletes.bury_stray(key, self._inodes.root)  # for all we know it is there
            raise
        finally:
            self._versions.release(file, content)

    def _rename_here(self, folder: Folder, parent: Folder, component: bytes, sent: SentFirst | None) -> Move:
        """Change all names below a folder; no checkpoint."""
        old, path, files = folder.path, parent.path + component + b"/", list(_files(folder))
        self._leave_all(folder, path, files)
        if folder.parent is not None:
            folder.parent.removals[folder.component + b"/"] = trio.current_time()
        self._inodes.move_folder(folder, parent, component)
        self._settle_in(folder)
        for file in files:
            self._arrive(file)
        if sent is not None:
            self._take_up(sent)
        left = {file for file in files if file.origin is not None}
        move = Move(old, path, len(left), left)
        for file in left:
            file.move = move
        return move

    def _leave_all(self, folder: Folder, path: bytes, files: list[File]) -> None:
        """Leave the old names, all of them or, where the journal cannot be written, none. Raises OSError."""
        before = [(file, file.origin, file.base) for file in files]
        marked = [below for below in _folders(folder) if self._markers.leave(below)]
        try:
            for below in marked:
                self._deletes.bury_marker(below)
            for file in files:
                self._leave(file, path + _below(file, folder))
        except OSError:
            for below in marked:
                self._deletes.revoke(RecordKey(below.prefix), None)
                below.marker = True
            for file, origin, base in before:
                self._deletes.revoke(file.key, file)
                file.origin = origin
                file.replaces(base)
            raise

    def _take_up(self, sent: SentFirst) -> None:
        """Count the record that was stored before, unless its file was removed or renamed since."""
        file, version = sent.file, sent.version
        if file.removed or file.key != sent.key:
            self._deletes.bury_stray(sent.key, self._inodes.root)
        elif file.dirty or version.content is not file.content:
            file.stored = True  # an older version
        else:
            origin, file.origin = file.origin, None
            self._records.confirm(file, version)
            self._deletes.let_go(origin)

    def _settle_in(self, folder: Folder) -> None:
        """Let the names below a folder be all that is known of it: nothing was there before."""
        for below in _folders(folder):
            self._lister.made_empty(below)
            if below.empty:
                self._markers.emptied(below)

    def _leave(self, file: File, path: bytes) -> None:
        """Let a file be known under its new key; the record under the old one is deleted when it is not needed."""
        if file.stored:
            if not file.dirty and file.origin is None:
                file.origin = file.key
            self._deletes.bury(file, heir=file, heir_key=names.encode_local(path))
        file.replaces(NO_RECORD)

    def _arrive(self, file: File) -> None:
        if file.local_only and file.content is not None and file.parent is not None:
            file.content.make_local(file.parent.shown_path(file.parent.name_of(file)))
        self._deletes.inherited(file)
        self._records.describe(file)


@asynccontextmanager
async def _all_locked(folder: Folder) -> AsyncIterator[None]:
    """Hold the locks of all files and markers below a folder: no request under an old name is under way then."""
    held: set[trio.Lock] = set()
    try:
        while new := _locks(folder) - held:
            for file in _files(folder):
                file.stop_upload()
            for lock in new:
                await lock.acquire()
                held.add(lock)
        yield
    finally:
        for lock in held:
            lock.release()


def _locks(folder: Folder) -> set[trio.Lock]:
    return {file.remote for file in _files(folder)} | {below.marker_request for below in _folders(folder)}


def _check_names(folder: Folder, path: bytes, rules: NameRules) -> None:
    """Raise FileError(ENAMETOOLONG) if a key would get too long."""
    for below in _folders(folder):
        rules.require_length(names.encode_local(path + below.path[len(folder.path) :]))
    for file in _files(folder):
        if not file.local_only:
            rules.key_of(path + _below(file, folder))


def _below(file: File, folder: Folder) -> bytes:
    """Give a file's raw path from a folder on."""
    assert file.parent is not None
    return file.parent.path[len(folder.path) :] + file.component


def _folders(folder: Folder) -> Iterator[Folder]:
    """Give a folder and all below it."""
    yield folder
    for below in folder.folders.values():
        yield from _folders(below)


def _files(folder: Folder) -> Iterator[File]:
    for below in _folders(folder):
        yield from below.files.values()


def _shown(path: bytes) -> str:
    return "/" + path.decode(errors="replace").rstrip("/")
