"""The storage on one machine's disk: SQLite for the index, a file for each value.

    put      file written, fsynced, renamed, its folder fsynced; then the index row; then the old file goes
             (a small value: one transaction)
    delete   the index row goes; then the file

so the index never names a file that is not whole and durable. What a crash leaves between two of these steps
is a file that the index does not name, which `collect_garbage` finds at the next start. Several processes may
serve one folder.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar, TypeVarTuple, Unpack

from kvsfs.errors import CommandError, ExitCode
from kvsfs.server import database
from kvsfs.server.archive import Archive, stored_records
from kvsfs.server.durable import fsync_folder, make_folder
from kvsfs.server.index import Index, Touches, new_id
from kvsfs.server.moments import from_ms, now_ms
from kvsfs.server.storage import (
    KeySelection,
    RecordEntry,
    RecordReader,
    Run,
    RunFilter,
    StoreField,
    StoreGone,
    described_by,
)
from kvsfs.server.values import SMALL_BYTES as SMALL_VALUE_BYTES
from kvsfs.server.values import SmallValue, Upload, Value, Values, etag_of, small_name
from kvsfs.types import ContentEncoding, StoreInfo

logger = logging.getLogger(__name__)

Args = TypeVarTuple("Args")
T = TypeVar("T")

THREADS = 32
"""Threads for file I/O. They mostly wait for fsync, and those that wait for the index share its commits."""

PIECE_BYTES = 256 * 1024
"""What an upload gathers before a thread writes it: changing threads costs 100 µs, as much as writing this. It
is what each of 500 slow clients may hold."""

READ_BYTES = 256 * 1024
"""What a thread reads at once for a download: one per slow client may be in memory."""

AT_ONCE_BYTES = 64 * 1024
"""Up to here a value is read on the event loop itself: one pread, cheaper than a change of thread."""

FLUSH_SECONDS = 1.0
"""How long counted reads stay in memory: a scan of a store costs one index write a second, not one a record.
A crash loses at most that many seconds of the counters, never a record."""

DROP_LIMIT = 1000
"""Records of a deleted store that one transaction forgets: some 10 ms, so that other writers go between."""

REOPEN_LIMIT = 100
"""How often one read may find that its file was replaced meanwhile before the value counts as lost."""


INDEX_NAME = "index.sqlite3"
VALUES_NAME = "values"


class ValueLost(Exception):
    """The index names a file that is not there: someone touched the data folder."""


def open_storage(folder: str) -> LocalStorage:
    """Open the data folder, made if need be (only for its owner). Raises CommandError."""
    try:
        make_folder(folder)
        values = Values(os.path.join(folder, VALUES_NAME))
        path = os.path.join(folder, INDEX_NAME)
        database.prepare(path)
        fsync_folder(folder)  # which holds the index since now
        return LocalStorage(Index(path), values)
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CommandError(
            ExitCode.CACHE_UNUSABLE,
            f"the data folder {folder} cannot be used ({reason}): choose another with --data",
        ) from error


class LocalStorage:
    """Keeps `storage.Storage` on a disk.

    INVARIANT: `_touches` and the index's reading connection are used on the event loop only.
    """

    def __init__(self, index: Index, values: Values) -> None:
        self._index = index
        self._values = values
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="values")
        self._touches: dict[str, Touches] = {}
        self._flush: asyncio.TimerHandle | None = None

    async def get_store(self, store_id: str) -> StoreInfo | None:
        """Describe a store by its ID."""
        return self._index.store(store_id)

    async def find_store(self, username: str, name: str) -> StoreInfo | None:
        """Describe a store by its owner and name."""
        return self._index.named_store(username, name)

    async def get_or_create_store(
        self, username: str, name: str | None, schema: Mapping[str, object] | None
    ) -> tuple[StoreInfo, bool]:
        """Return the named store, made if need be, and whether it was made."""
        known = None if name is None else await self.find_store(username, name)
        if known is not None:  # without the wait for a commit
            return known, False
        return await asyncio.wrap_future(self._index.get_or_create_store(username, name, schema))

    async def update_store(self, store_id: str, changes: Mapping[StoreField, str | None]) -> StoreInfo | None:
        """Set the fields of `changes`."""
        return await asyncio.wrap_future(self._index.update_store(store_id, changes))

    async def delete_store(self, store_id: str) -> None:
        """Delete a store with all its records."""
        await asyncio.wrap_future(self._index.delete_store(store_id))
        await self._in_thread(self._drop_records)

    async def list_stores(
        self, username: str, *, offset: int, limit: int, desc: bool, unnamed: bool
    ) -> tuple[Sequence[StoreInfo], int]:
        """Give a user's stores by creation time."""
        stores, total = self._index.stores(username, offset=offset, limit=limit, desc=desc, unnamed=unnamed)
        return stores, total

    async def create_run(
        self, username: str, *, actor_id: str, task_id: str | None, status: str, origin: str
    ) -> Run:
        """Make a run with a store."""
        run = Run(new_id(), username, actor_id, task_id, status, origin, new_id(), from_ms(now_ms()))
        await asyncio.wrap_future(self._index.create_run(run))
        return run

    async def get_run(self, run_id: str) -> Run | None:
        """Describe a run."""
        return self._index.run(run_id)

    async def last_run(self, wanted: RunFilter) -> Run | None:
        """Give the last of the runs wanted."""
        return self._index.last_run(wanted)

    async def list_keys(
        self, store_id: str, *, after: str | None, selection: KeySelection, limit: int
    ) -> Sequence[tuple[str, int]]:
        """Give a page of keys."""
        self._touch(store_id).lists += 1
        return self._index.keys(store_id, after=after, selection=selection, limit=limit)

    async def archive(self, store_id: str, selection: KeySelection) -> AsyncGenerator[bytes, None]:
        """Yield a ZIP archive, made in threads. It counts as one listing."""
        self._touch(store_id).lists += 1
        archive = Archive(stored_records(self._index.path, self._values, store_id, selection))
        try:
            while piece := await self._in_thread(archive.next_piece):
                yield piece
        finally:
            self._let_go(archive.close)

    async def open_record(self, store_id: str, key: str, *, whole: bool = True) -> RecordReader | None:  # noqa: ARG002 - it lies here
        """Open a record."""
        for _ in range(REOPEN_LIMIT):
            found = self._index.record_and_value(store_id, key)
            if found is None:
                return None
            entry, file, content = found
            try:
                value = self._values.open(file) if content is None else SmallValue(content)
            except FileNotFoundError:
                continue  # replaced between the two looks
            self._touch(store_id).reads += 1
            return LocalReader(entry, value, self._in_thread)
        raise ValueLost(f"the file {file} of a record is missing from the data folder")

    async def head_record(self, store_id: str, key: str) -> RecordEntry | None:
        """Describe a record."""
        found = self._index.record(store_id, key)
        if found is None:
            return None
        self._touch(store_id).reads += 1
        return found[0]

    async def put_record(
        self,
        store_id: str,
        key: str,
        chunks: AsyncIterator[bytes],
        *,
        content_type: str,
        content_encoding: ContentEncoding | None,
    ) -> RecordEntry:
        """Store a record."""
        description = described_by(content_type, content_encoding)
        upload = self._values.receive(description)

        def entry(size: int, etag: str) -> RecordEntry:
            return RecordEntry(key, size, content_type, content_encoding, etag, from_ms(now_ms()))

        def publish(last_pieces: Sequence[bytes]) -> RecordEntry:
            upload.append(last_pieces)
            upload.publish()
            published = entry(upload.size, upload.etag)
            self._enter(store_id, published, upload)
            return published

        pieces: list[bytes] = []
        gathered = 0
        try:
            async for chunk in chunks:
                pieces.append(chunk)
                gathered += len(chunk)
                if gathered >= PIECE_BYTES:
                    await self._in_thread(upload.append, pieces)
                    pieces, gathered = [], 0
            if upload.size == 0 and gathered <= SMALL_VALUE_BYTES:
                content = b"".join(pieces)
                small = entry(gathered, etag_of(description, pieces))
                await self._enter_small(store_id, small, content)
                return small
            return await self._in_thread(publish, pieces)
        except BaseException:
            self._let_go(upload.discard)
            raise

    async def delete_record(self, store_id: str, key: str) -> None:
        """Delete a record."""
        file = await asyncio.wrap_future(self._index.delete_record(store_id, key))
        if file is not None:
            await self._in_thread(self._values.remove, file)

    async def all_stores(self) -> AsyncIterator[StoreInfo]:
        """Yield every store, of every user."""
        for store in self._index.all_stores():
            yield store

    async def all_runs(self) -> AsyncIterator[Run]:
        """Yield every run, the oldest first."""
        for run in self._index.all_runs():
            yield run

    async def adopt_store(self, store: StoreInfo) -> None:
        """Enter a store as it is described, unless it is there. Raises NameTaken."""
        await asyncio.wrap_future(self._index.adopt_store(store))

    async def adopt_run(self, run: Run) -> None:
        """Enter a run."""
        await asyncio.wrap_future(self._index.adopt_run(run))

    async def close(self) -> None:
        """Finish what is under way, count the last reads, close the index."""
        self._flush_touches()
        await asyncio.to_thread(self._threads.shutdown)
        await asyncio.to_thread(self._index.close)

    def collect_garbage_in_background(self) -> None:
        """Remove what crashes left, without delaying anyone who waits for the server to answer."""
        threading.Thread(target=self.collect_garbage, name="garbage", daemon=True).start()

    def collect_garbage(self) -> int:
        """Remove what crashes left. Waits; safe beside running servers. Returns how many files it were."""
        self._drop_records()
        removed = self._values.collect(lambda files: self._index.unknown_files(files).result())
        if removed:
            logger.info("removed %d value files that no record names", removed)
        return removed

    def _let_go(self, release: Callable[[], None]) -> None:
        """Remove or close. No await: this may be a cancellation, while a thread is still at work on it."""
        try:
            self._threads.submit(release)
        except RuntimeError:  # the threads are closed: the server stops, and the event loop may wait
            release()

    async def _enter_small(self, store_id: str, entry: RecordEntry, content: bytes) -> None:
        written = self._index.put_record(store_id, entry, small_name(), content)
        old_file = await asyncio.wrap_future(written)
        if old_file is not None:
            await self._in_thread(self._values.remove, old_file)

    def _enter(self, store_id: str, entry: RecordEntry, upload: Upload) -> None:
        try:
            old_file = self._index.put_record(store_id, entry, upload.name).result()
        except StoreGone:
            self._values.remove(upload.name)
            raise
        finally:
            # After any other failure it is unknown whether the row is there: the collector will see.
            upload.close()
        if old_file is not None:
            self._values.remove(old_file)

    def _drop_records(self) -> None:
        while (files := self._index.drop_records(DROP_LIMIT).result()) is not None:
            for file in files:
                self._values.remove(file)

    async def _in_thread(self, work: Callable[[Unpack[Args]], T], *args: *Args) -> T:
        """Run `work` in a thread. A cancelled caller no longer waits, but the work runs to its end."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)

    def _touch(self, store_id: str) -> Touches:
        touches = self._touches.get(store_id)
        if touches is None:
            touches = self._touches[store_id] = Touches()
        touches.accessed_at = now_ms()
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush_touches)
        return touches

    def _flush_touches(self) -> None:
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        if self._touches:
            self._index.add_touches(self._touches)
            self._touches = {}

    async def counted(self, store: StoreInfo) -> StoreInfo:
        """Give a store with the reads that are not in the index yet."""
        touches = self._touches.get(store.id)
        if touches is None:
            return store
        stats = replace(
            store.stats,
            read_count=store.stats.read_count + touches.reads,
            list_count=store.stats.list_count + touches.lists,
        )
        return replace(store, stats=stats, accessed_at=max(store.accessed_at, from_ms(touches.accessed_at)))


class LocalReader:
    """One version of a record, opened."""

    def __init__(
        self,
        entry: RecordEntry,
        value: Value,
        in_thread: Callable[[Callable[[int, int], bytes], int, int], Awaitable[bytes]],
    ) -> None:
        self.entry = entry
        self._value = value
        self._in_thread = in_thread

    async def chunks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yield the stored bytes from `start` to `stop`. Raises ValueLost when the file is shorter."""
        while start < stop:
            piece = await self._in_thread(self._value.read, start, min(READ_BYTES, stop - start))
            if not piece:
                raise ValueLost("the file of a record is shorter than the index says")
            start += len(piece)
            yield piece

    def read_at_once(self) -> bytes | None:
        """Give all bytes of a small record."""
        if self.entry.size > AT_ONCE_BYTES:
            return None
        return self._value.read(0, self.entry.size)

    def close(self) -> None:
        """Close the file."""
        self._value.close()
