"""How many bytes a store holds: a listing is summed up.

Nobody counts them: how long the record was that a write replaces, is not known.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from kvsfs.server.bucket import places
from kvsfs.server.bucket.objects import PAGE, Bucket, BucketUnavailable

logger = logging.getLogger(__name__)

SHARE = 0.01
"""Of the time that may go into summing up one store of more than a page: one of 1,000,000 records (30 s) is summed up
once in 50 minutes at most, while somebody asks."""

MOST_SUMS = 10_000


@dataclass(slots=True)
class _Sum:
    bytes: int
    again_at: float
    task: asyncio.Task[None] | None = None


class Sizes:
    """The sums."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._sums: dict[str, _Sum] = {}

    async def of(self, store_id: str) -> int:
        """Give a store's bytes. Raises BucketUnavailable.

        As they are, up to a page of records; of more as they were lately, or its first page until they are summed up.
        """
        async for page in self._bucket.pages(places.records(store_id)):
            first = sum(meta["size"] for meta in page)
            return first if len(page) < PAGE else self._large(store_id, first)
        return 0

    def stop(self) -> None:
        """Give up what is being summed up."""
        for known in self._sums.values():
            if known.task is not None:
                known.task.cancel()

    def _large(self, store_id: str, first_page: int) -> int:
        if len(self._sums) >= MOST_SUMS:
            self.stop()
            self._sums.clear()
        known = self._sums.setdefault(store_id, _Sum(first_page, 0.0))
        if known.task is None and asyncio.get_running_loop().time() >= known.again_at:
            known.task = asyncio.create_task(self._add_up(store_id, known))
        return known.bytes

    async def _add_up(self, store_id: str, known: _Sum) -> None:
        now = asyncio.get_running_loop().time
        began_at, total = now(), 0
        try:
            async for page in self._bucket.pages(places.records(store_id)):
                total += sum(meta["size"] for meta in page)
            known.bytes = total
        except BucketUnavailable as error:
            logger.warning("the bytes of a store were not summed up: %s", error)
        finally:
            known.again_at = now() + (now() - began_at) / SHARE
            known.task = None
