"""What a file takes that nobody has opened: a store may have a million of them."""

from __future__ import annotations

import tracemalloc

from kvsfs.core.inodes import File
from kvsfs.types import RecordKey

COUNT = 5_000

BYTES_EACH = 600
"""With its key and its name; a lock and a cancel scope for each made it 1,184."""


def test_a_listed_file_takes_little_memory() -> None:
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        files = [made(number) for number in range(COUNT)]
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(files) == COUNT
    assert (after - before) / COUNT <= BYTES_EACH


def made(number: int) -> File:
    name = f"page-{number:09}.html"
    return File(number, None, name.encode(), 0o644, 0, 0, 1, 1, 1, key=RecordKey(name))
