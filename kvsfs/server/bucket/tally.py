"""A store's counters, kept by any number of servers without waiting for one another.

Each server process has an object of its own in counts/ID, which it alone writes; a store's count is their sum. What is
counted reaches the bucket within a second: a crash loses at most that, never a record. Two servers can fold the same
old object twice: the counters are statistics.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from kvsfs.server.bucket import places
from kvsfs.server.bucket.objects import Bucket, BucketUnavailable
from kvsfs.server.index import new_id
from kvsfs.server.moments import from_ms, now_ms
from kvsfs.types import StoreInfo, StoreStats

if TYPE_CHECKING:
    from obstore import ObjectMeta

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 1.0
"""How long counts stay in memory: a scan of a store costs one object written a second, not one a record."""

FOLD_ABOVE = 16
FOLD_AGE = timedelta(days=1)
"""So many processes may have counted a store before the objects of those that have written nothing for a day are added
to one: each description of a store reads them all."""


@dataclass(slots=True)
class Counts:
    """What was done with a store; times in milliseconds since 1970."""

    reads: int = 0
    writes: int = 0
    deletes: int = 0
    lists: int = 0
    modified_at: int = 0
    accessed_at: int = 0

    def add(self, other: Counts) -> None:
        """Count what another has counted."""
        self.reads += other.reads
        self.writes += other.writes
        self.deletes += other.deletes
        self.lists += other.lists
        self.modified_at = max(self.modified_at, other.modified_at)
        self.accessed_at = max(self.accessed_at, other.accessed_at)


class Tally:
    """The counts of this process, and what it knows of the others'."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._process = new_id()
        self._counts: dict[str, Counts] = {}
        self._unwritten: set[str] = set()
        self._flushing: asyncio.Task[None] | None = None

    def of(self, store_id: str) -> Counts:
        """Give what this process counts of a store, to be changed. No checkpoint."""
        counts = self._counts.get(store_id)
        if counts is None:
            counts = self._counts[store_id] = Counts()
        counts.accessed_at = now_ms()
        self._unwritten.add(store_id)
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush_later())
        return counts

    def changed(self, store_id: str) -> Counts:
        """Give the same, for a change."""
        counts = self.of(store_id)
        counts.modified_at = counts.accessed_at
        return counts

    async def total(self, store: StoreInfo, storage_bytes: int) -> StoreInfo:
        """Give a store with what all servers have counted. Raises BucketUnavailable."""
        total = replace(self._counts.get(store.id, Counts()))
        async for page in self._bucket.pages(places.counts(store.id)):
            others = [meta for meta in page if not meta["path"].endswith(self._process)]
            for meta in others:
                total.add(await self._read(meta["path"]))
            if len(others) > FOLD_ABOVE:
                await self._fold(store.id, others)
        return replace(
            store,
            stats=StoreStats(total.reads, total.writes, total.deletes, total.lists, storage_bytes),
            modified_at=max(store.modified_at, from_ms(total.modified_at)),
            accessed_at=max(store.accessed_at, from_ms(total.accessed_at)),
        )

    async def forget(self, store_id: str) -> None:
        """Drop what was counted of a deleted store. Raises BucketUnavailable."""
        self._counts.pop(store_id, None)
        self._unwritten.discard(store_id)
        async for page in self._bucket.pages(places.counts(store_id)):
            await self._bucket.remove([meta["path"] for meta in page])

    async def close(self) -> None:
        """Write what is not written."""
        if self._flushing is not None:
            self._flushing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._flushing
        await self._flush()

    async def _flush_later(self) -> None:
        await asyncio.sleep(FLUSH_SECONDS)
        self._flushing = None
        await self._flush()

    async def _flush(self) -> None:
        unwritten, self._unwritten = self._unwritten, set()
        try:
            for store_id in sorted(unwritten):
                counts = self._counts.get(store_id)
                if counts is not None:
                    await self._bucket.write(self._own(store_id), asdict(counts))
        except BucketUnavailable as error:
            logger.warning("counters were not written, the next ones will have them: %s", error)
            self._unwritten |= unwritten

    async def _read(self, path: str) -> Counts:
        register = await self._bucket.read(path)
        return Counts() if register is None else Counts(**register.value)

    async def _fold(self, store_id: str, others: list[ObjectMeta]) -> None:
        before = datetime.now(UTC) - FOLD_AGE
        old = [meta["path"] for meta in others if meta["last_modified"] < before]
        for path in old:
            self._counts.setdefault(store_id, Counts()).add(await self._read(path))
        if old:
            await self._bucket.write(self._own(store_id), asdict(self._counts[store_id]))
            await self._bucket.remove(old)

    def _own(self, store_id: str) -> str:
        return f"{places.counts(store_id)}/{self._process}"
