"""Records that are gone here and still in the store: ghosts.

A record that is renamed to a temporary name (an editor's backup `f~`), or removed while it is open, is deleted
only after the grace: the key may be written again at once, and then the store sees one PUT. Until then the store holds
the old version, and the new one replaces it: it is never without either. A record whose file got another name is
deleted when the store has the bytes there. The journal knows all ghosts, so no end of the mount brings one back.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

import trio

from kvsfs.cache.journal import NO_RECORD, Base, Journal, Removed
from kvsfs.core import names
from kvsfs.core.background import Background
from kvsfs.core.inodes import File, Folder
from kvsfs.errors import RecordNotFound, StoreError, StoreUnreachable
from kvsfs.store.protocol import Store
from kvsfs.types import RecordKey

log = logging.getLogger(__name__)

LONGEST_PAUSE = 60.0
"""Seconds between attempts while the store is out of reach."""


@dataclass(slots=True, eq=False)
class Ghost:
    """A record that is gone here and still in the store."""

    key: RecordKey
    folder: Folder
    """Where it was; that folder may have another name by now."""
    component: bytes
    content_type: str | None
    type_guessed: bool
    base: Base
    """The version that was there when it went, as far as it is known."""
    heir: File | None
    """The file that has its bytes under another name now."""
    waiting: trio.CancelScope = field(default_factory=trio.CancelScope)
    late: bool = False
    """Others have had time to write the record: its DELETE has failed once, or an earlier mount removed it."""
    request: trio.Lock = field(default_factory=trio.Lock)
    """Held around the DELETE."""
    failure: StoreError | None = None
    """Why the last DELETE failed."""
    settled: bool = False
    """The record is gone, or is to stay."""

    @property
    def moving(self) -> bool:
        """Whether the heir's bytes are nowhere but in this record."""
        return self.heir is not None and self.heir.origin == self.key

    @property
    def is_needed(self) -> bool:
        """Whether the store has the bytes nowhere else yet."""
        return self.heir is not None and not self.heir.removed and (self.heir.dirty or self.moving)

    @property
    def row(self) -> Removed:
        """What the journal knows of it."""
        return Removed(
            self.key,
            self.content_type,
            self.type_guessed,
            self.validator,
            None if self.heir is None else self.heir.key,
            self.moving,
            self.base.size,
        )

    @property
    def validator(self) -> str | None:
        """That of the version that was there; None if it may be another one of ours."""
        return None if self.base.sent else self.base.validator

    def pass_on(self, file: File) -> None:
        """Let a file that is to replace the record know that there is one, and inherit its type."""
        if file.content_type is None or file.type_guessed:
            file.content_type, file.type_guessed = self.content_type, self.type_guessed
        file.replaces(self.base)


class DeferredDeletes:
    """The ghosts of one mount.

    INVARIANT: no file with a name has a ghost's key, and no listing shows it (`hides`).
    """

    def __init__(self, store: Store, journal: Journal, background: Background, grace: float) -> None:
        self._store = store
        self._journal = journal
        self._background = background
        self._grace = grace
        self._ghosts: dict[RecordKey, Ghost] = {}
        self.secure: Callable[[File], Awaitable[None]]
        """Has the bytes of a moving file here, before its old record is overwritten."""

    def hides(self, key: str) -> bool:
        """Tell whether a key that the store lists is gone here."""
        return key in self._ghosts

    def bury(self, file: File, heir: File | None = None, heir_key: RecordKey | None = None) -> None:
        """Have a record deleted after the grace, and after `heir` has its bytes in the store. Raises OSError.

        The caller takes its name away, and gives the heir its own: `heir_key`, None if no store is to have it. No
        checkpoint.
        """
        assert file.parent is not None
        base = replace(file.base, stored=True)
        ghost = Ghost(file.key, file.parent, file.component, file.content_type, file.type_guessed, base, heir)
        self._journal.removed(replace(ghost.row, heir=heir_key))
        self._haunt(ghost)
        if heir is not None:
            heir.inherits.append(ghost.key)
        file.stored = False

    def bury_marker(self, folder: Folder) -> None:
        """Have an empty folder's marker deleted. No checkpoint."""
        self.bury_stray(RecordKey(folder.prefix), folder)

    def bury_stray(self, key: RecordKey, folder: Folder, sizes: tuple[int | None, ...] = ()) -> None:
        """Have a record deleted that may be there after an upload without an answer, under no file's key.

        `sizes`: what tells it from others' records, as in `Base.sent`.
        """
        base = replace(NO_RECORD, stored=True, sent=sizes)
        ghost = Ghost(key, folder, b"", content_type=None, type_guessed=False, base=base, heir=None)
        ghost.late = bool(sizes)
        self._journal.removed(ghost.row)
        self._haunt(ghost)

    def revoke(self, key: RecordKey, heir: File | None) -> None:
        """Take a burial back, if there was one: the journal could not note all that belongs to it. No checkpoint."""
        ghost = self._ghosts.get(key)
        if ghost is not None and ghost.heir is heir:
            del self._ghosts[key]
            ghost.waiting.cancel()
            if heir is not None:
                heir.inherits.remove(key)

    def restore(self, ghost: Ghost) -> None:
        """Take up what an earlier mount left. No checkpoint."""
        ghost.late = True
        self._ghosts[ghost.key] = ghost
        if ghost.heir is not None:
            ghost.heir.inherits.append(ghost.key)
        if not ghost.moving:
            self._wait(ghost)

    def put_back(self, ghost: Ghost | None) -> None:
        """Take up a deletion that was given up for a PUT which then failed. No checkpoint."""
        if ghost is not None:
            ghost.settled = False
            self._journal.removed(ghost.row)
            self._haunt(ghost)

    def inherited(self, file: File) -> None:
        """Note that an heir has another name now, or none that a store is to have. Raises OSError."""
        file.inherits = [key for key in file.inherits if self._is_heir(file, key)]
        for key in file.inherits:
            self._journal.inherited(key, None if file.local_only or file.removed else file.key)

    def heir_stored(self, file: File) -> None:
        """Note that the store has an heir's bytes under its own key: nobody needs the old record. No error."""
        for key in file.inherits:
            if self._is_heir(file, key):
                try:
                    self._journal.inherited(key, None)
                except OSError as error:
                    log.warning("%s", error)
        file.inherits.clear()

    def _is_heir(self, file: File, key: RecordKey) -> bool:
        ghost = self._ghosts.get(key)
        return ghost is not None and ghost.heir is file

    def secured(self, file: File) -> None:
        """Note that the bytes of a moving file are here: its old record is not the only one any more."""
        ghost, base = self._ghosts.get(file.origin) if file.origin is not None else None, file.base
        file.origin = None
        file.replaces(base)
        if ghost is not None:
            self._journal.removed(ghost.row)

    def heirs(self, prefix: str) -> list[File]:
        """Give the files whose upload deletions below a key prefix wait for."""
        below = (ghost for key, ghost in self._ghosts.items() if key.startswith(prefix) and not ghost.moving)
        return [ghost.heir for ghost in below if ghost.heir is not None and ghost.is_needed]

    async def rescue(self, key: RecordKey, by: File | None = None) -> None:
        """Fetch the bytes of a file other than `by` that are only in the record of this key: it is to be replaced.

        Waits for that file's lock. Checkpoints and raises StoreError, OSError only if there is such a file.
        """
        heir = self.reader(key)
        if heir is not None and heir is not by:
            try:
                await self.secure(heir)
            except RecordNotFound:
                log.warning("%s is gone from the store, and so is what it was renamed to", key)
                self.origin_gone(heir)

    def reader(self, key: RecordKey) -> File | None:
        """Give the file whose bytes are only in the record of this key, though it has another name."""
        ghost = self._ghosts.get(key)
        return ghost.heir if ghost is not None and ghost.moving else None

    def origin_gone(self, file: File) -> None:
        """Note that the record which a moved file's bytes were to come from is gone: a new one is somebody else's."""
        origin, file.origin = file.origin, None
        file.changed_at = -math.inf
        if origin is not None and self._ghosts.pop(origin, None) is not None:
            self._settled(origin)

    async def exhume(self, key: RecordKey, by: File | None = None) -> Ghost | None:
        """Give up a deletion because the key is about to be written, or is `by`'s again; None if none was waiting.

        Waits for a DELETE under way, so that it cannot come after the PUT; the record is then gone, which the
        PUT does not mind. Of a failed DELETE the caller hears nothing: same reason. Begins with `rescue`, and raises
        only what that does. Else it checkpoints only while a DELETE is under way.
        """
        await self.rescue(key, by)
        ghost = self._ghosts.pop(key, None)
        if ghost is None:
            return None
        ghost.waiting.cancel()
        ghost.settled = True
        self._note_removal(ghost)
        if ghost.request.locked():
            async with ghost.request:
                pass
        self._settled(key)
        return ghost

    def stop_waiting(self) -> None:
        """End all graces: `settle` follows, when what replaces the records is safe. No checkpoint."""
        for ghost in self._ghosts.values():
            ghost.waiting.cancel()

    def ghosts(self) -> list[Ghost]:
        """Give all records that are gone here and still in the store."""
        return list(self._ghosts.values())

    def ghost(self, key: RecordKey) -> Ghost | None:
        """Find a record that is gone here and still in the store."""
        return self._ghosts.get(key)

    def left(self) -> list[RecordKey]:
        """Give the records that are still in the store, but for those that moving files are in."""
        return [key for key, ghost in self._ghosts.items() if not ghost.moving]

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
                ghost.late = True
                self._wait(ghost)
        return [key for key in self.left() if key.startswith(prefix)]

    def let_go(self, key: RecordKey | None) -> None:
        """Have a record that its heir was read from deleted after the grace: nobody needs it now. No checkpoint."""
        ghost = self._ghosts.get(key) if key is not None else None
        if ghost is not None and not ghost.moving:
            self._wait(ghost)

    async def delete_now(self, key: RecordKey) -> None:
        """Delete a record that nobody needs any more. Raises StoreError: it is then tried again later."""
        ghost = self._ghosts.get(key)
        if ghost is None:
            return
        try:
            await self._delete(ghost)
        except (StoreError, trio.Cancelled):
            ghost.late = True
            self._wait(ghost)
            raise

    async def hurry(self, ghost: Ghost) -> None:
        """Delete a record now that waits. Raises StoreError: it is then tried again later."""
        ghost.waiting.cancel()
        await self.delete_now(ghost.key)

    def _haunt(self, ghost: Ghost) -> None:
        self._ghosts[ghost.key] = ghost
        if not ghost.moving:  # else it goes when its heir is in the store
            self._wait(ghost)

    def _wait(self, ghost: Ghost) -> None:
        ghost.waiting = trio.CancelScope()
        self._background.start(self._wait_and_delete, ghost, ghost.waiting)

    async def _wait_and_delete(self, ghost: Ghost, waiting: trio.CancelScope) -> None:
        pause = self._grace
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
            try:
                if not (ghost.late and await self._is_replaced(ghost)):
                    await self._store.delete_record(ghost.key)
            except StoreError as error:
                ghost.failure = error
                raise
            if self._ghosts.get(ghost.key) is ghost:
                del self._ghosts[ghost.key]
                ghost.settled = True
                ghost.waiting.cancel()
                self._note_removal(ghost)
                self._settled(ghost.key)

    def _note_removal(self, ghost: Ghost) -> None:
        """Let no page that was asked for before bring the name back."""
        path = ghost.folder.path + ghost.component
        if path and names.encode_local(path) == ghost.key:
            ghost.folder.note_removal(ghost.component, trio.current_time())

    def _settled(self, key: RecordKey) -> None:
        try:
            self._journal.settled(key)
        except OSError as error:  # the next mount deletes it once more, unless somebody has written it since
            log.warning("%s", error)

    async def _is_replaced(self, ghost: Ghost) -> bool:
        """Tell whether somebody has written the record since it was removed here, as far as headers tell."""
        head, base = await self._store.head_record(ghost.key), ghost.base
        if head is None or head.length in base.sent:
            return False
        if None not in (head.validator, base.validator):
            return head.validator != base.validator
        return bool(base.sent) and head.length not in (None, base.size)
