"""Files that no store is to have: editors' swap and lock files."""

from __future__ import annotations

import errno
import os

import pytest
import trio

from kvsfs.core.inodes import InodeTable, Ownership
from kvsfs.core.name_rules import NameRules
from kvsfs.core.tuning import GRACE, Tuning
from kvsfs.errors import FileError, StoreUnreachable
from tests.support.mounted import Mounted, mounted, on_mock_clock

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
        (b".Trash-1000", True),
        (b".Trash", False),
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
                await m.fs.files.write(fh, 4, b" file")
                await m.fs.files.fsync(fh)
                await m.close(fh)
                await trio.sleep(100)
                await m.fs.drain()
            assert m.fs.left() == []
            assert await m.state(f"d/{SWAP}") == b"local-only"
            await m.remount()
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
            await m.remount()
            assert await m.read_file(SWAP) == b"another"
            await m.unlink(SWAP)
            await m.remount()
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
            await m.remount()
            assert await m.names() == ["f"]

    on_mock_clock(main)


def test_an_open_local_only_file_that_gets_a_real_name_is_uploaded_at_once_and_at_its_close() -> None:
    async def main() -> None:
        async with mounted() as m:
            fh = await m.create("#f#")
            await m.fs.files.write(fh, 0, b"one")
            await m.rename("#f#", "f")
            assert await m.other.records() == {"f": b"one"}
            await m.fs.files.write(fh, 3, b" two")
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
            await m.remount()
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
            await m.remount()
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
            await m.remount()
            assert sorted(await m.names()) == [SWAP, "f", "f.lock"]

    on_mock_clock(main)


# --- folders ------------------------------------------------------------------------------------------

TRASH = ".Trash-1000"


async def make_trash(m: Mounted) -> None:
    for path in (TRASH, f"{TRASH}/files", f"{TRASH}/info"):
        await m.mkdir(path)


def test_a_trash_costs_nothing_and_survives_a_remount() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("f", b"text")
            await m.names()
            with m.costs():
                await make_trash(m)
                await m.write_file(f"{TRASH}/info/f.trashinfo", b"[Trash Info]")
                assert await m.names(TRASH) == ["files", "info"]
                assert await m.names(f"{TRASH}/files") == []
                with pytest.raises(FileError):
                    await m.walk(f"{TRASH}/files/absent")
                fh = await m.create(f"{TRASH}/log", os.O_WRONLY | os.O_APPEND)
                await m.close(fh)
                await trio.sleep(100)
                await m.names(f"{TRASH}/files")
                await m.rmdir(f"{TRASH}/files")
                await m.fs.drain()
                await m.remount()
                assert await m.read_file(f"{TRASH}/info/f.trashinfo") == b"[Trash Info]"
                assert sorted(await m.names(TRASH)) == ["info", "log"]
                m.fs.check_invariants()
            assert sorted(await m.names()) == [TRASH, "f"]
            assert await m.other.records() == {"f": b"text"}

    on_mock_clock(main)


def test_a_record_moved_to_the_trash_leaves_the_store_after_the_grace_and_comes_back_by_one_put() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("d!2Ff", b"text", "text/csv")
            await m.names("d")
            await make_trash(m)
            with m.costs(get_record=1):
                await m.rename("d/f", f"{TRASH}/files/f")
                assert await m.state(f"{TRASH}/files/f") == b"local-only"
            assert await m.other.records() == {"d!2Ff": b"text"}
            with m.costs(delete_record=1, set_record=1):  # and the empty folder's marker
                await trio.sleep(GRACE + 0.1)
            await m.idle()
            assert list(await m.other.records()) == ["d!2F"]
            with m.costs(set_record=1):
                await m.rename(f"{TRASH}/files/f", "d/f")
            assert (await m.other.records())["d!2Ff"] == b"text"
            assert await m.mime_type("d/f") == b"text/csv"
            assert await m.names(f"{TRASH}/files") == []
            m.fs.check_invariants()

    on_mock_clock(main)


def test_a_record_restored_within_the_grace_is_put_and_never_deleted() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.write_file("f", b"text")
            await make_trash(m)
            with m.costs(set_record=1):
                await m.rename("f", f"{TRASH}/files/f")
                await m.rename(f"{TRASH}/files/f", "f")
                await trio.sleep(2 * GRACE)
            assert await m.other.records() == {"f": b"text"}

    on_mock_clock(main)


def test_what_cannot_be_restored_stays_in_the_trash() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.names()
            await make_trash(m)
            await m.write_file(f"{TRASH}/files/f", b"text")
            m.hooks.fail("set_record", StoreUnreachable("no network"))
            with pytest.raises(StoreUnreachable):
                await m.rename(f"{TRASH}/files/f", "f")
            with m.costs(head_record=1, delete_record=1):  # the PUT may have come through all the same
                await m.fs.drain()
                await m.remount()
                assert await m.read_file(f"{TRASH}/files/f") == b"text"
            assert await m.other.records() == {}

    on_mock_clock(main)


def test_the_trash_takes_names_that_no_key_can_hold() -> None:
    """A record's path may be as long as a key can be: in the trash it is longer."""
    path, long = "a" * 256, "ž" * 100

    async def main() -> None:
        async with mounted(tuning=Tuning(strict_names=True)) as m:
            await m.other.put(path, b"text")
            await make_trash(m)
            await m.rename(path, f"{TRASH}/files/{path[:250]}")
            await m.mkdir(f"{TRASH}/files/{long}")
            await m.write_file(f"{TRASH}/files/{long}/f g", b"deep")
            with pytest.raises(FileError) as refused:
                await m.rename(f"{TRASH}/files/{long}/f g", "f g")
            assert refused.value.errno == errno.EINVAL
            await m.remount()
            assert await m.read_file(f"{TRASH}/files/{path[:250]}") == b"text"
            assert await m.read_file(f"{TRASH}/files/{long}/f g") == b"deep"
            m.fs.check_invariants()

    on_mock_clock(main)


def test_a_trash_that_the_store_has_is_shown_beside_what_is_kept_here() -> None:
    async def main() -> None:
        async with mounted() as m:
            await make_trash(m)
            await m.write_file(f"{TRASH}/files/mine", b"mine")
            await m.other.put(f"{TRASH}!2Ffiles!2Ftheirs", b"theirs")
            await trio.sleep(m.tuning.listing_ttl + 1)
            await m.names()
            assert sorted(await m.names(f"{TRASH}/files")) == ["mine", "theirs"]
            assert await m.read_file(f"{TRASH}/files/theirs") == b"theirs"
            await m.unlink(f"{TRASH}/files/theirs")
            assert await m.other.records() == {}
            await trio.sleep(m.tuning.listing_ttl + 1)
            assert await m.names(f"{TRASH}/files") == ["mine"]
            assert await m.read_file(f"{TRASH}/files/mine") == b"mine"
            m.fs.check_invariants()

    on_mock_clock(main)


def test_a_folder_that_holds_nothing_for_the_store_gets_its_marker() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.mkdir("d")
            await m.mkdir(f"d/{TRASH}")
            await m.write_file(f"d/{SWAP}", b"swap")
            with m.costs(list_keys=0, set_record=1):
                await trio.sleep(GRACE + 1)
            assert list(await m.other.records()) == ["d!2F"]
            with pytest.raises(FileError) as refused:
                await m.rmdir("d")
            assert refused.value.errno == errno.ENOTEMPTY
            await m.rmdir(f"d/{TRASH}")
            await m.unlink(f"d/{SWAP}")
            await m.rmdir("d")
            assert await m.other.records() == {}

    on_mock_clock(main)


def test_a_removed_trash_does_not_come_back() -> None:
    async def main() -> None:
        async with mounted() as m:
            await make_trash(m)
            await m.rmdir(f"{TRASH}/files")
            await m.rmdir(f"{TRASH}/info")
            await m.rmdir(TRASH)
            assert os.listdir(os.path.join(m.blobs.path, "local")) == []
            await m.idle()
            await m.remount()
            assert await m.names() == []
            assert await m.other.records() == {}

    on_mock_clock(main)
