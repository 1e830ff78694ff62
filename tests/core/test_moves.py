"""Renames of folders: all at once here, record by record in the store, and what stands in the way of one."""

from __future__ import annotations

import errno
import os

import pytest
import trio

from kvsfs.core.moves import LISTING_SECONDS
from kvsfs.core.renames import REPLY_SECONDS
from kvsfs.core.tuning import Tuning
from kvsfs.errors import FileError, PermissionDenied, StoreUnreachable
from tests.support.mounted import Mounted, mounted, on_mock_clock

GONE = StoreUnreachable("the network is down")
NAMES = ("a", "b", "c!2Fd")


async def fill(m: Mounted) -> dict[str, bytes]:
    records = {f"old!2F{name}": name.encode() for name in NAMES}
    for key, content in records.items():
        await m.other.put(key, content)
    assert sorted(await m.names("old")) == ["a", "b", "c"]
    return records


def test_each_record_is_stored_under_its_new_key_and_then_deleted() -> None:
    async def main() -> None:
        async with mounted() as m:
            await fill(m)
            with m.costs(get_record=3, set_record=3, delete_record=3, list_keys=1):
                await m.rename("old", "new")
                await m.idle()
            assert await m.other.records() == {f"new!2F{name}": name.encode() for name in NAMES}
            order = [(call, key) for call, key in m.hooks.log if call in ("set_record", "delete_record")]
            for name in NAMES:
                stored, deleted = ("set_record", f"new!2F{name}"), ("delete_record", f"old!2F{name}")
                assert order.index(stored) < order.index(deleted)

    on_mock_clock(main)


def test_an_error_of_the_first_record_leaves_all_as_it_was() -> None:
    async def main() -> None:
        async with mounted() as m:
            records = await fill(m)
            m.hooks.fail("set_record", PermissionDenied("no"))
            with pytest.raises(PermissionDenied):
                await m.rename("old", "new")
            await m.idle()
            assert await m.names() == ["old"]
            assert await m.other.records() == records

    on_mock_clock(main)


def test_what_fails_later_is_tried_until_it_is_done() -> None:
    async def main() -> None:
        async with mounted() as m:
            await fill(m)
            for _ in range(20):
                m.hooks.fail("set_record", GONE, key="new!2Fb")
            await m.rename("old", "new")
            assert sorted(await m.names("new")) == ["a", "b", "c"]
            assert await m.read_file("new/b") == b"b"
            assert (await m.other.records())["old!2Fb"] == b"b"
            assert "old!2Fa" not in await m.other.records()
            await m.idle()
            assert await m.other.records() == {f"new!2F{name}": name.encode() for name in NAMES}

    on_mock_clock(main)


def test_it_replies_in_seconds_however_long_the_uploads_take() -> None:
    async def main() -> None:
        async with mounted() as m:
            await fill(m)
            gates = [m.hooks.hold("set_record") for _ in NAMES]
            started = trio.current_time()
            await m.rename("old", "new")
            assert trio.current_time() - started < 2 * REPLY_SECONDS + 1
            assert await m.names() == ["new"]
            for gate in gates:
                gate.open()
            await m.idle()
            assert await m.other.records() == {f"new!2F{name}": name.encode() for name in NAMES}

    on_mock_clock(main)


def test_a_folder_that_takes_too_long_to_list_is_left_to_mv() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("old!2Fa", b"a")
            await m.names()
            m.hooks.delay = LISTING_SECONDS + 1
            with pytest.raises(FileError) as raised:
                await m.rename("old", "new")
            assert raised.value.errno == errno.EXDEV
            m.hooks.delay = 0
            assert await m.names() == ["old"]
            assert await m.other.records() == {"old!2Fa": b"a"}

    on_mock_clock(main)


@pytest.mark.parametrize(("old", "new"), [("old", ".Trash-1000"), (".Trash-1000", "new")])
def test_between_what_a_store_is_to_have_and_what_not_is_left_to_mv(old: str, new: str) -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.mkdir(old)
            await m.write_file(f"{old}/a", b"a")
            with pytest.raises(FileError) as raised:
                await m.rename(old, new)
            assert raised.value.errno == errno.EXDEV
            assert await m.read_file(f"{old}/a") == b"a"

    on_mock_clock(main)


def test_a_rename_that_the_store_refuses_leaves_both_files_as_they_were() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.write_file("old", b"bytes")
            await m.write_file("target", b"others")
            m.hooks.fail("set_record", PermissionDenied("no"))
            with pytest.raises(PermissionDenied):
                await m.rename("old", "target")
            await m.idle()
            assert await m.other.records() == {"old": b"bytes", "target": b"others"}
            assert (await m.read_file("old"), await m.read_file("target")) == (b"bytes", b"others")

    on_mock_clock(main)


def test_a_rename_of_a_file_whose_old_record_cannot_be_deleted_leaves_both() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.write_file("old", b"bytes")
            m.hooks.fail("delete_record", PermissionDenied("no"))
            with pytest.raises(PermissionDenied):
                await m.rename("old", "new")
            assert await m.other.records() == {"old": b"bytes", "new": b"bytes"}
            assert sorted(await m.names()) == ["new", "old"]

    on_mock_clock(main)


def test_a_file_that_is_written_while_its_folder_is_renamed_is_stored_where_it_is_then() -> None:
    async def main() -> None:
        async with mounted() as m:
            await fill(m)
            fh = await m.open("old/a", os.O_WRONLY | os.O_TRUNC)
            await m.fs.files.write(fh, 0, b"A")
            await m.rename("old", "new")
            await m.close(fh)
            await m.idle()
            expected = {f"new!2F{name}": name.encode() for name in NAMES}
            assert await m.other.records() == {**expected, "new!2Fa": b"A"}

    on_mock_clock(main)


def test_a_part_of_a_store_leaves_less_room_for_names() -> None:
    async def main() -> None:
        async with mounted(tuning=Tuning(longest_key=10)) as m:
            await m.other.put("d!2Fabc", b"x")
            with pytest.raises(FileError) as refused:
                await m.rename("d", "longer")
            assert refused.value.errno == errno.ENAMETOOLONG
            assert await m.names() == ["d"]
            await m.rename("d", "long")
            await m.idle()
            assert await m.other.records() == {"long!2Fabc": b"x"}

    on_mock_clock(main)


@pytest.mark.parametrize("dirty", [False, True])
def test_a_folder_that_gets_its_name_back_has_its_records_again(*, dirty: bool) -> None:
    async def main() -> None:
        async with mounted(tuning=Tuning(write_back=60.0)) as m:
            await m.other.put("d!2Ff", b"old")
            await m.read_file("d/f")
            if dirty:
                await m.write_file("d/f", b"newer")
            m.hooks.hold("set_record")
            await m.rename("d", "e")
            assert await m.names() == ["e"]
            await m.rename("e", "d")
            assert await m.names() == ["d"]
            m.hooks.clear()
            m.fs.check_invariants()
            sent = m.calls["set_record"]
            await m.idle()
            assert m.calls["set_record"] - sent == dirty  # else there is nothing to send
            m.hooks.fail("set_record", GONE)
            await m.write_file("d/f", b"newest")
            await m.fs.drain()
            await m.idle()
            assert await m.other.records() == {"d!2Ff": b"newest"}
            assert m.fs.left() == []

    on_mock_clock(main)
