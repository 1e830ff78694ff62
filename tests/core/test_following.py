"""A mount whose store becomes another one: when it changes over, and what is left of the first."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio

from kvsfs.core.numbers import ROOT
from kvsfs.core.tuning import Tuning
from kvsfs.errors import FileError, StoreUnreachable
from kvsfs.store.following import FollowingStore
from kvsfs.types import StoreInfo
from tests.support.mounted import Mounted, OtherClient, mounted, on_mock_clock

REVALIDATE = 5.0


@dataclass
class Path:
    """What leads to a store."""

    info: StoreInfo | None
    asked: int = 0
    out_of_reach: bool = False

    async def resolve(self) -> StoreInfo | None:
        await trio.lowlevel.checkpoint()
        self.asked += 1
        if self.out_of_reach:
            raise StoreUnreachable("the network is down")
        return self.info


@dataclass
class Following:
    m: Mounted
    path: Path
    first: OtherClient
    second: OtherClient
    newer: StoreInfo

    async def names(self) -> list[str]:
        return await self.m.names()


@asynccontextmanager
async def following(*, poll: float | None = None) -> AsyncIterator[Following]:
    async with mounted(tuning=Tuning(read_only=True, revalidate=REVALIDATE, poll=poll)) as m:
        path = Path(m.info)
        store = FollowingStore(path.resolve, m.stores.store, m.info)
        await m.end()
        m.store = store  # type: ignore[assignment]  # it keeps the same protocol
        await m.mount(m.blobs.path)
        m.fs.follow(store)
        newer = await m.stores.get_or_create()
        yield Following(m, path, m.other, OtherClient(m.stores, newer.id), newer)
        m.fs.check_invariants()


async def read(m: Mounted, name: bytes) -> bytes:
    file = await m.fs.lookup(ROOT, name)
    opened = await m.fs.open(file.number, 0, 1)
    try:
        return await m.fs.files.read(opened.fh, 0, 100)
    finally:
        await m.fs.files.release(opened.fh)


def test_a_newer_store_shows_when_the_answer_has_grown_old() -> None:
    async def main() -> None:
        async with following() as f:
            await f.first.put("a", b"1")
            await f.first.put("folder!2Fb", b"2")
            await f.second.put("c", b"3")
            assert await f.names() == ["a", "folder"]
            f.path.info = f.newer
            assert await f.names() == ["a", "folder"]
            await trio.sleep(REVALIDATE)
            assert await f.names() == ["c"]
            assert f.path.asked == 2
            assert await read(f.m, b"c") == b"3"
            assert {f.m.fs.inodes.root} == set(f.m.fs.inodes.folders())

    on_mock_clock(main)


def test_an_open_of_what_is_of_the_older_store_is_stale_and_the_name_leads_to_the_newer() -> None:
    async def main() -> None:
        async with following() as f:
            await f.first.put("a", b"old")
            await f.second.put("a", b"new")
            old = await f.m.fs.lookup(ROOT, b"a")
            held = await f.m.fs.open(old.number, 0, 1)
            assert await f.m.fs.files.read(held.fh, 0, 100) == b"old"
            f.path.info = f.newer
            await trio.sleep(REVALIDATE)
            for _ in range(2):
                with pytest.raises(FileError) as stale:
                    await f.m.fs.open(old.number, 0, 1)
                assert stale.value.errno == errno.ESTALE
            assert await read(f.m, b"a") == b"new"
            assert await f.m.fs.files.read(held.fh, 0, 100) == b"old"
            await f.m.fs.files.release(held.fh)

    on_mock_clock(main)


def test_no_answer_of_the_older_store_is_taken_for_one_of_the_newer() -> None:
    """While one is on its way the older store is shown on; then the next listing changes over."""

    async def main() -> None:
        async with following() as f:
            await f.first.put("a", b"old")
            await f.second.put("a", b"new")
            on_its_way, go_on = trio.Event(), trio.Event()

            async def hold(operation: str, _key: object) -> None:
                if operation == "get_record" and not go_on.is_set():
                    on_its_way.set()
                    await go_on.wait()

            file = await f.m.fs.lookup(ROOT, b"a")
            f.m.stores.before = hold
            read_late: list[bytes] = []

            async def reader() -> None:
                opened = await f.m.fs.open(file.number, 0, 1)
                read_late.append(await f.m.fs.files.read(opened.fh, 0, 100))
                await f.m.fs.files.release(opened.fh)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(reader)
                await on_its_way.wait()
                f.path.info = f.newer
                await trio.sleep(REVALIDATE)
                assert await f.names() == ["a"]
                assert f.m.store.info == f.m.info  # type: ignore[attr-defined]
                go_on.set()
            assert read_late == [b"old"]
            assert await f.names() == ["a"]
            assert await read(f.m, b"a") == b"new"

    on_mock_clock(main)


def test_nobody_can_tell_where_it_leads() -> None:
    async def main() -> None:
        async with following() as f:
            await f.first.put("a", b"1")
            assert await f.names() == ["a"]
            f.path.out_of_reach = True
            await trio.sleep(REVALIDATE)
            assert await f.names() == ["a"]
            f.path.info, f.path.out_of_reach = None, False
            await trio.sleep(REVALIDATE)
            assert await f.names() == ["a"]
            assert f.path.asked == 3

    on_mock_clock(main)


def test_with_poll_it_changes_over_unasked() -> None:
    async def main() -> None:
        async with following(poll=7) as f:
            await f.first.put("a", b"1")
            assert await f.names() == ["a"]
            f.path.info = f.newer
            await trio.sleep(8)
            assert f.m.store.info == f.newer  # type: ignore[attr-defined]

    on_mock_clock(main)
