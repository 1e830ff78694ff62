"""The queue of uploads by itself: what it calls, when, and whom it keeps waiting."""

from __future__ import annotations

import itertools

import trio

from kvsfs.cache.writeback import FEW, LONGEST_PAUSE, LONGEST_WAY, PATIENCE, QUIET, WriteBack
from tests.support.mounted import on_mock_clock


class Uploads:
    """Notes each call; takes a second; fails as often as it was told."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, str]] = []
        self.running = self.most = 0
        self.failures: dict[str, int] = {}
        self.started = trio.current_time()

    async def __call__(self, item: str) -> bool:
        self.calls.append((round(trio.current_time() - self.started, 1), item))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await trio.sleep(1)
        finally:
            self.running -= 1
        left = self.failures.get(item, 0)
        self.failures[item] = left - 1
        return left <= 0


def test_an_item_is_uploaded_once_after_its_last_put() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            uploads = Uploads()
            queue = WriteBack[str](uploads, parallel=2)
            nursery.start_soon(queue.run)
            queue.put("a", 5)
            await trio.sleep(3)
            queue.put("a", 5)
            assert queue.due_at("a") == trio.current_time() + 5
            await trio.sleep(20)
            assert uploads.calls == [(8.0, "a")]
            assert len(queue) == 0
            nursery.cancel_scope.cancel()

    on_mock_clock(main)


def test_no_more_than_so_many_run_at_once() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            uploads = Uploads()
            queue = WriteBack[str](uploads, parallel=3)
            nursery.start_soon(queue.run)
            for number in range(10):
                queue.put(str(number))
            await queue.drain()
            assert uploads.most == 3
            assert sorted(item for _, item in uploads.calls) == [str(number) for number in range(10)]
            nursery.cancel_scope.cancel()

    on_mock_clock(main)


def test_while_files_keep_coming_few_are_uploaded_and_none_for_long_in_vain() -> None:
    """A program that copies files in is not kept waiting by the uploads of those before."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            uploads = Uploads()
            queue = WriteBack[str](uploads, parallel=10)
            nursery.start_soon(queue.run)
            for number in range(15):
                queue.put(str(number))
                await trio.sleep(QUIET / 2)
            assert uploads.most == FEW
            await trio.sleep(QUIET)
            assert uploads.most == 10
            nursery.cancel_scope.cancel()

    on_mock_clock(main)


def test_a_program_that_never_ends_holds_no_upload_up_for_long() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            uploads = Uploads()
            queue = WriteBack[str](uploads, parallel=100)
            nursery.start_soon(queue.run)
            for number in range(200):
                queue.put(str(number))
                await trio.sleep(QUIET / 2)
            late = [at - int(item) * QUIET / 2 for at, item in uploads.calls]
            assert LONGEST_WAY - 0.1 <= max(late) <= LONGEST_WAY + 0.1
            assert len(late) >= 200 - (LONGEST_WAY + 1) / (QUIET / 2)
            nursery.cancel_scope.cancel()

    on_mock_clock(main)


def test_what_fails_is_tried_again_for_ever_at_longer_intervals() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            uploads = Uploads()
            uploads.failures["a"] = 30
            queue = WriteBack[str](uploads, parallel=3)
            nursery.start_soon(queue.run)
            queue.put("a")
            await trio.sleep(30 * (LONGEST_PAUSE + 1))
            times = [at for at, _ in uploads.calls]
            pauses = [b - a - 1 for a, b in itertools.pairwise(times)]
            assert len(times) == 31
            assert 0.4 <= pauses[0] <= 1.1
            assert all(LONGEST_PAUSE / 2 - 0.2 <= pause <= LONGEST_PAUSE + 0.2 for pause in pauses[8:])
            assert "a" not in queue
            nursery.cancel_scope.cancel()

    on_mock_clock(main)


def test_a_drain_waits_for_what_is_put_while_it_is_being_uploaded() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            uploads = Uploads()
            queue = WriteBack[str](uploads, parallel=3)
            nursery.start_soon(queue.run)
            queue.put("a")
            await trio.sleep(0.5)
            queue.put("a", 100)
            await queue.drain()
            assert uploads.calls == [(0.0, "a"), (1.0, "a")]
            assert "a" not in queue
            nursery.cancel_scope.cancel()

    on_mock_clock(main)


def test_a_drain_is_patient_and_not_for_ever() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            uploads = Uploads()
            uploads.failures = {"once": 1, "always": 1000}
            queue = WriteBack[str](uploads, parallel=3)
            nursery.start_soon(queue.run)
            for item in uploads.failures:
                queue.put(item, 60)
            begun = trio.current_time()
            await queue.drain()
            assert trio.current_time() - begun < PATIENCE + 2
            assert list(queue) == ["always"]
            queue.cancel("always")
            await queue.drain()
            nursery.cancel_scope.cancel()

    on_mock_clock(main)


def test_what_is_cancelled_is_not_uploaded_any_more() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            uploads = Uploads()
            queue = WriteBack[str](uploads, parallel=3)
            nursery.start_soon(queue.run)
            queue.put("waits", 5)
            queue.put("runs")
            await trio.sleep(0.5)
            queue.cancel("waits")
            queue.cancel("runs")
            await trio.sleep(10)
            assert uploads.calls == [(0.0, "runs")]
            assert uploads.running == 0
            nursery.cancel_scope.cancel()

    on_mock_clock(main)
