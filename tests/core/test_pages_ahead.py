"""Pages fetched side by side: the same keys as one after the other, few requests more, whatever happens meanwhile."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from kvsfs.core.background import Background
from kvsfs.core.numbers import ROOT
from kvsfs.core.pages_ahead import AT_A_TIME, MOST_IN_VAIN, Pages, PagesAhead
from kvsfs.errors import StoreUnreachable
from kvsfs.store.bodies import BytesBody
from kvsfs.store.memory import MemoryStore, MemoryStoreCollection
from kvsfs.types import KeyPage, RecordKey
from tests.support.mounted import mounted, on_mock_clock

PAGE = 100
ROUND_TRIP = 0.05

GROUPS = ["INPUT", "OUTPUT", "page", "screenshot", "zip"]
KINDS: dict[str, Callable[[int], str]] = {
    "counter": lambda n: f"page-{n:09}.html",
    "unpadded": lambda n: f"item-{n}.json",
    "hashes": lambda n: hashlib.sha1(str(n).encode()).hexdigest(),
    "groups": lambda n: f"{GROUPS[n % 5]}-{n:06}",
    "powers": lambda n: f"{n**5:024}",
}


class Listed:
    """A store whose pages come after a round trip, and who asked for them."""

    def __init__(self, stores: MemoryStoreCollection, nursery: trio.Nursery) -> None:
        self.stores = stores
        self.background = Background(nursery)
        self.under_way = self.most_under_way = 0
        self.store: MemoryStore

    async def fill(self, keys: list[str]) -> None:
        self.store = self.stores.store((await self.stores.get_or_create("s")).id)
        for key in keys:
            await self.put(key)
        self.stores.before = self._travel
        self.stores.calls.clear()

    async def put(self, key: str) -> None:
        await self.store.set_record(RecordKey(key), BytesBody(b"1"), content_type="text/plain")

    def pages(self) -> PagesAhead:
        return Pages(self.store, self.background).below("")

    async def all(self) -> list[str]:
        pages, cursor, found = self.pages(), None, list[str]()
        while True:
            page = (await pages.after(cursor)).page
            found += [entry.key for entry in page.items]
            cursor = page.next_exclusive_start_key
            if not page.is_truncated:
                await self.background.idle()
                return found

    @property
    def lists(self) -> int:
        return self.stores.calls["list_keys"]

    async def _travel(self, operation: str, key: RecordKey | None) -> None:  # noqa: ARG002
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await trio.sleep(ROUND_TRIP)
        finally:
            self.under_way -= 1


@asynccontextmanager
async def listed(*keys: str, page_size: int = PAGE) -> AsyncIterator[Listed]:
    async with trio.open_nursery() as nursery:
        store = Listed(MemoryStoreCollection(page_size=page_size), nursery)
        await store.fill(list(keys))
        yield store


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_all_keys_come_once_and_in_order_for_a_fifth_more_requests_at_most(
    kind: Callable[[int], str],
) -> None:
    async def main() -> None:
        keys = sorted(map(kind, range(40 * PAGE)))
        async with listed(*keys) as store:
            assert await store.all() == keys
            assert 40 <= store.lists <= 40 * (1 + MOST_IN_VAIN) + 1
            assert store.most_under_way <= AT_A_TIME + 1

    on_mock_clock(main)


@pytest.mark.parametrize("count", [0, 1, PAGE, PAGE + 1, 5 * PAGE])
def test_a_small_store_costs_its_pages(count: int) -> None:
    async def main() -> None:
        keys = [f"k{number:05}" for number in range(count)]
        async with listed(*keys) as store:
            assert await store.all() == keys
            assert store.lists == max(1, math.ceil(count / PAGE))

    on_mock_clock(main)


def test_small_pages_tell_too_little_to_guess_by() -> None:
    async def main() -> None:
        async with listed(*(f"k{number:05}" for number in range(300)), page_size=10) as store:
            await store.all()
            assert store.lists == 30

    on_mock_clock(main)


@pytest.mark.parametrize(
    ("kind", "pages", "page_size", "part"), [("counter", 100, PAGE, 1 / 3), ("hashes", 60, 1000, 0.6)]
)
def test_many_pages_take_a_part_of_their_round_trips(
    kind: str, pages: int, page_size: int, part: float
) -> None:
    async def main() -> None:
        keys = sorted(map(KINDS[kind], range(pages * page_size)))
        async with listed(*keys, page_size=page_size) as store:
            begun = trio.current_time()
            assert await store.all() == keys
            assert trio.current_time() - begun <= pages * ROUND_TRIP * part

    on_mock_clock(main)


def test_nothing_is_fetched_ahead_of_a_reader_who_does_not_go_on() -> None:
    async def main() -> None:
        keys = [f"k{number:05}" for number in range(40 * PAGE)]
        async with listed(*keys) as store:
            pages, cursor = store.pages(), None
            for _ in range(20):
                cursor = (await pages.after(cursor)).page.next_exclusive_start_key
            await trio.sleep(60)
            assert store.lists <= 20 * (1 + MOST_IN_VAIN)

    on_mock_clock(main)


@pytest.mark.parametrize("seed", range(8))
def test_what_others_add_and_delete_meanwhile_hides_nothing_and_doubles_nothing(seed: int) -> None:
    async def main() -> None:
        chance = random.Random(seed)
        kind = KINDS[["counter", "hashes"][seed % 2]]
        keys = sorted(map(kind, range(30 * PAGE)))
        staying, going = set(keys[::2]), keys[1::2]
        coming = [f"{key[:-6]}{chance.randrange(10**6)}" for key in chance.choices(keys, k=500)]
        async with listed(*keys) as store:
            pages, cursor, found = store.pages(), None, list[str]()
            while True:
                page = (await pages.after(cursor)).page
                found += [entry.key for entry in page.items]
                cursor = page.next_exclusive_start_key
                if not page.is_truncated:
                    break
                store.stores.before = None
                for key in chance.sample(going, 50):
                    await store.store.delete_record(RecordKey(key))
                for key in chance.sample(coming, 20):
                    await store.put(key)
                store.stores.before = store._travel
            assert found == sorted(set(found))
            assert staying <= set(found) <= {*keys, *coming}
            await store.background.idle()

    on_mock_clock(main)


def test_a_page_that_fails_ahead_is_asked_for_again_and_one_that_is_needed_raises() -> None:
    async def main() -> None:
        keys = [f"k{number:05}" for number in range(20 * PAGE)]
        async with listed(*keys) as store:
            failing = False

            async def unreliable(operation: str, key: RecordKey | None) -> None:
                await store._travel(operation, key)
                if failing or store.lists % 3 == 0:
                    raise StoreUnreachable("lost")

            store.stores.before = unreliable
            pages, cursor, found = store.pages(), None, list[str]()
            while len(found) < len(keys):
                try:
                    page = (await pages.after(cursor)).page
                except StoreUnreachable:
                    continue
                found += [entry.key for entry in page.items]
                cursor = page.next_exclusive_start_key or cursor
            assert found == keys
            await store.background.idle()

    on_mock_clock(main)


def test_a_jump_leaves_out_what_lies_between() -> None:
    async def main() -> None:
        keys = [f"k{number:05}" for number in range(40 * PAGE)]
        async with listed(*keys) as store:
            pages, cursor = store.pages(), None
            for _ in range(15):
                cursor = (await pages.after(cursor)).page.next_exclusive_start_key
            page = (await pages.after("k03000")).page
            assert page.items[0].key == "k03001"
            await store.background.idle()

    on_mock_clock(main)


@settings(max_examples=30, deadline=None)
@given(st.sets(st.text("0129abz-.", min_size=1, max_size=6), min_size=300, max_size=1500))
def test_any_keys_come_once_and_in_order(keys: set[str]) -> None:
    async def main() -> None:
        async with listed(*sorted(keys)) as store:
            assert await store.all() == sorted(keys)

    on_mock_clock(main)


@pytest.mark.parametrize("last_first", [False, True])
def test_pages_that_do_not_ascend_are_not_cut(last_first: bool) -> None:
    """Whatever a server sends: what it lists is shown."""

    async def main() -> None:
        keys = [f"k{number:05}" for number in range(20 * PAGE)]
        async with listed(*keys) as store:
            honest = store.store.list_keys

            async def turned(*, exclusive_start_key: str | None = None, prefix: str | None = None) -> KeyPage:
                page = await honest(exclusive_start_key=exclusive_start_key, prefix=prefix)
                return replace(page, items=page.items[::-1]) if last_first else page

            store.store.list_keys = turned  # type: ignore[method-assign, assignment]
            assert sorted(await store.all()) == keys

    on_mock_clock(main)


def test_what_is_made_renamed_and_removed_here_meanwhile_is_shown_as_it_is_now() -> None:
    """A page that was fetched ahead knows nothing of it, and is right about the rest."""

    async def main() -> None:
        async with mounted(page_size=PAGE) as m:
            keys = [f"k{number:05}" for number in range(30 * PAGE)]
            for key in keys:
                await m.other.put(key, b"x")
            m.stores.before = _round_trip
            fh, place, found = m.fs.opendir(ROOT), 0, list[str]()
            step = 0
            while entries := await m.fs.readdir(fh, place):
                found += [name.decode() for name, _, _ in entries[:PAGE]]
                place = entries[:PAGE][-1][2]
                step += 1
                await m.fs.unlink(ROOT, f"k{2990 - step:05}".encode())
                await m.write_file(f"n{step:05}", b"new")
            made = {f"n{number:05}" for number in range(1, step + 1)}
            removed = {f"k{2990 - number:05}" for number in range(1, step + 1)}
            assert len(found) == len(set(found))
            assert set(keys) - removed <= set(found) <= {*keys, *made}
            assert step >= 30
            assert set(await m.names()) == set(keys) - removed | made

    on_mock_clock(main)


async def _round_trip(operation: str, key: RecordKey | None) -> None:  # noqa: ARG001
    await trio.sleep(ROUND_TRIP)
