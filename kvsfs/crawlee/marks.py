"""What a file is known to be a copy of, in an attribute of its own: so that it is not copied again.

The API tells neither a record's time nor a digest of its bytes. Which version of a record a file was written from, or
stored as, is noted in the file, with its length and time; HEAD then tells whether the store still has that version.
"""

from __future__ import annotations

import contextlib
import json
import os

from kvsfs.types import RecordHead

ATTRIBUTE = "user.kvsfs.copy"


def mark(fd: int, store_id: str, key: str, head: RecordHead, stat: os.stat_result | None = None) -> None:
    """Note that an open file, as `stat` saw it, is this version, if its ETag is known and the file system can."""
    # A Last-Modified names a second, in which a record may have been written twice.
    if head.etag is None or head.etag.startswith("W/"):
        return
    noted = [*_file(store_id, key, stat or os.fstat(fd)), *_version(head)]
    with contextlib.suppress(
        OSError
    ):  # it is not ours, or the file system has no attributes: it is copied again
        os.setxattr(fd, ATTRIBUTE, json.dumps(noted).encode())


def is_marked(fd: int, store_id: str, key: str) -> bool:
    """Tell whether an open file is, unchanged since, a copy of some version of this record."""
    return _read(fd)[:4] == _file(store_id, key, os.fstat(fd))


def is_copy(fd: int, head: RecordHead) -> bool:
    """Tell whether a marked file is this version, byte for byte and of the same type."""
    return _read(fd)[4:] == _version(head)


def _file(store_id: str, key: str, stat: os.stat_result) -> list[object]:
    return [store_id, key, stat.st_size, stat.st_mtime_ns]


def _version(head: RecordHead) -> list[object]:
    return [head.etag, head.content_type]


def _read(fd: int) -> list[object]:
    try:
        noted = json.loads(os.getxattr(fd, ATTRIBUTE))
    except (OSError, ValueError):
        return []
    return noted if isinstance(noted, list) else []
