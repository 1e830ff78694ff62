"""What a large flat store costs: bytes and requests for each key, however many there are."""

from __future__ import annotations

import math
import tracemalloc

import pytest

from kvsfs.core.inodes import File
from kvsfs.core.numbers import ROOT
from kvsfs.core.pages_ahead import MOST_IN_VAIN
from kvsfs.errors import FileError
from kvsfs.store.memory import PAGE_SIZE
from tests.support.mounted import Mounted, mounted, on_mock_clock

BYTES_EACH = 560
"""Of a name in a folder that is being read: its inode, its places in two tables and two orders. A million are under
600 MiB then, with the 60 that a daemon begins with."""


async def listed(m: Mounted) -> int:
    """Read the whole folder as the kernel does; how many names it has."""
    fh, place, count = m.fs.opendir(ROOT), 0, 0
    while entries := await m.fs.readdir(fh, place):
        count += len(entries)
        place = entries[-1][2]
    m.fs.releasedir(fh)
    return count


@pytest.mark.parametrize("count", [10_000, 30_000])
def test_a_key_takes_as_many_bytes_and_requests_in_a_large_store_as_in_a_small_one(count: int) -> None:
    async def main() -> None:
        async with mounted(page_size=PAGE_SIZE) as m:
            for number in range(count):
                await m.other.put(f"page-{number:09}.html", b"x")
            before_calls = m.calls
            tracemalloc.start()
            try:
                before, _ = tracemalloc.get_traced_memory()
                assert await listed(m) == count
                after, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert (after - before) / count <= BYTES_EACH
            assert (m.calls - before_calls)["list_keys"] <= math.ceil(count / PAGE_SIZE) * (1 + MOST_IN_VAIN)

    on_mock_clock(main)


def test_in_a_large_store_that_was_listed_names_cost_nothing() -> None:
    async def main() -> None:
        async with mounted(page_size=PAGE_SIZE) as m:
            for number in range(8000):
                await m.other.put(f"page-{number:09}.html", b"x")
            assert await listed(m) == 8000
            with m.costs():
                assert isinstance(await m.walk("page-000007999.html"), File)
                with pytest.raises(FileError):
                    await m.walk("page-000008000.html")
                assert await listed(m) == 8000
            with m.costs(set_record=1):
                await m.write_file("new", b"content")

    on_mock_clock(main)
