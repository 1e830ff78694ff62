"""The storage in an object store: stateless, so that any number of servers share one bucket.

    put      one object written: an upload is seen whole or not at all, by every server, as soon as it is answered
    delete   one object removed
    list     the object store's own ordered listing

What a server remembers it trusts for a second (`registry.TRUST_SECONDS`): stores, never records.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence

from kvsfs.server.archive import Archive
from kvsfs.server.bucket import places
from kvsfs.server.bucket.archiving import fetched_records
from kvsfs.server.bucket.checking import BucketCheck
from kvsfs.server.bucket.objects import Bucket, BucketUnavailable
from kvsfs.server.bucket.records import BucketRecords
from kvsfs.server.bucket.registry import Registry, new_store
from kvsfs.server.bucket.runs import BucketRuns
from kvsfs.server.bucket.sizes import Sizes
from kvsfs.server.bucket.tally import Tally
from kvsfs.server.checking import Checked
from kvsfs.server.index import new_id
from kvsfs.server.moments import from_ms, now_ms
from kvsfs.server.storage import (
    KeySelection,
    NameTaken,
    RecordEntry,
    RecordReader,
    Run,
    RunFilter,
    StoreField,
    StoreGone,
)
from kvsfs.types import ContentEncoding, StoreInfo

logger = logging.getLogger(__name__)


class BucketStorage:
    """Keeps `storage.Storage` in an object store."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._stores = Registry(bucket)
        self._records = BucketRecords(bucket)
        self._tally = Tally(bucket)
        self._runs = BucketRuns(bucket)
        self._sizes = Sizes(bucket)
        self._dropping: set[asyncio.Task[None]] = set()

    async def get_store(self, store_id: str) -> StoreInfo | None:
        """Describe a store by its ID."""
        return await self._stores.get(store_id) if store_id.isalnum() else None

    async def counted(self, store: StoreInfo) -> StoreInfo:
        """Give a store with the counters of all servers: theirs as of a second ago."""
        return await self._tally.total(store, await self._sizes.of(store.id))

    async def find_store(self, username: str, name: str) -> StoreInfo | None:
        """Describe a store by its owner and name."""
        return await self._stores.find(username, name)

    async def get_or_create_store(
        self, username: str, name: str | None, schema: Mapping[str, object] | None
    ) -> tuple[StoreInfo, bool]:
        """Return the user's store of that name, made if need be, and whether it was made."""
        while True:
            known = None if name is None else await self._stores.find(username, name)
            if known is not None:
                return known, False
            made = await self._stores.make(new_store(new_id(), username, name, schema))
            if made is not None:
                return made, True

    async def update_store(self, store_id: str, changes: Mapping[StoreField, str | None]) -> StoreInfo | None:
        """Set the fields of `changes`. Raises NameTaken."""
        return await self._stores.update(store_id, changes)

    async def delete_store(self, store_id: str) -> None:
        """Delete a store with all its records."""
        self._stores.forget(store_id)
        store = await self._stores.get(store_id)
        if store is not None:
            await self._stores.delete(store)
            await self._drop(store_id)

    async def list_stores(
        self, username: str, *, offset: int, limit: int, desc: bool, unnamed: bool
    ) -> tuple[Sequence[StoreInfo], int]:
        """Give a user's stores by creation time, without their counters."""
        return await self._stores.page(username, offset=offset, limit=limit, desc=desc, unnamed=unnamed)

    async def create_run(
        self, username: str, *, actor_id: str, task_id: str | None, status: str, origin: str
    ) -> Run:
        """Make a run with an unnamed store of its own."""
        run = Run(new_id(), username, actor_id, task_id, status, origin, new_id(), from_ms(now_ms()))
        await self._stores.make(new_store(run.store_id, username, run=(actor_id, run.id)))
        await self._runs.enter(run)
        return run

    async def get_run(self, run_id: str) -> Run | None:
        """Describe a run."""
        return await self._runs.get(run_id) if run_id.isalnum() else None

    async def last_run(self, wanted: RunFilter) -> Run | None:
        """Give the last of the runs wanted."""
        return await self._runs.last(wanted)

    async def list_keys(
        self, store_id: str, *, after: str | None, selection: KeySelection, limit: int
    ) -> Sequence[tuple[str, int]]:
        """Give a page of keys."""
        self._tally.of(store_id).lists += 1
        return await self._records.page(store_id, after=after, selection=selection, limit=limit)

    async def archive(self, store_id: str, selection: KeySelection) -> AsyncGenerator[bytes, None]:
        """Yield a ZIP archive, made in threads. It counts as one listing."""
        self._tally.of(store_id).lists += 1
        archive = Archive(fetched_records(self._bucket.store, store_id, selection))
        try:
            while piece := await asyncio.to_thread(archive.next_piece):
                yield piece
        finally:
            asyncio.get_running_loop().run_in_executor(None, archive.close)

    async def open_record(self, store_id: str, key: str, *, whole: bool = True) -> RecordReader | None:
        """Open a record."""
        reader = await self._records.open(store_id, key, whole=whole)
        if reader is not None:
            self._tally.of(store_id).reads += 1
        return reader

    async def head_record(self, store_id: str, key: str) -> RecordEntry | None:
        """Describe a record."""
        entry = await self._records.head(store_id, key)
        if entry is not None:
            self._tally.of(store_id).reads += 1
        return entry

    async def put_record(
        self,
        store_id: str,
        key: str,
        chunks: AsyncIterator[bytes],
        *,
        content_type: str,
        content_encoding: ContentEncoding | None,
    ) -> RecordEntry:
        """Store a record: durable, and seen by every reader of every server, when this returns."""
        if await self._stores.get(store_id) is None:
            raise StoreGone
        etag, size = await self._records.put(store_id, key, chunks, content_type, content_encoding)
        self._tally.changed(store_id).writes += 1
        return RecordEntry(key, size, content_type, content_encoding, etag, from_ms(now_ms()))

    async def delete_record(self, store_id: str, key: str) -> None:
        """Delete a record."""
        await self._records.delete(store_id, key)
        self._tally.changed(store_id).deletes += 1

    async def all_stores(self) -> AsyncIterator[StoreInfo]:
        """Yield every store, of every user."""
        async for store in self._stores.everything():
            yield store

    async def all_runs(self) -> AsyncIterator[Run]:
        """Yield every run, the oldest first."""
        for run in reversed([run async for run in self._runs.newest_first()]):
            yield run

    async def adopt_store(self, store: StoreInfo) -> None:
        """Enter a store as it is described, unless it is there. Raises NameTaken."""
        if await self._stores.get(store.id) is None and await self._stores.make(store) is None:
            raise NameTaken

    async def adopt_run(self, run: Run) -> None:
        """Enter a run."""
        await self._runs.enter(run)

    async def check(self, tell: Callable[[str], None], seen: Callable[[int], None]) -> Checked:
        """Look at everything. Raises BucketUnavailable."""
        return await BucketCheck(self._bucket, self._stores, tell, seen).run()

    async def close(self) -> None:
        """Write the last counts. A deletion under way is taken up by the next server that starts."""
        self._sizes.stop()
        for task in self._dropping:
            task.cancel()
        await asyncio.gather(*self._dropping, return_exceptions=True)
        await self._tally.close()

    def collect_garbage_in_background(self) -> None:
        """Finish the deletions that servers left when they ended."""
        task = asyncio.get_running_loop().create_task(self._finish_deletions())
        self._dropping.add(task)
        task.add_done_callback(self._dropping.discard)

    async def _finish_deletions(self) -> None:
        try:
            for store_id in await self._stores.doomed():
                store = await self._stores.get(store_id)
                if store is not None:
                    await self._stores.delete(store)
                await self._drop(store_id)
        except BucketUnavailable as error:
            logger.warning("deleted stores are not cleared away yet: %s", error)

    async def _drop(self, store_id: str) -> None:
        await self._records.drop(store_id)
        await self._tally.forget(store_id)
        await self._bucket.remove([places.doomed(store_id)])
