"""`kvsfs serve --copy-to URL`: everything that one storage has into another, a folder or an object store.

It can be broken off and begun again: what is there already, as long, described alike and not older, stays. What was
copied is read back and compared. Nothing is removed from either side, and counters begin anew. Records that
are written meanwhile may be missed: copy once while servers run, stop them, and copy the rest.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from kvsfs.server.storage import KeySelection, RecordEntry, Run, Storage
from kvsfs.types import StoreInfo

AT_ONCE = 32
"""Records under way: each is a round trip or two of some 30 ms to an object store, and 8 MiB at most in memory."""

PAGE = 1000


class MovableStorage(Storage, Protocol):
    """A storage that gives all it has, and takes what another had."""

    def all_stores(self) -> AsyncIterator[StoreInfo]:
        """Yield every store, of every user."""

    def all_runs(self) -> AsyncIterator[Run]:
        """Yield every run, the oldest first."""

    async def adopt_store(self, store: StoreInfo) -> None:
        """Enter a store as it is described, unless it is there. Raises NameTaken."""

    async def adopt_run(self, run: Run) -> None:
        """Enter a run, unless it is there."""


@dataclass(slots=True)
class Moved:
    """What was done so far."""

    stores: int = 0
    records: int = 0
    """Copied, and read back."""
    bytes: int = 0
    kept: int = 0
    """Records that were there already."""


class CopyDiffers(Exception):
    """What was written reads otherwise. The message names the record."""


async def copy_all(source: MovableStorage, target: MovableStorage, tell: Callable[[Moved], None]) -> Moved:
    """Copy everything. `tell` is called after each record. Raises StorageUnavailable, NameTaken, CopyDiffers."""
    moved = Moved()
    async for store in source.all_stores():
        await target.adopt_store(store)
        moved.stores += 1
        async with aclosing(_pages(source, store.id)) as pages:
            async for keys in pages:
                await _copy_page(source, target, store.id, keys, moved, tell)
    async for run in source.all_runs():
        await target.adopt_run(run)
    return moved


async def _copy_page(
    source: Storage,
    target: Storage,
    store_id: str,
    keys: Sequence[str],
    moved: Moved,
    tell: Callable[[Moved], None],
) -> None:
    limiter = asyncio.Semaphore(AT_ONCE)

    async def copy(key: str) -> None:
        async with limiter:
            await _copy_record(source, target, store_id, key, moved)
            tell(moved)

    try:
        async with asyncio.TaskGroup() as tasks:
            for key in keys:
                tasks.create_task(copy(key))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None  # one is enough to stop, and the others were cancelled for it


async def _pages(source: Storage, store_id: str) -> AsyncGenerator[list[str], None]:
    after: str | None = None
    while True:
        page = await source.list_keys(store_id, after=after, selection=KeySelection(), limit=PAGE)
        if not page:
            return
        yield [key for key, _ in page]
        after = page[-1][0]


async def _copy_record(source: Storage, target: Storage, store_id: str, key: str, moved: Moved) -> None:
    entry = await source.head_record(store_id, key)
    if entry is None:
        return  # deleted since it was listed
    if _is_there(entry, await target.head_record(store_id, key)):
        moved.kept += 1
        return
    reader = await source.open_record(store_id, key)
    if reader is None:
        return
    digest = hashlib.sha256()
    try:
        written = await target.put_record(
            store_id,
            key,
            _hashed(reader.chunks(0, reader.entry.size), digest),
            content_type=reader.entry.content_type,
            content_encoding=reader.entry.content_encoding,
        )
    finally:
        reader.close()
    if await _digest(target, store_id, key) != digest.hexdigest():
        raise CopyDiffers(f"store {store_id}, record {key}: what was written reads otherwise")
    moved.records += 1
    moved.bytes += written.size


def _is_there(entry: RecordEntry, other: RecordEntry | None) -> bool:
    """Whether a record was copied before: a copy is younger than what it was made of."""
    return (
        other is not None
        and (other.size, other.content_type, other.content_encoding)
        == (entry.size, entry.content_type, entry.content_encoding)
        and other.modified_at >= entry.modified_at.replace(microsecond=0)
    )


async def _hashed(chunks: AsyncIterator[bytes], digest: hashlib._Hash) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        digest.update(chunk)
        yield chunk


async def _digest(storage: Storage, store_id: str, key: str) -> str | None:
    reader = await storage.open_record(store_id, key)
    if reader is None:
        return None
    digest = hashlib.sha256()
    try:
        async for chunk in reader.chunks(0, reader.entry.size):
            digest.update(chunk)
    finally:
        reader.close()
    return digest.hexdigest()
