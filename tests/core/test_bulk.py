"""A folder read as a whole by one archive: few requests, never other bytes than an open by GET would show."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import brotli  # type: ignore[import-untyped]  # the wheel ships no stubs
import pytest
import trio

from kvsfs.core import bulk
from kvsfs.core.bulk import FEWEST, FIRST_AHEAD, PATIENCE
from kvsfs.core.content import Content
from kvsfs.core.prefetch import WHOLE_OPENS
from kvsfs.core.tuning import Tuning
from kvsfs.errors import ProtocolViolation, StoreUnreachable
from kvsfs.types import ContentEncoding
from tests.support.mounted import Mounted, mounted, on_mock_clock

COUNT = 300
TRIP = 0.02


def name(number: int) -> str:
    return f"k{number:04}"


def text(number: int) -> bytes:
    return b"%d " % number * 20


@asynccontextmanager
async def filled(
    content: Callable[[int], bytes] = text, *, count: int = COUNT, tuning: Tuning | None = None
) -> AsyncIterator[Mounted]:
    """A store of many small records, listed once."""
    async with mounted(tuning=tuning) as m:
        for number in range(count):
            await m.other.put(name(number), content(number))
        await m.names()
        m.hooks.delay = TRIP
        yield m
        await trio.testing.wait_all_tasks_blocked()
        m.fs.check_invariants()


async def read(m: Mounted, first: int, last: int, content: Callable[[int], bytes] = text) -> None:
    for number in range(first, last):
        assert await m.read_file(name(number)) == content(number)
        await trio.testing.wait_all_tasks_blocked()


async def start(m: Mounted) -> None:
    """Read as many files as make an archive be asked for."""
    await read(m, 0, WHOLE_OPENS)


def test_a_folder_read_from_its_first_file_on_costs_one_request_and_some() -> None:
    async def main() -> None:
        async with filled() as m:
            started = trio.current_time()
            await read(m, 0, COUNT)
            assert trio.current_time() - started < 8 * TRIP
            assert m.calls["read_records"] == 1
            assert m.calls["get_record"] <= WHOLE_OPENS + 3
            assert m.calls["head_record"] == 0

    on_mock_clock(main)


def test_a_few_files_or_files_here_and_there_ask_for_no_archive() -> None:
    async def main() -> None:
        async with filled() as m:
            await read(m, 0, WHOLE_OPENS - 1)
            for number in range(20, COUNT, 20):
                await read(m, number, number + 1)
            assert m.calls["read_records"] == 0
        async with filled(count=FEWEST - 1) as m:
            await read(m, 0, FEWEST - 1)
            assert m.calls["read_records"] == 0

    on_mock_clock(main)


def test_a_folder_of_large_records_or_with_folders_in_it_is_not_asked_for_as_a_whole() -> None:
    async def main() -> None:
        def large(number: int) -> bytes:
            return b"%d" % number * 50_000

        async with filled(large) as m:
            await read(m, 0, 20, large)
            assert m.calls["read_records"] == 0
        async with filled() as m:
            await m.other.put("below!2Fx", b"x" * 1_000_000)
            m.fs.inodes.root.listing = None
            await m.names()
            await read(m, 0, COUNT)
            assert m.calls["read_records"] == 0

    on_mock_clock(main)


def test_who_reads_30_small_files_of_a_large_folder_pays_for_one_mebibyte() -> None:
    async def main() -> None:
        def some(number: int) -> bytes:
            return b"%04d" % number * 5_000

        async with filled(some) as m:
            await read(m, 0, 30, some)
            await trio.sleep(bulk.IDLE + 1)
            fetched = sum(file.size for file in m.fs.inodes.files() if file.content is not None)
            assert m.calls["read_records"] == 1
            assert fetched < FIRST_AHEAD + 35 * 20_000 + 20_000
            await read(m, 30, COUNT, some)

    on_mock_clock(main)


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate"])
def test_what_may_be_a_stored_form_is_left_to_a_get(encoding: ContentEncoding) -> None:
    encode = {"gzip": partial(gzip.compress, mtime=0), "br": brotli.compress, "deflate": zlib.compress}[
        encoding
    ]

    async def main() -> None:
        async with filled(lambda n: encode(text(n)) if n in (50, 60) else text(n)) as m:
            # A record that is stored so, and one that is such a file: in an archive they look the same.
            await m.other.put(name(60), encode(text(60)), content_encoding=encoding)
            await read(m, 0, 50)
            assert await m.read_file(name(50)) == encode(text(50))
            await read(m, 51, 60)
            assert await m.read_file(name(60)) == text(60)
            await read(m, 61, COUNT)
            assert m.calls["read_records"] == 1

    on_mock_clock(main)


def test_raw_deflate_counts_as_stored_form_too() -> None:
    packer = zlib.compressobj(wbits=-15)
    raw = packer.compress(text(7)) + packer.flush()

    async def main() -> None:
        async with filled(lambda n: raw if n == 50 else text(n)) as m:
            await read(m, 0, 50)
            assert await m.read_file(name(50)) == raw
            assert ("get_record", name(50)) in m.hooks.log

    on_mock_clock(main)


def test_records_stored_compressed_come_by_the_archive_decoded() -> None:
    def long(number: int) -> bytes:
        return b"text of %d " % number * 200

    async def main() -> None:
        async with filled() as m:
            for number in range(COUNT):
                await m.other.put(name(number), gzip.compress(long(number)), "text/plain", "gzip")
            m.fs.inodes.root.listing = None
            await m.names()
            await read(m, 0, COUNT, long)
            assert m.calls["read_records"] == 1
            assert m.calls["get_record"] <= WHOLE_OPENS + 3

    on_mock_clock(main)


def test_after_the_trust_in_the_archive_each_open_sees_what_others_have_written() -> None:
    async def main() -> None:
        async with filled() as m:
            await read(m, 0, COUNT)
            for number in range(COUNT):
                await m.other.put(name(number), text(number + 1))  # many as long as before
            await trio.sleep(m.tuning.revalidate)
            await read(m, 0, COUNT, lambda number: text(number + 1))

    on_mock_clock(main)


@pytest.mark.parametrize("error", [StoreUnreachable("503"), ProtocolViolation("damaged")])
def test_an_archive_that_breaks_off_shows_nobody_anything_and_is_not_asked_for_again_soon(
    error: ProtocolViolation | StoreUnreachable,
) -> None:
    async def main() -> None:
        async with filled() as m:
            m.hooks.break_piece(150, error)
            await read(m, 0, COUNT)
            assert m.calls["read_records"] == 1
            assert COUNT // 2 <= m.calls["get_record"] <= COUNT // 2 + WHOLE_OPENS + 3
            await m.fs.steering.refresh("")
            await read(m, 0, COUNT)
            assert m.calls["read_records"] == 1

    on_mock_clock(main)


def test_an_archive_that_is_refused_costs_one_request() -> None:
    async def main() -> None:
        async with filled() as m:
            m.hooks.fail("read_records", StoreUnreachable("500"))
            await read(m, 0, COUNT)
            assert m.calls["read_records"] == 1
            assert m.calls["get_record"] == COUNT

    on_mock_clock(main)


def test_a_reader_does_not_wait_long_for_an_archive_that_does_not_come() -> None:
    async def main() -> None:
        async with filled() as m:
            m.hooks.hold("read_records")
            started = trio.current_time()
            await read(m, 0, COUNT)
            assert trio.current_time() - started < PATIENCE + 1
            assert m.calls["get_record"] == COUNT

    on_mock_clock(main)


async def held(m: Mounted, place: int) -> Callable[[], None]:
    """Read until the archive is at a record that is held back."""
    gate = m.hooks.hold_piece(place)
    await start(m)
    await gate.reached.wait()
    return gate.open


async def let_go(m: Mounted, open_gate: Callable[[], None]) -> None:
    open_gate()
    await m.fs._background.idle()


def test_what_is_written_while_its_entry_is_on_the_way_wins() -> None:
    async def main() -> None:
        async with filled() as m:
            go = await held(m, 100)
            await m.write_file(name(200), b"ours")
            fh = await m.open(name(201), os.O_WRONLY | os.O_APPEND)
            await m.fs.files.write(fh, 0, b"more")
            await let_go(m, go)
            await m.close(fh)
            assert await m.read_file(name(200)) == b"ours"
            assert await m.read_file(name(201)) == text(201) + b"more"
            records = await m.other.records()
            assert records[name(200)] == b"ours"
            assert records[name(201)] == text(201) + b"more"

    on_mock_clock(main)


def test_what_is_removed_or_renamed_while_its_entry_is_on_the_way_stays_so() -> None:
    async def main() -> None:
        async with filled() as m:
            go = await held(m, 100)
            await m.unlink(name(200))
            await m.rename(name(201), "new")
            await m.rename(name(202), name(203))
            await let_go(m, go)
            assert name(200) not in await m.names()
            assert await m.read_file("new") == text(201)
            assert await m.read_file(name(203)) == text(202)
            await m.write_file(name(200), b"anew")
            assert (await m.other.records())[name(200)] == b"anew"

    on_mock_clock(main)


def test_what_was_read_by_a_get_meanwhile_is_not_replaced_by_an_older_entry() -> None:
    async def main() -> None:
        async with filled() as m:
            go = await held(m, 250)
            await m.fs._bulk._versions.fetch_whole(await m.file(name(280)), patience=1, at_most=1000)
            before = (await m.file(name(280))).content
            await let_go(m, go)
            assert isinstance(before, Content)
            assert (await m.file(name(280))).content is before

    on_mock_clock(main)


def test_what_was_stored_here_since_the_archive_was_asked_for_is_not_replaced_by_what_was_before() -> None:
    async def main() -> None:
        async with filled() as m:
            asked_at = trio.current_time()
            await m.write_file(name(200), text(201))
            file = await m.file(name(200))
            m.fs._versions.drop(file)  # as eviction does
            file.head = None
            assert not m.fs._versions.adopt_bytes(file, text(200), asked_at, None)
            assert m.fs._versions.adopt_bytes(file, text(201), trio.current_time() + 1, None)
            assert await m.read_file(name(200)) == text(201)

    on_mock_clock(main)


def test_bytes_are_trusted_from_when_the_archive_was_asked_for_and_not_from_when_they_came() -> None:
    async def main() -> None:
        async with filled() as m:
            go = await held(m, 100)
            asked_at = trio.current_time()
            await m.other.put(name(200), text(201))
            await trio.sleep(3)
            await let_go(m, go)
            assert await m.read_file(name(200)) == text(200)
            await trio.sleep_until(asked_at + m.tuning.revalidate)
            assert await m.read_file(name(200)) == text(201)

    on_mock_clock(main)


def test_refresh_does_not_trust_what_was_asked_for_before() -> None:
    async def main() -> None:
        async with filled() as m:
            go = await held(m, 100)
            for number in range(COUNT):
                await m.other.put(name(number), text(number + 1))
            await m.fs.steering.refresh("")
            await let_go(m, go)
            await read(m, 90, COUNT, lambda number: text(number + 1))

    on_mock_clock(main)


def test_the_end_does_not_wait_for_an_archive() -> None:
    async def main() -> None:
        async with filled() as m:
            await held(m, 100)
            with trio.fail_after(1):
                await m.fs.drain()
            assert m.fs.left() == []

    on_mock_clock(main)


def test_an_entry_that_got_shorter_since_the_listing_is_left_to_a_get() -> None:
    async def main() -> None:
        async with filled() as m:
            await m.other.put(name(100), b"1")
            await read(m, 0, 100)
            assert await m.read_file(name(100)) == b"1"
            assert ("get_record", name(100)) in m.hooks.log

    on_mock_clock(main)


def test_read_again_it_is_validated_by_one_archive_and_keeps_the_kernels_pages() -> None:
    async def main() -> None:
        async with filled() as m:
            await read(m, 0, COUNT)
            await m.other.put(name(150), text(151))
            await trio.sleep(m.tuning.revalidate)
            before = m.calls
            await read(m, 0, 100)
            answer = await m.open_answer(name(100))
            assert answer.keep_pages
            await m.close(answer.fh)
            assert not (await m.open_answer(name(150))).keep_pages
            await read(m, 101, COUNT, lambda number: text(151 if number == 150 else number))
            assert (m.calls - before)["read_records"] == 1
            assert (m.calls - before).total() < 10

    on_mock_clock(main)


def name_by_md5(m: Mounted) -> None:
    """Let the store's ETags be what S3's are."""
    for records in (contents.records for contents in m.stores._stores):
        for key, record in records.items():
            etag = f'"{hashlib.md5(record.stored).hexdigest()}"'
            records[key] = replace(record, head=replace(record.head, etag=etag))


def test_a_head_that_proves_the_bytes_lets_them_be_validated_without_sending_them() -> None:
    async def main() -> None:
        async with filled() as m:
            name_by_md5(m)
            await read(m, 0, COUNT)
            go = m.hooks.hold("head_record", name(200))
            await m.mime_type(name(0))
            await go.reached.wait()
            await m.other.put(name(200), text(201))  # since the archive: the HEAD names other bytes
            go.open()
            await m.idle()
            await trio.sleep(m.tuning.revalidate)
            before = (await m.file(name(100))).content
            assert await m.read_file(name(100)) == text(100)
            assert (await m.file(name(100))).content is before
            assert await m.read_file(name(200)) == text(201)

    on_mock_clock(main)


def test_a_head_that_proves_nothing_does_not_name_the_bytes() -> None:
    async def main() -> None:
        async with filled() as m:  # ETags of which nobody knows what they are made of
            await read(m, 0, COUNT)
            await m.mime_type(name(0))
            await m.idle()
            await trio.sleep(m.tuning.revalidate)
            before = (await m.file(name(100))).content
            assert await m.read_file(name(100)) == text(100)
            assert (await m.file(name(100))).content is not before

    on_mock_clock(main)


def test_types_are_asked_for_ahead_once_somebody_wants_one() -> None:
    async def main() -> None:
        async with filled() as m:
            await read(m, 0, COUNT)
            started = trio.current_time()
            for number in range(COUNT):
                assert await m.mime_type(name(number)) == b"text/plain"
            assert trio.current_time() - started < COUNT / 8 * TRIP
            assert m.calls["head_record"] <= COUNT

    on_mock_clock(main)
