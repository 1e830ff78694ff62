"""Which version bytes are that came without headers: what a later HEAD proves."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime

from kvsfs.core.content import Content
from kvsfs.types import RecordHead

HASHED_BYTES = 1024 * 1024
"""What is hashed inline: 1.5 ms of the event loop."""

SKEW = timedelta(seconds=10)
"""Between the clock that dates an archive and the one that dates records: more than NTP leaves between two servers,
and a Last-Modified counts whole seconds."""


def is_of(content: Content, head: RecordHead) -> bool:
    """Tell whether headers seen after the bytes came can be of no other bytes.

    Either the strong ETag is their MD5, as S3 makes it: then it is these very bytes that it names, whatever else the
    store's ETags are. Or the record was last modified before the store began to send the bytes: nothing has come
    between. A record stored with a Content-Encoding has other stored bytes, so only the second holds for it. False
    where neither is known; a GET tells then.
    """
    if head.validator is None or (head.length is not None and head.length != content.size):
        return False
    return is_older(head.last_modified, content.asked_for) or _is_md5(content, head)


def is_older(last_modified: str | None, asked_for: str | None) -> bool:
    """Tell whether a record was last modified before the store began to send its bytes; False where that is unknown."""
    if last_modified is None or asked_for is None:
        return False
    modified, asked = _moment(last_modified), _moment(asked_for)
    return modified is not None and asked is not None and modified + SKEW <= asked


def _moment(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def _is_md5(content: Content, head: RecordHead) -> bool:
    if head.etag is None or head.content_encoding is not None or content.size > HASHED_BYTES:
        return False
    content.blob.acquire()
    try:
        digest = hashlib.md5(content.blob.pread(content.size, 0), usedforsecurity=False).hexdigest()
    finally:
        content.blob.release()
    return head.etag == f'"{digest}"'
