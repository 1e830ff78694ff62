"""What the store does not have yet, told to people: of a mount, and of what an earlier one has left."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import trio

from kvsfs.cache.journal import Journal, Removed, Upload
from kvsfs.core import names
from kvsfs.core.deletes import DeferredDeletes, Ghost
from kvsfs.core.handles import FileHandle
from kvsfs.core.inodes import File, InodeTable
from kvsfs.core.uploads import Uploads
from kvsfs.types import RecordKey

MOST_TOLD = 1000
"""Of each kind; counts go on. Nobody reads more, and each costs some 20 µs in which no request is answered."""


@dataclass(frozen=True, slots=True)
class PendingUpload:
    """A version of a file that was closed, and that the store has not confirmed."""

    path: str
    """From the mount's root, as file names; bytes that are no UTF-8 are surrogates (os.fsdecode)."""
    key: RecordKey
    size: int
    closed_at: float
    """Seconds since 1970."""
    attempts: int
    """Those that have failed."""
    error: str | None
    failed: bool
    """It is not tried again by itself."""
    uploading: bool
    next_attempt_in: float | None
    """Seconds; None when none is due."""


@dataclass(frozen=True, slots=True)
class PendingRemoval:
    """A record that was removed here and is still in the store."""

    path: str
    key: RecordKey
    error: str | None


@dataclass(frozen=True, slots=True)
class PendingRename:
    """A file that has another name here than in the store."""

    path: str
    key: RecordKey
    old_path: str
    size: int
    """Stored bytes."""
    error: str | None
    next_attempt_in: float | None


@dataclass(frozen=True, slots=True)
class FolderRename:
    """A rename of a folder under way. `done` of `total` records have their new keys."""

    old_path: str
    path: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Totals:
    """How much is left to do."""

    files: int = 0
    """To be uploaded, renamed ones too. Not those that have failed for good."""
    bytes: int = 0
    failed: int = 0
    """Uploads that are not tried again by themselves."""
    removals: int = 0

    @property
    def nothing(self) -> bool:
        """Whether the store has all of it."""
        return not (self.files or self.failed or self.removals)


@dataclass(frozen=True, slots=True)
class Report:
    """All that the store does not have."""

    totals: Totals
    uploads: tuple[PendingUpload, ...]
    """Those that have failed for good first, then oldest first; `MOST_TOLD` at most, like the others."""
    removals: tuple[PendingRemoval, ...]
    renames: tuple[PendingRename, ...]
    folder_renames: tuple[FolderRename, ...]
    open: int
    """Files that somebody writes just now."""


class Unstored:
    """Tells it of a mount. No method checkpoints; all raise OSError when the journal cannot be read."""

    def __init__(
        self,
        inodes: InodeTable,
        journal: Journal,
        uploads: Uploads,
        deletes: DeferredDeletes,
        handles: Iterable[FileHandle],
    ) -> None:
        self._inodes = inodes
        self._journal = journal
        self._uploads = uploads
        self._deletes = deletes
        self._handles = handles

    def totals(self) -> Totals:
        """Count."""
        waiting = self._uploads.waiting
        return Totals(
            files=len(waiting),
            bytes=sum(file.size for file in waiting),
            failed=self._journal.failed_for_good(),
            removals=len(self._deletes.left()),
        )

    def files(self) -> list[File]:
        """Give the files that wait for the store, and those that have failed for good."""
        failed = (self._inodes.find(row.closed.key) for row in self._journal.uploads() if row.final)
        known = dict.fromkeys([*self._uploads.waiting, *(file for file in failed if file is not None)])
        return [file for file in known if not file.removed]

    def report(self) -> Report:
        """Tell all."""
        ghosts = self._deletes.ghosts()
        moving = [ghost for ghost in ghosts if ghost.moving]
        removed = [ghost for ghost in ghosts if not ghost.is_needed]
        moves = {file.move: None for file in self._uploads.waiting if file.move is not None}
        return Report(
            totals=self.totals(),
            uploads=tuple(self._upload(row) for row in self._journal.uploads(MOST_TOLD)),
            removals=tuple(_removal(ghost) for ghost in removed[:MOST_TOLD]),
            renames=tuple(self._rename(ghost, ghost.heir) for ghost in moving[:MOST_TOLD] if ghost.heir),
            folder_renames=tuple(
                FolderRename(_shown(move.old), _shown(move.new), move.total - len(move.left), move.total)
                for move in moves
            ),
            open=len({handle.content for handle in self._handles if handle.dirty}),
        )

    def _upload(self, upload: Upload) -> PendingUpload:
        file = self._inodes.find(upload.closed.key)
        if file is None or file.content is None:
            return _left_upload(upload, 0)
        kept = file.content.kept
        return _left_upload(
            upload,
            size=file.size if kept is None else kept.blob.size,
            uploading=file.content.uploading,
            next_attempt_in=self._next_attempt_in(file),
        )

    def _rename(self, ghost: Ghost, heir: File) -> PendingRename:
        return PendingRename(
            shown_path(heir.key),
            heir.key,
            shown_path(ghost.key),
            heir.listed_size,
            None if heir.failure is None else str(heir.failure),
            self._next_attempt_in(heir),
        )

    def _next_attempt_in(self, file: File) -> float | None:
        due = self._uploads.next_attempt(file)
        return None if due is None else max(0.0, due - trio.current_time())


def left_by_earlier_mount(journal: Journal, size_of: Callable[[str], int]) -> Report:
    """Tell what the journal of a folder holds that no daemon uses. `size_of` a cache file's name. Raises OSError."""
    uploads = [_left_upload(upload, size_of(upload.closed.blob)) for upload in journal.uploads()]
    rows = journal.all_removed()
    renames = [_left_rename(row, row.heir) for row in rows if row.moving and row.heir is not None]
    removals = [PendingRemoval(shown_path(row.key), row.key, None) for row in rows if row.heir is None]
    pending = [upload for upload in uploads if not upload.failed]
    return Report(
        totals=Totals(
            files=len(pending) + len(renames),
            bytes=sum(upload.size for upload in pending) + sum(rename.size for rename in renames),
            failed=len(uploads) - len(pending),
            removals=len(removals),
        ),
        uploads=tuple(sorted(uploads, key=lambda upload: not upload.failed)[:MOST_TOLD]),
        removals=tuple(removals[:MOST_TOLD]),
        renames=tuple(renames[:MOST_TOLD]),
        folder_renames=(),
        open=0,
    )


def shown_path(key: RecordKey) -> str:
    """Give the path from a mount's root under which a record is shown; a record beside a folder has `!2F` there."""
    return _shown(names.decode(key))


def _shown(path: bytes) -> str:
    return os.fsdecode(b"/".join(map(names.display, path.removesuffix(b"/").split(b"/"))))


def _left_upload(
    upload: Upload, size: int, *, uploading: bool = False, next_attempt_in: float | None = None
) -> PendingUpload:
    return PendingUpload(
        path=shown_path(upload.closed.key),
        key=upload.closed.key,
        size=size,
        closed_at=upload.closed_at / 1e9,
        attempts=upload.attempts,
        error=upload.failure,
        failed=upload.final,
        uploading=uploading,
        next_attempt_in=next_attempt_in,
    )


def _left_rename(row: Removed, heir: RecordKey) -> PendingRename:
    return PendingRename(shown_path(heir), heir, shown_path(row.key), row.size, None, None)


def _removal(ghost: Ghost) -> PendingRemoval:
    failure = None if ghost.failure is None else str(ghost.failure)
    return PendingRemoval(shown_path(ghost.key), ghost.key, failure)
