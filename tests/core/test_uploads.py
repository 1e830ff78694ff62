"""When bytes go to the store, what is on disk before a close returns, and what becomes of what no store took."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from kvsfs.cache.blobs import Blob, BlobFolder
from kvsfs.cache.journal import Closed, Journal
from kvsfs.core.tuning import Tuning
from kvsfs.errors import (
    NotAuthorized,
    PermissionDenied,
    ProtocolViolation,
    QuotaExceeded,
    RateLimited,
    RecordTooLarge,
    RequestRefused,
    StoreError,
    StoreNotFound,
    StoreTimeout,
    StoreUnreachable,
)
from tests.support.mounted import Mounted, mounted, on_mock_clock

DELAY = 5.0
WRITE_BACK = Tuning(write_back=DELAY)
MODES = pytest.mark.parametrize("tuning", [Tuning(), WRITE_BACK], ids=["default", "write-back"])

HEALS = (
    StoreUnreachable,
    StoreTimeout,
    RateLimited,
    QuotaExceeded,
    NotAuthorized,
    PermissionDenied,
    ProtocolViolation,
)
FINAL = (RecordTooLarge, RequestRefused, StoreNotFound)


async def write_whatever_it_says(m: Mounted, path: str, content: bytes) -> StoreError | None:
    """Write a file; give the error of its close."""
    try:
        await m.write_file(path, content)
    except StoreError as error:
        return error
    return None


def set_aside(m: Mounted) -> list[bytes]:
    return [path.read_bytes() for path in (Path(m.blobs.path) / "not-uploaded").iterdir()]


# --- --write-back -------------------------------------------------------------------------------------


def test_with_write_back_close_and_fsync_ask_the_store_nothing() -> None:
    async def main() -> None:
        async with mounted(tuning=WRITE_BACK) as m:
            await m.names()
            with m.costs():
                fh = await m.create("a")
                await m.fs.files.write(fh, 0, b"hello")
                await m.fs.files.fsync(fh)
                await m.close(fh)
                assert await m.state("a") == b"dirty"
                await trio.sleep(DELAY - 0.5)
            with m.costs(set_record=1):
                await trio.sleep(1)
            assert await m.state("a") == b"clean"
            assert await m.other.records() == {"a": b"hello"}

    on_mock_clock(main)


def test_with_write_back_only_the_newest_content_is_uploaded() -> None:
    async def main() -> None:
        async with mounted(tuning=WRITE_BACK) as m:
            await m.names()
            with m.costs(set_record=1):
                for content in (b"one", b"two", b"three"):
                    await m.write_file("a", content)
                    await trio.sleep(DELAY / 2)
                await m.idle()
            assert await m.other.records() == {"a": b"three"}

    on_mock_clock(main)


def test_a_deletion_cancels_an_upload_that_waits() -> None:
    async def main() -> None:
        async with mounted(tuning=WRITE_BACK) as m:
            await m.names()
            with m.costs():
                await m.write_file("a", b"hello")
                await m.unlink("a")
                await trio.sleep(2 * DELAY)
            assert m.fs.left() == []
            assert not os.listdir(Path(m.blobs.path) / "dirty")

    on_mock_clock(main)


def test_a_rename_of_a_file_that_waits_is_one_put_under_the_new_name() -> None:
    async def main() -> None:
        async with mounted(tuning=WRITE_BACK) as m:
            await m.names()
            with m.costs(set_record=1):
                await m.write_file("a", b"hello")
                await m.rename("a", "b")
                await m.idle()
            assert await m.other.records() == {"b": b"hello"}

    on_mock_clock(main)


def test_no_more_uploads_at_a_time_than_asked_for() -> None:
    async def main() -> None:
        async with mounted(tuning=Tuning(write_back=1.0, uploads=2)) as m:
            await m.names()
            for name in "abcde":
                await m.write_file(name, name.encode())
            m.hooks.delay = 10.0
            m.hooks.log.clear()
            for begun in (2, 4, 5):
                await trio.sleep(9.5)
                assert len(m.hooks.log) == begun
            await m.idle()
            assert await m.other.records() == {name: name.encode() for name in "abcde"}

    on_mock_clock(main)


def test_bytes_and_journal_are_on_disk_before_close_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fsync(2) was told of: the bytes, their name, and the row that knows them."""
    synced: list[str] = []
    rows: list[list[tuple[str]]] = []
    fsync, fdatasync = os.fsync, os.fdatasync

    async def main() -> None:
        async with mounted(tuning=WRITE_BACK) as m:

            def note(fd: int) -> None:
                synced.append(os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), m.blobs.path))
                rows.append(m.cache.database.connection.execute("SELECT key FROM uploads").fetchall())

            def note_fsync(fd: int) -> None:
                fsync(fd)
                note(fd)

            def note_fdatasync(fd: int) -> None:
                fdatasync(fd)
                note(fd)

            monkeypatch.setattr(os, "fsync", note_fsync)
            monkeypatch.setattr(os, "fdatasync", note_fdatasync)
            await m.write_file("a", b"hello")
            (blob,) = os.listdir(Path(m.blobs.path) / "dirty")
            assert sorted(synced) == ["dirty", f"dirty/{blob}", "journal.db-wal"]
            assert rows == [[("a",)]] * 3

    on_mock_clock(main)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_closed_version_is_there_until_its_successors_row_is_on_disk(
    monkeypatch: pytest.MonkeyPatch,
    *,
    frozen: bool,
) -> None:
    """A power failure amid the second close brings the first one's row back: its bytes must be there, too."""
    there: list[list[str]] = []

    async def main() -> None:
        async with mounted(tuning=WRITE_BACK) as m:

            def dirty() -> list[str]:
                folder = Path(m.blobs.path) / "dirty"
                return sorted(path.read_text() for path in folder.iterdir())

            real = BlobFolder.syncs

            def syncs(self: BlobFolder, blob: Blob) -> list[Callable[[], None]]:
                return [*real(self, blob), lambda: there.append(dirty())]

            await m.write_file("a", b"first")
            gate = m.hooks.hold("set_record")
            if frozen:  # by its upload, which ends in the middle of the second close
                await trio.sleep(WRITE_BACK.write_back or 0)
                await gate.reached.wait()
            monkeypatch.setattr(BlobFolder, "syncs", syncs)
            await m.write_file("a", b"second")
            assert there == [["first", "second"]]
            assert dirty() == ["second"]
            m.hooks.clear()
            await m.idle()
            assert dirty() == []
            assert await m.other.records() == {"a": b"second"}

    on_mock_clock(main)


def test_a_version_that_the_store_refused_is_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    durable: list[str] = []

    async def main() -> None:
        async with mounted() as m:
            real = BlobFolder.syncs

            def syncs(self: BlobFolder, blob: Blob) -> list[Callable[[], None]]:
                def read() -> None:
                    durable.append(Path(blob.path).read_text())

                return [*real(self, blob), read]

            monkeypatch.setattr(BlobFolder, "syncs", syncs)
            await m.write_file("a", b"stored")
            assert durable == []
            m.hooks.fail("set_record", RecordTooLarge("no"))
            with pytest.raises(RecordTooLarge):
                await m.write_file("a", b"refused")
            assert durable == ["refused"]

    on_mock_clock(main)


def test_what_waited_when_the_daemon_was_killed_is_there_at_once_and_is_uploaded() -> None:
    async def main() -> None:
        async with mounted(tuning=WRITE_BACK) as m:
            await m.names()
            await m.write_file("a", b"hello")
            await m.remount()
            with m.costs(set_record=1, head_record=1):
                assert await m.read_file("a") == b"hello"
                await m.idle()
            assert await m.other.records() == {"a": b"hello"}
            assert m.fs.left() == []

    on_mock_clock(main)


# --- what fails ---------------------------------------------------------------------------------------


@MODES
@pytest.mark.parametrize("kind", HEALS)
def test_what_can_heal_is_tried_until_it_does(kind: type[StoreError], tuning: Tuning) -> None:
    async def main() -> None:
        async with mounted(tuning=tuning) as m:
            for _ in range(50):  # with a minute between them in the end
                m.hooks.fail("set_record", kind("not now"))
            failed = await write_whatever_it_says(m, "a", b"hello")
            assert isinstance(failed, kind) == (tuning.write_back is None)
            await trio.sleep(60)
            assert await m.state("a") == b"failed: not now"
            assert await m.read_file("a") == b"hello"
            await m.idle()
            assert await m.state("a") == b"clean"
            assert await m.other.records() == {"a": b"hello"}
            assert m.fs.left() == []

    on_mock_clock(main)


@MODES
@pytest.mark.parametrize("kind", FINAL)
def test_what_is_refused_for_good_waits_for_a_person(kind: type[StoreError], tuning: Tuning) -> None:
    async def main() -> None:
        async with mounted(tuning=tuning) as m:
            m.hooks.fail("set_record", kind("never"))
            failed = await write_whatever_it_says(m, "a", b"hello")
            assert isinstance(failed, kind) == (tuning.write_back is None)
            await m.idle()
            with m.costs():
                await trio.sleep(24 * 3600)
                assert await m.state("a") == b"failed: never"
                await m.fs.drain()
                assert m.fs.left() == ["a (not uploaded: never)"]
                await m.remount()
                await m.idle()
            assert (await m.state("a")).startswith(b"failed: never")
            assert await m.read_file("a") == b"hello"
            fh = await m.open("a", os.O_RDWR)
            await m.fs.files.fsync(fh)
            await m.close(fh)
            await m.idle()
            assert await m.other.records() == {"a": b"hello"}

    on_mock_clock(main)


def test_another_name_or_the_removal_settles_what_was_refused() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.names()
            for name in ("a", "b"):
                m.hooks.fail("set_record", RequestRefused("never"))
                assert isinstance(await write_whatever_it_says(m, name, b"hello"), RequestRefused)
            with m.costs(set_record=1):
                await m.rename("a", "c")
            with m.costs():
                await m.unlink("b")
                await m.idle()
            assert await m.other.records() == {"c": b"hello"}
            assert m.fs.left() == []

    on_mock_clock(main)


def test_a_close_that_the_journal_cannot_note_fails_and_its_bytes_are_uploaded_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, full = Journal.closed, [True]

    def closed(self: Journal, version: Closed, *, replaces: int | None = None) -> int:
        if full[0]:
            raise OSError(errno.ENOSPC, "the journal: database or disk is full")
        return real(self, version, replaces=replaces)

    async def main() -> None:
        async with mounted() as m:
            monkeypatch.setattr(Journal, "closed", closed)
            fh = await m.create("a")
            await m.fs.files.write(fh, 0, b"hello")
            with pytest.raises(OSError, match="disk is full"):
                await m.close(fh)
            await trio.sleep(60)
            full[0] = False
            await m.idle()
            assert await m.other.records() == {"a": b"hello"}

    on_mock_clock(main)


def test_a_damaged_journal_loses_no_bytes_and_uploads_none() -> None:
    async def main() -> None:
        async with mounted(tuning=WRITE_BACK) as m:
            await m.write_file("a", b"hello")
            path = Path(m.blobs.path)
            await m.end()
            (path / "journal.db").write_bytes(b"not a database" * 1000)
            (path / "journal.db-wal").unlink(missing_ok=True)
            await m.mount(str(path))
            await m.idle()
            assert set_aside(m) == [b"hello"]
            assert await m.other.records() == {}
            assert [name for name in os.listdir(path) if ".damaged-" in name]

    on_mock_clock(main)


def test_the_journal_names_no_bytes_that_are_not_there() -> None:
    """The store had them, or somebody has removed the cache file: nothing is shown in their place."""

    async def main() -> None:
        async with mounted(tuning=WRITE_BACK) as m:
            await m.write_file("a", b"hello")
            path = Path(m.blobs.path)
            await m.end()
            (blob,) = (path / "dirty").iterdir()
            blob.unlink()
            await m.mount(str(path))
            assert await m.names() == []
            await m.idle()
            assert await m.other.records() == {}
            assert m.cache.journal.uploads() == []

    on_mock_clock(main)


# --- files that stay open -----------------------------------------------------------------------------


def test_a_file_that_stays_open_is_uploaded_meanwhile() -> None:
    age = 60.0

    async def main() -> None:
        async with mounted(tuning=Tuning(max_dirty_age=age)) as m:
            fh = await m.create("log")
            await m.fs.files.write(fh, 0, b"one\n")
            await trio.sleep(age - 1)
            assert await m.other.records() == {}
            await trio.sleep(age / 4 + 2)
            assert await m.other.records() == {"log": b"one\n"}
            await m.fs.files.write(fh, 4, b"two\n")
            await trio.sleep(age / 4 + age + 2)
            assert await m.other.records() == {"log": b"one\ntwo\n"}
            await m.fs.files.write(fh, 8, b"three\n")
            await m.close(fh)
            assert await m.other.records() == {"log": b"one\ntwo\nthree\n"}

    on_mock_clock(main)


def test_the_grace_of_a_temporary_file_is_an_option() -> None:
    async def main() -> None:
        async with mounted(tuning=Tuning(grace=30.0)) as m:
            await m.names()
            with m.costs():
                await m.write_file("a.part", b"hello")
                await trio.sleep(29)
            with m.costs(set_record=1):
                await trio.sleep(2)

    on_mock_clock(main)
