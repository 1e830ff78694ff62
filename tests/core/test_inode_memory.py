"""What a file takes that nobody has opened: a store may have a million of them."""

from __future__ import annotations

import tracemalloc

from kvsfs.core.files import NEVER
from kvsfs.core.inodes import File, InodeTable, Ownership
from kvsfs.types import RecordHead, RecordKey

COUNT = 20_000

BYTES_EACH = 450
"""With its name, its key and its places in two tables; with all fields in slots it was 880."""


def test_a_listed_file_takes_little_memory() -> None:
    table = InodeTable(Ownership(), 0)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(COUNT):
            made(table, number).listed_size = 4096 + number
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(table.root.files) == COUNT
    assert (after - before) / COUNT <= BYTES_EACH


def test_a_field_that_is_not_set_has_its_default_and_takes_nothing() -> None:
    table = InodeTable(Ownership(), 0)
    file, other = made(table, 1), made(table, 2)
    file.missed_at = file.validated_at = NEVER
    file.handles = 0
    assert file._rare is None
    file.handles += 1
    file.head = head = RecordHead("text/plain")
    assert (file.handles, file.head, file.failure) == (1, head, None)
    file.head = None
    assert file.head is None
    assert (other.handles, other.head, other.inherits) == (0, None, [])


def test_the_key_follows_the_place_and_outlasts_it() -> None:
    table = InodeTable(Ownership(), 0)
    folder = table.add_folder(table.root, b"d")
    plain = table.add_file(folder, b"a", RecordKey("d!2Fa"))
    encoded = table.add_file(folder, b"a b", RecordKey("d!2Fa!20b"))
    assert [(file.key, file.is_plain) for file in (plain, encoded)] == [("d!2Fa", True), ("d!2Fa!20b", False)]
    table.move_folder(folder, table.root, b"e~")
    assert [file.key for file in (plain, encoded)] == ["e!7E!2Fa", "e!7E!2Fa!20b"]
    table.move(plain, table.root, b"x!20", RecordKey("x!2120"))
    assert plain.key == "x!2120"
    table.move(plain, table.root, b"y", RecordKey("y"))
    plain.lookup_count = 1
    table.detach(plain)
    assert (plain.key, plain.removed) == ("y", True)


def test_the_older_version_keeps_what_its_readers_need_and_shares_nothing() -> None:
    table = InodeTable(Ownership(), 0)
    file = made(table, 1)
    file.handles, file.content_type, file.stored = 2, "text/plain", True
    file.inherits.append(RecordKey("old"))
    number = file.number
    older = table.part(file)
    assert (older.number, older.key, older.handles, older.content_type) == (number, file.key, 2, "text/plain")
    assert (older.removed, older.stored, older.superseded, older.inherits) == (True, False, True, [])
    assert (file.handles, file.stored, file.superseded, file.inherits) == (0, True, False, ["old"])
    older.handles = 5
    assert file.handles == 0


def made(table: InodeTable, number: int) -> File:
    name = f"page-{number:09}.html"
    return table.add_file(table.root, name.encode(), RecordKey(name))
