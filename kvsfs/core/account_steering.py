"""What no store of an account has yet, and what a person decides about it: store by store, under paths of the mount."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import trio

from kvsfs.core.entered import Entered, EnteredStores
from kvsfs.core.inodes import File
from kvsfs.core.numbers import place_of
from kvsfs.core.steering import Pending
from kvsfs.core.store_folders import UNNAMED, StoreFolders
from kvsfs.core.unstored import (
    MOST_TOLD,
    FolderRename,
    PendingRemoval,
    PendingRename,
    PendingUpload,
    Report,
    Totals,
)
from kvsfs.core.warming import Warmth
from kvsfs.errors import FileError

T = TypeVar("T", PendingUpload, PendingRemoval, PendingRename, FolderRename)


class AccountUnstored:
    """Tells it. Whatever a store lacks, it is open."""

    def __init__(self, entered: EnteredStores) -> None:
        self._entered = entered

    def totals(self) -> Totals:
        """Count. Raises OSError."""
        return _sum([entered.filesystem.unstored.totals() for entered in self._entered])

    def report(self) -> Report:
        """Tell all. Raises OSError."""
        reports = [(_name(entered), entered.filesystem.unstored.report()) for entered in self._entered]
        return Report(
            totals=_sum([report.totals for _, report in reports]),
            uploads=_merged([(name, report.uploads) for name, report in reports]),
            removals=_merged([(name, report.removals) for name, report in reports]),
            renames=_merged([(name, report.renames) for name, report in reports]),
            folder_renames=_merged([(name, report.folder_renames) for name, report in reports]),
            open=sum(report.open for _, report in reports),
        )


class AccountSteering:
    """Works on what is pending at or below a path; "" is the mount's root. Raises as `Steering` does."""

    def __init__(self, folders: StoreFolders, entered: EnteredStores) -> None:
        self._folders = folders
        self._entered = entered

    def pending(self, path: str) -> list[Pending]:
        """Give what is pending at or below a path. No checkpoint."""
        return [
            replace(pending, path=f"{_name(entered)}/{pending.path}")
            for entered, below in self._at_or_below(path)
            for pending in entered.filesystem.steering.pending(below)
        ]

    async def try_now(self, chosen: list[Pending], *, failed_too: bool) -> None:
        """Have each tried now, and wait until it is done or has failed."""
        by_store: dict[Entered, list[Pending]] = {}
        for pending in chosen:
            by_store.setdefault(self._owner(pending), []).append(pending)

        async def try_in(entered: Entered, chosen: list[Pending]) -> None:
            with entered as filesystem:
                await filesystem.steering.try_now(chosen, failed_too=failed_too)

        async with trio.open_nursery() as nursery:
            for entered, its in by_store.items():
                nursery.start_soon(try_in, entered, its)

    async def discard(self, pending: Pending) -> None:
        """Let go of what the store has not taken."""
        with self._owner(pending) as filesystem:
            await filesystem.steering.discard(pending)

    def bytes_of(self, path: str) -> tuple[int, int]:
        """Give a descriptor to read a file's unstored bytes from, and their number."""
        for entered, below in self._at_or_below(path):
            if below:
                return entered.filesystem.steering.bytes_of(below)
        raise FileError(errno.ENODATA, f"{path}: no store lacks its bytes: use cp")

    async def refresh(self, path: str) -> None:
        """Trust nothing that is known at and below a path: also which stores there are, if it is above them."""
        if path in ("", UNNAMED.decode()):
            await self._folders.refresh(self._folders.unnamed if path else self._folders.root)
        for entered, below in self._at_or_below(path):
            with entered as filesystem:
                await filesystem.steering.refresh(below)

    async def warm(self, path: str, tell: Callable[[Warmth], None]) -> None:
        """Have what is at and below a path of one store in the cache. ENOENT, EINVAL for all stores at once."""
        first, _, rest = path.partition("/")
        group = self._folders.root
        if first == UNNAMED.decode():
            group, (first, _, rest) = self._folders.unnamed, rest.partition("/")
        if not first:
            raise FileError(errno.EINVAL, "there may be many stores: name the one to have in the cache")
        folder = await self._folders.find(group, os.fsencode(first))
        if folder is None:
            raise FileError(errno.ENOENT, f"{path}: there is no such store")
        with await self._entered.enter(folder) as filesystem:
            await filesystem.steering.warm(rest, tell)

    def _at_or_below(self, path: str) -> Iterator[tuple[Entered, str]]:
        """Give the open stores that a path leads to or into, each with the path in it."""
        for entered in self._entered:
            name = _name(entered)
            if not path or name == path or name.startswith(f"{path}/"):
                yield entered, ""
            elif path.startswith(f"{name}/"):
                yield entered, path.removeprefix(f"{name}/")

    def _owner(self, pending: Pending) -> Entered:
        item = pending.item
        number = item.number if isinstance(item, File) else item.folder.number
        entered = self._entered.at(place_of(number))
        assert entered is not None  # or it would not be pending
        return entered


def _name(entered: Entered) -> str:
    return entered.folder.shown.decode()


def _sum(totals: Sequence[Totals]) -> Totals:
    return Totals(
        files=sum(one.files for one in totals),
        bytes=sum(one.bytes for one in totals),
        failed=sum(one.failed for one in totals),
        removals=sum(one.removals for one in totals),
    )


def _merged(of_stores: Sequence[tuple[str, Sequence[T]]]) -> tuple[T, ...]:
    """Put together what stores tell, under the paths of the mount; those that have failed for good first."""
    merged = [_below(name, one) for name, told in of_stores for one in told]
    merged.sort(key=lambda one: not getattr(one, "failed", False))
    return tuple(merged[:MOST_TOLD])


def _below(name: str, one: T) -> T:
    path = f"{name}/{one.path}"
    if isinstance(one, PendingRename | FolderRename):
        return replace(one, path=path, old_path=f"{name}/{one.old_path}")
    return replace(one, path=path)
