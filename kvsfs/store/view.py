"""A store as a part of it: the keys with a prefix, without that prefix; the keys of one collection of its schema."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from kvsfs.errors import RequestRefused
from kvsfs.store.archive import Entry, Take, Wanted
from kvsfs.store.paging import KeyIterator
from kvsfs.store.protocol import RecordBody, RecordStream, Store
from kvsfs.types import ByteRange, ContentEncoding, KeyEntry, KeyPage, RecordHead, RecordKey


@dataclass(frozen=True, slots=True)
class KeyGroup:
    """A collection of a store's schema: one key, or all keys with a prefix."""

    id: str
    key: str | None = None
    key_prefix: str = ""

    def holds(self, key: str) -> bool:
        """Tell whether a record belongs to it."""
        return key == self.key if self.key is not None else key.startswith(self.key_prefix)

    @property
    def place(self) -> str:
        """The keys that it is for, for people."""
        return self.key if self.key is not None else f"{self.key_prefix}…"


def key_groups(schema: Mapping[str, Any] | None) -> dict[str, KeyGroup]:
    """Read the collections of a store's schema, by their IDs; what makes no sense is left out."""
    collections = (schema or {}).get("collections")
    groups = {}
    for name, described in (collections if isinstance(collections, dict) else {}).items():
        key = described.get("key") if isinstance(described, dict) else None
        prefix = described.get("keyPrefix") if isinstance(described, dict) else None
        if isinstance(key, str) or isinstance(prefix, str):
            groups[name] = KeyGroup(name, key if isinstance(key, str) else None, prefix or "")
    return groups


class ViewStore:
    """Maps each key K of the view to the key PREFIX + K of the store below, and shows no other.

    The record whose key is the prefix itself has no name in the view. With a `group` a listing is filtered by
    the server, and a write outside of it is refused before it is sent. The store's own operations are those of the
    whole store.
    """

    def __init__(self, store: Store, prefix: str = "", group: KeyGroup | None = None) -> None:
        self._store = store
        self._prefix = prefix
        self._group = group
        self.get = store.get
        self.update = store.update
        self.delete = store.delete

    async def list_keys(
        self,
        *,
        limit: int | None = None,
        exclusive_start_key: str | None = None,
        prefix: str | None = None,
        collection: str | None = None,
    ) -> KeyPage:
        """One page of keys after `exclusive_start_key`. Raises RequestRefused for another collection."""
        # Without a cursor the prefix itself is one: it has no name here, and a limit shall not be spent on it.
        cursor = self._prefix + exclusive_start_key if exclusive_start_key else self._prefix or None
        page = await self._store.list_keys(
            limit=limit,
            exclusive_start_key=cursor,
            prefix=self._prefix + (prefix or "") or None,
            collection=self._collection(collection),
        )
        following = page.next_exclusive_start_key
        return KeyPage(
            items=tuple(self._shown(e) for e in page.items if len(e.key) > len(self._prefix)),
            is_truncated=page.is_truncated,
            next_exclusive_start_key=following[len(self._prefix) :] if following else None,
        )

    def iter_keys(
        self, *, prefix: str | None = None, collection: str | None = None, page_size: int | None = None
    ) -> AsyncIterator[KeyEntry]:
        """All keys in order, page after page."""
        return KeyIterator(self.list_keys, prefix=prefix, collection=collection, page_size=page_size)

    async def record_exists(self, key: RecordKey) -> bool:
        """Whether the record is there."""
        return await self._store.record_exists(self._below(key))

    async def head_record(self, key: RecordKey) -> RecordHead | None:
        """Give the record's headers; None when it is not there."""
        return await self._store.head_record(self._below(key))

    def get_record(
        self, key: RecordKey, *, byte_range: ByteRange | None = None, if_none_match: RecordHead | None = None
    ) -> AbstractAsyncContextManager[RecordStream | None]:
        """Read a record."""
        return self._store.get_record(self._below(key), byte_range=byte_range, if_none_match=if_none_match)

    async def read_records(
        self,
        take: Take,
        wanted: Wanted,
        *,
        prefix: str | None = None,
        collection: str | None = None,
    ) -> None:
        """Read all records of the view below a prefix in one answer."""

        async def take_shown(found: Sequence[Entry]) -> None:
            await take([replace(entry, key=self._name(entry.key)) for entry in found])

        await self._store.read_records(
            take_shown,
            replace(wanted, keys={self._below(key) for key in wanted.keys}),
            prefix=self._prefix + (prefix or "") or None,
            collection=self._collection(collection),
        )

    async def set_record(
        self,
        key: RecordKey,
        body: RecordBody,
        *,
        content_type: str,
        content_encoding: ContentEncoding | None = None,
    ) -> RecordHead:
        """Store a record. Raises RequestRefused for one outside of the collection."""
        below = self._below(key)
        self._require_in_group(below)
        return await self._store.set_record(
            below, body, content_type=content_type, content_encoding=content_encoding
        )

    async def delete_record(self, key: RecordKey) -> None:
        """Delete a record; no error when there is none. Raises RequestRefused outside of the collection."""
        below = self._below(key)
        self._require_in_group(below)
        await self._store.delete_record(below)

    async def record_public_url(self, key: RecordKey) -> str:
        """Give a URL that reads the record."""
        return await self._store.record_public_url(self._below(key))

    async def keys_public_url(
        self,
        *,
        expires_in: timedelta | None = None,
        limit: int | None = None,
        prefix: str | None = None,
        collection: str | None = None,
    ) -> str:
        """Give a URL that lists the view's keys. What its reader makes of it is not held to the view."""
        return await self._store.keys_public_url(
            expires_in=expires_in,
            limit=limit,
            prefix=self._prefix + (prefix or "") or None,
            collection=self._collection(collection),
        )

    def _below(self, key: RecordKey) -> RecordKey:
        return RecordKey(self._prefix + key)

    def _shown(self, entry: KeyEntry) -> KeyEntry:
        return entry.renamed(self._name(entry.key))

    def _name(self, key: RecordKey) -> RecordKey:
        return RecordKey(key[len(self._prefix) :])

    def _collection(self, asked: str | None) -> str | None:
        if self._group is None or asked == self._group.id:
            return asked
        if asked is not None:
            raise RequestRefused(f"only the collection {self._group.id} is shown here, not {asked}")
        return self._group.id

    def _require_in_group(self, key: RecordKey) -> None:
        if self._group is not None and not self._group.holds(key):
            raise RequestRefused(
                f"record {key}: the collection {self._group.id} is for {self._group.place} only"
            )
