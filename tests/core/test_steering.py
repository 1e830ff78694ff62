"""Retry, discard, save-as, flush and refresh of what the store does not have."""

from __future__ import annotations

import errno
import os

import pytest
import trio

from kvsfs.core.steering import Pending
from kvsfs.core.tuning import Tuning
from kvsfs.core.unstored import Totals
from kvsfs.errors import FileError, PermissionDenied, RecordTooLarge, StoreUnreachable
from tests.support.mounted import Mounted, mounted, on_mock_clock

AWAY, LARGE = StoreUnreachable("away"), RecordTooLarge("too large")


def one(m: Mounted, path: str) -> Pending:
    (pending,) = m.fs.steering.pending(path)
    return pending


async def refused(m: Mounted, path: str, content: bytes = b"ours") -> None:
    """Write a file that the store does not take, for good."""
    m.hooks.fail("set_record", LARGE, path.replace("/", "!2F"))
    with pytest.raises(RecordTooLarge):
        await m.write_file(path, content)


def test_retry_stores_what_had_failed_for_good() -> None:
    @on_mock_clock
    async def _() -> None:
        async with mounted() as m:
            await refused(m, "a")
            pending = one(m, "a")
            assert (pending.path, pending.size, pending.failure, pending.done) == ("a", 4, "too large", False)
            with m.costs():
                await m.fs.steering.try_now([pending], failed_too=False)
            await m.fs.steering.try_now([pending], failed_too=True)
            assert pending.done
            assert await m.other.records() == {"a": b"ours"}
            assert m.fs.unstored.totals().nothing
            assert await m.state("a") == b"clean"


def test_retry_ends_when_it_fails_again_and_tells_why() -> None:
    @on_mock_clock
    async def _() -> None:
        async with mounted() as m:
            await refused(m, "a")
            pending = one(m, "")
            m.hooks.fail("set_record", RecordTooLarge("still too large"))
            await m.fs.steering.try_now([pending], failed_too=True)
            assert (pending.done, pending.failure) == (False, "still too large")
            (upload,) = m.fs.unstored.report().uploads
            assert (upload.failed, upload.attempts) == (True, 2)


def test_retry_of_what_is_out_of_reach_does_not_wait_for_ever() -> None:
    @on_mock_clock
    async def _() -> None:
        async with mounted(tuning=Tuning(write_back=1)) as m:
            for _ in range(50):
                m.hooks.fail("set_record", AWAY)
            await m.write_file("a", b"ours")
            begun = trio.current_time()
            await m.fs.steering.try_now(m.fs.steering.pending(""), failed_too=True)
            assert trio.current_time() - begun < 20
            assert m.fs.unstored.totals() == Totals(files=1, bytes=4)
            m.hooks.clear()
            await m.idle()
            assert await m.other.records() == {"a": b"ours"}


def test_flush_waits_for_what_is_below_a_path_only() -> None:
    @on_mock_clock
    async def _() -> None:
        async with mounted(tuning=Tuning(write_back=3600)) as m:
            await m.mkdir("d")
            for path in ("d/a", "d/b", "e"):
                await m.write_file(path, b"ours")
            with m.costs(set_record=2):
                await m.fs.steering.try_now(m.fs.steering.pending("d"), failed_too=False)
            assert [pending.path for pending in m.fs.steering.pending("")] == ["e"]


def test_two_flushes_at_a_time() -> None:
    @on_mock_clock
    async def _() -> None:
        async with mounted(tuning=Tuning(write_back=3600)) as m:
            for path in ("a", "b"):
                await m.write_file(path, b"ours")
            gate = m.hooks.hold("set_record", "a")
            ended: list[str] = []

            async def flush(path: str) -> None:
                await m.fs.steering.try_now(m.fs.steering.pending(path), failed_too=False)
                ended.append(path)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(flush, "a")
                await gate.reached.wait()
                await flush("b")
                assert ended == ["b"]
                gate.open()
            assert ended == ["b", "a"]
            assert await m.other.records() == {"a": b"ours", "b": b"ours"}


def test_discard_of_a_changed_record_shows_the_stores_again() -> None:
    @on_mock_clock
    async def _() -> None:
        async with mounted() as m:
            await m.other.put("a", b"theirs, longer", "text/x-theirs")
            assert await m.read_file("a") == b"theirs, longer"
            await refused(m, "a")
            assert await m.read_file("a") == b"ours"
            await m.fs.steering.discard(one(m, "a"))
            assert (await m.file("a")).size == 14
            assert await m.state("a") == b"clean"
            assert await m.read_file("a") == b"theirs, longer"
            assert await m.mime_type("a") == b"text/x-theirs"
            assert m.fs.unstored.report().uploads == ()
            assert m.cache.journal.uploads() == []
            assert os.listdir(os.path.join(m.blobs.path, "dirty")) == []
            assert os.listdir(os.path.join(m.blobs.path, "not-uploaded")) == []
            m.fs.check_invariants()
            await m.remount()
            assert await m.read_file("a") == b"theirs, longer"


def test_discard_of_a_new_file_takes_it_away() -> None:
    @on_mock_clock
    async def _() -> None:
        async with mounted() as m:
            await refused(m, "a")
            number = (await m.file("a")).number
            with m.costs(list_keys=1):  # `refused` listed nothing; the names come back from the store
                await m.fs.steering.discard(one(m, "a"))
                assert await m.names() == []
            assert (1, b"a", number) in m.kernel.gone
            assert m.fs.unstored.totals().nothing
            m.fs.check_invariants()
            await m.write_file("a", b"anew")
            assert await m.other.records() == {"a": b"anew"}


def test_discard_while_the_store_is_out_of_reach() -> None:
    @on_mock_clock
    async def _() -> None:
        async with mounted() as m:
            await m.other.put("a", b"theirs")
            await m.read_file("a")
            await refused(m, "a")
            m.hooks.fail("head_record", AWAY)
            await m.fs.steering.discard(one(m, "a"))
            assert m.fs.unstored.totals().nothing
            assert await m.read_file("a") == b"theirs"


def test_discard_ends_an_upload_under_way() -> None:
    @on_mock_clock
    async def _() -> None:
        async with mounted(tuning=Tuning(write_back=1)) as m:
            gate = m.hooks.hold("set_record")
            await m.write_file("a", b"ours")
            await gate.reached.wait()
            await m.fs.steering.discard(one(m, "a"))
            gate.open()
            await m.idle()
            assert await m.other.records() == {}
            assert await m.names() == []
            m.fs.check_invariants()


def test_discard_of_an_open_file_is_refused_and_its_close_stores_it() -> None:
    @on_mock_clock
    async def _() -> None:
        async with mounted() as m:
            await refused(m, "a")
            fh = await m.open("a", os.O_RDWR)
            with pytest.raises(FileError, match="is open") as caught:
                await m.fs.steering.discard(one(m, "a"))
            assert caught.value.errno == errno.EBUSY
            await m.fs.files.write(fh, 0, b"OURS")
            await m.close(fh)
            assert await m.other.records() == {"a": b"OURS"}


def test_discard_of_a_removal_shows_the_record_again() -> None:
    @on_mock_clock
    async def _() -> None:
        async with mounted() as m:
            await m.other.put("a", b"theirs")
            fh = await m.open("a")
            m.hooks.fail("delete_record", PermissionDenied("not yours"))
            await m.unlink("a")
            await m.close(fh)
            await m.idle()
            pending = one(m, "a")
            assert (pending.failure, pending.if_discarded) == (
                "not yours", "it was removed here, and will be shown again",
            )  # fmt: skip
            assert await m.names() == []
            await m.fs.steering.discard(pending)
            assert await m.names() == ["a"]
            assert await m.read_file("a") == b"theirs"
            await m.idle()
            assert await m.other.records() == {"a": b"theirs"}
            assert m.fs.unstored.totals().nothing


def test_retry_of_a_removal() -> None:
    @on_mock_clock
    async def _() -> None:
        async with mounted() as m:
            await m.other.put("a", b"theirs")
            fh = await m.open("a")
            m.hooks.fail("delete_record", PermissionDenied("not yours"))
            await m.unlink("a")
            await m.close(fh)
            await m.idle()
            pending = one(m, "a")
            await m.fs.steering.try_now([pending], failed_too=True)
            assert pending.done
            assert await m.other.records() == {}
            assert m.fs.steering.pending("") == []


def test_discard_of_a_rename_gives_the_old_name_back() -> None:
    @on_mock_clock
    async def _() -> None:
        async with mounted() as m:
            for number in range(2):
                await m.other.put(f"old!2F{number}", b"12345")
            await m.names("old")
            gate = m.hooks.hold("set_record", "new!2F1")
            await m.rename("old", "new")
            await gate.reached.wait()
            pending = one(m, "new/1")
            assert pending.if_discarded == "it will be old/1 again, as in the store"
            await m.fs.steering.discard(pending)
            gate.open()
            await m.idle()
            assert await m.other.records() == {"new!2F0": b"12345", "old!2F1": b"12345"}
            assert sorted(await m.names()) == ["new", "old"]
            assert await m.names("old") == ["1"]
            assert await m.names("new") == ["0"]
            assert await m.read_file("old/1") == b"12345"
            assert m.fs.unstored.totals().nothing
            assert m.fs.unstored.report().folder_renames == ()
            m.fs.check_invariants()


def test_discard_of_renamed_changes_keeps_the_record_that_they_were_of() -> None:
    """`mv a b` of a file whose new bytes the store refuses: the record a is the only version that it has."""

    @on_mock_clock
    async def _() -> None:
        async with mounted() as m:
            await m.other.put("a", b"theirs")
            await m.read_file("a")
            await refused(m, "a")
            m.hooks.fail("set_record", LARGE, "b")
            try:
                await m.rename("a", "b")
            except RecordTooLarge:
                name = "a"
            else:
                name = "b"
            await m.fs.steering.discard(one(m, name))
            await trio.sleep(100)
            await m.idle()
            assert await m.other.records() == {"a": b"theirs"}
            assert await m.names() == ["a"]
            assert await m.read_file("a") == b"theirs"
            m.fs.check_invariants()


def test_the_bytes_that_the_store_did_not_take() -> None:
    @on_mock_clock
    async def _() -> None:
        async with mounted() as m:
            await refused(m, "a", b"ours" * 1000)
            fd, size = m.fs.steering.bytes_of("a")
            assert os.pread(fd, 5000, 0) == b"ours" * 1000
            os.close(fd)
            assert size == 4000
            await m.write_file("stored", b"x")
            for path in ("stored", "missing", ""):
                with pytest.raises(FileError) as caught:
                    m.fs.steering.bytes_of(path)
                assert caught.value.errno == errno.ENODATA


def test_refresh_asks_the_store_again() -> None:
    @on_mock_clock
    async def _() -> None:
        async with mounted() as m:
            await m.other.put("d!2Fa", b"one")
            assert await m.names("d") == ["a"]
            assert await m.read_file("d/a") == b"one"
            await m.other.put("d!2Fa", b"other")
            await m.other.put("d!2Fb", b"new")
            await m.other.put("c", b"new")
            with m.costs():  # all of it is known and fresh
                assert await m.names("d") == ["a"]
                assert await m.read_file("d/a") == b"one"
            with m.costs(list_keys=1):
                await m.fs.steering.refresh("d")
            with m.costs(get_record=1):
                assert await m.names("d") == ["a", "b"]
                assert await m.read_file("d/a") == b"other"
            await m.fs.steering.refresh("")
            assert sorted(await m.names()) == ["c", "d"]
            with pytest.raises(FileError, match="not known"):
                await m.fs.steering.refresh("missing")
