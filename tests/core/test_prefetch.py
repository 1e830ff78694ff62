"""What is fetched before it is asked for: how far ahead, in which order, and never for the price of old bytes."""

from __future__ import annotations

import gzip
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from kvsfs.core import bulk, prefetch
from kvsfs.core.prefetch import AT_A_TIME, LARGEST_WINDOW, OPENS_BEFORE
from kvsfs.core.tuning import Tuning
from kvsfs.errors import FileError, StoreUnreachable
from kvsfs.store.priority import is_background
from kvsfs.types import RecordKey
from tests.support.mounted import Mounted, mounted, on_mock_clock

ROUND_TRIP = 0.05
GONE = StoreUnreachable("the network is down")


@pytest.fixture(autouse=True)
def no_archives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave reading a folder as a whole to test_bulk.py."""
    monkeypatch.setattr(bulk, "FEWEST", 1_000_000)


def keys(count: int) -> list[str]:
    return [f"k{number:04}" for number in range(count)]


@asynccontextmanager
async def filled(
    count: int, *, tuning: Tuning | None = None, validators: bool = True, round_trip: float = ROUND_TRIP
) -> AsyncIterator[Mounted]:
    """A store of so many records, each with its key as bytes, listed once."""
    async with mounted(tuning=tuning, validators=validators) as m:
        for key in keys(count):
            await m.other.put(key, key.encode())
        await m.names()
        m.hooks.delay = round_trip
        m.hooks.log.clear()
        yield m
        await trio.testing.wait_all_tasks_blocked()
        m.fs.check_invariants()


async def scan(m: Mounted, names: list[str]) -> float:
    """Read files one after the other; the seconds that it took."""
    started = trio.current_time()
    for name in names:
        assert await m.read_file(name) == name.encode()
        await trio.testing.wait_all_tasks_blocked()  # the kernel's next request comes a moment later
    return trio.current_time() - started


def asked(m: Mounted) -> list[str]:
    return [key for operation, key in m.hooks.log if operation == "get_record" and key is not None]


async def settle(m: Mounted) -> None:
    await m.fs._background.idle()


def test_a_folder_read_in_order_costs_each_record_once_and_few_round_trips() -> None:
    async def main() -> None:
        async with filled(300) as m:
            with m.costs(get_record=300):
                assert await scan(m, keys(300)) < 300 / AT_A_TIME * ROUND_TRIP + 12 * ROUND_TRIP
            assert sorted(asked(m)) == keys(300)

    on_mock_clock(main)


def test_two_files_are_no_scan() -> None:
    async def main() -> None:
        async with filled(20) as m:
            with m.costs(get_record=OPENS_BEFORE - 1):
                await scan(m, keys(OPENS_BEFORE - 1))
                await settle(m)

    on_mock_clock(main)


@pytest.mark.parametrize("step", [8, 40])
def test_files_here_and_there_are_no_scan(step: int) -> None:
    async def main() -> None:
        async with filled(400) as m:
            names = keys(400)[::step]
            with m.costs(get_record=len(names)):
                await scan(m, names)
                await settle(m)

    on_mock_clock(main)


def test_requests_are_side_by_side_and_bounded_in_number_and_distance() -> None:
    async def main() -> None:
        async with filled(300) as m:
            running = most = furthest = 0
            opened: list[str] = []

            async def before(operation: str, key: RecordKey | None) -> None:
                nonlocal running, most, furthest
                if operation == "get_record" and key is not None:
                    running += 1
                    most = max(most, running)
                    furthest = max(furthest, int(key[1:]) + 1 - len(opened))
                    await trio.sleep(ROUND_TRIP)
                    running -= 1

            m.stores.before = before
            for name in keys(300):
                opened.append(name)
                await m.read_file(name)
                await trio.sleep(ROUND_TRIP / AT_A_TIME * 2)  # slower than what is fetched
            assert AT_A_TIME <= most <= AT_A_TIME + 1  # and one that somebody waits for
            assert furthest == LARGEST_WINDOW

    on_mock_clock(main)


def test_guesses_give_way_to_what_somebody_waits_for() -> None:
    async def main() -> None:
        async with filled(30) as m:
            said: dict[str, bool] = {}

            async def before(operation: str, key: RecordKey | None) -> None:
                if operation == "get_record" and key is not None:
                    said[key] = is_background()

            m.stores.before = before
            await scan(m, keys(30))
            assert [key for key in keys(30) if not said[key]] == keys(OPENS_BEFORE)

    on_mock_clock(main)


def test_several_readers_in_a_folder_each_get_what_they_come_to() -> None:
    async def main() -> None:
        async with filled(400) as m:
            started = trio.current_time()
            async with trio.open_nursery() as nursery:
                for reader in range(4):
                    nursery.start_soon(scan, m, keys(400)[reader * 100 : reader * 100 + 100])
            assert trio.current_time() - started < 400 / AT_A_TIME * ROUND_TRIP + 12 * ROUND_TRIP
            assert sorted(asked(m)) == keys(400)

    on_mock_clock(main)


def test_readers_that_take_turns_in_a_folder_are_one() -> None:
    async def main() -> None:
        async with filled(200) as m:
            names = iter(keys(200))

            async def reader() -> None:
                for name in names:
                    assert await m.read_file(name) == name.encode()

            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(reader)
            assert sorted(asked(m)) == keys(200)

    on_mock_clock(main)


@pytest.mark.parametrize("validators", [True, False])
def test_a_cached_folder_is_validated_ahead_of_its_reader(validators: bool) -> None:
    async def main() -> None:
        async with filled(300, validators=validators) as m:
            await scan(m, keys(300))
            await trio.sleep(m.tuning.revalidate)
            m.hooks.log.clear()
            assert await scan(m, keys(300)) < 300 / AT_A_TIME * ROUND_TRIP + 12 * ROUND_TRIP
            assert sorted(asked(m)) == keys(300)
            with m.costs():
                await scan(m, keys(300)[-100:])

    on_mock_clock(main)


def test_no_more_bytes_are_fetched_ahead_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "AHEAD_BYTES", 1000)

    async def main() -> None:
        async with mounted() as m:
            for key in keys(40):
                await m.other.put(key, bytes(300))
            await m.names()
            for number, key in enumerate(keys(40), 1):
                await m.read_file(key)
                await settle(m)
                assert m.calls["get_record"] <= min(40, number + 3)
            assert m.calls["get_record"] == 40

    on_mock_clock(main)


def test_a_large_record_is_left_to_its_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "LARGEST_RECORD", 1000)

    async def main() -> None:
        async with filled(10) as m:
            await m.other.put("k0005", bytes(1001))
            await trio.sleep(m.tuning.listing_ttl + 1)
            await m.names()
            await scan(m, keys(5))
            await settle(m)
            assert "k0005" not in asked(m)
            assert "k0006" in asked(m)

    on_mock_clock(main)


def test_a_small_record_that_unpacks_to_a_large_one_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "LARGEST_RECORD", 100_000)
    large = bytes(100_001)

    async def main() -> None:
        async with filled(10) as m:
            await m.other.put("k0005", gzip.compress(large), content_encoding="gzip")
            await scan(m, keys(5))
            await settle(m)
            assert "k0005" in asked(m)
            assert (await m.file("k0005")).content is None
            assert await m.read_file("k0005") == large
            await scan(m, keys(10)[6:])

    on_mock_clock(main)


def test_guesses_that_are_not_read_make_the_window_small() -> None:
    async def main() -> None:
        async with filled(1500) as m:
            await scan(m, keys(200))
            for start in range(300, 1500, 300):
                await scan(m, keys(1500)[start : start + OPENS_BEFORE])
                await settle(m)
            wanted = 200 + 4 * OPENS_BEFORE
            assert m.calls["get_record"] <= wanted + LARGEST_WINDOW + 4 * 2

    on_mock_clock(main)


def test_a_reader_that_leaves_out_most_files_is_not_followed_far() -> None:
    async def main() -> None:
        async with filled(1200) as m:
            names = keys(1200)[:30] + keys(1200)[30::4]
            await scan(m, names)
            await settle(m)
            assert m.calls["get_record"] < 2 * len(names)

    on_mock_clock(main)


def test_a_slow_reader_is_not_fetched_for_in_vain() -> None:
    async def main() -> None:
        async with filled(30) as m:
            for name in keys(30):
                await m.read_file(name)
                await trio.sleep(m.tuning.revalidate + 1)
            assert asked(m) == keys(30)

    on_mock_clock(main)


def test_what_fails_ahead_is_shown_to_nobody_and_asked_for_again_by_the_open() -> None:
    async def main() -> None:
        async with filled(40) as m:
            m.hooks.fail("get_record", GONE, "k0005")
            await scan(m, keys(40))
            assert asked(m).count("k0005") == 2
            assert len(asked(m)) == 41

    on_mock_clock(main)


def test_after_a_failure_nothing_is_guessed_for_a_while() -> None:
    async def main() -> None:
        async with filled(60) as m:
            m.hooks.fail("get_record", GONE, "k0003")
            await scan(m, keys(10))
            assert [key for key in asked(m) if key > "k0009"] == []

    on_mock_clock(main)


def test_a_record_that_is_gone_loses_its_name_and_the_rest_goes_on() -> None:
    async def main() -> None:
        async with filled(40) as m:
            await m.other.delete("k0010")
            await scan(m, keys(10))
            await settle(m)
            with pytest.raises(FileError):
                await m.read_file("k0010")
            await scan(m, keys(40)[11:])

    on_mock_clock(main)


def test_an_unlink_does_not_wait_for_what_is_fetched_ahead() -> None:
    async def main() -> None:
        async with filled(20) as m:
            gate = m.hooks.hold("get_record", "k0004")
            await scan(m, keys(3))
            await gate.reached.wait()
            await m.unlink("k0004")
            assert not gate.opened.is_set()
            assert "k0004" not in await m.other.records()
            await scan(m, [key for key in keys(20) if key != "k0004"])

    on_mock_clock(main)


def test_an_overwrite_does_not_wait_for_what_is_fetched_ahead() -> None:
    async def main() -> None:
        async with filled(20) as m:
            gate = m.hooks.hold("get_record", "k0004")
            await scan(m, keys(3))
            await gate.reached.wait()
            await m.write_file("k0004", b"ours")
            assert not gate.opened.is_set()
            assert await m.read_file("k0004") == b"ours"
            assert (await m.other.records())["k0004"] == b"ours"

    on_mock_clock(main)


def test_a_rename_over_a_file_does_not_wait_for_what_is_fetched_ahead() -> None:
    async def main() -> None:
        async with filled(20) as m:
            gate = m.hooks.hold("get_record", "k0004")
            await m.write_file("new", b"ours")
            await scan(m, keys(3))
            await gate.reached.wait()
            await m.rename("new", "k0004")
            assert not gate.opened.is_set()
            assert await m.read_file("k0004") == b"ours"

    on_mock_clock(main)


def test_what_is_written_while_it_is_fetched_ahead_wins() -> None:
    async def main() -> None:
        async with filled(20) as m:
            gate = m.hooks.hold_answer("get_record", "k0004")
            await scan(m, keys(3))
            await gate.reached.wait()
            fh = await m.create("other")
            await m.fs.files.write(fh, 0, b"ours")
            await m.close(fh)
            await m.rename("other", "k0004")
            gate.open()
            await settle(m)
            assert await m.read_file("k0004") == b"ours"
            assert (await m.other.records())["k0004"] == b"ours"

    on_mock_clock(main)


def test_a_guess_holds_as_long_as_an_open_does_and_no_longer() -> None:
    async def main() -> None:
        async with filled(20) as m:
            await scan(m, keys(4))
            await settle(m)
            with m.costs():
                await m.read_file("k0004")
            await m.other.put("k0005", b"newer")
            await trio.sleep(m.tuning.revalidate)
            assert await m.read_file("k0005") == b"newer"

    on_mock_clock(main)


def test_a_change_while_it_is_fetched_ahead_is_seen_or_the_old_version_whole() -> None:
    async def main() -> None:
        async with filled(20) as m:
            await m.other.put("k0004", b"a" * 300_000)
            hold = m.hooks.hold_piece(128 * 1024)
            await scan(m, keys(3))
            await hold.reached.wait()
            await m.other.put("k0004", b"b" * 300_000)
            hold.open()
            assert await m.read_file("k0004") == b"a" * 300_000
            await trio.sleep(m.tuning.revalidate)
            assert await m.read_file("k0004") == b"b" * 300_000

    on_mock_clock(main)


def test_without_trust_in_what_was_validated_nothing_is_guessed() -> None:
    async def main() -> None:
        async with filled(20, tuning=Tuning(revalidate=0)) as m:
            await scan(m, keys(20))
            assert asked(m) == keys(20)

    on_mock_clock(main)


def test_the_end_does_not_wait_for_guesses() -> None:
    async def main() -> None:
        async with filled(20) as m:
            m.hooks.hold("get_record", "k0004")
            await scan(m, keys(3))
            with trio.fail_after(1):
                await m.fs.drain()
            assert m.fs.left() == []

    on_mock_clock(main)


def test_an_open_does_not_wait_forever_for_a_guess_that_hangs() -> None:
    async def main() -> None:
        async with filled(20) as m:
            m.hooks.hold("get_record", "k0004")
            await scan(m, keys(4))
            with trio.fail_after(prefetch.PATIENCE + 1):
                assert await m.read_file("k0004") == b"k0004"

    on_mock_clock(main)


def test_writers_and_appenders_are_not_followed() -> None:
    async def main() -> None:
        async with filled(20) as m:
            for name in keys(10):
                await m.close(await m.open(name, os.O_WRONLY | os.O_APPEND))
            await settle(m)
            assert asked(m) == keys(10)

    on_mock_clock(main)
