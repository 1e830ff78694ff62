"""A folder in the cache before anybody reads it: each record once, with its progress, and nothing asked again."""

from __future__ import annotations

import pytest
import trio

from kvsfs.core.inodes import Folder
from kvsfs.core.prefetch import AT_A_TIME
from kvsfs.core.warming import Warmth
from kvsfs.errors import StoreUnreachable
from kvsfs.store.priority import is_background
from kvsfs.types import RecordKey
from tests.support.mounted import Mounted, mounted, on_mock_clock

COUNT = 90


async def fill(m: Mounted) -> None:
    for number in range(COUNT):
        await m.other.put(f"d!2Fk{number:03}", b"x" * number)
    await m.other.put("beside", b"y")


async def folder(m: Mounted) -> Folder:
    found = await m.walk("d")
    assert isinstance(found, Folder)
    return found


def test_each_record_below_is_fetched_once_side_by_side_and_then_read_without_a_request() -> None:
    async def main() -> None:
        async with mounted() as m:
            await fill(m)
            below = await folder(m)
            said: list[Warmth] = []
            in_the_way: list[RecordKey | None] = []

            async def before(_operation: str, key: RecordKey | None) -> None:
                if not is_background():
                    in_the_way.append(key)
                await trio.sleep(1)

            m.stores.before = before
            started = trio.current_time()
            with m.costs(get_record=COUNT, list_keys=1):
                await m.fs.warm(below, said.append)
            assert trio.current_time() - started <= 1 + COUNT / AT_A_TIME + 1
            assert in_the_way == []
            assert [warmth.files for warmth in said] == list(range(1, COUNT + 1))
            assert said[-1] == Warmth(COUNT, COUNT * (COUNT - 1) // 2, COUNT, COUNT * (COUNT - 1) // 2)
            with m.costs():
                for number in range(COUNT):
                    assert await m.read_file(f"d/k{number:03}") == b"x" * number
            m.fs.check_invariants()

    on_mock_clock(main)


def test_a_store_that_is_gone_ends_it_with_one_error_and_what_is_here_stays() -> None:
    async def main() -> None:
        async with mounted() as m:
            await fill(m)
            below = await folder(m)
            m.hooks.fail("get_record", StoreUnreachable("the network is down"), "d!2Fk060")
            m.hooks.delay = 0.1
            with pytest.raises(StoreUnreachable):
                await m.fs.warm(below, lambda _: None)
            with m.costs():
                assert await m.read_file("d/k001") == b"x"
            m.fs.check_invariants()

    on_mock_clock(main)


def test_a_record_that_is_removed_meanwhile_is_left_out() -> None:
    async def main() -> None:
        async with mounted() as m:
            await fill(m)
            below = await folder(m)
            await m.names("d")
            await m.other.delete("d!2Fk050")
            said: list[Warmth] = []
            await m.fs.warm(below, said.append)
            assert said[-1].files == COUNT
            assert "k050" not in await m.names("d")

    on_mock_clock(main)
