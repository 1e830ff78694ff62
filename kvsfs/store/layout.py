"""A store as one folder for each collection of its schema: which record is in which, and the pages of each.

A folder is a prefix of the keys that are shown: the record `img-1` of the collection `images` is `images!2Fimg-1`.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from kvsfs.errors import RequestRefused
from kvsfs.store.archive import Entry, Take, Wanted
from kvsfs.store.paging import KeyIterator
from kvsfs.store.protocol import RecordBody, RecordStream, Store
from kvsfs.store.view import KeyGroup, key_groups
from kvsfs.types import ByteRange, ContentEncoding, KeyEntry, KeyPage, RecordHead, RecordKey, StoreInfo

log = logging.getLogger(__name__)

NOTHING = KeyPage(items=(), is_truncated=False, next_exclusive_start_key=None)

LONGEST = 256
"""Characters of a key (the API's limit), and of one with its folder."""

_PAST = "~"
"""Behind a prefix: after all keys that have it, and in none itself."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """One folder of a layout. `group` is None for that of the records which are in no collection."""

    name: str
    """For people."""
    prefix: str
    """Of all keys that are shown in it."""
    group: KeyGroup | None = None
    folders: tuple[str, ...] = ()
    """Shown keys of the folders in it that its records' keys begin with: always there, or nobody could fill them."""


class Layout:
    """A bijection between a store's keys and those that are shown; no I/O.

    A record that fits several collections is in the one that says most of its key: that of the key itself, else the
    one with the longest prefix, else the first by ID.
    """

    def __init__(self, shelves: Iterable[Shelf], other: Shelf) -> None:
        self.shelves = sorted(shelves, key=_specific_first)
        self.other = other
        self._fixed = {key for shelf in self._all() for key in (shelf.prefix, *shelf.folders)}

    def home(self, key: str) -> Shelf:
        """Give the shelf of a record of the store."""
        return next((shelf for shelf in self.shelves if _holds(shelf, key)), self.other)

    def shown(self, key: str) -> RecordKey:
        """Give the key that a record of the store is shown under."""
        return RecordKey(self.home(key).prefix + key)

    def shelf_of(self, shown: str) -> Shelf | None:
        """Give the shelf that a shown key, or prefix of keys, is in; None for the folder of all shelves."""
        return next((shelf for shelf in self._all() if shown.startswith(shelf.prefix)), None)

    def bare(self, shown: str) -> RecordKey:
        """Give a shown key without its shelf, whether it belongs there or not."""
        shelf = self.shelf_of(shown)
        return RecordKey(shown if shelf is None else shown.removeprefix(shelf.prefix))

    def stored(self, shown: str) -> RecordKey:
        """Give the store's key for a shown one: the inverse of `shown`. Raises RequestRefused, saying why, for none."""
        shelf, key = self.shelf_of(shown), self.bare(shown)
        if shelf is None:
            raise RequestRefused(
                f"{key}: records are in the folders of their collections, and in {self.other.name}"
            )
        home = self.home(key)
        if home is not shelf:
            takes = "" if shelf.group is None else f"{shelf.name} is for {shelf.group.place}, "
            raise RequestRefused(f"record {key}: {takes}this key belongs into {home.name}")
        return key

    def is_fixed(self, prefix: str) -> bool:
        """Tell whether the folder of a prefix is there whatever the store holds."""
        return prefix in self._fixed

    def fixed(self, prefix: str, after: str) -> list[KeyEntry]:
        """Give the markers of such folders, in order, as a listing would."""
        shelf = self.shelf_of(prefix)
        keys = [shelf.prefix for shelf in self._all()] if shelf is None else shelf.folders
        return [KeyEntry(RecordKey(key), 0) for key in sorted(keys) if key.startswith(prefix) and key > after]

    def taken(self, shelf: Shelf) -> list[str]:
        """Give the prefixes of keys that a shelf has none of, though by itself it would."""
        found = []
        for other in self.shelves:
            if other is shelf:
                break
            if other.group is not None and other.group.key is None:
                found.append(other.group.key_prefix)
        return found

    def is_shared(self, shelf: Shelf, prefix: str) -> bool:
        """Tell whether records of a prefix that a shelf's filter lets through may be on another one."""
        before = itertools.takewhile(lambda other: other is not shelf, self.shelves)
        return any(_overlap(other, shelf, prefix) for other in before)

    def _all(self) -> list[Shelf]:
        return [*self.shelves, self.other]


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
        if shelf is not None and after < shelf.prefix + _PAST:
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
            following = max([following, *(p + _PAST for p in taken if following.startswith(p))])
        return KeyPage(
            items=tuple(
                replace(entry, key=RecordKey(shelf.prefix + entry.key))
                for entry in page.items
                if self._layout.home(entry.key) is shelf and _fits(shelf, entry.key)
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


def _fits(shelf: Shelf, key: str) -> bool:
    """Tell whether a key can be shown: that of the view may be no longer than the API's."""
    if len(shelf.prefix) + len(key) <= LONGEST:
        return True
    log.warning("%s is too long for the folder %s: --layout keys, the default, shows it", key, shelf.name)
    return False


def _specific_first(shelf: Shelf) -> tuple[bool, int, str]:
    assert shelf.group is not None
    return shelf.group.key is None, -len(shelf.group.key_prefix), shelf.group.id


def _overlap(other: Shelf, shelf: Shelf, prefix: str) -> bool:
    """Tell whether a key with a prefix may be for both shelves."""
    group = other.group
    assert group is not None
    if group.key is not None:
        return group.key.startswith(prefix) and (shelf.group is None or _holds(shelf, group.key))
    filters = [
        prefix,
        group.key_prefix,
        "" if shelf.group is None else shelf.group.key or shelf.group.key_prefix,
    ]
    return all(max(filters, key=len).startswith(filter_) for filter_ in filters)


def _holds(shelf: Shelf, key: str) -> bool:
    return shelf.group is not None and shelf.group.holds(key)


def _with(fixed: list[KeyEntry], page: KeyPage) -> KeyPage:
    """Give a page with the fixed folders' markers in their places; the store's own records go first."""
    last = page.next_exclusive_start_key if page.is_truncated else None
    entries = {entry.key: entry for entry in fixed if last is None or entry.key <= last}
    entries |= {entry.key: entry for entry in page.items}
    return replace(page, items=tuple(entries[key] for key in sorted(entries)))
