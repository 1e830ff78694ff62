"""Notices to the kernel: never on the caller's time, one at a time, bounded, and no error of theirs matters."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from unittest.mock import patch

import pyfuse3
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from kvsfs.fuse import invalidation
from kvsfs.fuse.invalidation import Invalidation


class Kernel:
    """Stands where pyfuse3's calls lead to."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []
        self.threads: set[int] = set()
        self.free = threading.Event()
        self.free.set()
        self.arrived = threading.Event()
        self.error: OSError | None = None

    def invalidate_inode(self, inode: int, attr_only: bool = False) -> None:
        self._take(("attributes" if attr_only else "pages", inode))

    def invalidate_entry(self, parent: int, name: bytes, deleted: int = 0) -> None:
        self._take((parent, name, deleted))

    def _take(self, notice: tuple[object, ...]) -> None:
        self.threads.add(threading.get_ident())
        self.arrived.set()
        assert self.free.wait(10)
        self.told.append(notice)
        if self.error is not None:
            raise self.error


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    found = Kernel()
    with (
        patch.object(pyfuse3, "invalidate_inode", found.invalidate_inode),
        patch.object(pyfuse3, "invalidate_entry", found.invalidate_entry),
    ):
        yield found


async def until_told(kernel: Kernel, count: int) -> None:
    with trio.fail_after(10):
        while len(kernel.told) < count:  # by a thread, which has no trio event
            await wait_all_tasks_blocked(0.001)


def test_pages_and_names_are_told_in_a_thread_attributes_at_once(kernel: Kernel) -> None:
    async def main() -> None:
        notices = Invalidation()
        notices.attributes_changed(7)
        assert kernel.told == [("attributes", 7)]
        assert kernel.threads == {threading.get_ident()}
        kernel.threads.clear()
        notices.pages_changed(7)
        notices.entry_gone(1, b"name", 7)
        await wait_all_tasks_blocked()
        assert len(kernel.told) == 1  # nobody passes them on yet
        async with trio.open_nursery() as nursery:
            nursery.start_soon(notices.run)
            await until_told(kernel, 3)
            nursery.cancel_scope.cancel()
        assert kernel.told[1:] == [("pages", 7), (1, b"name", 7)]
        assert threading.get_ident() not in kernel.threads

    trio.run(main)


def test_while_the_kernel_waits_nobody_does_and_the_rest_is_bounded(kernel: Kernel) -> None:
    async def main() -> None:
        notices = Invalidation()
        kernel.free.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(notices.run)
            notices.pages_changed(0)
            await trio.to_thread.run_sync(kernel.arrived.wait)
            for number in (1, 2, 3, 4, 2, 1):
                notices.pages_changed(number)
            kernel.free.set()
            await until_told(kernel, 4)
            await wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()
        assert kernel.told == [("pages", number) for number in (0, 1, 2, 3)]

    with patch.object(invalidation, "MOST_WAITING", 3):
        trio.run(main)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOTEMPTY, errno.ENODEV, errno.EIO])
def test_what_the_kernel_refuses_stops_nothing(kernel: Kernel, number: int) -> None:
    async def main() -> None:
        notices = Invalidation()
        kernel.error = OSError(number, "refused")
        notices.attributes_changed(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(notices.run)
            for inode in (2, 3, 4):
                notices.pages_changed(inode)
            await until_told(kernel, 4)
            nursery.cancel_scope.cancel()

    trio.run(main)
