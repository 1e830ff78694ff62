"""Archives amid writers here and elsewhere: never mixed, never older than the trust allows, and nothing lost."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
import trio

from kvsfs.errors import FileError, RecordNotFound
from kvsfs.types import RecordKey
from tests.support.mounted import Mounted, mounted, on_mock_clock

COUNT = 130
STEPS = 60
TRIP = 0.02
SEEDS = range(6)


class World:
    """All values that were ever written under each name, and until when each was the newest."""

    def __init__(self, m: Mounted, seed: int) -> None:
        self.m = m
        self.random = random.Random(seed)
        self.ended_at: dict[bytes, float] = {}
        """Value -> when it was replaced or removed in the store."""
        self.newest: dict[str, bytes | None] = {}
        self.versions = 0

    def value(self, key: str) -> bytes:
        """Make a value that no other write has, of one of few lengths."""
        self.versions += 1
        return b"%s %06d " % (key.encode(), self.versions) * self.random.choice((1, 1, 5, 300))

    def wrote(self, key: str, value: bytes | None) -> None:
        old = self.newest.get(key)
        if old is not None:
            self.ended_at[old] = trio.current_time()
        self.newest[key] = value

    async def elsewhere(self) -> None:
        for _ in range(STEPS):
            key = f"k{self.random.randrange(COUNT):04}"
            value = self.value(key)
            await self.m.other.put(key, value)
            self.wrote(key, value)
            await trio.sleep(self.random.random() * 0.2)

    async def here(self) -> None:
        """Write, remove and rename files that nobody else writes: whose last write wins is another test's."""
        for step in range(STEPS):
            key = f"w{self.random.randrange(COUNT):04}"
            with suppress(FileError, RecordNotFound):
                match step % 3:
                    case 0:
                        value = self.value(key)
                        await self.m.write_file(key, value)
                        self.wrote(key, value)
                    case 1:
                        await self.m.unlink(key)
                        self.wrote(key, None)
                    case _:
                        target = f"w{self.random.randrange(COUNT):04}"
                        value = self.newest.get(key) or b""
                        await self.m.rename(key, target)
                        if target != key:
                            self.newest[key] = None
                            self.newest[target] = value
            await trio.sleep(self.random.random() * 0.2)

    async def read(self, letter: str) -> None:
        """Read all files in order, again and again; of those from elsewhere each value is to be fresh."""
        for _ in range(3):
            for number in range(COUNT):
                key = f"{letter}{number:04}"
                opened_at = trio.current_time()
                try:
                    found = await self.m.read_file(key)
                except FileError:
                    continue
                self.check(key, found, opened_at)
            await trio.sleep(self.random.random() * self.m.tuning.revalidate)

    def check(self, key: str, found: bytes, opened_at: float) -> None:
        word, version, *_ = found.split()
        assert found == b"%s %s " % (word, version) * (len(found) // (len(word) + len(version) + 2)), "mixed"
        if key.startswith("k"):
            assert word == key.encode()
            trusted_since = opened_at - self.m.tuning.revalidate - 2 * TRIP
            assert self.ended_at.get(found, opened_at) >= trusted_since, "older than an open may show"


@pytest.mark.parametrize("seed", SEEDS)
def test_archives_amid_writers(seed: int) -> None:
    async def main() -> None:
        async with mounted() as m:
            world = World(m, seed)
            for letter in "kw":
                for number in range(COUNT):
                    key = f"{letter}{number:04}"
                    value = world.value(key)
                    await m.other.put(key, value)
                    world.wrote(key, value)
            await m.names()
            m.hooks.delay = TRIP

            async def piece(_key: RecordKey, _offset: int) -> None:
                await trio.sleep(world.random.random() * 0.02)

            m.stores.piece = piece
            async with trio.open_nursery() as nursery:
                nursery.start_soon(world.elsewhere)
                nursery.start_soon(world.here)
                for letter in "kw":
                    nursery.start_soon(world.read, letter)
            await m.idle()
            m.fs.check_invariants()
            await trio.sleep(m.tuning.revalidate + m.tuning.listing_ttl)
            records = await m.other.records()
            assert sorted(records) == sorted(await m.names())
            assert {key: await m.read_file(key) for key in records} == records
            for key, last in world.newest.items():
                assert records.get(key) == last, key
            assert m.calls["read_records"] > 0

    on_mock_clock(main)
