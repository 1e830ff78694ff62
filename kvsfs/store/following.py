"""The store that a path leads to, which may be another one tomorrow: that of the last run of an Actor or a task."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta

import trio

from kvsfs.errors import StoreError
from kvsfs.store.archive import Take, Wanted
from kvsfs.store.paging import KeyIterator
from kvsfs.store.protocol import RecordBody, RecordStream, Store
from kvsfs.types import (
    ByteRange,
    ContentEncoding,
    GeneralAccess,
    KeyEntry,
    KeyPage,
    RecordHead,
    RecordKey,
    StoreInfo,
)

log = logging.getLogger(__name__)

Resolve = Callable[[], Awaitable[StoreInfo | None]]


class FollowingStore:
    """Asks one store until it is told to ask another one.

    It tells when the path leads elsewhere (`newer`), and changes over only in `switch`: what whoever uses it knows
    of the one store says nothing of the other, and must be gone by then. `busy` tells whether an answer of the store
    is still on its way.
    """

    def __init__(self, resolve: Resolve, open_store: Callable[[str], Store], info: StoreInfo) -> None:
        self._resolve = resolve
        self._open = open_store
        self._store = open_store(info.id)
        self._calls = 0
        self._idle = trio.Event()
        self._idle.set()
        self._asked_at = -math.inf
        self._newer: StoreInfo | None = None
        self.info = info
        """Of the store in use, as it was when it was found."""
        self.on_switch: Callable[[StoreInfo], None] = lambda _info: None
        """Called with each store that is changed over to."""

    @property
    def busy(self) -> bool:
        """Whether calls are under way."""
        return self._calls > 0

    async def idle(self) -> None:
        """Wait until no call is under way."""
        await self._idle.wait()

    async def newer(self, interval: float) -> StoreInfo | None:
        """Give the store that the path leads to now; None when it is the one in use, or nobody can tell.

        Asks at most once in `interval` seconds. Checkpoints only when it asks.
        """
        now = trio.current_time()
        if now - self._asked_at >= interval:
            self._asked_at = now
            try:
                found = await self._resolve()
            except StoreError as error:
                log.info("whether there is a newer run is not known: %s", error)
                return None
            self._newer = found
        return None if self._newer is None or self._newer.id == self.info.id else self._newer

    def switch(self, info: StoreInfo) -> None:
        """Ask another store from here on. No checkpoint."""
        assert not self.busy
        self.info, self._store, self._newer = info, self._open(info.id), None
        self.on_switch(info)

    async def get(self) -> StoreInfo | None:
        """Describe the store in use."""
        with self._calling() as store:
            return await store.get()

    async def update(
        self,
        *,
        name: str | None = None,
        title: str | None = None,
        general_access: GeneralAccess | None = None,
    ) -> StoreInfo:
        """Change the store in use."""
        with self._calling() as store:
            return await store.update(name=name, title=title, general_access=general_access)

    async def delete(self) -> None:
        """Delete the store in use."""
        with self._calling() as store:
            await store.delete()

    async def list_keys(
        self,
        *,
        limit: int | None = None,
        exclusive_start_key: str | None = None,
        prefix: str | None = None,
        collection: str | None = None,
    ) -> KeyPage:
        """One page of keys."""
        with self._calling() as store:
            return await store.list_keys(
                limit=limit, exclusive_start_key=exclusive_start_key, prefix=prefix, collection=collection
            )

    def iter_keys(
        self, *, prefix: str | None = None, collection: str | None = None, page_size: int | None = None
    ) -> AsyncIterator[KeyEntry]:
        """All keys in order, page after page."""
        return KeyIterator(self.list_keys, prefix=prefix, collection=collection, page_size=page_size)

    async def record_exists(self, key: RecordKey) -> bool:
        """Whether the record is there."""
        with self._calling() as store:
            return await store.record_exists(key)

    async def head_record(self, key: RecordKey) -> RecordHead | None:
        """Give the record's headers; None when it is not there."""
        with self._calling() as store:
            return await store.head_record(key)

    @asynccontextmanager
    async def get_record(
        self, key: RecordKey, *, byte_range: ByteRange | None = None, if_none_match: RecordHead | None = None
    ) -> AsyncIterator[RecordStream | None]:
        """Read a record; the store is busy until the context is left."""
        with self._calling() as store:
            async with store.get_record(key, byte_range=byte_range, if_none_match=if_none_match) as stream:
                yield stream

    async def read_records(
        self,
        take: Take,
        wanted: Wanted,
        *,
        prefix: str | None = None,
        collection: str | None = None,
    ) -> None:
        """Read all records below a prefix in one answer."""
        with self._calling() as store:
            await store.read_records(take, wanted, prefix=prefix, collection=collection)

    async def set_record(
        self,
        key: RecordKey,
        body: RecordBody,
        *,
        content_type: str,
        content_encoding: ContentEncoding | None = None,
    ) -> RecordHead:
        """Store a record."""
        with self._calling() as store:
            return await store.set_record(
                key, body, content_type=content_type, content_encoding=content_encoding
            )

    async def delete_record(self, key: RecordKey) -> None:
        """Delete a record."""
        with self._calling() as store:
            await store.delete_record(key)

    async def record_public_url(self, key: RecordKey) -> str:
        """Give a URL that reads the record of the store in use, for ever."""
        with self._calling() as store:
            return await store.record_public_url(key)

    async def keys_public_url(
        self,
        *,
        expires_in: timedelta | None = None,
        limit: int | None = None,
        prefix: str | None = None,
        collection: str | None = None,
    ) -> str:
        """Give a URL that lists the keys of the store in use."""
        with self._calling() as store:
            return await store.keys_public_url(
                expires_in=expires_in, limit=limit, prefix=prefix, collection=collection
            )

    @contextmanager
    def _calling(self) -> Iterator[Store]:
        if self._calls == 0:
            self._idle = trio.Event()
        self._calls += 1
        try:
            yield self._store
        finally:
            self._calls -= 1
            if self._calls == 0:
                self._idle.set()
