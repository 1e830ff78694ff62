"""A store whose listings are the folders of a layout, page by page."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import timedelta
from typing import Any

from kvsfs.errors import RequestRefused
from kvsfs.store.archive import Entry, Take, Wanted
from kvsfs.store.layout import PAST, Layout, Shelf
from kvsfs.store.paging import KeyIterator
from kvsfs.store.protocol import RecordBody, RecordStream, Store
from kvsfs.store.view import key_groups
from kvsfs.types import ByteRange, ContentEncoding, KeyEntry, KeyPage, RecordHead, RecordKey, StoreInfo

log = logging.getLogger(__name__)

NOTHING = KeyPage(items=(), is_truncated=False, next_exclusive_start_key=None)


class LayoutStore:
    """A store whose keys are those of a layout. The store's own operations are those of the whole store.

    Keys are listed folder by folder: without a prefix the folders alone, whose markers no store has. A key that is
    shown nowhere is refused before anything is sent.
    """

    def __init__(self, store: Store, layout: Layout, schema: Mapping[str, Any] | None) -> None:
        self._store = store
        self._layout = layout
        self._groups = key_groups(schema)
        self._as_mounted = True
        """Whether the store's collections are those of the layout, as far as is known."""
        self.update = store.update
        self.delete = store.delete

    async def get(self) -> StoreInfo | None:
        """Describe the store."""
        info = await self._store.get()
        if info is not None and info.schema is not None and key_groups(info.schema) != self._groups:
            self._note_change()
        return info

    async def list_keys(
        self,
        *,
        limit: int | None = None,
        exclusive_start_key: str | None = None,
        prefix: str | None = None,
        collection: str | None = None,
    ) -> KeyPage:
        """One page of the keys in a folder. Raises RequestRefused for a collection: it is a folder here."""
        if collection is not None:
            raise RequestRefused(f"the collection {collection} is a folder here")
        prefix, after = prefix or "", exclusive_start_key or ""
        shelf = self._layout.shelf_of(prefix)
        page = NOTHING
        if shelf is not None and after < shelf.prefix + PAST:
            inner, start = prefix.removeprefix(shelf.prefix), after.removeprefix(shelf.prefix)
            page = await self._page(shelf, inner, start if after.startswith(shelf.prefix) else "", limit)
        return _with(self._layout.fixed(prefix, after), page)

    def iter_keys(
        self, *, prefix: str | None = None, collection: str | None = None, page_size: int | None = None
    ) -> AsyncIterator[KeyEntry]:
        """All keys in a folder in order, page after page."""
        return KeyIterator(self.list_keys, prefix=prefix, collection=collection, page_size=page_size)

    async def record_exists(self, key: RecordKey) -> bool:
        """Whether the record is there."""
        return await self._store.record_exists(self._layout.stored(key))

    async def head_record(self, key: RecordKey) -> RecordHead | None:
        """Give the record's headers; None when it is not there."""
        return await self._store.head_record(self._layout.stored(key))

    def get_record(
        self, key: RecordKey, *, byte_range: ByteRange | None = None, if_none_match: RecordHead | None = None
    ) -> AbstractAsyncContextManager[RecordStream | None]:
        """Read a record."""
        return self._store.get_record(
            self._layout.stored(key), byte_range=byte_range, if_none_match=if_none_match
        )

    async def read_records(
        self,
        take: Take,
        wanted: Wanted,
        *,
        prefix: str | None = None,
        collection: str | None = None,
    ) -> None:
        """Read all records in a folder in one answer. RequestRefused where other folders' would come with them."""
        shelf, inner = self._layout.shelf_of(prefix or ""), self._layout.bare(prefix or "")
        if shelf is not None and (not self._as_mounted or self._layout.is_shared(shelf, inner)):
            raise RequestRefused(f"{shelf.name}: an archive would hold what is in other folders, too")
        group = None if shelf is None else shelf.group

        async def take_shown(found: Sequence[Entry]) -> None:
            await take([replace(entry, key=self._layout.shown(entry.key)) for entry in found])

        await self._store.read_records(
            take_shown,
            replace(wanted, keys={self._layout.bare(key) for key in wanted.keys}),
            prefix=inner or None,
            collection=collection or (None if group is None else group.id),
        )

    async def set_record(
        self,
        key: RecordKey,
        body: RecordBody,
        *,
        content_type: str,
        content_encoding: ContentEncoding | None = None,
    ) -> RecordHead:
        """Store a record, replacing what was there."""
        return await self._store.set_record(
            self._layout.stored(key), body, content_type=content_type, content_encoding=content_encoding
        )

    async def delete_record(self, key: RecordKey) -> None:
        """Delete a record; no error when there is none."""
        await self._store.delete_record(self._layout.stored(key))

    async def record_public_url(self, key: RecordKey) -> str:
        """Give a URL that reads the record."""
        return await self._store.record_public_url(self._layout.stored(key))

    async def keys_public_url(
        self,
        *,
        expires_in: timedelta | None = None,
        limit: int | None = None,
        prefix: str | None = None,
        collection: str | None = None,
    ) -> str:
        """Give a URL that lists the keys in a folder. Raises RequestRefused where no filter tells which these are."""
        shelf, inner = self._layout.shelf_of(prefix or ""), self._layout.bare(prefix or "") or None
        if shelf is not None and shelf.group is None and inner is None:
            raise RequestRefused(f"no URL lists what is in no collection ({shelf.name})")
        group = None if shelf is None or shelf.group is None else shelf.group.id
        return await self._store.keys_public_url(
            expires_in=expires_in, limit=limit, prefix=inner, collection=collection or group
        )

    async def _page(self, shelf: Shelf, inner: str, start: str, limit: int | None) -> KeyPage:
        """One page of the records on a shelf that begin with `inner`: past those that others take, in one step."""
        taken = self._layout.taken(shelf)
        if any(inner.startswith(prefix) for prefix in taken):
            return NOTHING
        page = await self._filtered(shelf, inner, start, limit)
        following = page.next_exclusive_start_key or (page.items[-1].key if page.items else None)
        if page.is_truncated and following is not None:
            following = max([following, *(p + PAST for p in taken if following.startswith(p))])
        return KeyPage(
            items=tuple(
                entry.renamed(RecordKey(shelf.prefix + entry.key))
                for entry in page.items
                if self._layout.home(entry.key) is shelf
            ),
            is_truncated=page.is_truncated,
            next_exclusive_start_key=shelf.prefix + following if page.is_truncated and following else None,
        )

    async def _filtered(self, shelf: Shelf, inner: str, start: str, limit: int | None) -> KeyPage:
        """Let the server find a shelf's records: by its collection or, since the schema has changed, by their keys."""
        group = shelf.group
        if group is None or self._as_mounted:
            try:
                return await self._store.list_keys(
                    limit=limit,
                    exclusive_start_key=start or None,
                    prefix=inner or None,
                    collection=None if group is None else group.id,
                )
            except RequestRefused:
                if group is None:
                    raise
                self._note_change()
        assert group is not None
        longest = max(inner, group.key or group.key_prefix, key=len)
        if not longest.startswith(inner):
            return NOTHING
        if group.key is not None:  # the first of all keys that begin with it
            page = await self._store.list_keys(limit=1, exclusive_start_key=start or None, prefix=longest)
            return replace(page, is_truncated=False, next_exclusive_start_key=None)
        return await self._store.list_keys(
            limit=limit, exclusive_start_key=start or None, prefix=longest or None
        )

    def _note_change(self) -> None:
        if self._as_mounted:
            log.warning(
                "the store's schema has changed: the folders stay those of the collections at the mount; mount it "
                "again to see the new ones"
            )
        self._as_mounted = False


def _with(fixed: list[KeyEntry], page: KeyPage) -> KeyPage:
    """Give a page with the fixed folders' markers in their places; the store's own records go first."""
    last = page.next_exclusive_start_key if page.is_truncated else None
    entries = {entry.key: entry for entry in fixed if last is None or entry.key <= last}
    entries |= {entry.key: entry for entry in page.items}
    return replace(page, items=tuple(entries[key] for key in sorted(entries)))
