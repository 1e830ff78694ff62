"""`--compress`: what is sent compressed, and what is known of it afterwards."""

from __future__ import annotations

import errno
import os
import random

import pytest
import trio

from kvsfs.cache.blobs import BlobFolder
from kvsfs.core.compression import LEAST_BYTES, STEP_BYTES, Compression, is_compressible
from kvsfs.core.tuning import Tuning
from kvsfs.errors import StoreUnreachable
from kvsfs.store.decoding import decoded
from kvsfs.types import ContentEncoding, RecordKey
from tests.support.mounted import Mounted, mounted, on_mock_clock

TEXT = b"".join(b'{"number": %d, "text": "the same again"}\n' % number for number in range(2000))
ENCODINGS: tuple[ContentEncoding, ...] = ("gzip", "br")


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("text/plain", True),
        ("text/csv; charset=utf-8", True),
        ("Application/JSON; charset=utf-8", True),
        ("application/ld+json", True),
        ("application/xml", True),
        ("image/svg+xml", True),
        ("text/javascript", True),
        ("application/javascript", True),
        ("application/x-ndjson", True),
        ("application/yaml", True),
        ("text/html", False),
        ("text/html; charset=utf-8", False),
        ("application/xhtml+xml", False),
        ("image/png", False),
        ("application/gzip", False),
        ("application/octet-stream", False),
        ("application/x-directory", False),
    ],
)
def test_what_is_compressible(content_type: str, *, expected: bool) -> None:
    assert is_compressible(content_type) is expected


async def stored(m: Mounted, key: str) -> tuple[ContentEncoding | None, int]:
    """How the store holds a record: its encoding, and the size that a listing tells."""
    head = await m.other.head(key)
    assert head is not None
    sizes = {entry.key: entry.size async for entry in m.other.store.iter_keys()}
    return head.content_encoding, sizes[RecordKey(key)]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_compressible_file_is_stored_compressed_and_known_by_its_true_length(
    encoding: ContentEncoding,
) -> None:
    async def main() -> None:
        async with mounted(tuning=Tuning(compress=encoding, revalidate=0)) as m:
            await m.names()
            with m.costs(set_record=1):
                await m.write_file("f.json", TEXT)
            found, size = await stored(m, "f.json")
            assert found == encoding
            assert size < len(TEXT) // 5
            assert (await m.other.records())["f.json"] == TEXT
            file = await m.file("f.json")
            assert (file.length, file.listed_size, file.size_is_exact) == (len(TEXT), size, True)
            assert await m.fs.xattrs.get(file, b"user.apify.content_encoding") == encoding.encode()
            await trio.sleep(m.tuning.listing_ttl + 1)
            await m.names()  # another listing tells the stored size: it is not taken for somebody's change
            assert (await m.file("f.json")).size == len(TEXT)
            await m.remount()
            assert await m.read_file("f.json") == TEXT
            m.fs.check_invariants()

    on_mock_clock(main)


def test_what_is_refused_small_or_does_not_get_smaller_is_stored_as_it_is() -> None:
    noise = random.Random(5).randbytes(3 * STEP_BYTES)
    files = {
        "page.html": TEXT,
        "small.txt": b"a" * (LEAST_BYTES - 1),
        "noise.csv": noise,
        "image.png": b"\x89PNG\r\n\x1a\n" + bytes(5000),
        "empty.txt": b"",
    }

    async def main() -> None:
        async with mounted(tuning=Tuning(compress="gzip")) as m:
            for name, content in files.items():
                await m.write_file(name, content)
                assert await stored(m, name) == (None, len(content)), name
                assert (await m.file(name)).length == len(content)
            assert await m.other.records() == files
            await m.write_file("least.txt", b"a" * LEAST_BYTES)
            assert (await stored(m, "least.txt"))[0] == "gzip"

    on_mock_clock(main)


def test_an_overwrite_follows_the_option_and_not_the_old_encoding() -> None:
    async def main() -> None:
        for option, old in (("gzip", "br"), ("gzip", None), (None, "gzip"), ("br", "gzip")):
            async with mounted(tuning=Tuning(compress=option)) as m:  # type: ignore[arg-type]
                await m.other.put("f", b"", "text/plain", old)  # type: ignore[arg-type]
                await m.write_file("f", TEXT)
                assert (await stored(m, "f"))[0] == option
                await m.rename("f", "g")
                assert (await stored(m, "g"))[0] == option
                assert await m.other.records() == {"g": TEXT}

    on_mock_clock(main)


def test_an_append_to_a_compressed_record_keeps_both() -> None:
    async def main() -> None:
        async with mounted(tuning=Tuning(compress="br")) as m:
            await m.write_file("log.txt", TEXT)
            await m.remount()
            fh = await m.open("log.txt", os.O_WRONLY | os.O_APPEND)
            await m.fs.files.write(fh, 0, TEXT)
            await m.close(fh)
            assert await m.other.records() == {"log.txt": TEXT + TEXT}
            assert (await m.file("log.txt")).length == 2 * len(TEXT)

    on_mock_clock(main)


def test_no_cache_file_stays_behind_also_when_the_upload_fails() -> None:
    async def main() -> None:
        async with mounted(tuning=Tuning(compress="gzip")) as m:
            await m.write_file("f.txt", TEXT)
            clean = os.path.join(m.blobs.path, "clean")
            assert len(os.listdir(clean)) == 1
            m.hooks.fail("set_record", StoreUnreachable("no"))
            with pytest.raises(StoreUnreachable):
                await m.write_file("f.txt", TEXT + b"more")
            await m.idle()
            assert await m.other.records() == {"f.txt": TEXT + b"more"}  # tried again
            assert len(os.listdir(clean)) == 1

    on_mock_clock(main)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_large_file_is_compressed_in_steps(encoding: ContentEncoding, tmp_path: object) -> None:
    async def main() -> None:
        blobs = BlobFolder(str(tmp_path))
        blob = blobs.create()
        content = (TEXT * (3 * STEP_BYTES // len(TEXT) + 1))[: 2 * STEP_BYTES + 17]
        blob.pwrite(content, 0)
        async with Compression(blobs, encoding).body(blob, "text/plain") as (body, found):
            assert found == encoding
            sent = [piece async for piece in body.chunks()]
            assert sum(map(len, sent)) == body.length < len(content) // 5
            assert b"".join([p async for p in decoded(body.chunks(), encoding)]) == content
        blob.release()
        assert len(os.listdir(os.path.join(blobs.path, "clean"))) == 1
        blobs.close()

    trio.run(main)


def test_a_full_disk_is_no_reason_not_to_upload(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with mounted(tuning=Tuning(compress="gzip")) as m:
            fh = await m.create("f.txt", os.O_WRONLY)
            await m.fs.files.write(fh, 0, TEXT)

            def full(*_: object) -> int:
                raise OSError(errno.ENOSPC, "No space left on device")

            with monkeypatch.context() as patch:
                patch.setattr(os, "pwrite", full)
                await m.close(fh)
            assert await stored(m, "f.txt") == (None, len(TEXT))

    on_mock_clock(main)
