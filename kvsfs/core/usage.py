"""What statfs(2) and `df` show."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import trio

from kvsfs.core.background import Background
from kvsfs.errors import StoreError
from kvsfs.store.protocol import Store
from kvsfs.types import StoreInfo

log = logging.getLogger(__name__)

FREE_BYTES = 2**50
"""A store has no capacity; 1 PiB is what rclone and gcsfuse show, and no program's check fails on it."""

REFRESH_SECONDS = 60.0
"""The store's counters are asked for at most once a minute, and only while somebody asks for them."""


@dataclass(slots=True)
class Opened:
    """How often an existing file was opened, by what it took."""

    cached: int = 0
    """Its bytes were here, and known to be current."""
    confirmed: int = 0
    """Its bytes were here, and the store was asked whether they are current."""
    fetched: int = 0
    """Its bytes came from the store."""

    def count(self, *, current: bool, same: bool) -> None:
        """Count one more: whether its bytes were known to be current, and whether they are those that were here."""
        self.cached += current
        self.confirmed += same and not current
        self.fetched += not same and not current


@dataclass(frozen=True, slots=True)
class CacheUsage:
    """What the cache holds, and what it was good for."""

    clean_bytes: int
    """Of files that the store has, and that nobody has open."""
    opened: Opened


class Usage:
    """The store's size as it was last heard; never waits for the network."""

    def __init__(self, store: Store, info: StoreInfo, background: Background) -> None:
        self._store = store
        self._background = background
        self._used_bytes = info.stats.storage_bytes
        self._asked_at = trio.current_time()

    def used_bytes(self) -> int:
        """Give the stored bytes last heard; ask for news in the background when they are old. No checkpoint."""
        if trio.current_time() - self._asked_at > REFRESH_SECONDS:
            self._asked_at = trio.current_time()
            self._background.start(self._refresh)
        return self._used_bytes

    async def _refresh(self) -> None:
        try:
            info = await self._store.get()
        except StoreError as error:
            log.info("the store's size is not known anew: %s", error)
            return
        if info is not None:
            self._used_bytes = info.stats.storage_bytes
