"""All keys of a store, page after page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from functools import partial

from kvsfs.errors import ProtocolViolation
from kvsfs.types import KeyEntry, KeyPage

MAX_EMPTY_PAGES = 100
"""In a row. A filter may leave a page empty; a list that only says that it goes on has no end."""


class KeyIterator:
    """Iterates over the keys that a store's `list_keys` gives, from the first one on.

    An iterator and no generator: it may be left at any point without being closed. It checkpoints where it
    fetches a page, not between the keys of one. Raises what `list_keys` raises, and ProtocolViolation when a
    page does not lead on: the cursor has to grow (in UTF-8 order), and there must be keys.
    """

    def __init__(
        self,
        list_keys: Callable[..., Awaitable[KeyPage]],
        *,
        prefix: str | None,
        collection: str | None,
        page_size: int | None,
    ) -> None:
        self._list_keys = partial(list_keys, prefix=prefix, collection=collection, limit=page_size)
        self._cursor: str | None = None
        self._entries: Iterator[KeyEntry] = iter(())
        self._is_last = False
        self._empty_pages = 0

    def __aiter__(self) -> KeyIterator:
        return self

    async def __anext__(self) -> KeyEntry:
        while True:
            for entry in self._entries:
                return entry
            if self._is_last:
                raise StopAsyncIteration
            await self._turn()

    async def _turn(self) -> None:
        page = await self._list_keys(exclusive_start_key=self._cursor)
        self._empty_pages = 0 if page.items else self._empty_pages + 1
        if self._empty_pages > MAX_EMPTY_PAGES:
            raise ProtocolViolation("the list of keys goes on without a key")
        self._is_last = not page.is_truncated
        self._entries = iter(page.items)
        if page.is_truncated:
            self._cursor = self._advanced(page.next_exclusive_start_key)

    def _advanced(self, following: str | None) -> str:
        if following is None:
            raise ProtocolViolation("a truncated list of keys does not say where it goes on")
        if self._cursor is not None and following.encode() <= self._cursor.encode():
            raise ProtocolViolation("the list of keys does not advance")
        return following
