"""What headers prove of bytes that came without any, and what they do not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvsfs.cache.folder import CacheFolder
from kvsfs.core.content import Content
from kvsfs.core.provenance import is_of
from kvsfs.types import RecordHead

BYTES = b"some bytes"
MD5 = f'"{hashlib.md5(BYTES).hexdigest()}"'
ASKED = "Mon, 01 Jan 2024 12:00:20 GMT"
BEFORE, JUST_BEFORE = "Mon, 01 Jan 2024 12:00:10 GMT", "Mon, 01 Jan 2024 12:00:11 GMT"


@pytest.fixture
def content(tmp_path: Path) -> Iterator[Content]:
    cache = CacheFolder(str(tmp_path / "cache"), "store")
    made = Content(cache, cache.blobs.create())
    made.blob.pwrite(BYTES, 0)
    made.unproven, made.asked_for = True, ASKED
    made.release()
    yield made
    cache.close()


@pytest.mark.parametrize(
    ("head", "proven"),
    [
        (RecordHead("t", etag=MD5), True),
        (RecordHead("t", etag=MD5, length=len(BYTES)), True),
        (RecordHead("t", etag=MD5, length=len(BYTES) + 1), False),
        (RecordHead("t", etag="W/" + MD5), False),
        (RecordHead("t", etag=MD5, content_encoding="gzip"), False),
        (RecordHead("t", etag='"something else"'), False),
        (RecordHead("t", last_modified=BEFORE), True),
        (RecordHead("t", last_modified=BEFORE, etag='"whatever"', content_encoding="gzip"), True),
        (RecordHead("t", last_modified=JUST_BEFORE), False),
        (RecordHead("t", last_modified=ASKED), False),
        (RecordHead("t", last_modified="yesterday"), False),
        (RecordHead("t", last_modified="Mon, 01 Jan 2024 12:00:10 -0000"), False),
        (RecordHead("t"), False),
    ],
)
def test_what_a_head_proves(content: Content, head: RecordHead, *, proven: bool) -> None:
    assert is_of(content, head) is proven


@pytest.mark.parametrize("asked_for", [None, "", "garbage"])
def test_without_the_stores_time_a_date_proves_nothing(content: Content, asked_for: str | None) -> None:
    content.asked_for = asked_for
    assert not is_of(content, RecordHead("t", last_modified=BEFORE))
    assert is_of(content, RecordHead("t", last_modified=BEFORE, etag=MD5))
