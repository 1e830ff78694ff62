"""`kvsfs serve --check`: whether every record that the index names is there and what was stored."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

from kvsfs.errors import CommandError, ExitCode
from kvsfs.server.archive import open_value
from kvsfs.server.database import connect
from kvsfs.server.local import INDEX_NAME, VALUES_NAME, open_storage
from kvsfs.server.rows import RECORD_COLUMNS, record_of
from kvsfs.server.storage import RecordEntry, described_by
from kvsfs.server.values import Values, etag_of

PAGE_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check found."""

    records: int
    damaged: int
    orphans: int
    """Files that no record named: removed."""


def check(folder: str, tell: Callable[[str], None], seen: Callable[[int], None]) -> Checked:
    """Look at every record; `tell` gets one line for each that is damaged, `seen` how many were looked at.

    Safe beside running servers.

    Reads every byte. Raises CommandError when there is nothing to check, or the index itself cannot be used.
    """
    path = os.path.join(folder, INDEX_NAME)
    if not os.path.exists(path):
        raise CommandError(ExitCode.USAGE, f"{folder} holds no store: there is nothing to check")
    storage = open_storage(folder)
    values = Values(os.path.join(folder, VALUES_NAME))
    records = damaged = orphans = 0
    try:
        orphans = storage.collect_garbage()
        with closing(connect(path)) as connection:
            for problem in _index_problems(connection):
                damaged += 1
                tell(problem)
            for store_id, entry, file in _records(connection):
                records += 1
                seen(records)
                fault = _fault(connection, values, store_id, entry, file)
                if fault is not None:
                    damaged += 1
                    tell(f"store {store_id}, record {entry.key}: {fault}")
    except sqlite3.DatabaseError as error:
        damaged += 1
        tell(f"index: {error}")
    return Checked(records, damaged, orphans)


def _index_problems(connection: sqlite3.Connection) -> Iterator[str]:
    for (line,) in connection.execute("PRAGMA integrity_check"):
        if line != "ok":
            yield f"index: {line}"
    unnamed = connection.execute(
        "SELECT name FROM small_values LEFT JOIN records ON file = name WHERE file IS NULL"
    )
    for (name,) in unnamed:
        yield f"index: no record names the value {name}"
    sums = connection.execute(
        "SELECT id, storage_bytes, (SELECT coalesce(sum(size), 0) FROM records WHERE store_id = id) AS real"
        " FROM stores WHERE storage_bytes <> real"
    )
    for store_id, told, real in sums:
        yield f"store {store_id}: it counts {told} bytes, its records have {real}"


def _records(connection: sqlite3.Connection) -> Iterator[tuple[str, RecordEntry, str]]:
    after = ("", "")
    while True:
        rows = connection.execute(
            f"SELECT store_id, {RECORD_COLUMNS} FROM records WHERE (store_id, key) > (?, ?)"  # noqa: S608
            f" ORDER BY store_id, key LIMIT {PAGE_ROWS}",
            after,
        ).fetchall()
        for store_id, *fields in rows:
            yield store_id, *record_of(tuple(fields))
        if not rows:
            return
        after = rows[-1][:2]


def _fault(
    connection: sqlite3.Connection, values: Values, store_id: str, entry: RecordEntry, file: str
) -> str | None:
    try:
        value = open_value(connection, values, file)
    except OSError as error:
        return f"its value {file} cannot be read: {error.strerror}"
    if value is None:
        # Deleted or replaced since its row was read?
        query = "SELECT 1 FROM records WHERE store_id = ? AND key = ? AND file = ?"
        still_named = connection.execute(query, (store_id, entry.key, file)).fetchone()
        return f"its value {file} is missing" if still_named else None
    with closing(value):
        if value.size != entry.size:
            return f"its value {file} has {value.size} bytes instead of {entry.size}"
        etag = etag_of(described_by(entry.content_type, entry.content_encoding), value.pieces(entry.size))
    return None if etag == entry.etag else f"its value {file} holds other bytes than were stored"
