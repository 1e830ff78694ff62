"""What a mount tells of itself that the store does not have."""

from __future__ import annotations

import math

import pytest
import trio

from kvsfs.core.tuning import Tuning
from kvsfs.core.unstored import MOST_TOLD, Totals, shown_path
from kvsfs.errors import PermissionDenied, RecordTooLarge, StoreUnreachable
from kvsfs.types import RecordKey
from tests.support.mounted import mounted, on_mock_clock


def test_nothing_is_left_of_what_was_stored() -> None:
    @on_mock_clock
    async def _() -> None:
        async with mounted() as m:
            await m.write_file("a", b"12345")
            report = m.fs.unstored.report()
            assert report.totals == Totals()
            assert report.totals.nothing
            assert (report.uploads, report.removals, report.renames, report.open) == ((), (), (), 0)


def test_a_file_that_waits_for_its_write_back() -> None:
    @on_mock_clock
    async def _() -> None:
        async with mounted(tuning=Tuning(write_back=60)) as m:
            await m.mkdir("my dir")
            await m.write_file("my dir/a", b"12345")
            await trio.sleep(10)
            (upload,) = m.fs.unstored.report().uploads
            assert (upload.path, upload.key) == ("my dir/a", "my!20dir!2Fa")
            assert (upload.size, upload.attempts, upload.error, upload.failed) == (5, 0, None, False)
            assert upload.next_attempt_in is not None
            assert math.isclose(upload.next_attempt_in, 50, abs_tol=0.5)
            assert m.fs.unstored.totals() == Totals(files=1, bytes=5)
            assert await m.state("my dir/a") == b"dirty"
            await trio.sleep(60)
            assert m.fs.unstored.totals().nothing
            assert await m.state("my dir/a") == b"clean"


def test_an_upload_under_way() -> None:
    @on_mock_clock
    async def _() -> None:
        async with mounted(tuning=Tuning(write_back=1)) as m:
            gate = m.hooks.hold("set_record")
            await m.write_file("a", b"12345")
            await gate.reached.wait()
            (upload,) = m.fs.unstored.report().uploads
            assert upload.uploading
            assert await m.state("a") == b"uploading"
            gate.open()
            await m.idle()
            assert m.fs.unstored.report().uploads == ()


def test_failures_that_heal_and_those_that_do_not() -> None:
    @on_mock_clock
    async def _() -> None:
        async with mounted() as m:
            m.hooks.fail("set_record", StoreUnreachable("away"), "a")
            m.hooks.fail("set_record", RecordTooLarge("too large"), "b")
            for name in ("a", "b"):
                with pytest.raises((StoreUnreachable, RecordTooLarge)):
                    await m.write_file(name, b"12345")
            report = m.fs.unstored.report()
            assert report.totals == Totals(files=1, bytes=5, failed=1)
            b, a = report.uploads
            assert (b.path, b.failed, b.attempts, b.error, b.next_attempt_in) == (
                "b",
                True,
                1,
                "too large",
                None,
            )
            assert (a.path, a.failed, a.attempts, a.error) == ("a", False, 1, "away")
            assert a.next_attempt_in is not None
            assert await m.state("a") == b"failed: away"
            assert await m.state("b") == b"failed: too large"
            await m.idle()
            assert m.fs.unstored.totals() == Totals(failed=1)


def test_a_failure_for_good_stays_one_after_a_remount_and_is_not_tried_at_its_end() -> None:
    @on_mock_clock
    async def _() -> None:
        async with mounted() as m:
            m.hooks.fail("set_record", RecordTooLarge("too large"), "b")
            with pytest.raises(RecordTooLarge):
                await m.write_file("b", b"12345")
            await m.remount()
            assert m.fs.unstored.totals() == Totals(failed=1)
            with m.costs():
                await m.fs.drain()
            assert m.fs.left() == ["b (not uploaded: too large)"]


def test_what_somebody_writes_just_now_is_no_upload_yet() -> None:
    @on_mock_clock
    async def _() -> None:
        async with mounted() as m:
            fh = await m.create("a")
            await m.fs.files.write(fh, 0, b"123")
            report = m.fs.unstored.report()
            assert (report.open, report.totals) == (1, Totals())
            await m.close(fh)
            assert m.fs.unstored.report().open == 0


def test_a_removal_that_the_store_did_not_do() -> None:
    @on_mock_clock
    async def _() -> None:
        async with mounted() as m:
            await m.other.put("a", b"x")
            fh = await m.open("a")
            m.hooks.fail("delete_record", PermissionDenied("not yours"), "a")
            await m.unlink("a")  # open: its DELETE comes later
            await m.close(fh)
            report = m.fs.unstored.report()
            assert [(removal.path, removal.error) for removal in report.removals] == [("a", None)]
            await m.idle()
            report = m.fs.unstored.report()
            assert [(removal.path, removal.error) for removal in report.removals] == [("a", "not yours")]
            assert report.totals == Totals(removals=1)


def test_a_folder_on_its_way() -> None:
    @on_mock_clock
    async def _() -> None:
        async with mounted() as m:
            for number in range(3):
                await m.other.put(f"old!2F{number}", b"12345")
            await m.names("old")
            m.hooks.delay = 3.0
            await m.rename("old", "new")
            report = m.fs.unstored.report()
            (move,) = report.folder_renames
            assert (move.old_path, move.path, move.total) == ("old", "new", 3)
            left = move.total - move.done
            assert len(report.renames) == left == report.totals.files > 1
            assert report.totals.bytes == 5 * left
            rename = report.renames[-1]
            assert (rename.path, rename.old_path) == ("new/2", "old/2")
            assert await m.state("new/2") in (b"dirty", b"uploading")
            await m.idle()
            assert m.fs.unstored.report().folder_renames == ()
            assert m.fs.unstored.totals().nothing
            assert await m.state("new/2") == b"clean"


def test_more_than_anybody_reads_is_counted() -> None:
    @on_mock_clock
    async def _() -> None:
        async with mounted(tuning=Tuning(write_back=3600)) as m:
            for number in range(MOST_TOLD + 5):
                await m.write_file(f"f{number}", b"x")
            report = m.fs.unstored.report()
            assert len(report.uploads) == MOST_TOLD
            assert report.totals == Totals(files=MOST_TOLD + 5, bytes=MOST_TOLD + 5)


def test_paths_are_those_that_the_mount_shows() -> None:
    assert shown_path(RecordKey("a!2Fb!20c")) == "a/b c"
    assert shown_path(RecordKey("a!FF")) == "a\udcff"
    assert shown_path(RecordKey("..")) == ".!2E"
