"""Polling: what other clients change shows within the interval, and what that costs."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from unittest.mock import patch

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from kvsfs.core import polling
from kvsfs.core.listing import COST_FACTOR
from kvsfs.core.numbers import ROOT
from kvsfs.core.tuning import Tuning
from kvsfs.errors import FileError, StoreNotFound, StoreUnreachable
from kvsfs.store.memory import MemoryStore
from kvsfs.types import StoreInfo, StoreStats
from tests.support.mounted import Mounted, mounted, on_mock_clock

GONE = StoreUnreachable("the network is down")
INTERVAL = 7.0
"""Seconds: less than the listing's TTL, more than an open goes unasked."""


@asynccontextmanager
async def polled(*, validators: bool = True, page_size: int = 1000) -> AsyncIterator[Mounted]:
    tuning = Tuning(poll=INTERVAL, revalidate=60)
    async with mounted(tuning=tuning, validators=validators, page_size=page_size) as m:
        yield m
        m.fs.check_invariants()


async def next_round() -> None:
    """Wait until a round that has not begun yet is through."""
    await trio.sleep(INTERVAL)
    await wait_all_tasks_blocked()


async def is_there(m: Mounted, path: str) -> bool:
    try:
        await m.walk(path)
    except FileError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    return True


async def size(m: Mounted, path: str) -> int:
    return (await m.file(path)).size


def test_a_round_costs_one_question_while_nothing_changes() -> None:
    async def main() -> None:
        async with polled() as m:
            await m.other.put("f", b"text")
            assert await m.read_file("f") == b"text"
            assert await m.names() == ["f"]
            await next_round()
            asked = m.stores.calls["get"]
            with m.costs():
                for _ in range(20):
                    await next_round()
            assert m.stores.calls["get"] == asked + 20

    on_mock_clock(main)


def test_without_the_option_nobody_asks() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.names()
            asked = m.stores.calls["get"]
            await trio.sleep(1000)
            assert m.stores.calls["get"] == asked

    on_mock_clock(main)


def test_what_this_mount_writes_and_removes_is_no_news() -> None:
    async def main() -> None:
        async with polled() as m:
            await m.names()
            with m.costs(set_record=3, delete_record=1):
                await m.write_file("a", b"1")
                await next_round()
                await m.write_file("b", b"2")
                await m.write_file("a", b"3")
                await m.unlink("b")
                for _ in range(3):
                    await next_round()

    on_mock_clock(main)


def test_a_deletion_elsewhere_shows_within_the_interval() -> None:
    async def main() -> None:
        async with polled() as m:
            for key in ("a", "b", "c"):
                await m.other.put(key, b"x")
            assert await m.names() == ["a", "b", "c"]
            number = (await m.walk("b")).number
            await next_round()
            await m.other.delete("b")
            assert await is_there(m, "b")
            with m.costs(list_keys=1):
                await next_round()
                assert await m.names() == ["a", "c"]
                assert not await is_there(m, "b")
            assert m.kernel.gone == [(ROOT, b"b", number)]

    on_mock_clock(main)


def test_a_deleted_folder_goes_with_all_that_was_in_it() -> None:
    async def main() -> None:
        async with polled() as m:
            await m.other.put("d!2Fx!2Fone", b"1")
            await m.other.put("d!2Ftwo", b"2")
            await m.other.put("z", b"3")
            assert await m.names("d/x") == ["one"]
            assert await m.names("d") == ["two", "x"] or await m.names("d") == ["x", "two"]
            assert sorted(await m.names()) == ["d", "z"]
            await next_round()
            await m.other.delete("d!2Fx!2Fone")
            await m.other.delete("d!2Ftwo")
            await next_round()
            with m.costs():
                assert not await is_there(m, "d")
                assert await m.names() == ["z"]
            assert {name for _, name, _ in m.kernel.gone} == {b"one", b"two", b"x", b"d"}
            assert m.kernel.gone[-1][:2] == (ROOT, b"d")

    on_mock_clock(main)


def test_new_names_show_within_the_interval() -> None:
    async def main() -> None:
        async with polled() as m:
            assert await m.names() == []
            await m.other.put("f", b"text")
            await m.other.put("d!2Fg", b"text")
            await next_round()
            with m.costs():
                assert sorted(await m.names()) == ["d", "f"]
                assert await size(m, "f") == 4

    on_mock_clock(main)


@pytest.mark.parametrize("cached", [True, False])
def test_another_size_shows_within_the_interval(cached: bool) -> None:
    async def main() -> None:
        async with polled() as m:
            await m.other.put("f", b"old")
            assert await m.names() == ["f"]
            if cached:
                assert await m.read_file("f") == b"old"
            await next_round()
            m.kernel.pages.clear()
            await m.other.put("f", b"longer")
            await next_round()
            with m.costs():
                assert await size(m, "f") == 6
            assert (await m.file("f")).number in m.kernel.pages
            with m.costs(get_record=1):
                assert await m.read_file("f") == b"longer"

    on_mock_clock(main)


@pytest.mark.parametrize("validators", [True, False])
def test_an_overwrite_of_the_same_size_is_found_for_what_is_cached(validators: bool) -> None:
    async def main() -> None:
        async with polled(validators=validators) as m:
            keys = [f"k{number}" for number in range(40)]
            for key in keys:
                await m.other.put(key, b"old")
            await next_round()
            for key in keys:
                assert await m.read_file(key) == b"old"
            await next_round()
            m.kernel.pages.clear()
            await m.other.put("k7", b"new")
            with m.costs(list_keys=1, head_record=40):
                await next_round()
            if validators:  # without them nothing can prove that the others are what they were
                assert m.kernel.pages == [(await m.file("k7")).number]
            with m.costs(get_record=1 if validators else 40):
                for key in keys:
                    assert await m.read_file(key) == (b"new" if key == "k7" else b"old")

    on_mock_clock(main)


def test_ours_and_theirs_in_one_round() -> None:
    async def main() -> None:
        async with polled() as m:
            await m.other.put("theirs", b"x")
            await m.names()
            await next_round()
            await m.write_file("ours", b"y")
            await m.other.delete("theirs")
            await next_round()
            assert await m.names() == ["ours"]

    on_mock_clock(main)


def test_an_open_file_keeps_its_version_and_size_until_it_is_closed() -> None:
    async def main() -> None:
        async with polled() as m:
            await m.other.put("f", b"old" * 100)
            await m.names()
            fh = await m.open("f")
            assert await m.fs.files.read(fh, 0, 3) == b"old"
            await next_round()
            m.kernel.pages.clear()
            await m.other.put("f", b"new")
            await next_round()
            assert await size(m, "f") == 300
            assert m.kernel.pages == []
            assert await m.read_all(fh) == b"old" * 100
            await m.close(fh)
            with m.costs(head_record=1):
                await next_round()
            with m.costs():
                assert await size(m, "f") == 3
            assert await m.read_file("f") == b"new"

    on_mock_clock(main)


def test_a_second_open_beside_an_old_one_sees_the_new_version() -> None:
    async def main() -> None:
        async with polled() as m:
            await m.other.put("f", b"old")
            old = await m.open("f")
            await next_round()
            await m.other.put("f", b"new")
            await next_round()
            assert await m.read_file("f") == b"new"
            assert await m.read_all(old) == b"old"
            await m.close(old)

    on_mock_clock(main)


def test_a_file_that_is_deleted_while_open_goes_with_its_last_close() -> None:
    async def main() -> None:
        async with polled() as m:
            await m.other.put("f", b"text")
            await m.names()
            fh = await m.open("f")
            await next_round()
            await m.other.delete("f")
            await next_round()
            assert await m.names() == ["f"]
            assert await m.read_all(fh) == b"text"
            with m.costs():
                await m.close(fh)
                assert await m.names() == []
                assert not await is_there(m, "f")
            assert [name for _, name, _ in m.kernel.gone] == [b"f"]

    on_mock_clock(main)


def test_a_file_that_is_deleted_while_open_and_then_written_is_a_record_again() -> None:
    async def main() -> None:
        async with polled() as m:
            await m.other.put("f", b"text")
            await m.names()
            fh = await m.open("f", 2)
            await next_round()
            await m.other.delete("f")
            await next_round()
            await m.fs.files.write(fh, 4, b" again")
            await m.close(fh)
            assert await m.names() == ["f"]
            assert await m.other.records() == {"f": b"text again"}
            await next_round()
            assert await m.names() == ["f"]

    on_mock_clock(main)


def test_what_is_written_here_is_not_taken_for_theirs() -> None:
    async def main() -> None:
        async with polled() as m:
            await m.other.put("f", b"theirs, first")
            await m.names()
            fh = await m.open("f", 2)
            await m.fs.files.write(fh, 0, b"OURS")
            await next_round()
            await m.other.put("f", b"theirs, second")
            await next_round()
            assert await m.read_all(fh) == b"OURSrs, first"
            await m.close(fh)
            for _ in range(3):
                await next_round()
            assert await m.other.records() == {"f": b"OURSrs, first"}
            assert await m.read_file("f") == b"OURSrs, first"

    on_mock_clock(main)


@pytest.mark.parametrize("operation", ["get", "list_keys", "head_record"])
def test_what_a_round_could_not_ask_the_next_one_asks(operation: str) -> None:
    async def main() -> None:
        async with polled() as m:
            for key in ("same", "gone"):
                await m.other.put(key, b"old")
            await m.names()
            assert await m.read_file("same") == b"old"
            await next_round()
            await m.other.put("same", b"new")
            await m.other.delete("gone")
            m.hooks.fail(operation, GONE)
            await next_round()
            await next_round()
            with m.costs(get_record=1):
                assert await m.names() == ["same"]
                assert await m.read_file("same") == b"new"

    on_mock_clock(main)


def test_what_is_too_much_for_one_round_is_asked_for_in_the_next() -> None:
    async def main() -> None:
        with patch.object(polling, "FILES_A_ROUND", 4), patch.object(polling, "FOLDERS_A_ROUND", 2):
            async with polled() as m:
                for folder in ("a", "b", "c"):
                    for number in range(3):
                        await m.other.put(f"{folder}!2F{number}", b"old")
                for folder in ("a", "b", "c"):
                    for number in range(3):
                        assert await m.read_file(f"{folder}/{number}") == b"old"
                for _ in range(4):
                    await next_round()
                await m.other.put("c!2F2", b"new")
                with m.costs(list_keys=2, head_record=4):
                    await next_round()
                with m.costs(list_keys=2, head_record=4):
                    await next_round()
                with m.costs(head_record=1):
                    await next_round()
                with m.costs():
                    await next_round()
                with m.costs(get_record=1):
                    assert await m.read_file("c/2") == b"new"

    on_mock_clock(main)


def test_a_folder_that_takes_long_to_list_is_not_listed_in_every_round() -> None:
    async def main() -> None:
        async with polled(page_size=2) as m:
            for number in range(10):
                await m.other.put(f"k{number}", b"x")
            m.hooks.delay = 1.0
            assert len(await m.names()) == 10  # 5 s: at most every 50 s
            lists = m.calls["list_keys"]
            started = trio.current_time()
            while trio.current_time() - started < 10 * 5 * COST_FACTOR:
                await m.other.put("k0", b"x")
                await trio.sleep(3)
            assert 8 * 5 <= m.calls["list_keys"] - lists <= 10 * 5

    on_mock_clock(main)


def test_a_reader_amid_a_folder_sees_each_name_once() -> None:
    async def main() -> None:
        async with polled(page_size=10) as m:
            keys = [f"k{number:02}" for number in range(40)]
            for key in keys:
                await m.other.put(key, b"x")
            await m.names()
            fh = m.fs.opendir(ROOT)
            entries = await m.fs.readdir(fh, 0)
            seen = [name.decode() for name, _, _ in entries[:5]]
            await m.other.delete("k30")
            await m.other.put("k99", b"x")
            await next_round()
            place = entries[4][2]
            while entries := await m.fs.readdir(fh, place):
                seen += [name.decode() for name, _, _ in entries]
                place = entries[-1][2]
            assert sorted(set(seen) - {"k99"}) == [key for key in keys if key != "k30"]
            assert len(seen) == len(set(seen))

    on_mock_clock(main)


def test_a_name_in_a_folder_that_was_never_listed_whole_goes_too() -> None:
    async def main() -> None:
        async with polled(page_size=3) as m:
            for number in range(30):
                await m.other.put(f"k{number:02}", b"old")
            file = await m.file("k20")
            m.fs.inodes.looked_up(file)
            await m.other.delete("k20")
            await next_round()
            assert not await is_there(m, "k20")

    on_mock_clock(main)


def test_a_store_that_counts_nothing_is_watched_by_its_time() -> None:
    async def main() -> None:
        original = MemoryStore.get

        async def uncounted(self: MemoryStore) -> StoreInfo | None:
            info = await original(self)
            return None if info is None else replace(info, stats=StoreStats())

        with patch.object(MemoryStore, "get", uncounted):
            async with polled() as m:
                await m.other.put("f", b"text")
                await m.names()
                await next_round()
                with m.costs():
                    await next_round()
                await m.other.delete("f")
                await next_round()
                with m.costs():
                    assert await m.names() == []

    on_mock_clock(main)


def test_a_store_that_is_gone_stops_nothing() -> None:
    async def main() -> None:
        async with polled() as m:
            await m.names()
            await m.other.store.delete()
            await next_round()
            await next_round()
            assert await m.names() == []
            with pytest.raises(StoreNotFound):
                await m.write_file("f", b"x")

    on_mock_clock(main)
