"""What tests of core turn on the store in memory: holding, failing, counting, small pages, no validators."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from kvsfs.errors import StoreNotFound, StoreUnreachable
from kvsfs.store.bodies import BytesBody
from kvsfs.store.memory import MemoryStore, MemoryStoreCollection
from kvsfs.types import RecordKey
from tests.support.running import run_async

KEY = RecordKey("a")


async def new_store(stores: MemoryStoreCollection) -> MemoryStore:
    return stores.store((await stores.get_or_create("s")).id)


async def put(store: MemoryStore, key: RecordKey, content: bytes) -> None:
    await store.set_record(key, BytesBody(content), content_type="text/plain")


def test_calls_are_counted_by_operation() -> None:
    async def main() -> None:
        stores = MemoryStoreCollection(page_size=2)
        store = await new_store(stores)
        for number in range(5):
            await put(store, RecordKey(f"k{number}"), b"x")
        assert [entry.key async for entry in store.iter_keys()] == ["k0", "k1", "k2", "k3", "k4"]
        await store.head_record(KEY)
        assert stores.calls == {"get_or_create": 1, "set_record": 5, "list_keys": 3, "head_record": 1}

    run_async(main)


def test_an_operation_can_be_held_and_made_to_fail() -> None:
    released = trio.Event()
    seen: list[tuple[str, RecordKey | None]] = []

    async def before(operation: str, key: RecordKey | None) -> None:
        seen.append((operation, key))
        if operation == "set_record":
            await released.wait()
        if operation == "delete_record":
            raise StoreUnreachable("the test says so")

    async def main() -> None:
        stores = MemoryStoreCollection(before=before)
        store = await new_store(stores)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(put, store, KEY, b"content")
            await trio.testing.wait_all_tasks_blocked()
            assert not await store.record_exists(KEY)
            released.set()
        assert await store.record_exists(KEY)
        with pytest.raises(StoreUnreachable):
            await store.delete_record(KEY)
        assert await store.record_exists(KEY)

    run_async(main)
    assert seen[:3] == [("get_or_create", None), ("set_record", KEY), ("record_exists", KEY)]


def test_a_cancelled_upload_stores_nothing_and_a_delay_costs_no_time() -> None:
    async def before(operation: str, _key: RecordKey | None) -> None:
        if operation == "set_record":
            await trio.sleep(3600)

    async def main() -> None:
        stores = MemoryStoreCollection(before=before)
        store = await new_store(stores)
        started = trio.current_time()
        with trio.move_on_after(3599) as scope:
            await put(store, KEY, b"content")
        assert scope.cancelled_caught
        assert not await store.record_exists(KEY)
        await put(store, KEY, b"content")
        assert trio.current_time() - started == pytest.approx(3599 + 3600)
        assert await store.record_exists(KEY)

    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_without_validators_a_record_is_always_read() -> None:
    async def main() -> None:
        store = await new_store(MemoryStoreCollection(validators=False))
        await put(store, KEY, b"content")
        head = await store.head_record(KEY)
        assert head is not None
        assert head.validator is None
        async with store.get_record(KEY, if_none_match=head) as stream:
            assert stream is not None

    run_async(main)


def test_the_same_bytes_written_again_are_another_version() -> None:
    async def main() -> None:
        store = await new_store(MemoryStoreCollection())
        validators = set()
        for _ in range(3):
            await put(store, KEY, b"content")
            head = await store.head_record(KEY)
            validators.add(head.validator if head else None)
        assert len(validators) == 3

    run_async(main)


def test_a_store_deleted_during_an_upload_takes_nothing() -> None:
    async def main() -> None:
        stores = MemoryStoreCollection()
        store = await new_store(stores)

        class Deleting(BytesBody):
            def chunks(self) -> trio.MemoryReceiveChannel[bytes]:
                stores.find("~s").exists = False  # type: ignore[union-attr]  # it is there
                sending, receiving = trio.open_memory_channel[bytes](1)
                sending.send_nowait(b"content")
                sending.close()
                return receiving

        with pytest.raises(StoreNotFound):
            await store.set_record(KEY, Deleting(b"content"), content_type="text/plain")

    run_async(main)


@pytest.mark.parametrize("operation", ["get", "list_keys", "delete"])
def test_every_operation_checkpoints(operation: str) -> None:
    async def main() -> None:
        store = await new_store(MemoryStoreCollection())
        with trio.testing.assert_checkpoints():
            await getattr(store, operation)()
        with trio.testing.assert_checkpoints():
            await store.head_record(KEY)

    run_async(main)
