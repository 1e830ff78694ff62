"""Files made to be renamed or removed, and records whose key is written again at once: what the store sees of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from kvsfs.core.name_rules import NameRules
from kvsfs.core.tuning import GRACE
from kvsfs.errors import FileError, RecordTooLarge, StoreUnreachable
from tests.support.mounted import Mounted, mounted, on_mock_clock

MKSTEMP = os.O_RDWR | os.O_EXCL
GONE = StoreUnreachable("the network is down")


async def write_temporary(m: Mounted, name: str, content: bytes) -> None:
    fh = await m.create(name, MKSTEMP)
    await m.fs.files.write(fh, 0, content)
    await m.close(fh)


def dirty_files(m: Mounted) -> list[str]:
    return [str(path) for path in (Path(m.blobs.path) / "dirty").iterdir()]


def bytes_in(path: str) -> bytes:
    return Path(path).read_bytes()


async def removed_while_open(m: Mounted, name: str) -> int:
    fh = await m.open(name)
    await m.unlink(name)
    return fh


async def grace() -> None:
    await trio.sleep(GRACE + 0.5)


@pytest.mark.parametrize(
    ("name", "flags", "expected"),
    [
        (b"sedXYZ", os.O_RDWR | os.O_CREAT | os.O_EXCL, True),
        (b"plain", os.O_RDWR | os.O_CREAT, False),
        (b"by-cp", os.O_WRONLY | os.O_CREAT | os.O_EXCL, False),
        (b"4913", os.O_WRONLY | os.O_CREAT | os.O_EXCL, True),
        (b"49130", 0, False),
        (b"notes.txt~", 0, True),
        (b"~notes", 0, False),
        (b"film.part", 0, True),
        (b"x.tmp", 0, True),
        (b"x.TMP", 0, False),
        (b"\xff\xfe~", 0, True),
    ],
)
def test_what_counts_as_temporary(name: bytes, flags: int, *, expected: bool) -> None:
    assert NameRules().is_temporary(name, flags) is expected


def test_a_save_by_rename_is_one_put_under_the_final_name() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.write_file("f", b"old")
            with m.costs(set_record=1):
                await write_temporary(m, "sedA", b"new")
                await m.rename("sedA", "f")
                assert await m.other.records() == {"f": b"new"}
                await grace()
            assert await m.names() == ["f"]

    on_mock_clock(main)


def test_a_rename_before_the_release_uploads_and_tells_its_error() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.write_file("f", b"old")
            fh = await m.create("sedA", MKSTEMP)
            await m.fs.files.write(fh, 0, b"new")
            await m.fs.files.flush(fh)  # close(2) has returned; RELEASE is still on its way
            m.hooks.fail("set_record", RecordTooLarge("too large"))
            with pytest.raises(RecordTooLarge):
                await m.rename("sedA", "f")
            assert await m.other.records() == {"f": b"old"}
            assert sorted(await m.names()) == ["f", "sedA"]
            with m.costs(set_record=1):
                await m.rename("sedA", "f")
                await m.fs.files.release(fh)
                await grace()
            assert await m.other.records() == {"f": b"new"}

    on_mock_clock(main)


def test_a_rename_amid_the_writing_leaves_the_upload_to_the_close() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.names()
            fh = await m.create("sedA", MKSTEMP)
            await m.fs.files.write(fh, 0, b"one")
            with m.costs():
                await m.rename("sedA", "f")
            await m.fs.files.write(fh, 3, b" two")
            with m.costs(set_record=1):
                await m.close(fh)
                await grace()
            assert await m.other.records() == {"f": b"one two"}

    on_mock_clock(main)


def test_a_temporary_file_that_is_removed_costs_nothing() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.names()
            with m.costs():
                await write_temporary(m, "sedA", b"scratch")
                await m.unlink("sedA")
                await grace()
            assert await m.other.records() == {}

    on_mock_clock(main)


def test_fsync_of_a_temporary_file_is_durable_on_disk_and_costs_nothing() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.names()
            with m.costs():
                fh = await m.create("sedA", MKSTEMP)
                await m.fs.files.write(fh, 0, b"scratch")
                await m.fs.files.fsync(fh)
            assert [bytes_in(path) for path in dirty_files(m)] == [b"scratch"]
            await m.close(fh)

    on_mock_clock(main)


def test_a_temporary_file_that_stays_is_uploaded_once_after_the_grace() -> None:
    async def main() -> None:
        async with mounted() as m:
            with m.costs(set_record=1, list_keys=1):
                await m.names()
                await write_temporary(m, "download.part", b"all of it")
                assert await m.other.records() == {}
                assert await m.read_file("download.part") == b"all of it"
                await grace()
            assert await m.other.records() == {"download.part": b"all of it"}

    on_mock_clock(main)


def test_the_last_content_of_a_temporary_file_written_twice_is_uploaded() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.names()
            with m.costs(set_record=1):
                await write_temporary(m, "x.tmp", b"one")
                await trio.sleep(GRACE / 2)
                await m.write_file("x.tmp", b"second")
                await grace()
            assert await m.other.records() == {"x.tmp": b"second"}

    on_mock_clock(main)


def test_vims_backup_is_one_put_and_the_type_is_kept() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("f", b"old", "text/csv")
            assert await m.read_file("f") == b"old"
            with m.costs(set_record=1):
                await m.rename("f", "f~")
                assert await m.other.records() == {"f": b"old"}
                assert await m.names() == ["f~"]
                await m.write_file("f", b"new")
                await m.unlink("f~")
                await grace()
            assert await m.other.records() == {"f": b"new"}
            assert await m.mime_type("f") == b"text/csv"

    on_mock_clock(main)


def test_a_backup_that_stays_is_uploaded_before_its_record_is_deleted() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("f", b"old")
            await m.rename("f", "f~")
            gate = m.hooks.hold("set_record", "f!7E")
            await trio.sleep(30)
            assert await m.other.records() == {"f": b"old"}
            gate.open()
            await m.idle()
            assert await m.other.records() == {"f!7E": b"old"}

    on_mock_clock(main)


def test_a_backup_that_cannot_be_uploaded_keeps_its_record_in_the_store() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("f", b"old")
            await m.rename("f", "f~")
            for _ in range(20):
                m.hooks.fail("set_record", GONE)
            await grace()
            await m.fs.drain()
            assert await m.other.records() == {"f": b"old"}
            assert m.fs.left() == [f"f!7E (not uploaded: {GONE})", "f (removed here, still in the store)"]
            m.hooks.clear()
            await m.remount()
            assert await m.names() == ["f~"]
            await m.idle()
            assert await m.other.records() == {"f!7E": b"old"}

    on_mock_clock(main)


def test_a_rename_over_a_backup_does_not_fail_for_the_network() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("f", b"newer")
            await m.other.put("f!7E", b"backup")
            await m.read_file("f")
            for _ in range(2):
                m.hooks.fail("set_record", GONE)
            await m.rename("f", "f~")
            assert await m.names() == ["f~"]
            await grace()
            assert await m.other.records() == {"f": b"newer", "f!7E": b"backup"}
            await m.fs.drain()
            await m.fs.drain()
            assert await m.other.records() == {"f!7E": b"newer"}

    on_mock_clock(main)


def test_a_rename_there_and_back_again_loses_nothing() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("f", b"old", "text/csv")
            await m.rename("f", "f~")
            await m.rename("f~", "f")
            await grace()
            assert await m.other.records() == {"f": b"old"}
            assert await m.mime_type("f") == b"text/csv"
            assert await m.names() == ["f"]

    on_mock_clock(main)


def test_a_name_that_waits_for_its_delete_is_gone_here_whatever_the_store_lists() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("f", b"old")
            await m.other.put("g", b"other")
            fh = await m.open("f")
            await m.unlink("f")
            assert "f" in await m.other.records()
            m.fs.inodes.root.listing = None
            assert await m.names() == ["g"]
            with pytest.raises(FileError):
                await m.walk("f")
            await m.close(fh)
            await grace()
            assert "f" not in await m.other.records()
            m.fs.inodes.root.listing = None
            assert await m.names() == ["g"]

    on_mock_clock(main)


def test_an_open_file_removed_and_written_anew_is_one_put() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.write_file("f", b"old")
            fh = await m.open("f")
            with m.costs(set_record=1):
                await m.unlink("f")
                await m.write_file("f", b"new")
                await m.close(fh)
                await grace()
            assert await m.other.records() == {"f": b"new"}

    on_mock_clock(main)


def test_a_new_file_waits_for_a_delete_under_way() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.write_file("f", b"old")
            fh = await m.open("f")
            await m.unlink("f")
            gate = m.hooks.hold("delete_record", "f")
            await grace()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(m.write_file, "f", b"new")
                await trio.sleep(1)
                assert await m.other.records() == {"f": b"old"}
                gate.open()
            await m.close(fh)
            await m.idle()
            assert await m.other.records() == {"f": b"new"}

    on_mock_clock(main)


def test_a_new_file_removed_before_its_upload_takes_the_waiting_record_along() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.write_file("f", b"old")
            await m.rename("f", "f~")
            await m.unlink("f~")
            fh = await m.create("f")
            await m.unlink("f")
            await m.close(fh)
            await m.idle()
            assert await m.other.records() == {}

    on_mock_clock(main)


def test_rmdir_deletes_first_what_waits_below() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("d!2Ff", b"old")
            fh = await m.open("d/f")
            await m.unlink("d/f")
            await m.rmdir("d")
            assert await m.other.records() == {}
            await m.close(fh)
            await m.idle()
            assert await m.names() == []
            assert await m.other.records() == {}

    on_mock_clock(main)


def test_the_end_of_the_mount_waits_for_no_grace() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.write_file("f", b"old")
            fh = await m.open("f")
            await m.unlink("f")
            await m.close(fh)
            await write_temporary(m, "x.tmp", b"kept")
            before = trio.current_time()
            await m.fs.drain()
            assert trio.current_time() - before < GRACE
            assert await m.other.records() == {"x.tmp": b"kept"}
            assert m.fs.left() == []

    on_mock_clock(main)


def test_a_failed_delete_is_tried_again() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.write_file("f", b"old")
            await m.close(await removed_while_open(m, "f"))
            m.hooks.fail("delete_record", GONE)
            await grace()
            assert "f" in await m.other.records()
            await m.idle()
            assert await m.other.records() == {}

    on_mock_clock(main)


def test_a_late_delete_spares_what_somebody_else_has_written() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.write_file("f", b"old")
            await m.close(await removed_while_open(m, "f"))
            m.hooks.fail("delete_record", GONE)
            await grace()
            await m.other.put("f", b"theirs")
            await m.idle()
            assert await m.other.records() == {"f": b"theirs"}
            await trio.sleep(m.tuning.listing_ttl + 1)
            assert await m.read_file("f") == b"theirs"

    on_mock_clock(main)


def test_the_end_of_the_mount_deletes_what_it_can_and_names_the_rest() -> None:
    async def main() -> None:
        async with mounted() as m:
            for name in ("f", "g", "h"):
                await m.write_file(name, b"old")
                await m.close(await removed_while_open(m, name))
            m.hooks.fail("delete_record", GONE, "g")
            await m.fs.drain()
            assert await m.other.records() == {"g": b"old"}
            assert m.fs.left() == ["g (removed here, still in the store)"]
            await m.remount()
            assert await m.names() == []
            await m.idle()
            assert await m.other.records() == {}

    on_mock_clock(main)


def test_rmdir_uploads_first_what_was_moved_out_to_a_temporary_name() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("d!2Ff", b"precious")
            await m.rename("d/f", "g~")
            await m.rmdir("d")
            assert await m.other.records() == {"g!7E": b"precious"}
            await m.mkdir("d")
            await m.write_file("d/f", b"new work")
            await m.idle()
            await m.fs.drain()
            assert await m.other.records() == {"g!7E": b"precious", "d!2Ff": b"new work"}

    on_mock_clock(main)


def test_a_rename_over_a_waiting_record_that_fails_does_not_bring_it_back() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("f", b"old")
            await write_temporary(m, "t", b"new")
            await m.close(await removed_while_open(m, "f"))
            m.hooks.fail("set_record", RecordTooLarge("too large"), "f")
            with pytest.raises(RecordTooLarge):
                await m.rename("t", "f")
            assert await m.names() == ["t"]
            await m.idle()
            assert await m.other.records() == {"t": b"new"}

    on_mock_clock(main)


def test_a_file_made_while_its_records_delete_is_under_way_keeps_its_name() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.write_file("f", b"old")
            await m.close(await removed_while_open(m, "f"))
            gate = m.hooks.hold("delete_record", "f")
            await grace()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(m.write_file, "f", b"new")
                await trio.sleep(1)
                m.fs.inodes.root.listing = None
                await m.names()
                gate.open()
            assert await m.names() == ["f"]
            assert await m.read_file("f") == b"new"
            m.fs.check_invariants()
            await m.unlink("f")
            await m.idle()
            assert await m.other.records() == {}

    on_mock_clock(main)


def test_the_grace_does_not_upload_a_half_written_file() -> None:
    async def main() -> None:
        async with mounted() as m:
            await write_temporary(m, "t~", b"whole")
            await m.rename("t~", "f")
            fh = await m.open("f", os.O_WRONLY | os.O_TRUNC)
            await m.fs.files.write(fh, 0, b"half")
            with m.costs():
                await grace()
            assert await m.other.records() == {"f": b"whole"}
            await m.fs.files.write(fh, 4, b" and half")
            await m.close(fh)
            assert await m.other.records() == {"f": b"half and half"}

    on_mock_clock(main)


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("style.css", b"text/css"),
        ("p.html", b"text/html"),
        ("data.csv", b"text/csv"),
        ("o.json", b"application/json"),
    ],
)
def test_a_new_file_by_way_of_a_temporary_one_has_the_type_of_its_name(
    name: str, content_type: bytes
) -> None:
    async def main() -> None:
        async with mounted() as m:
            await write_temporary(m, f".{name}.XyZ", b"{}")
            await m.rename(f".{name}.XyZ", name)
            assert (await m.mime_type(name)).startswith(content_type)

    on_mock_clock(main)
