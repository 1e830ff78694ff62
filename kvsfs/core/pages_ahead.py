"""Pages of a listing, several at a time: where the next ones begin is guessed from those before."""

from __future__ import annotations

import bisect
import itertools
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter, lt

import trio

from kvsfs.core.background import Background
from kvsfs.core.key_guesses import Spread
from kvsfs.errors import StoreError
from kvsfs.store.protocol import Store
from kvsfs.types import KeyPage

log = logging.getLogger(__name__)

AT_A_TIME = 8
"""Requests under way beside the one that is needed: at 100 ms a round trip 80 a second, more than the API allows."""

MOST_IN_VAIN = 0.2
"""Requests that may turn out to be of no use, for each that was of use. So a store of up to 5,000 keys, five pages,
is listed without a guess: as many requests as pages."""

SMALLEST_PAGE = 100
"""Keys of a page that tell how they are spread: of 100 hashes, that is known to a tenth."""

MARGIN = 0.08
"""The part of a page that two guesses overlap by where keys are not evenly spread: of 1,000 hashes there are more than
1,080 where 1,000 were expected in one page of a hundred, and that page would be followed by one for the rest."""

REMEMBERED = 8
"""Pages that the next guess goes by."""

_KEY = attrgetter("key")


@dataclass(frozen=True, slots=True)
class FetchedPage:
    """A page, and when it was asked for (trio time)."""

    page: KeyPage
    requested_at: float


@dataclass(slots=True, eq=False)
class _Request:
    """A page that is fetched ahead."""

    start: str
    """The key that it begins behind."""
    fetched: FetchedPage | None = None
    """None while it is under way, or when it failed: whoever needs it asks again."""
    ended: trio.Event = field(default_factory=trio.Event)


class Pages:
    """The pages of keys that a store gives."""

    def __init__(self, store: Store, background: Background) -> None:
        self._store = store
        self._background = background

    async def first(self, prefix: str, limit: int) -> KeyPage:
        """Give the first so many keys with a prefix. Raises StoreError. Checkpoints."""
        return await self._store.list_keys(prefix=prefix, limit=limit)

    def below(self, prefix: str) -> PagesAhead:
        """Give all keys with a prefix, page after page."""
        return PagesAhead(prefix, partial(self._list, prefix), self._background)

    async def _list(self, prefix: str, cursor: str | None) -> KeyPage:
        return await self._store.list_keys(prefix=prefix or None, exclusive_start_key=cursor)


class PagesAhead:
    """The pages below one prefix, from the first to the last.

    INVARIANT: what is given for a cursor holds every key from there to its end. A guess that was wrong costs a
    request: where a page ends before the next one begins, the rest is asked for; where it ends behind that, the
    next one is cut off in front. At most `MOST_IN_VAIN` of the requests are such.
    """

    def __init__(
        self, prefix: str, list_page: Callable[[str | None], Awaitable[KeyPage]], background: Background
    ) -> None:
        """`list_page` gives the page behind a key."""
        self.prefix = prefix
        self._list_page = list_page
        self._background = background
        self._ahead: deque[_Request] = deque()
        """By where they start, ascending."""
        self._seen: deque[tuple[str, int]] = deque(maxlen=REMEMBERED)
        """Where the last pages ended that followed each other, and how many keys had come until there."""
        self._spread: Spread | None = None
        self._page_keys = 0
        self._came = 0
        """Keys that came in all."""
        self._taken = 0
        """Requests whose pages were given, or were of no use."""
        self._complete = False

    async def after(self, cursor: str | None) -> FetchedPage:
        """Give the page behind a key, and have those behind it fetched. Raises StoreError. Checkpoints.

        Cursors grow. One that is further than the last page reached is a jump over keys that nobody wants.
        """
        if self._seen and cursor != self._seen[-1][0]:
            self._seen.clear()
        if cursor is not None:
            self._send_ahead(cursor)
        fetched = None if cursor is None else await self._fetched_ahead(cursor)
        if fetched is None:
            requested_at = trio.current_time()
            fetched = FetchedPage(await self._list_page(cursor), requested_at)
            self._taken += 1
        self._learn(fetched.page)
        return fetched

    async def _fetched_ahead(self, cursor: str) -> FetchedPage | None:
        """Give what there is of a page that begins at a key or before."""
        while self._ahead and self._ahead[0].start <= cursor:
            request = self._ahead[0]
            await request.ended.wait()
            self._ahead.popleft()
            self._taken += 1
            page = None if request.fetched is None else _behind(cursor, request.fetched.page)
            if request.fetched is not None and page is not None:
                return replace(request.fetched, page=page)
        return None

    def _learn(self, page: KeyPage) -> None:
        self._page_keys = max(self._page_keys, len(page.items))
        self._came += len(page.items)
        if not page.is_truncated:
            self._complete = True
        elif page.items:
            self._seen.append((_end(page), self._came))
            if self._may_guess():
                self._spread = Spread.of([entry.key for entry in page.items])

    def _may_guess(self) -> bool:
        """Tell whether one request more could be in vain."""
        if self._page_keys < SMALLEST_PAGE or self._complete or len(self._ahead) >= AT_A_TIME:
            return False
        of_use = self._came / self._page_keys
        return self._taken - of_use + len(self._ahead) + 1 <= MOST_IN_VAIN * of_use

    def _send_ahead(self, cursor: str) -> None:
        spread, pace = self._spread, self._pace()
        if spread is None or pace is None:
            return
        last = max(cursor, self._ahead[-1].start) if self._ahead else cursor
        while self._may_guess():
            number = spread.number(last)
            following = None if number is None else spread.key(number + pace)
            if following is None or following <= last:
                return
            request = _Request(following)
            self._ahead.append(request)
            self._background.start(self._fetch, request)
            last = following

    def _pace(self) -> int | None:
        """Give the distance from one page to the next; None where nothing tells it."""
        if self._spread is None or len(self._seen) < 2:
            return None
        numbers = [(self._spread.number(key), came) for key, came in self._seen]
        known = [(number, came) for number, came in numbers if number is not None]
        steps = {
            (after - before) * self._page_keys // max(1, came_after - came_before)
            for (before, came_before), (after, came_after) in itertools.pairwise(known)
        }
        if not steps:
            return None
        if len(steps) == 1:
            return steps.pop()
        (first, came_first), (last, came_last) = known[0], known[-1]
        return int((last - first) * self._page_keys * (1 - MARGIN) / max(1, came_last - came_first))

    async def _fetch(self, request: _Request) -> None:
        requested_at = trio.current_time()
        try:
            if self._complete:  # the last page came before this one was asked for
                return
            page = await self._list_page(request.start)
            if _ascends(page):
                request.fetched = FetchedPage(page, requested_at)
        except StoreError as error:
            log.debug("a page of keys was not fetched ahead: %s", error)
        finally:
            request.ended.set()


def _ascends(page: KeyPage) -> bool:
    """Tell whether it can be cut where another one ends. The API promises so."""
    keys = [entry.key for entry in page.items]
    return all(map(lt, keys, keys[1:]))


def _behind(cursor: str, page: KeyPage) -> KeyPage | None:
    """Give what a page has behind a key; None if it does not reach that far."""
    if page.is_truncated and _end(page) <= cursor:
        return None
    return replace(page, items=page.items[bisect.bisect_right(page.items, cursor, key=_KEY) :])


def _end(page: KeyPage) -> str:
    """Where a truncated page says that the next one begins; "" when it says nothing."""
    return page.next_exclusive_start_key or (page.items[-1].key if page.items else "")
