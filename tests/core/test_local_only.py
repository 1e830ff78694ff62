"""Files that no store is to have: editors' swap and lock files."""

from __future__ import annotations

import os

import pytest
import trio

from kvsfs.core.inodes import InodeTable, Ownership
from kvsfs.core.name_rules import NameRules
from kvsfs.core.tuning import GRACE, Tuning
from tests.support.mounted import mounted, on_mock_clock

SWAP = ".f.swp"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b".f.swp", True),
        (b".f.txt.swo", True),
        (b".swp", False),
        (b"f.swp", False),
        (b".f.swz", False),
        (b"#f#", True),
        (b"#f", False),
        (b".#f", True),
        (b".~lock.f.odt#", True),
        (b".DS_Store", True),
        (b"._f", True),
        (b"Thumbs.db", True),
        (b"thumbs.db", False),
        (b"f", False),
        (b".\xff\xfe.swp", True),
    ],
)
def test_what_is_local_only(name: bytes, *, expected: bool) -> None:
    root = InodeTable(Ownership(), 0).root
    assert NameRules().is_local_only(root, name) is expected


def test_a_local_only_file_costs_nothing_and_survives_a_remount() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("d!2Ff", b"text")
            await m.names("d")
            with m.costs():
                await m.write_file(f"d/{SWAP}", b"swap")
                await m.write_file("#f#", b"auto-save")
                fh = await m.open(f"d/{SWAP}", os.O_RDWR)
                await m.fs.write(fh, 4, b" file")
                await m.fs.fsync(fh)
                await m.close(fh)
                await trio.sleep(100)
                await m.fs.drain()
            assert m.fs.set_aside() == []
            assert await m.state(f"d/{SWAP}") == b"local-only"
            m.remount()
            assert await m.read_file(f"d/{SWAP}") == b"swap file"
            assert await m.read_file("#f#") == b"auto-save"
            assert sorted(await m.names()) == ["#f#", "d"]
            assert sorted(await m.names("d")) == [SWAP, "f"]
            m.fs.check_invariants()
            assert await m.other.records() == {"d!2Ff": b"text"}

    on_mock_clock(main)


def test_a_local_only_file_stays_when_others_list_and_change_the_store() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.write_file(SWAP, b"swap")
            for n in range(3):
                await m.other.put(f"x{n}", b"theirs")
                await trio.sleep(m.tuning.listing_ttl + 1)
                assert SWAP in await m.names()
            assert await m.read_file(SWAP) == b"swap"

    on_mock_clock(main)


def test_a_removed_local_only_file_does_not_come_back() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.write_file(SWAP, b"swap")
            fh = await m.open(SWAP)
            await m.unlink(SWAP)
            await m.write_file(SWAP, b"another")
            assert await m.read_all(fh) == b"swap"
            await m.close(fh)
            m.remount()
            assert await m.read_file(SWAP) == b"another"
            await m.unlink(SWAP)
            m.remount()
            assert await m.names() == []

    on_mock_clock(main)


def test_a_local_only_file_that_gets_a_real_name_is_uploaded() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("f", b"old", "text/csv")
            await m.write_file("#f#", b"recovered")
            await m.names()
            await m.rename("#f#", "f")
            assert await m.other.records() == {"f": b"recovered"}
            assert await m.mime_type("f") == b"text/csv"
            await m.fs.drain()
            m.remount()
            assert await m.names() == ["f"]

    on_mock_clock(main)


def test_an_open_local_only_file_that_gets_a_real_name_is_uploaded_at_once_and_at_its_close() -> None:
    async def main() -> None:
        async with mounted() as m:
            fh = await m.create("#f#")
            await m.fs.write(fh, 0, b"one")
            await m.rename("#f#", "f")
            assert await m.other.records() == {"f": b"one"}
            await m.fs.write(fh, 3, b" two")
            await m.close(fh)
            assert await m.other.records() == {"f": b"one two"}

    on_mock_clock(main)


def test_a_record_that_gets_a_local_only_name_leaves_the_store_after_the_grace() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("f", b"text")
            await m.write_file("#f#", b"older")
            await m.rename("f", "#f#")
            assert await m.other.records() == {"f": b"text"}
            await trio.sleep(GRACE + 1)
            assert await m.other.records() == {}
            await m.fs.drain()
            m.remount()
            assert await m.names() == ["#f#"]
            assert await m.read_file("#f#") == b"text"

    on_mock_clock(main)


def test_a_local_only_file_can_be_cut_renamed_and_replaced_by_its_like() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.names()
            with m.costs():
                await m.write_file("#a#", b"first")
                await m.write_file("#b#", b"second")
                fh = await m.open("#b#")
                await m.rename("#a#", "#b#")
                assert await m.read_all(fh) == b"second"
                await m.close(fh)
                assert await m.names() == ["#b#"]
                await m.write_file("#b#", b"cut")
            m.remount()
            assert await m.read_file("#b#") == b"cut"
            m.fs.check_invariants()

    on_mock_clock(main)


def test_patterns_of_ones_own_add_to_the_built_in_ones() -> None:
    async def main() -> None:
        tuning = Tuning(local_only=("*.lock",), deferred=("*.new",))
        async with mounted(tuning=tuning) as m:
            await m.names()
            with m.costs():
                await m.write_file("f.lock", b"mine")
                await m.write_file(SWAP, b"swap")
                await m.write_file("f.new", b"content")
            with m.costs(set_record=1):
                await m.rename("f.new", "f")
            await m.fs.drain()
            assert await m.other.records() == {"f": b"content"}
            m.remount()
            assert sorted(await m.names()) == [SWAP, "f", "f.lock"]

    on_mock_clock(main)
