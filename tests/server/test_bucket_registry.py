"""Stores and their names in a bucket: servers that race, and servers that die between two steps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from obstore.store import MemoryStore

from kvsfs.server.bucket import registry
from kvsfs.server.bucket.checking import BucketCheck
from kvsfs.server.bucket.objects import Bucket
from kvsfs.server.bucket.registry import Registry, new_store
from kvsfs.server.index import new_id
from kvsfs.server.moments import now_ms
from kvsfs.server.storage import NameTaken
from kvsfs.types import StoreInfo
from tests.support.memory_bucket import Died, DyingBucket

Step = Callable[[Registry, StoreInfo], Awaitable[object]]


def make(name: str | None = "one") -> StoreInfo:
    return new_store(new_id(), "joe", name)


async def page(of: Registry) -> list[StoreInfo]:
    stores, total = await of.page("joe", offset=0, limit=100, desc=False, unnamed=True)
    assert total == len(stores)
    return list(stores)


async def assert_sound(store: MemoryStore, name: str) -> None:
    """What is listed, what has its name and what has its ID are the same stores; and names can be used again."""
    fresh = Registry(Bucket(store))
    for listed in await page(fresh):
        assert await fresh.get(listed.id) == listed
        if listed.name is not None:
            assert await fresh.find("joe", listed.name) == listed
    found = await fresh.find("joe", name)
    made = found or await fresh.make(make(name))
    assert made is not None
    assert await Registry(Bucket(store)).find("joe", name) == made
    assert made in await page(fresh)


async def mended(store: MemoryStore) -> list[str]:
    told: list[str] = []
    bucket = Bucket(store)
    await BucketCheck(bucket, Registry(bucket), told.append, lambda _: None).run()
    return told


def test_of_many_who_make_one_name_one_makes_it() -> None:
    async def scenario() -> None:
        store = MemoryStore()
        servers = [Registry(Bucket(store)) for _ in range(8)]
        made = await asyncio.gather(*(server.make(make()) for server in servers))
        (winner,) = [one for one in made if one is not None]
        assert [one.id for one in await page(servers[0])] == [winner.id]
        for server in servers:
            found = await server.find("joe", "one")
            assert found is not None
            assert found.id == winner.id

    asyncio.run(scenario())


def test_of_two_who_rename_to_one_name_one_does() -> None:
    async def scenario() -> None:
        store = MemoryStore()
        servers = [Registry(Bucket(store)) for _ in range(2)]
        stores = [make("a"), make("b")]
        for server, one in zip(servers, stores, strict=True):
            assert await server.make(one) is not None
        ended = await asyncio.gather(
            *(server.update(one.id, {"name": "c"}) for server, one in zip(servers, stores, strict=True)),
            return_exceptions=True,
        )
        assert sorted(type(one).__name__ for one in ended) == ["NameTaken", "StoreInfo"]
        names = sorted(one.name or "" for one in await page(Registry(Bucket(store))))
        assert names in (["a", "c"], ["b", "c"])
        await assert_sound(store, "c")

    asyncio.run(scenario())


def test_changes_of_two_servers_to_one_store_both_hold() -> None:
    async def scenario() -> None:
        store = MemoryStore()
        first, second = Registry(Bucket(store)), Registry(Bucket(store))
        one = make()
        await first.make(one)
        for number in range(5):
            await asyncio.gather(
                first.update(one.id, {"title": f"title {number}"}),
                second.update(one.id, {"name": f"name-{number}"}),
            )
            found = await Registry(Bucket(store)).get(one.id)
            assert found is not None
            assert (found.title, found.name) == (f"title {number}", f"name-{number}")
        await assert_sound(store, "name-4")

    asyncio.run(scenario())


def test_a_taken_name_is_refused_and_nothing_changes() -> None:
    async def scenario() -> None:
        store = MemoryStore()
        server = Registry(Bucket(store))
        first, second = make("a"), make("b")
        await server.make(first)
        await server.make(second)
        with pytest.raises(NameTaken):
            await server.update(second.id, {"name": "a", "title": "new"})
        assert await Registry(Bucket(store)).get(second.id) == second

    asyncio.run(scenario())


def test_a_name_that_was_given_up_can_be_taken() -> None:
    async def scenario() -> None:
        store = MemoryStore()
        server = Registry(Bucket(store))
        first = make("a")
        await server.make(first)
        await server.update(first.id, {"name": None})
        assert await server.find("joe", "a") is None
        second = make("a")
        assert await Registry(Bucket(store)).make(second) == second
        renamed = await server.get(first.id)
        assert renamed is not None
        await server.delete(renamed)  # nothing of the name is left to it
        assert await Registry(Bucket(store)).find("joe", "a") == second

    asyncio.run(scenario())


STEPS: dict[str, tuple[Step, str]] = {
    "make": (lambda server, _: server.make(make("new")), "new"),
    "rename": (lambda server, one: server.update(one.id, {"name": "new"}), "new"),
    "rename away": (lambda server, one: server.update(one.id, {"name": "new"}), "old"),
    "unname": (lambda server, one: server.update(one.id, {"name": None}), "old"),
    "delete": (lambda server, one: server.delete(one), "old"),
}


@pytest.mark.parametrize("kind", STEPS)
def test_what_a_server_leaves_that_dies_is_mended(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    step, name = STEPS[kind]

    async def scenario(changes: int) -> bool:
        store = MemoryStore()
        old = make("old")
        await Registry(Bucket(store)).make(old)
        try:
            await step(Registry(DyingBucket(store, changes)), old)
        except Died:
            died = True
        else:
            died = False
        later = now_ms() + registry.CLAIM_MS + 1
        monkeypatch.setattr(registry, "now_ms", lambda: later)
        assert await mended(store) == []
        await assert_sound(store, name)
        monkeypatch.undo()
        return died

    changes = 0
    while asyncio.run(scenario(changes)):
        changes += 1
    assert changes >= 3


def test_a_page_of_stores_is_by_creation_and_those_without_a_name_on_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        server = Registry(Bucket(MemoryStore()))
        stores = []
        for number in range(5):
            monkeypatch.setattr(registry, "now_ms", lambda number=number: 1_000_000_000_000 + number)
            stores.append(make(f"name-{number}" if number % 2 else None))
            await server.make(stores[-1])
        every, total = await server.page("joe", offset=1, limit=3, desc=True, unnamed=True)
        assert ([one.id for one in every], total) == ([stores[n].id for n in (3, 2, 1)], 5)
        named, total = await server.page("joe", offset=0, limit=9, desc=False, unnamed=False)
        assert ([one.id for one in named], total) == ([stores[n].id for n in (1, 3)], 2)
        assert await server.page("ann", offset=0, limit=9, desc=False, unnamed=True) == ([], 0)

    asyncio.run(scenario())
