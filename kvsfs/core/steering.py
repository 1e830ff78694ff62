"""What a person decides about bytes that the store does not have: try again, let go, take a copy; and look anew."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import trio

from kvsfs.core.deletes import DeferredDeletes, Ghost
from kvsfs.core.inodes import File, Folder, InodeTable
from kvsfs.core.listing import Lister
from kvsfs.core.unstored import Unstored, shown_path
from kvsfs.core.uploads import Uploads
from kvsfs.core.versions import Versions
from kvsfs.core.warming import Warmth
from kvsfs.errors import FileError, StoreError
from kvsfs.store.protocol import Store
from kvsfs.types import RecordHead, RecordKey

WarmInode = Callable[[File | Folder, Callable[[Warmth], None]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Pending:
    """One thing that the store has not done. `item` is the file, or the record that was removed here."""

    path: str
    item: File | Ghost

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return self.item.size if isinstance(self.item, File) else 0

    @property
    def failure(self) -> str | None:
        """Why the last attempt failed."""
        return None if self.item.failure is None else str(self.item.failure)

    @property
    def done(self) -> bool:
        """Whether the store has done it meanwhile, or nobody wants it any more."""
        if isinstance(self.item, File):
            return self.item.removed or not (self.item.dirty or self.item.origin is not None)
        return self.item.settled

    @property
    def if_discarded(self) -> str:
        """What `discard` does, for the person who is asked."""
        if isinstance(self.item, Ghost):
            return "it was removed here, and will be shown again"
        if self.item.origin is not None:
            return f"it will be {shown_path(self.item.origin)} again, as in the store"
        if self.item.inherits:
            return (
                f"its bytes go, and {shown_path(self.item.inherits[0])} is shown again, as the store has it"
            )
        if self.item.stored:
            return "its bytes go, and the store's version is shown again, if there is one"
        return "its bytes go, and the file with them"


class Steering:
    """Works on what is pending at or below a path; "" is the mount's root. Raises StoreError, OSError, FileError."""

    def __init__(  # noqa: PLR0913, PLR0917 - each kind of unstored thing is somebody else's
        self,
        store: Store,
        inodes: InodeTable,
        lister: Lister,
        versions: Versions,
        uploads: Uploads,
        deletes: DeferredDeletes,
        unstored: Unstored,
        check_emptied: Callable[[Folder], None],
        child: Callable[[Folder, bytes], File | Folder | None],
    ) -> None:
        self._child = child
        self._store = store
        self._inodes = inodes
        self._lister = lister
        self._versions = versions
        self._uploads = uploads
        self._deletes = deletes
        self._unstored = unstored
        self._check_emptied = check_emptied
        self.warm_inode: WarmInode
        """Has a file, or what is below a folder, in the cache."""
        self.before_refresh: Callable[[], None] = lambda: None
        """Ends what was asked for and not answered yet: its answers would count as new."""

    def pending(self, path: str) -> list[Pending]:
        """Give what is pending at or below a path. No checkpoint."""
        named = self._find(path)
        path = _path_of(named) if isinstance(named, File) else path
        found = [Pending(_path_of(file), file) for file in self._unstored.files()]
        found += [
            Pending(shown_path(ghost.key), ghost) for ghost in self._deletes.ghosts() if not ghost.is_needed
        ]
        return [pending for pending in found if _is_at_or_below(pending.path, path)]

    async def try_now(self, chosen: list[Pending], *, failed_too: bool) -> None:
        """Have each tried now, and wait until it is done or has failed. Those that failed for good only if asked to."""
        files = [pending.item for pending in chosen if isinstance(pending.item, File)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._uploads.try_now, files if failed_too else self._hopeful(files))
            for pending in chosen:
                if isinstance(pending.item, Ghost):
                    nursery.start_soon(self._delete, pending.item)

    async def discard(self, pending: Pending) -> None:
        """Let go of what the store has not taken: what it has is shown again. EBUSY for a file that is open."""
        if isinstance(pending.item, Ghost):
            await self._show_again(pending.item.key, None)
        else:
            await self._discard(pending.item)
        self._forget(self._inodes.root)

    def bytes_of(self, path: str) -> tuple[int, int]:
        """Give a descriptor to read a file's unstored bytes from, and their number. The caller closes it.

        ENODATA where the store has them, or they are not here.
        """
        file = self._find(path)
        content = file.content if isinstance(file, File) else None
        if content is None or not content.dirty:
            raise FileError(errno.ENODATA, f"{path}: the store has its bytes, or they are not here: use cp")
        if content.kept is None and not content.complete:
            raise FileError(errno.EBUSY, f"{path} is being written, and not all of it is here yet")
        blob = content.blob if content.kept is None else content.kept.blob
        return os.open(blob.path, os.O_RDONLY | os.O_CLOEXEC), blob.size

    async def refresh(self, path: str) -> None:
        """Trust nothing that is known at and below a path; a folder itself is listed at once."""
        inode = self._find(path)
        if inode is None:
            raise FileError(errno.ENOENT, f"{path} is not known to the mount: nothing to refresh")
        self.before_refresh()
        self._forget(inode)
        if isinstance(inode, Folder) and not inode.unknown_to_store:
            await self._lister.refresh(inode)

    async def warm(self, path: str, tell: Callable[[Warmth], None]) -> None:
        """Have what is at and below a path in the cache; `tell` hears of each file. ENOENT, and as `warming.warm`."""
        inode: File | Folder | None = self._inodes.root
        for name in os.fsencode(path).split(b"/"):
            if name:
                inode = await self._lister.find(inode, name) if isinstance(inode, Folder) else None
        if inode is None:
            raise FileError(errno.ENOENT, f"{path}: there is no such file in the mount")
        await self.warm_inode(inode, tell)

    def _hopeful(self, files: list[File]) -> list[File]:
        return [file for file in files if not self._uploads.has_given_up(file)]

    async def _delete(self, ghost: Ghost) -> None:
        with suppress(StoreError):  # the ghost tells why
            await self._deletes.hurry(ghost)

    async def _discard(self, file: File) -> None:
        _require_closed(file)
        self._uploads.cancel(file)
        async with file.remote:
            if file.removed:
                return
            for key in [*file.inherits, *([] if file.origin is None else [file.origin])]:
                await self._show_again(key, file)
            head = await self._head(file)
            try:
                _require_closed(file)  # it may have been opened while we asked
            except FileError:
                self._uploads.retry(file)
                raise
            self._let_go(file)
            if head is None:
                self._take_away(file)
            else:
                self._show(file, head)

    async def _show_again(self, key: RecordKey, by: File | None) -> None:
        """Give a removal up: the record is in the store, and the next listing shows it."""
        ghost = await self._deletes.exhume(key, by=by)
        if ghost is not None:
            ghost.folder.removals.pop(ghost.component, None)

    async def _head(self, file: File) -> RecordHead | None:
        """Ask what the store has under the name. Out of reach, it may be anything: the next open finds out."""
        if not file.stored:
            return None
        try:
            return await self._store.head_record(file.key)
        except StoreError:
            return RecordHead(file.content_type or "application/octet-stream")

    def _let_go(self, file: File) -> None:
        """Forget the bytes, the rename and the failures of a file."""
        if file.move is not None:
            file.move.finished(file)
        file.origin, file.failure, file.late, file.temporary = None, None, False, False
        file.inherits.clear()
        file.unanswered = frozenset()
        if file.content is not None:
            file.content.confirm(file.content.version)  # else they were set aside
            self._versions.drop(file)
            file.content = None
        self._versions.attributes.forget(file)

    def _take_away(self, file: File) -> None:
        folder = file.parent
        self._versions.vanished(file)
        if folder is not None:
            self._check_emptied(folder)

    def _show(self, file: File, head: RecordHead) -> None:
        file.listed_size = file.listed_size if head.length is None else head.length
        file.changed_at = trio.current_time()
        self._versions.outdated(file, head)

    def _forget(self, inode: File | Folder) -> None:
        if isinstance(inode, File):
            inode.validated_at = -math.inf
            return
        inode.listing = None
        for child in inode.children():
            self._forget(child)

    def _find(self, path: str) -> File | Folder | None:
        inode: File | Folder | None = self._inodes.root
        for name in os.fsencode(path).split(b"/"):
            if name and isinstance(inode, Folder):
                inode = self._child(inode, name)
            elif name:
                return None
        return inode


def _require_closed(file: File) -> None:
    if file.handles:
        raise FileError(errno.EBUSY, f"{_path_of(file)} is open: close it first")


def _path_of(file: File) -> str:
    folder = file.parent
    if folder is None:
        return shown_path(file.key)
    return os.fsdecode(folder.shown_path(folder.name_of(file)))


def _is_at_or_below(path: str, above: str) -> bool:
    return not above or path == above or path.startswith(f"{above}/")
