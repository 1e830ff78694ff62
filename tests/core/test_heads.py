"""Exact sizes before open: what they cost, and what is shown when they cannot be had."""

from __future__ import annotations

import errno
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from kvsfs.core.heads import HEADS_AT_A_TIME, LONGEST_WAIT, PAUSE
from kvsfs.core.tuning import Tuning
from kvsfs.errors import FileError, StoreUnreachable
from kvsfs.types import RecordKey
from tests.support.mounted import Mounted, mounted, on_mock_clock

GONE = StoreUnreachable("the network is down")
TEXT = b"a line of text\n" * 1000
PACKED = gzip.compress(TEXT)


@asynccontextmanager
async def exact(*, page_size: int = 1000) -> AsyncIterator[Mounted]:
    async with mounted(tuning=Tuning(exact_sizes=True), page_size=page_size) as m:
        yield m


async def size(m: Mounted, path: str) -> tuple[int, bool]:
    """Do what lstat(2) does; the size and whether the kernel may keep it."""
    file = await m.file(path)
    await m.fs.getattr(file.number)
    return file.size, file.size_is_exact


def test_a_listing_asks_once_for_each_record_and_later_stats_for_none() -> None:
    async def main() -> None:
        async with exact(page_size=50) as m:
            keys = [f"k{number:03}" for number in range(120)]
            for key in keys:
                await m.other.put(key, key.encode())
            with m.costs(list_keys=3, head_record=120):
                assert await m.names() == keys
            with m.costs():
                assert await m.names() == keys
                assert {await size(m, key) for key in keys} == {(4, True)}

    on_mock_clock(main)


def test_without_the_option_a_listing_asks_for_no_headers() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("f", PACKED, content_encoding="gzip")
            with m.costs(list_keys=1):
                assert await m.names() == ["f"]
                assert await size(m, "f") == (len(PACKED), False)

    on_mock_clock(main)


def test_headers_are_asked_for_side_by_side_and_ahead_of_the_reader() -> None:
    async def main() -> None:
        async with exact() as m:
            for number in range(10 * HEADS_AT_A_TIME):
                await m.other.put(f"k{number:03}", b"x")
            await m.walk("k000")
            running = most = 0

            async def before(operation: str, _key: RecordKey | None) -> None:
                nonlocal running, most
                if operation == "head_record":
                    running += 1
                    most = max(most, running)
                    await trio.sleep(1)
                    running -= 1

            m.stores.before = before
            started = trio.current_time()
            assert len(await m.names()) == 10 * HEADS_AT_A_TIME
            assert most == HEADS_AT_A_TIME
            assert trio.current_time() - started == pytest.approx(10)

    on_mock_clock(main)


@pytest.mark.parametrize("listed_first", [True, False])
def test_a_compressed_record_is_fetched_once_and_read_from_the_cache(listed_first: bool) -> None:
    """Its headers tell no length."""

    async def main() -> None:
        async with exact() as m:
            await m.other.put("f", PACKED, content_encoding="gzip")
            with m.costs(list_keys=1, head_record=1, get_record=1):
                if listed_first:
                    assert await m.names() == ["f"]
                assert await size(m, "f") == (len(TEXT), True)
                assert await m.read_file("f") == TEXT

    on_mock_clock(main)


def test_one_question_however_many_ask() -> None:
    async def main() -> None:
        async with exact() as m:
            await m.other.put("f", b"text")
            with m.costs(list_keys=1, head_record=1):
                async with trio.open_nursery() as nursery:
                    for _ in range(20):
                        nursery.start_soon(size, m, "f")
                        nursery.start_soon(m.names)

    on_mock_clock(main)


def test_what_was_written_here_costs_no_question() -> None:
    async def main() -> None:
        async with exact() as m:
            with m.costs(list_keys=1, set_record=1):
                await m.write_file("f", b"text")
                assert await size(m, "f") == (4, True)
                assert await m.names() == ["f"]

    on_mock_clock(main)


def test_a_record_that_is_gone_is_not_shown() -> None:
    async def main() -> None:
        async with exact() as m:
            for key in ("a", "b", "c"):
                await m.other.put(key, b"x")
            m.hooks.meanwhile("list_keys", lambda: m.other.delete("b"), after=True)
            assert await m.names() == ["a", "c"]
            with pytest.raises(FileError) as error:
                await m.walk("b")
            assert error.value.errno == errno.ENOENT
            m.fs.check_invariants()

    on_mock_clock(main)


def test_another_size_in_a_later_listing_is_asked_about_again() -> None:
    async def main() -> None:
        async with exact() as m:
            await m.other.put("f", b"text")
            assert await size(m, "f") == (4, True)
            await m.other.put("f", PACKED, content_encoding="gzip")
            await trio.sleep(Tuning().listing_ttl + 1)
            with m.costs(list_keys=1, head_record=1, get_record=1):
                assert await m.names() == ["f"]
                assert await size(m, "f") == (len(TEXT), True)

    on_mock_clock(main)


def test_a_store_out_of_reach_leaves_stored_sizes_and_is_asked_again_after_a_pause() -> None:
    async def main() -> None:
        async with exact() as m:
            for number in range(100):
                await m.other.put(f"k{number:02}", b"x" * (number + 1))
            for _ in range(HEADS_AT_A_TIME):
                m.hooks.fail("head_record", GONE)
            with m.costs(list_keys=1, head_record=HEADS_AT_A_TIME):
                assert len(await m.names()) == 100
                assert await size(m, "k06") == (7, False)
                assert await size(m, "k99") == (100, False)
            await trio.sleep(PAUSE)
            with m.costs(head_record=1):
                assert await size(m, "k06") == (7, True)

    on_mock_clock(main)


def test_a_record_that_cannot_be_read_keeps_only_its_own_size_unknown() -> None:
    async def main() -> None:
        async with exact() as m:
            await m.other.put("bad", b"no gzip", content_encoding="gzip")
            await m.other.put("good", PACKED, content_encoding="gzip")
            assert await m.names() == ["bad", "good"]
            assert await size(m, "bad") == (7, False)
            assert await size(m, "good") == (len(TEXT), True)
            with m.costs():
                assert await size(m, "bad") == (7, False)
            await m.other.put("bad", PACKED, content_encoding="gzip")
            await trio.sleep(PAUSE)
            with m.costs(get_record=1):
                assert await size(m, "bad") == (len(TEXT), True)

    on_mock_clock(main)


def test_a_stat_does_not_wait_for_ever() -> None:
    async def main() -> None:
        async with exact() as m:
            await m.other.put("f", b"text")
            answer = m.hooks.hold("head_record")
            started = trio.current_time()
            file = await m.file("f")
            assert trio.current_time() - started == pytest.approx(LONGEST_WAIT)
            assert (file.size, file.size_is_exact) == (4, False)
            answer.open()
            with m.costs():
                assert await size(m, "f") == (4, True)

    on_mock_clock(main)
