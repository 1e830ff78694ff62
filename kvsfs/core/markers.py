"""Empty folders: the marker record `dir!2F` keeps one in the store while nothing else does."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import trio

from kvsfs.core import content_types
from kvsfs.core.background import Background
from kvsfs.core.deletes import DeferredDeletes
from kvsfs.core.inodes import Folder
from kvsfs.core.listing import Lister
from kvsfs.errors import StoreError
from kvsfs.store.bodies import BytesBody
from kvsfs.store.protocol import Store
from kvsfs.types import RecordKey

log = logging.getLogger(__name__)

IN_PARALLEL = 8
"""Requests for markers at a time, as for uploads in the background: most connections stay for what is waited for."""


class Markers:
    """Puts a marker for each folder that stays empty, and deletes that of one that fills: late, in the background.

    A folder without marker and records is ours alone (`changed_at` infinite), so no listing takes it away. What
    happens to a folder only has its marker looked at after the grace: `cp -r` and `rm -r` pay for none.
    """

    def __init__(
        self,
        store: Store,
        lister: Lister,
        deletes: DeferredDeletes,
        background: Background,
        grace: float,
        is_fixed: Callable[[Folder], bool],
    ) -> None:
        """`is_fixed` tells which folders need no marker to be there."""
        self._store = store
        self._is_fixed = is_fixed
        self._lister = lister
        self._deletes = deletes
        self._background = background
        self._grace = grace
        self._waiting: dict[Folder, trio.CancelScope] = {}
        self._refused: set[Folder] = set()
        """Whose marker could not be put, or its answer was lost: tried again when the mount ends, if not before."""
        self._parallel = trio.CapacityLimiter(IN_PARALLEL)

    def emptied(self, folder: Folder) -> None:
        """Note that a folder was made, or lost its last record. No checkpoint."""
        if folder.parent is None or folder.marker or folder.local_only or self._is_fixed(folder):
            return
        folder.changed_at = math.inf
        self._check_later(folder)

    def filled(self, folder: Folder | None) -> None:
        """Note that the store has a new record, or the marker of a folder, in a folder. No checkpoint."""
        while folder is not None:
            if self._may_be_marked(folder):
                self._check_later(folder)
            folder = folder.parent

    async def remove(self, folder: Folder) -> None:
        """Delete a folder's marker, if the store has one. Raises StoreError."""
        self._stop_waiting(folder)
        async with folder.marker_request:
            if self._may_be_marked(folder):
                await self._delete(folder)

    def leave(self, folder: Folder) -> bool:
        """Forget the marker of a folder that is being renamed; tell whether the store may have one. No checkpoint."""
        marked = self._may_be_marked(folder)
        folder.marker = False
        self._refused.discard(folder)
        return marked

    async def settle(self) -> None:
        """Put and delete now what is waiting; from now on nothing waits any more. What fails is logged."""
        self._grace = 0
        waiting = {*self._waiting, *self._refused}
        async with trio.open_nursery() as nursery:
            for folder in waiting:
                self._stop_waiting(folder)
                nursery.start_soon(self._check, folder)

    def _check_later(self, folder: Folder) -> None:
        if folder not in self._waiting:
            scope = self._waiting[folder] = trio.CancelScope()
            self._background.start(self._wait_and_check, folder, scope)

    def _stop_waiting(self, folder: Folder) -> None:
        scope = self._waiting.pop(folder, None)
        if scope is not None:
            scope.cancel()

    async def _wait_and_check(self, folder: Folder, scope: trio.CancelScope) -> None:
        with scope:
            await trio.sleep(self._grace)
        if self._waiting.get(folder) is scope:  # not stopped in the moment in which the grace was over
            del self._waiting[folder]
            await self._check(folder)

    async def _check(self, folder: Folder) -> None:
        """Let a folder have a marker if it is empty, and none if something else keeps it in the store."""
        shown = folder.path.decode(errors="replace")
        try:
            async with self._parallel, folder.marker_request:
                if folder.parent is None:
                    return
                if not folder.marker and await self._lister.is_bare(folder):
                    await self._put(folder)
                elif self._may_be_marked(folder) and _is_kept(folder):
                    await self._delete(folder)
                    if folder.bare:  # since the request began
                        self.emptied(folder)
                if folder.changed_at == math.inf and folder not in self._waiting:
                    folder.changed_at = trio.current_time()
        except StoreError as error:
            if not folder.marker:
                self._refused.add(folder)
            if folder.bare and not folder.marker:
                log.warning("the empty folder /%s is not in the store: %s", shown, error)
            else:  # harmless: the next record in it has it looked at again
                log.info("the folder /%s has a marker beside its records: %s", shown, error)

    async def _put(self, folder: Folder) -> None:
        key = RecordKey(folder.prefix)
        await self._deletes.exhume(key)  # that of a folder which had this name
        await self._store.set_record(key, BytesBody(b""), content_type=content_types.MARKER)
        folder.marker, folder.marker_changed_at = True, trio.current_time()
        self._refused.discard(folder)
        self.filled(folder.parent if folder.bare else folder)

    async def _delete(self, folder: Folder) -> None:
        await self._store.delete_record(RecordKey(folder.prefix))
        folder.marker, folder.marker_changed_at = False, trio.current_time()
        self._refused.discard(folder)

    def _may_be_marked(self, folder: Folder) -> bool:
        """Tell whether the store has a marker, or the answer that it took one may have been lost.

        Somebody's own record under a marker's key (it is shown as `!2F`) is none.
        """
        marked = folder.marker or folder in self._refused
        return marked and b"" not in folder.files and not self._is_fixed(folder)


def _is_kept(folder: Folder) -> bool:
    """Tell whether the store has, for sure, something below a folder beside its own marker."""
    if any(file.stored and not file.dirty for file in folder.files.values()):
        return True
    return any(below.marker or _is_kept(below) for below in folder.folders.values())
