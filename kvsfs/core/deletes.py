"""Deletions that wait a moment: the key may be written again at once, and then the store sees one PUT.

A record that is renamed to a temporary name (an editor's backup `f~`), or removed while it is open, is deleted
only after the grace. Until then the store holds the old version, and the new one replaces it: it is never without
either, whatever happens to this mount.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field

import trio

from kvsfs.core.background import Background
from kvsfs.core.inodes import File, Folder
from kvsfs.errors import StoreError, StoreUnreachable
from kvsfs.store.protocol import Store
from kvsfs.types import RecordKey

log = logging.getLogger(__name__)

GRACE = 2.0
"""Seconds. Programs write the new file within milliseconds; on a loaded machine a second was seen."""

LONGEST_PAUSE = 60.0
"""Seconds between attempts while the store is out of reach."""


@dataclass(slots=True, eq=False)
class Ghost:
    """A record that is gone here and still in the store."""

    key: RecordKey
    folder: Folder
    component: bytes
    content_type: str | None
    type_guessed: bool
    validator: str | None
    heir: File | None
    """The file that has its bytes under another name now."""
    waiting: trio.CancelScope = field(default_factory=trio.CancelScope)
    late: bool = False
    """Its DELETE has failed once: others had time to write the record."""
    request: trio.Lock = field(default_factory=trio.Lock)
    """Held around the DELETE."""

    @property
    def is_needed(self) -> bool:
        """Whether the store has the bytes nowhere else yet."""
        return self.heir is not None and self.heir.dirty and not self.heir.removed

    def pass_on(self, file: File) -> None:
        """Let a file that is to replace the record know that there is one, and inherit its type."""
        file.stored = True
        if file.content_type is None or file.type_guessed:
            file.content_type, file.type_guessed = self.content_type, self.type_guessed


class DeferredDeletes:
    """The ghosts of one mount.

    INVARIANT: while a ghost is here its name is hidden (`removals` of its folder is infinite): no file with a
    name has its key.
    """

    def __init__(self, store: Store, background: Background) -> None:
        self._store = store
        self._background = background
        self._ghosts: dict[RecordKey, Ghost] = {}

    def bury(self, file: File, heir: File | None = None) -> None:
        """Have a record deleted after the grace, and after `heir` was uploaded.

        The caller takes its name away. No checkpoint.
        """
        assert file.parent is not None
        validator = None if file.head is None else file.head.validator
        file.stored = False
        self.put_back(
            Ghost(
                file.key, file.parent, file.component, file.content_type, file.type_guessed, validator, heir
            )
        )

    def put_back(self, ghost: Ghost | None) -> None:
        """Take up a deletion that was given up for a PUT which then failed. No checkpoint."""
        if ghost is None:
            return
        self._ghosts[ghost.key] = ghost
        ghost.folder.removals[ghost.component] = math.inf
        ghost.waiting = trio.CancelScope()
        self._background.start(self._wait_and_delete, ghost, ghost.waiting)

    def heirs(self, prefix: str) -> list[File]:
        """Give the files whose upload deletions below a key prefix wait for."""
        below = (ghost for key, ghost in self._ghosts.items() if key.startswith(prefix))
        return [ghost.heir for ghost in below if ghost.heir is not None and ghost.is_needed]

    async def exhume(self, key: RecordKey) -> Ghost | None:
        """Give up a deletion because the key is about to be written; None if none was waiting.

        Waits for a DELETE under way, so that it cannot come after the PUT; the record is then gone, which the
        PUT does not mind. Checkpoints only then. Of a failed DELETE the caller hears nothing: same reason.
        """
        ghost = self._ghosts.pop(key, None)
        if ghost is None:
            return None
        ghost.waiting.cancel()
        ghost.folder.removals[ghost.component] = trio.current_time()
        if ghost.request.locked():
            async with ghost.request:
                pass
        return ghost

    def stop_waiting(self) -> None:
        """End all graces: `settle` follows, when what replaces the records is safe. No checkpoint."""
        for ghost in self._ghosts.values():
            ghost.waiting.cancel()

    async def settle(self, prefix: str = "") -> list[RecordKey]:
        """Delete at once what waits below a key prefix; the keys of what is still there. Errors are logged."""
        for ghost in [ghost for key, ghost in self._ghosts.items() if key.startswith(prefix)]:
            if ghost.is_needed:
                continue
            ghost.waiting.cancel()
            try:
                await self._delete(ghost)
            except StoreError as error:
                log.error("%s was removed, and is still in the store: %s", ghost.key, error)  # noqa: TRY400
        return [key for key in self._ghosts if key.startswith(prefix)]

    async def _wait_and_delete(self, ghost: Ghost, waiting: trio.CancelScope) -> None:
        pause = GRACE
        while True:
            with waiting:
                await trio.sleep(pause)
            if waiting.cancelled_caught:
                return
            try:
                await self._delete(ghost)
            except StoreUnreachable as error:
                log.warning("%s was removed, and is still in the store: %s", ghost.key, error)
                pause = min(2 * pause, LONGEST_PAUSE)
                ghost.late = True
            if self._ghosts.get(ghost.key) is not ghost:
                return
            waiting = ghost.waiting = trio.CancelScope()

    async def _delete(self, ghost: Ghost) -> None:
        """Delete a ghost's record, unless it was exhumed, is needed, or is somebody else's by now."""
        async with ghost.request:
            if self._ghosts.get(ghost.key) is not ghost or ghost.is_needed:
                return
            if not (ghost.late and await self._is_replaced(ghost)):
                await self._store.delete_record(ghost.key)
            if self._ghosts.get(ghost.key) is ghost:
                del self._ghosts[ghost.key]
                ghost.folder.removals[ghost.component] = trio.current_time()

    async def _is_replaced(self, ghost: Ghost) -> bool:
        """Tell whether somebody has written the record since it was removed here, as far as validators tell."""
        head = await self._store.head_record(ghost.key)
        return (
            head is not None
            and None not in (head.validator, ghost.validator)
            and head.validator != ghost.validator
        )
