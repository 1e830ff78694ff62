"""Filling a cache file: streams, ranges, what breaks off, what changes meanwhile. Never a byte of another version."""

from __future__ import annotations

import gzip
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import cast

import pytest
import trio

from kvsfs.cache.blobs import Blob
from kvsfs.core import fetching
from kvsfs.core.fetching import OPEN_ATTEMPTS, Fetch
from kvsfs.errors import ProtocolViolation, RecordChanged, RecordNotFound, StoreError, StoreUnreachable
from kvsfs.store.apify import ApifyStoreCollection
from kvsfs.store.network import READ_BYTES
from kvsfs.store.protocol import RecordStream, Store
from kvsfs.types import ByteRange, RecordKey
from tests.support.fault_server import answering, fault_server
from tests.support.mounted import Mounted, mounted, on_mock_clock

PIECE = 64 * 1024
"""Bytes: how the store in memory cuts its bodies."""

CONTENT = random.Random(1).randbytes(16 * PIECE)
GONE = StoreUnreachable("the network is down")


@pytest.fixture(autouse=True)
def small_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "SEEK_BYTES", 2 * PIECE)
    monkeypatch.setattr(fetching, "AHEAD_BYTES", 64 * PIECE)


@dataclass
class Filling:
    m: Mounted
    blob: Blob
    fetch: Fetch

    async def read(self, start: int, stop: int) -> bytes:
        await self.fetch.ensure(start, stop)
        return self.blob.pread(stop - start, start)

    def check(self, *versions: bytes) -> None:
        """All that is there is of one of the versions."""
        self.blob.check_invariants()
        present = [i for i in range(0, self.blob.size, 997) if self.blob.present.covers(i, i + 1)]
        assert any(all(self.blob.pread(1, i) == v[i : i + 1] for i in present) for v in versions)

    async def check_nothing_runs(self) -> None:
        await trio.testing.wait_all_tasks_blocked()
        assert not self.m.nursery.child_tasks
        self.blob.release()
        assert not self.blob.in_use


@asynccontextmanager
async def filling(
    content: bytes = CONTENT, *, validators: bool = True, encoded: bytes | None = None
) -> AsyncIterator[Filling]:
    async with mounted(validators=validators) as m:
        if encoded is None:
            await m.other.put("a", content)
        else:
            await m.other.put("a", encoded, content_encoding="gzip")
        blob = m.blobs.create()
        yield Filling(m, blob, Fetch(m.store, RecordKey("a"), blob, m.nursery))


def test_the_first_bytes_are_served_before_the_last_arrive() -> None:
    async def main() -> None:
        async with filling() as f:
            gate = f.m.hooks.hold_piece(2 * PIECE)
            assert await f.fetch.open(None)
            assert f.fetch.length == f.blob.size == len(CONTENT)
            assert await f.read(10, 2 * PIECE) == CONTENT[10 : 2 * PIECE]
            assert not f.blob.complete
            gate.open()
            assert await f.read(0, len(CONTENT)) == CONTENT
            assert f.fetch.complete
            assert f.m.calls == {"get_record": 1}
            await f.check_nothing_runs()

    on_mock_clock(main)


def test_a_read_that_is_near_waits_and_one_that_is_far_asks_for_a_range() -> None:
    async def main() -> None:
        async with filling() as f:
            gate = f.m.hooks.hold_piece(PIECE)
            await f.fetch.open(None)
            assert await f.read(10 * PIECE, 11 * PIECE) == CONTENT[10 * PIECE : 11 * PIECE]
            assert f.m.calls == {"get_record": 2}
            with trio.move_on_after(1) as scope:
                await f.read(2 * PIECE, 2 * PIECE + 1)
            assert scope.cancelled_caught
            gate.open()
            assert await f.read(0, len(CONTENT)) == CONTENT
            assert f.m.calls == {"get_record": 2}
            await f.check_nothing_runs()

    on_mock_clock(main)


def test_a_body_that_breaks_off_is_resumed_where_it_broke() -> None:
    async def main() -> None:
        async with filling() as f:
            for place in (3, 4, 9):
                f.m.hooks.break_piece(place * PIECE, GONE)
            await f.fetch.open(None)
            assert await f.read(0, len(CONTENT)) == CONTENT
            assert f.m.calls == {"get_record": 4}

    on_mock_clock(main)


def test_a_resumption_that_brings_nothing_is_an_error_and_not_a_loop() -> None:
    async def main() -> None:
        async with filling() as f:
            f.m.hooks.break_piece(3 * PIECE, GONE)
            f.m.hooks.break_piece(3 * PIECE, GONE)
            await f.fetch.open(None)
            with pytest.raises(StoreUnreachable):
                await f.read(0, len(CONTENT))
            assert f.m.calls == {"get_record": 2}
            assert await f.read(0, 3 * PIECE) == CONTENT[: 3 * PIECE]
            assert await f.read(0, len(CONTENT)) == CONTENT  # asked again later, it goes on
            await f.check_nothing_runs()

    on_mock_clock(main)


class Ending:
    """A store whose ranges end before `end` as if nothing were missing; `ignores` them: a whole record comes."""

    def __init__(self, store: Store, end: int, *, ignores: bool, error: StoreError | None) -> None:
        self._store = store
        self._end = end
        self._ignores = ignores
        self._error = error
        self.asked: list[int] = []

    @asynccontextmanager
    async def get_record(self, key: RecordKey, *, byte_range: ByteRange) -> AsyncIterator[RecordStream]:
        self.asked.append(byte_range.start)
        wanted = None if self._ignores else byte_range
        async with self._store.get_record(key, byte_range=wanted) as record:
            assert record is not None
            stream = EndingStream(record, self._end, self._error)
            async with aclosing(stream.pieces):
                yield stream


class EndingStream:
    def __init__(self, record: RecordStream, end: int, error: StoreError | None) -> None:
        self.head, self.start = record.head, record.start
        self.pieces = self._cut(record, end, error)

    def chunks(self) -> AsyncIterator[bytes]:
        return self.pieces

    async def _cut(
        self, record: RecordStream, end: int, error: StoreError | None
    ) -> AsyncGenerator[bytes, None]:
        position = self.start
        async for chunk in record.chunks():
            if position >= end:
                break
            yield chunk[: end - position]
            position += len(chunk)
        if error is not None:
            raise error


@asynccontextmanager
async def broken_off(
    end: int, *, ignores: bool, error: StoreError | None
) -> AsyncIterator[tuple[Filling, Ending]]:
    """Three pieces are there; from now on the store is `Ending`."""
    async with filling() as f:
        f.m.hooks.break_piece(3 * PIECE, GONE)
        await f.fetch.open(None)
        await f.read(0, PIECE)
        await trio.testing.wait_all_tasks_blocked()
        ending = Ending(f.m.store, end * PIECE, ignores=ignores, error=error)
        f.fetch._store = cast("Store", ending)
        yield f, ending
        f.check(CONTENT)
        await f.check_nothing_runs()


@pytest.mark.parametrize("error", [None, GONE])
@pytest.mark.parametrize(("end", "asked"), [(0, [3]), (3, [3]), (5, [3, 5])])
def test_a_range_that_ends_early_is_not_asked_for_without_end(
    end: int, asked: list[int], error: StoreError | None
) -> None:
    async def main() -> None:
        async with broken_off(end, ignores=False, error=error) as (f, ending):
            with pytest.raises(StoreUnreachable if error else ProtocolViolation):
                await f.read(0, len(CONTENT))
            assert ending.asked == [place * PIECE for place in asked]

    on_mock_clock(main)


@pytest.mark.parametrize("error", [None, GONE])
@pytest.mark.parametrize(("end", "expected"), [(2, None), (5, RecordChanged), (16, None)])
def test_a_store_that_ignores_ranges_is_asked_once(
    end: int, expected: type[StoreError] | None, error: StoreError | None
) -> None:
    """Far behind the reader, each of its answers once was given up for the next one, which was no nearer."""

    async def main() -> None:
        async with broken_off(end, ignores=True, error=error) as (f, ending):
            if end == 16:
                assert await f.read(0, len(CONTENT)) == CONTENT
            else:
                with pytest.raises(expected or (StoreUnreachable if error else ProtocolViolation)):
                    await f.read(0, len(CONTENT))
            assert ending.asked == [3 * PIECE]

    on_mock_clock(main)


@pytest.mark.parametrize("length", [1, 9, 16, 20])
def test_bytes_of_two_versions_never_mix(length: int) -> None:
    changed = random.Random(2).randbytes(length * PIECE)

    async def main() -> None:
        async with filling() as f:
            gate = f.m.hooks.hold_piece(PIECE)
            await f.fetch.open(None)
            await f.read(0, PIECE)
            await f.m.other.put("a", changed)
            with pytest.raises(RecordChanged):
                await f.read(10 * PIECE, 11 * PIECE)
            f.check(CONTENT)
            gate.open()  # the first stream still gives the version that it began with
            assert await f.read(0, 2 * PIECE) == CONTENT[: 2 * PIECE]

    on_mock_clock(main)


def test_a_record_that_was_deleted_is_not_resumed() -> None:
    async def main() -> None:
        async with filling() as f:
            f.m.hooks.break_piece(3 * PIECE, GONE)
            await f.fetch.open(None)
            await f.read(0, PIECE)
            await f.m.other.delete("a")
            with pytest.raises(RecordNotFound):
                await f.read(0, len(CONTENT))
            f.check(CONTENT)
            await f.check_nothing_runs()

    on_mock_clock(main)


def test_a_record_without_validators_is_never_resumed() -> None:
    async def main() -> None:
        async with filling(validators=False) as f:
            f.m.hooks.break_piece(3 * PIECE, GONE)
            await f.fetch.open(None)
            with pytest.raises((RecordChanged, StoreUnreachable)):
                await f.read(0, len(CONTENT))
            with pytest.raises(RecordChanged):
                await f.read(0, len(CONTENT))
            assert f.m.calls == {"get_record": 1}
            assert await f.read(0, 3 * PIECE) == CONTENT[: 3 * PIECE]

    on_mock_clock(main)


def test_a_far_read_of_a_record_without_validators_waits_for_its_stream() -> None:
    async def main() -> None:
        async with filling(validators=False) as f:
            await f.fetch.open(None)
            assert await f.read(15 * PIECE, 16 * PIECE) == CONTENT[15 * PIECE :]
            assert await f.read(0, len(CONTENT)) == CONTENT
            assert f.m.calls == {"get_record": 1}

    on_mock_clock(main)


def test_a_compressed_record_is_read_whole_before_its_length_is_told() -> None:
    async def main() -> None:
        async with filling(encoded=gzip.compress(CONTENT)) as f:
            gate = f.m.hooks.hold_piece(5 * PIECE)
            async with trio.open_nursery() as nursery:

                async def check_order() -> None:
                    await gate.reached.wait()
                    await trio.testing.wait_all_tasks_blocked()
                    assert f.fetch.length is None
                    assert not f.fetch.complete
                    gate.open()

                nursery.start_soon(check_order)
                assert await f.fetch.open(None)
            assert f.fetch.length == f.blob.size == len(CONTENT)
            assert f.fetch.complete
            assert await f.read(0, len(CONTENT)) == CONTENT
            assert f.m.calls == {"get_record": 1}
            await f.check_nothing_runs()

    on_mock_clock(main)


def test_a_compressed_record_that_breaks_off_is_read_again_from_the_start() -> None:
    shorter = CONTENT[: 10 * PIECE][::-1]

    async def main() -> None:
        async with filling(encoded=gzip.compress(CONTENT)) as f:
            f.m.hooks.break_piece(15 * PIECE, GONE)
            f.m.hooks.break_piece(2 * PIECE, GONE)
            gate = f.m.hooks.hold("get_record")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(f.fetch.open, None)
                await gate.reached.wait()
                gate.open()
                await trio.testing.wait_all_tasks_blocked()
            assert await f.read(0, len(CONTENT)) == CONTENT
            assert f.m.calls == {"get_record": 3}
            await f.m.other.put("a", gzip.compress(shorter), content_encoding="gzip")
            blob = f.m.blobs.create()
            f.m.hooks.break_piece(9 * PIECE, GONE)
            again = Fetch(f.m.store, RecordKey("a"), blob, f.m.nursery)
            await again.open(None)
            assert blob.pread(len(CONTENT), 0) == shorter
            assert (blob.size, again.length) == (len(shorter), len(shorter))

    on_mock_clock(main)


def test_a_compressed_record_that_breaks_off_each_time_is_an_error() -> None:
    async def main() -> None:
        async with filling(encoded=gzip.compress(CONTENT)) as f:
            for _ in range(OPEN_ATTEMPTS):
                f.m.hooks.break_piece(PIECE, GONE)
            with pytest.raises(StoreUnreachable):
                await f.fetch.open(None)
            assert f.m.calls == {"get_record": OPEN_ATTEMPTS}
            await f.check_nothing_runs()

    on_mock_clock(main)


def test_an_unchanged_record_brings_no_bytes() -> None:
    async def main() -> None:
        async with filling() as f:
            head = await f.m.other.head("a")
            assert not await f.fetch.open(head)
            assert f.blob.size == 0
            await f.check_nothing_runs()

    on_mock_clock(main)


def test_a_missing_record_is_an_error_of_open_only() -> None:
    async def main() -> None:
        async with filling() as f:
            await f.m.other.delete("a")
            with pytest.raises(RecordNotFound):
                await f.fetch.open(None)
            await f.check_nothing_runs()

    on_mock_clock(main)


def test_stop_leaves_nothing_running_and_what_came_stays() -> None:
    async def main() -> None:
        async with filling() as f:
            f.m.hooks.hold_piece(3 * PIECE)
            f.m.hooks.hold_piece(11 * PIECE)
            await f.fetch.open(None)
            await f.read(10 * PIECE, 11 * PIECE)
            await trio.testing.wait_all_tasks_blocked()
            assert len(f.m.nursery.child_tasks) == 2
            f.fetch.stop()
            await trio.testing.wait_all_tasks_blocked()
            assert not f.m.nursery.child_tasks
            calls = f.m.calls
            assert await f.read(0, 3 * PIECE) == CONTENT[: 3 * PIECE]
            assert await f.read(10 * PIECE, 11 * PIECE) == CONTENT[10 * PIECE : 11 * PIECE]
            assert f.m.calls == calls
            assert await f.read(0, len(CONTENT)) == CONTENT
            await f.check_nothing_runs()

    on_mock_clock(main)


@pytest.mark.parametrize("held", ["before", "after", "body"])
def test_a_cancelled_open_leaves_nothing(held: str) -> None:
    async def main() -> None:
        async with filling(encoded=gzip.compress(CONTENT)) as f:
            if held == "before":
                f.m.hooks.hold("get_record")
            elif held == "after":
                f.m.hooks.hold_answer("get_record")
            else:
                f.m.hooks.hold_piece(PIECE)
            with trio.move_on_after(1) as scope:
                await f.fetch.open(None)
            assert scope.cancelled_caught
            f.fetch.stop()
            await f.check_nothing_runs()

    on_mock_clock(main)


def test_a_cancelled_reader_does_not_take_the_others_bytes() -> None:
    async def main() -> None:
        async with filling() as f:
            gate = f.m.hooks.hold_piece(PIECE)
            await f.fetch.open(None)
            async with trio.open_nursery() as nursery:

                async def read_on() -> None:
                    assert await f.read(0, len(CONTENT)) == CONTENT

                nursery.start_soon(read_on)
                with trio.move_on_after(1):
                    await f.read(0, len(CONTENT))
                gate.open()
            assert f.m.calls == {"get_record": 1}

    on_mock_clock(main)


def test_many_far_readers_all_get_there() -> None:
    """More readers than streams: each new range once cancelled one that a reader waited for, for ever."""

    async def main() -> None:
        async with filling() as f:
            f.m.hooks.delay = 0.05
            await f.fetch.open(None)
            f.m.hooks.hold_piece(PIECE)
            async with trio.open_nursery() as nursery:

                async def read_at(place: int) -> None:
                    start = place * PIECE
                    assert await f.read(start, start + 100) == CONTENT[start : start + 100]

                for place in (3, 5, 7, 9, 11, 13, 15):
                    nursery.start_soon(read_at, place)

    on_mock_clock(main)


def test_a_stream_far_ahead_of_its_readers_ends_and_is_taken_up_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fetching, "AHEAD_BYTES", 2 * PIECE)

    async def main() -> None:
        async with filling() as f:
            await f.fetch.open(None)
            await f.read(0, 10)
            await trio.testing.wait_all_tasks_blocked()
            assert not f.m.nursery.child_tasks
            assert not f.blob.present.covers(0, 5 * PIECE)
            assert await f.read(0, len(CONTENT)) == CONTENT
            assert f.m.calls == {"get_record": 2}

    on_mock_clock(main)


def test_what_was_written_meanwhile_stays() -> None:
    async def main() -> None:
        async with filling() as f:
            gate = f.m.hooks.hold_piece(PIECE)
            await f.fetch.open(None)
            f.blob.pwrite(b"mine", 5 * PIECE - 2)
            gate.open()
            expected = CONTENT[: 5 * PIECE - 2] + b"mine" + CONTENT[5 * PIECE + 2 :]
            assert await f.read(0, len(CONTENT)) == expected

    on_mock_clock(main)


@pytest.mark.parametrize("again", [0, 4 * PIECE, 20 * PIECE])
def test_bytes_cut_off_do_not_come_back(again: int) -> None:
    async def main() -> None:
        async with filling() as f:
            gate = f.m.hooks.hold_piece(PIECE)
            await f.fetch.open(None)
            for size in (2 * PIECE + 7, again):
                if size:
                    f.fetch.cut(size)
                    f.blob.truncate(size)
            gate.open()
            size = again or 2 * PIECE + 7
            assert await f.read(0, size) == CONTENT[: 2 * PIECE + 7].ljust(size, b"\0")
            assert f.fetch.complete
            assert f.blob.size == size
            f.blob.check_invariants()
            assert f.m.calls == {"get_record": 1}

    on_mock_clock(main)


def test_an_empty_record_is_complete_at_once() -> None:
    async def main() -> None:
        async with filling(b"") as f:
            assert await f.fetch.open(None)
            assert await f.read(0, 10) == b""
            assert f.fetch.complete
            await f.check_nothing_runs()

    on_mock_clock(main)


def test_a_record_read_to_its_end_leaves_its_connection_to_the_next() -> None:
    async def main() -> None:
        content = CONTENT[:10_000]
        async with (
            mounted() as m,
            fault_server(answering(200, content)) as server,
            ApifyStoreCollection(server.url) as stores,
        ):
            for key in "abc":
                blob = m.blobs.create()
                fetch = Fetch(stores.store("s"), RecordKey(key), blob, m.nursery)
                assert await fetch.open(None)
                await fetch.ensure(0, len(content))
                await trio.testing.wait_all_tasks_blocked()
                assert blob.pread(len(content), 0) == content
                blob.release()
            assert (len(server.exchanges), server.connections) == (3, 1)

    trio.run(main)


def test_large_bodies_come_in_large_pieces() -> None:
    async def main() -> None:
        async with (
            fault_server(answering(200, bytes(8 * 1024 * 1024))) as server,
            ApifyStoreCollection(server.url) as stores,
            stores.store("s").get_record(RecordKey("a")) as record,
        ):
            assert record is not None
            sizes = [len(chunk) async for chunk in record.chunks()]
            assert sum(sizes) == 8 * 1024 * 1024
            assert 64 * 1024 < max(sizes) <= READ_BYTES

    trio.run(main)
