"""Noticing what other clients change, before anybody asks: `--poll`."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from itertools import islice
from typing import TypeVar

import trio

from kvsfs.core.inodes import File, Folder, InodeTable
from kvsfs.core.listing import COST_FACTOR, Lister
from kvsfs.core.versions import Versions
from kvsfs.errors import StoreError
from kvsfs.store.counting import Changes, CountingStore
from kvsfs.types import StoreInfo

log = logging.getLogger(__name__)

T = TypeVar("T", File, Folder)

FOLDERS_AT_A_TIME = 4
FILES_AT_A_TIME = 16
"""Requests side by side: of the client's 64 connections most stay for what somebody waits for."""

FOLDERS_A_ROUND = 100
FILES_A_ROUND = 500
"""What one round asks for; the rest is due in the next one. The API allows 60 requests a second and more: at an
interval of 10 s there is room for them, and for everything else that the mount does."""


class Poller:
    """Compares the store's counters with those last seen, and asks for details when others have moved them.

    The counters are a hint: how far they lag is not documented. What changed is told by a folder's listing (names
    and sizes) and by a record's headers (the version of what is cached here). What the counters miss is found as
    without polling: by an open, or by a listing that has grown old.

    INVARIANT: `_folders` and `_files` hold what may have changed in the store since it was last asked for.
    """

    def __init__(
        self, store: CountingStore, info: StoreInfo, inodes: InodeTable, lister: Lister, versions: Versions
    ) -> None:
        self._store = store
        self._inodes = inodes
        self._lister = lister
        self._versions = versions
        self._seen = _counters(info)
        self._own = store.changes
        self._folders: dict[Folder, None] = {}
        self._files: dict[File, None] = {}
        self._failure: StoreError | None = None
        """What ended the questions of this round: the store does not answer, so they stay due."""

    async def run(self, interval: float) -> None:
        """Look every `interval` seconds, until cancelled."""
        while True:
            await trio.sleep(interval)
            await self.look()

    async def look(self) -> None:
        """Do one round. What fails is logged, and due again in the next one."""
        self._failure = None
        try:
            if await self._others_wrote():
                self._distrust()
        except StoreError as error:
            self._failure = error
        now = trio.current_time()
        folders = [folder for folder in self._folders if _may_list(folder, now)]
        await self._each(islice(folders, FOLDERS_A_ROUND), self._list, self._folders, FOLDERS_AT_A_TIME)
        files = [file for file in self._files if not file.handles]
        await self._each(islice(files, FILES_A_ROUND), self._ask, self._files, FILES_AT_A_TIME)
        if self._failure is not None:
            log.info("what others changed is looked for again in the next round: %s", self._failure)

    async def _others_wrote(self) -> bool:
        """Tell whether the store has moved by anything but what it has confirmed to this mount.

        Both too few and too many of our own make a difference: some of ours were not counted yet, or not
        confirmed yet, and may stand for somebody else's. That costs a listing too many at most.
        """
        own = (
            self._store.changes
        )  # before the question: what is confirmed meanwhile belongs to the next round
        info = await self._store.get()
        if info is None:
            return False
        modified_at, changes = _counters(info)
        before, changes_before = self._seen
        moved, ours = changes.since(changes_before), own.since(self._own)
        self._seen, self._own = (modified_at, changes), own
        return moved != ours or (modified_at != before and ours == Changes())

    def _distrust(self) -> None:
        """Take up all that may have changed. No checkpoint."""
        for folder in self._inodes.folders():
            if folder.listing is not None and folder.listing.complete:
                self._folders[folder] = None
            else:
                folder.listing = None  # whoever reads it reads on; the next one begins anew
        for file in self._inodes.files():
            if _is_clean(file) and (file.content is not None or _is_known_by_name(file)):
                file.validated_at = -math.inf
                self._files[file] = None

    async def _each(
        self, items: Iterable[T], ask: Callable[[T], Awaitable[None]], due: dict[T, None], at_a_time: int
    ) -> None:
        """Ask for each, some side by side; what was answered is not due any more."""
        parallel = trio.CapacityLimiter(at_a_time)

        async def one(item: T) -> None:
            async with parallel:
                if self._failure is not None:
                    return
                due.pop(item)  # before the question: it may become due again meanwhile
                try:
                    await ask(item)
                except StoreError as error:
                    self._failure = error
                    due[item] = None

        async with trio.open_nursery() as nursery:
            for item in items:
                nursery.start_soon(one, item)

    async def _list(self, folder: Folder) -> None:
        if folder.number == self._inodes.root.number or not folder.removed:
            await self._lister.refresh(folder)

    async def _ask(self, file: File) -> None:
        """Ask which version of a record the store has."""
        async with file.remote:
            if not _is_clean(file):
                return
            asked_at = trio.current_time()
            head = await self._store.head_record(file.key)
            if not _is_clean(file):  # written meanwhile: newer than any answer
                return
            if head is None:
                self._versions.vanished(file)
            elif head.validator is None or file.head is None or head.validator != file.head.validator:
                self._versions.outdated(file, head)
            else:
                file.validated_at = asked_at


def _counters(info: StoreInfo) -> tuple[datetime, Changes]:
    return info.modified_at, Changes(info.stats.write_count, info.stats.delete_count)


def _may_list(folder: Folder, now: float) -> bool:
    """Tell whether listing again takes at most a small part of the time, however large the folder."""
    listing = folder.listing
    return listing is None or now - listing.started >= COST_FACTOR * listing.took


def _is_clean(file: File) -> bool:
    """Tell whether the store has all that is here, under the file's own key."""
    return file.stored and file.origin is None and not file.dirty and not file.removed


def _is_known_by_name(file: File) -> bool:
    """Tell whether the kernel knows a file that no listing of its folder would miss."""
    listing = None if file.parent is None else file.parent.listing
    return file.lookup_count > 0 and (listing is None or not listing.complete)
