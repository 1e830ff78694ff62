"""Empty folders: the marker record `dir!2F` keeps one in the store while nothing else does."""

from __future__ import annotations

import logging
import math

import trio

from kvsfs.core import content_types, names
from kvsfs.core.background import Background
from kvsfs.core.inodes import Folder
from kvsfs.core.listing import Lister
from kvsfs.core.tuning import GRACE
from kvsfs.errors import StoreError
from kvsfs.store.bodies import BytesBody
from kvsfs.store.protocol import Store

log = logging.getLogger(__name__)


class Markers:
    """Puts a marker for each folder that stays empty, late and in the background.

    A folder without marker and children is ours alone (`changed_at` infinite), so no listing takes it away.
    """

    def __init__(self, store: Store, lister: Lister, background: Background) -> None:
        self._store = store
        self._lister = lister
        self._background = background
        self._waiting: dict[Folder, trio.CancelScope] = {}
        self._refused: set[Folder] = set()
        """Whose marker could not be put: tried again when the mount ends, if not before."""
        self._requests = trio.Lock()
        """Held around each request, so that no marker arrives after its folder was removed."""

    def emptied(self, folder: Folder) -> None:
        """Note that a folder was made, or lost its last child. No checkpoint."""
        if folder.parent is None or folder.marker or folder.local_only or folder in self._waiting:
            return
        folder.changed_at = math.inf
        scope = self._waiting[folder] = trio.CancelScope()
        self._background.start(self._wait_and_put, folder, scope)

    async def remove(self, folder: Folder) -> None:
        """Delete a folder's marker, if the store has one. Raises StoreError."""
        self._stop_waiting(folder)
        async with self._requests:
            if folder.marker or folder in self._refused:  # the answer may have been lost
                await self._store.delete_record(names.encode(folder.path))
                folder.marker = False
                self._refused.discard(folder)

    async def settle(self) -> int:
        """Put all that is waiting now; how many folders could not be put."""
        waiting = {*self._waiting, *self._refused}
        for folder in waiting:
            self._stop_waiting(folder)
        return sum([not await self._put(folder) for folder in waiting])

    def _stop_waiting(self, folder: Folder) -> None:
        scope = self._waiting.pop(folder, None)
        if scope is not None:
            scope.cancel()

    async def _wait_and_put(self, folder: Folder, scope: trio.CancelScope) -> None:
        with scope:
            await trio.sleep(GRACE)
        if not scope.cancelled_caught:
            self._waiting.pop(folder, None)
            await self._put(folder)

    async def _put(self, folder: Folder) -> bool:
        try:
            async with self._requests:
                await self._put_if_empty(folder)
        except StoreError as error:
            log.warning(
                "the empty folder /%s is not in the store: %s", folder.path.decode(errors="replace"), error
            )
            self._refused.add(folder)
            return False
        self._refused.discard(folder)
        folder.changed_at = trio.current_time()
        return True

    async def _put_if_empty(self, folder: Folder) -> None:
        if folder.parent is None or folder.marker or not await self._lister.is_bare(folder):
            return
        key = names.encode(folder.path)
        await self._store.set_record(key, BytesBody(b""), content_type=content_types.MARKER)
        folder.marker = True
