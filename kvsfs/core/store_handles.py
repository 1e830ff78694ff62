"""Open folders of an account: those of stores, and those in one."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from kvsfs.core.inodes import Inode
from kvsfs.core.store_folders import StoreFolder, StoreFolders, StoreGroup, StoresPass
from kvsfs.errors import StoreUnreachable

log = logging.getLogger(__name__)

READ_ENTRIES = 512
"""Entries given at a time, as in a store's folder."""


@dataclass(slots=True, eq=False)
class StoreReader:
    """One opendir(3) of a folder in a store: the store's own handle, once somebody reads."""

    number: int
    fh: int | None = None


class StoresReader:
    """One opendir(3) of a folder of stores. Its order only grows: no entry moves under a reader."""

    def __init__(self, folders: StoreFolders, group: StoreGroup) -> None:
        self._folders = folders
        self._group = group
        self._listing: StoresPass
        self._order: list[Inode] = []
        self._arrived = 0
        self._finished = False

    async def read(self, start: int) -> list[tuple[bytes, Inode, int]]:
        """Give entries from a place on; waits for a page at most. Raises StoreError.

        An older listing stands in for an API that is out of reach.
        """
        if start == 0:
            self._rewind()
        while True:
            while start >= len(self._order) and not self._finished:
                await self._extend()
            entries = self._order[start : start + READ_ENTRIES]
            shown = [
                (inode.component, inode, place)
                for place, inode in enumerate(entries, start + 1)
                if not isinstance(inode, StoreFolder) or inode.group is self._group
            ]
            if shown or not entries:
                return shown
            start += len(entries)

    def _rewind(self) -> None:
        self._listing = self._folders.current(self._group)
        self._order = [self._folders.unnamed] if self._group is self._folders.root else []
        self._arrived, self._finished = 0, False

    async def _extend(self) -> None:
        listing = self._listing
        if self._arrived == len(listing.arrivals) and not listing.complete:
            try:
                await self._folders.advance(self._group, listing)
            except StoreUnreachable as error:
                if not self._group.listed_once:
                    raise
                log.warning("showing an older list of stores: %s", error)
                self._finish()
                return
        self._order += listing.arrivals[self._arrived :]
        self._arrived = len(listing.arrivals)
        if listing.complete:
            self._finish()

    def _finish(self) -> None:
        """End with what is known beside the pass: made here since, or others' that was found by its name."""
        there = set(map(id, self._order))
        known = self._group.children.values()
        self._order += [folder for folder in known if id(folder) not in there and not folder.doubted]
        self._finished = True
