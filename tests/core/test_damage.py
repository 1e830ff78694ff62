"""The disk changes what the cache folder keeps: it is found, set aside, and never uploaded."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from unittest.mock import patch

import pytest
import trio

from kvsfs.cache.blobs import Blob
from kvsfs.core.tuning import Tuning
from kvsfs.errors import StoreUnreachable
from tests.support.mounted import Mounted, mounted, on_mock_clock

WRITE_BACK = Tuning(write_back=10.0)
LATER = b"later " * 100_000
"""More than a checksum is made of inline."""


def blobs_in(m: Mounted, folder: str) -> list[Path]:
    return sorted((Path(m.blobs.path) / folder).iterdir())


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def flip_a_bit(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("damage", [cut_short, flip_a_bit])
@pytest.mark.parametrize("content", [b"after", LATER], ids=["small", "large"])
@pytest.mark.parametrize("there", [True, False])
def test_damaged_bytes_are_set_aside_and_the_store_keeps_its_own(
    caplog: pytest.LogCaptureFixture, damage: object, content: bytes, *, there: bool
) -> None:
    async def main() -> None:
        async with mounted(tuning=WRITE_BACK) as m:
            if there:
                await m.other.put("f", b"before")
            await m.write_file("f", content)
            await m.write_file("sound", content)
            await m.end()
            (path,) = [path for path in blobs_in(m, "dirty") if path.name.endswith(".f")]
            assert callable(damage)
            damage(path)
            left = path.read_bytes()
            await m.mount(m.blobs.path)
            await m.idle()
            expected = {"sound": content} | ({"f": b"before"} if there else {})
            assert await m.other.records() == expected
            assert {name: await m.read_file(name) for name in await m.names()} == expected
            assert [path.read_bytes() for path in blobs_in(m, "not-uploaded")] == [left]
            assert blobs_in(m, "dirty") == []
            await m.remount()
            assert m.fs.left() == []
        (told,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
        assert told.startswith("f was closed by an earlier mount, and the disk has damaged it since: ")
        assert "/not-uploaded/" in told

    on_mock_clock(main)


def test_after_a_failed_close_the_bytes_have_a_checksum_too() -> None:
    async def main() -> None:
        async with mounted() as m:
            m.hooks.fail("set_record", StoreUnreachable("the network is down"))
            with pytest.raises(StoreUnreachable):
                await m.write_file("f", b"after")
            await m.end()
            flip_a_bit(blobs_in(m, "dirty")[0])
            await m.mount(m.blobs.path)
            await m.idle()
            assert await m.other.records() == {}

    on_mock_clock(main)


def test_what_changes_after_its_close_is_checked_as_it_was_closed_last() -> None:
    async def main() -> None:
        async with mounted(tuning=WRITE_BACK) as m:
            await m.write_file("f", b"first")
            fh = await m.open("f", os.O_RDWR)
            await m.fs.files.write(fh, 0, b"then ")
            await m.fs.files.fsync(fh)
            await m.fs.files.write(fh, 0, b"never closed")
            await m.remount()
            await m.idle()
            assert await m.other.records() == {"f": b"then "}

    on_mock_clock(main)


def test_a_damaged_journal_is_begun_anew_and_what_was_closed_is_kept(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        async with mounted(tuning=WRITE_BACK) as m:
            await m.other.put("f", b"before")
            await m.write_file("f", b"after")
            await m.end()
            journal = Path(m.blobs.path) / "journal.db"
            journal.write_bytes(b"\0" * 5000)
            await m.mount(m.blobs.path)
            await m.idle()
            await trio.sleep(60)
            assert await m.other.records() == {"f": b"before"}
            assert await m.read_file("f") == b"before"
            assert [path.read_bytes() for path in blobs_in(m, "not-uploaded")] == [b"after"]
            assert len(list(journal.parent.glob("journal.db.damaged-*"))) == 1
            await m.write_file("f", b"newest")
            await m.remount()
            await m.idle()
            assert await m.other.records() == {"f": b"newest"}
        assert "journal.db was damaged" in caplog.text

    on_mock_clock(main)


def test_what_is_newer_and_cannot_be_closed_leaves_what_was_closed_in_the_journal() -> None:
    async def main() -> None:
        async with mounted(tuning=WRITE_BACK) as m:
            await m.write_file("f", b"closed")
            fh = await m.open("f", os.O_RDWR)
            await m.fs.files.write(fh, 0, b"newer!")
            with patch.object(m.cache.journal, "closed", side_effect=OSError(errno.ENOSPC, "full")):
                (left,) = m.fs.left()  # as where the time to drain is over
            assert "not uploaded" in left
            assert [path.read_bytes() for path in blobs_in(m, "not-uploaded")] == [b"newer!"]
            await m.fs.files.release(fh)
            await m.remount()
            await m.idle()
            assert await m.other.records() == {"f": b"closed"}

    on_mock_clock(main)


def test_checksums_tell_contents_apart(tmp_path: Path) -> None:
    def checksum(content: bytes) -> int:
        path = tmp_path / "blob"
        path.write_bytes(content)
        blob = Blob.existing(str(path))
        blob.acquire()
        try:
            return blob.checksum()
        finally:
            blob.release()

    large = os.urandom(3_000_001)
    found = [checksum(content) for content in (b"", b"\0", b"\1", large, large[:-1], large[::-1])]
    assert len(set(found)) == len(found)
    assert checksum(large) == found[3]


def test_a_cache_folder_that_takes_no_changes_fails_no_upload_that_the_store_has_confirmed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        async with mounted() as m:
            fh = await m.create("f")
            await m.fs.files.write(fh, 0, b"bytes")
            with patch("kvsfs.cache.blobs.os.rename", side_effect=OSError(errno.EROFS, "read-only")):
                await m.fs.files.fsync(fh)
            assert await m.state("f") == b"clean"
            await m.fs.files.write(fh, 0, b"more!")
            await m.close(fh)
            assert await m.other.records() == {"f": b"more!"}
            assert blobs_in(m, "dirty") == []
        assert "read-only" in caplog.text

    on_mock_clock(main)
