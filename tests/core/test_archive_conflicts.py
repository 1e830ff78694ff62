"""Bytes that came by an archive have no validator: what others write meanwhile is noticed all the same."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from kvsfs.core.tuning import Tuning
from kvsfs.errors import StoreUnreachable
from kvsfs.store.memory import MemoryStoreCollection
from tests.support.mounted import Mounted, mounted, on_mock_clock

COUNT = 130
TRIP = 0.02
LAST = f"k{COUNT - 1:04}"
KEEP_BOTH = Tuning(keep_both=True)
GONE = StoreUnreachable("the network is down")


@asynccontextmanager
async def read_by_an_archive(tuning: Tuning | None = None) -> AsyncIterator[Mounted]:
    """A folder all of which was read just now; nothing tells a version of the last file but its bytes."""
    stores = MemoryStoreCollection()
    stores.dates = True
    async with mounted(tuning=tuning, stores=stores) as m:
        for number in reversed(
            range(COUNT)
        ):  # each a second of the store's clock: the last file is the oldest
            await m.other.put(f"k{number:04}", b"first")
        await m.names()
        m.hooks.delay = TRIP
        for number in range(COUNT):
            assert await m.read_file(f"k{number:04}") == b"first"
        assert m.calls["read_records"] == 1
        assert (await m.file(LAST)).head is None
        yield m


async def versions(m: Mounted) -> list[bytes]:
    return sorted(content for key, content in (await m.other.records()).items() if key.startswith(LAST))


@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_WRONLY | os.O_TRUNC])
def test_keep_both_keeps_what_others_wrote_at_the_same_length(flags: int) -> None:
    async def main() -> None:
        async with read_by_an_archive(KEEP_BOTH) as m:
            fh = await m.open(LAST, flags)
            await m.other.put(LAST, b"their")
            await m.fs.files.write(fh, 0, b"ours!")
            await m.close(fh)
            assert await versions(m) == [b"ours!", b"their"]

    on_mock_clock(main)


@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_WRONLY | os.O_TRUNC])
def test_keep_both_keeps_one_version_where_nobody_else_wrote(flags: int) -> None:
    async def main() -> None:
        async with read_by_an_archive(KEEP_BOTH) as m:
            fh = await m.open(LAST, flags)
            await m.fs.files.write(fh, 0, b"ours!")
            with m.costs(head_record=2, set_record=1):
                await m.close(fh)
            assert await versions(m) == [b"ours!"]

    on_mock_clock(main)


def test_a_late_upload_replaces_nothing_that_others_wrote_at_the_same_length() -> None:
    async def main() -> None:
        async with read_by_an_archive() as m:
            fh = await m.open(LAST, os.O_RDWR)
            await m.fs.files.write(fh, 0, b"ours is longer")
            await m.other.put(LAST, b"their")
            m.hooks.fail("set_record", GONE)
            with pytest.raises(StoreUnreachable):
                await m.close(fh)
            await m.idle()
            assert await versions(m) == [b"ours is longer", b"their"]

    on_mock_clock(main)


def test_headers_of_a_newer_version_are_not_taken_for_those_of_what_was_read() -> None:
    """`cp -a` asks for the types of what came by an archive; others have written meanwhile."""

    async def main() -> None:
        async with read_by_an_archive(KEEP_BOTH) as m:
            fh = await m.open(LAST, os.O_RDWR)
            await m.other.put(LAST, b"theirs")
            await m.fs.xattrs.list(await m.file(LAST))
            await m.mime_type(LAST)
            await m.fs.files.write(fh, 0, b"ours!")
            await m.close(fh)
            assert await versions(m) == [b"ours!", b"theirs"]

    on_mock_clock(main)
