"""Deletions that wait a moment: the key may be written again at once, and then the store sees one PUT.

A record that is renamed to a temporary name (an editor's backup `f~`), or removed while it is open, is deleted
only after the grace. Until then the store holds the old version, and the new one replaces it: it is never without
either, whatever happens to this mount.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import trio

from kvsfs.core.background import Background
from kvsfs.core.inodes import File, Folder
from kvsfs.store.protocol import Store
from kvsfs.types import RecordKey

GRACE = 2.0
"""Seconds. Programs write the new file within milliseconds; on a loaded machine a second was seen."""


@dataclass(slots=True, eq=False)
class Ghost:
    """A record that is gone here and still in the store."""

    key: RecordKey
    folder: Folder
    component: bytes
    content_type: str | None
    type_guessed: bool
    heir: File | None
    """The file that has its bytes under another name now."""
    waiting: trio.CancelScope = field(default_factory=trio.CancelScope)
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

    INVARIANT: while a ghost is here its name is hidden (`removals` of its folder is infinite) and no file in
    the inode table has its key.
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
        ghost = Ghost(file.key, file.parent, file.component, file.content_type, file.type_guessed, heir)
        self._ghosts[file.key] = ghost
        file.stored = False
        file.parent.removals[file.component] = math.inf
        self._background.start(self._wait_and_delete, ghost)

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

    async def settle(self, prefix: str = "") -> None:
        """Delete at once what waits below a key prefix. Raises StoreError."""
        for ghost in [ghost for key, ghost in self._ghosts.items() if key.startswith(prefix)]:
            ghost.waiting.cancel()
            await self._delete(ghost)

    async def _wait_and_delete(self, ghost: Ghost) -> None:
        with ghost.waiting:
            await trio.sleep(GRACE)
            while ghost.is_needed:  # noqa: ASYNC110 - once in 2 s, and only while a store refuses an upload
                await trio.sleep(GRACE)
        if not ghost.waiting.cancelled_caught:
            await self._delete(ghost)

    async def _delete(self, ghost: Ghost) -> None:
        """Delete a ghost's record, unless it was exhumed or is needed. After an error it stays one, until `settle`."""
        async with ghost.request:
            if self._ghosts.get(ghost.key) is not ghost or ghost.is_needed:
                return
            await self._store.delete_record(ghost.key)
            if self._ghosts.get(ghost.key) is ghost:
                del self._ghosts[ghost.key]
                ghost.folder.removals[ghost.component] = trio.current_time()
