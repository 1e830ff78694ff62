"""What kvsfs asks of a key-value store: the contract that `apify.py` and `memory.py` keep.

Every method of Apify's `KeyValueStoreClient` is here under its Python name; `head_record` is there beside
`record_exists` because a mount needs the headers as well.

Errors: every method may raise any `errors.StoreError` and nothing else (but trio.Cancelled); the docstrings
name what is special. Every coroutine checkpoints, has a deadline of its own and may be cancelled at any
await: reads then leave nothing behind; of a cancelled `set_record` or `delete_record` it is not known whether
the store did it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Protocol

from kvsfs.store.archive import Take, Wanted
from kvsfs.types import (
    ByteRange,
    ContentEncoding,
    GeneralAccess,
    KeyEntry,
    KeyPage,
    RecordHead,
    RecordKey,
    StoreInfo,
    StoreList,
)


class RecordBody(Protocol):
    """The bytes of a record to be stored. They can be read again from the start: a retry does."""

    @property
    def length(self) -> int:
        """Bytes that `chunks` will yield in all."""

    def chunks(self) -> AsyncIterator[bytes]:
        """Give the bytes from the start, in pieces of at most some hundred KiB."""


class RecordStream(Protocol):
    """A record being read: its headers are known, its bytes arrive."""

    @property
    def head(self) -> RecordHead:
        """`length` is that of the whole record, also when a range was asked for."""

    @property
    def start(self) -> int:
        """Offset in the record of the first byte of `chunks`: 0 if the range asked for was not honoured."""

    def chunks(self) -> AsyncIterator[bytes]:
        """Bytes without any Content-Encoding, in pieces of at most 1 MiB, however well they were compressed.

        Raises ProtocolViolation or StoreUnreachable when the body ends before its length.
        """


class Store(Protocol):
    """One key-value store."""

    async def get(self) -> StoreInfo | None:
        """Describe the store; None when there is none (keyValueStore_get)."""

    async def update(
        self,
        *,
        name: str | None = None,
        title: str | None = None,
        general_access: GeneralAccess | None = None,
    ) -> StoreInfo:
        """Change what is not None (keyValueStore_put)."""

    async def delete(self) -> None:
        """Delete the store with all its records; no error when there is none (keyValueStore_delete)."""

    async def list_keys(
        self,
        *,
        limit: int | None = None,
        exclusive_start_key: str | None = None,
        prefix: str | None = None,
        collection: str | None = None,
    ) -> KeyPage:
        """One page of keys after `exclusive_start_key`, which need not exist (keyValueStore_keys_get)."""

    def iter_keys(
        self, *, prefix: str | None = None, collection: str | None = None, page_size: int | None = None
    ) -> AsyncIterator[KeyEntry]:
        """All keys in order, page after page. Raises ProtocolViolation when pages do not advance."""

    async def record_exists(self, key: RecordKey) -> bool:
        """Whether the record is there (keyValueStore_record_head)."""

    async def head_record(self, key: RecordKey) -> RecordHead | None:
        """Give the record's headers; None when it is not there (keyValueStore_record_head)."""

    def get_record(
        self, key: RecordKey, *, byte_range: ByteRange | None = None, if_none_match: RecordHead | None = None
    ) -> AbstractAsyncContextManager[RecordStream | None]:
        """Read a record; leaving the context closes the stream, read or not (keyValueStore_record_get).

        With `if_none_match` (headers seen earlier) the context gives None when the record is still that
        version; without a validator in them it is simply read. Raises RecordNotFound.
        A range past the record's end raises RequestRefused with status 416.
        """

    async def read_records(
        self,
        take: Take,
        wanted: Wanted,
        *,
        prefix: str | None = None,
        collection: str | None = None,
    ) -> None:
        """Read all records below a prefix in one answer, and hand the wanted ones over (keyValueStore_records_get).

        Each is as it is at some moment after the call began, and comes at most once; in which order is not promised.
        One of more than `wanted.largest` bytes is handed over without them. Whether a record that is stored with a
        Content-Encoding comes decoded is not promised, either. Raises ProtocolViolation for an archive of more than
        `wanted.at_most` bytes, or one that is damaged: what was handed over by then is sound. What `take` raises
        passes through.
        """

    async def set_record(
        self,
        key: RecordKey,
        body: RecordBody,
        *,
        content_type: str,
        content_encoding: ContentEncoding | None = None,
    ) -> RecordHead:
        """Store a record, replacing what was there (keyValueStore_record_put).

        `body` holds the bytes as they are to be stored: with a `content_encoding` already encoded.
        Returns what the answer tells of the new version: a validator when the server sent one.
        """

    async def delete_record(self, key: RecordKey) -> None:
        """Delete a record; no error when there is none (keyValueStore_record_delete)."""

    async def record_public_url(self, key: RecordKey) -> str:
        """Give a URL that reads the record, signed where the token may sign (getRecordPublicUrl)."""

    async def keys_public_url(
        self,
        *,
        expires_in: timedelta | None = None,
        limit: int | None = None,
        prefix: str | None = None,
        collection: str | None = None,
    ) -> str:
        """Give a URL that lists the keys, signed where the token may sign (createKeysPublicUrl)."""


class StoreCollection(Protocol):
    """All stores that a token sees, and the way to one of them."""

    def store(self, store_id: str) -> Store:
        """Give the client of one store: an ID, `username~name`, `username/name` or `~name`. No request."""

    async def get_or_create(
        self, name: str | None = None, *, schema: Mapping[str, object] | None = None
    ) -> StoreInfo:
        """Return the named store, made if need be; without a name a new unnamed one (keyValueStores_post)."""

    async def list_stores(
        self,
        *,
        limit: int | None = None,
        offset: int | None = None,
        desc: bool = False,
        unnamed: bool = False,
    ) -> StoreList:
        """One page of stores, by creation time (keyValueStores_get)."""
