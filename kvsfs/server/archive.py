"""A ZIP archive of a store's records, made as it is sent.

An entry is named by its key and holds what a client that accepts no encoding would get: an archive has no
place for a Content-Encoding, so a record stored with one is decoded.

Memory: one piece, one page of rows, and what the archive's directory needs for each entry (some 0.5 KB, held
by zipstream until the end).
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing

import zipstream  # type: ignore[import-untyped] # ships no types

from kvsfs.server.database import connect
from kvsfs.server.encodings import decoded_here
from kvsfs.server.index import small_value
from kvsfs.server.rows import RECORD_COLUMNS, record_of, selected
from kvsfs.server.storage import KeySelection, RecordEntry
from kvsfs.server.values import SmallValue, Value, Values, is_small

PIECE_BYTES = 256 * 1024
"""What one change of thread yields: 100 µs against 1 ms of work."""

WHOLE_BYTES = 64 * 1024
"""Up to here an entry is read at once, without a generator of its own."""

PAGE_ROWS = 1000


class Archive:
    """An archive being made. Any thread may call it, one after the other."""

    def __init__(self, records: Iterable[tuple[RecordEntry, Value]]) -> None:
        """Each value is read to its end before the next one is asked for."""
        self._pieces = _gathered(_zipped(records))
        # `close` may be called while another thread is still at work: a generator cannot be closed then.
        self._lock = threading.Lock()

    def next_piece(self) -> bytes:
        """Give the next bytes of the archive; empty at its end. Raises UndecodableValue."""
        with self._lock:
            return next(self._pieces, b"")

    def close(self) -> None:
        """Let go of all files. May be called at any time and twice."""
        with self._lock:
            self._pieces.close()


def _gathered(pieces: Iterable[bytes]) -> Generator[bytes, None, None]:
    gathered: list[bytes] = []
    size = 0
    for piece in pieces:
        gathered.append(piece)
        size += len(piece)
        if size >= PIECE_BYTES:
            yield b"".join(gathered)
            gathered, size = [], 0
    yield b"".join(gathered)


def _zipped(records: Iterable[tuple[RecordEntry, Value]]) -> Iterator[bytes]:
    # Deflated at level 0, which copies: where a stored entry ends whose size comes behind it, no reader of a stream
    # can tell. Level 1 costs three times the CPU.
    archive = zipstream.ZipStream(compress_type=zipstream.ZIP_DEFLATED, compress_level=0)
    for entry, value in records:
        if entry.content_encoding is not None:
            archive.add(decoded_here(value.pieces(entry.size), entry.content_encoding), entry.key)
        elif entry.size <= WHOLE_BYTES:
            archive.add(value.read(0, entry.size), entry.key)
        else:
            archive.add(value.pieces(entry.size), entry.key, size=entry.size)
        yield from archive.file()
    yield from archive.finalize()


def stored_records(
    index_path: str, values: Values, store_id: str, selection: KeySelection
) -> Iterator[tuple[RecordEntry, Value]]:
    """Open record after record, page after page: a transaction held all the way would keep the log growing."""
    with closing(connect(index_path)) as connection:
        after = None
        while rows := _page(connection, store_id, selection, after):
            for entry, file in rows:
                record = _open(connection, values, store_id, entry, file)
                if record is not None:
                    with closing(record[1]):
                        yield record
            after = rows[-1][0].key


def _open(
    connection: sqlite3.Connection, values: Values, store_id: str, entry: RecordEntry, file: str
) -> tuple[RecordEntry, Value] | None:
    """Open a record of a page, or what has replaced it since; None when it is gone."""
    found: tuple[RecordEntry, str] | None = (entry, file)
    while found is not None:
        entry, file = found
        value = open_value(connection, values, file)
        if value is not None:
            return entry, value
        newer = _page(connection, store_id, KeySelection(only=entry.key), None)
        if newer and newer[0][1] == file:
            raise ValueError(f"the value {file} of a record is missing")
        found = newer[0] if newer else None
    return None


def open_value(connection: sqlite3.Connection, values: Values, name: str) -> Value | None:
    """Open a value, a row of the index or a file; None when it is not there."""
    if is_small(name):
        content = small_value(connection, name)
        return None if content is None else SmallValue(content)
    try:
        return values.open(name)
    except FileNotFoundError:
        return None


def _page(
    connection: sqlite3.Connection, store_id: str, selection: KeySelection, after: str | None
) -> list[tuple[RecordEntry, str]]:
    where, given = selected(store_id, selection, after)
    rows = connection.execute(
        f"SELECT {RECORD_COLUMNS} FROM records WHERE {where} ORDER BY key LIMIT {PAGE_ROWS}",  # noqa: S608
        given,
    ).fetchall()
    return [record_of(row) for row in rows]
