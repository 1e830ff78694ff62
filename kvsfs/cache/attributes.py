"""What was learned of records, and what the API has no place for: the rows of the table `attributes`.

All of it is only cache. Writes wait in memory and go into the file many at a time: a transaction costs 15 to 40 µs,
and a `chmod` of 10,000 files should not pay it 10,000 times. What a killed daemon had not written by then (the last
half second) is learned again, or shown as of a record that nobody has touched. For the same reason no error of the
database ever leaves this file: a disk that is full or damaged is logged once, and the mount goes on without.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from kvsfs.cache.database import Database

log = logging.getLogger(__name__)

READ_CHUNK = 500
"""Keys in one SELECT: SQLite allowed 999 variables until 3.32, 32,766 since."""

WRITE_ROWS = 500
"""So many rows are written at once, whatever the time: some 2 ms of the event loop."""

HELD_ROWS = 10_000
"""What waits at most for a database that does not take it: some MB. Then it is given up."""


class Place(NamedTuple):
    """Whose row it is: a record's, by its key, or a folder's, by its prefix."""

    key: str
    folder: bool


class Attributes(NamedTuple):
    """One row. None: not known, or set by nobody here. Times are nanoseconds since 1970."""

    stored_size: int
    """All that follows holds while a listing shows this size."""
    validator: str | None = None
    length: int | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    mtime_ns: int | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None


COLUMNS = ", ".join(Place._fields + Attributes._fields)
SELECT = f"SELECT {COLUMNS} FROM attributes WHERE key IN "  # noqa: S608 - our own names
PUT = f"INSERT OR REPLACE INTO attributes ({COLUMNS}) VALUES (?{', ?' * 10})"  # noqa: S608
FORGET = "DELETE FROM attributes WHERE key = ? AND folder = ?"
FORGET_BELOW = "DELETE FROM attributes WHERE key >= ? AND key < ?"
FORGET_ALL = "DELETE FROM attributes"
MOVE_BELOW = "UPDATE attributes SET key = ? || substr(key, ?) WHERE key >= ? AND key < ?"


class AttributeRows:
    """The table, with the writes that wait. No method raises for the database's sake."""

    def __init__(self, database: Database) -> None:
        self._connection = database.connection
        self._waiting: dict[Place, Attributes | None] = {}
        """The newest for each place; None where the row is to go."""
        self._complained = False

    @property
    def waiting(self) -> int:
        """How many rows are to be written."""
        return len(self._waiting)

    def read(self, keys: Sequence[str]) -> dict[tuple[str, bool], Attributes]:
        """Give the rows that there are, by their places, for keys and prefixes; also those still to be written."""
        found: dict[tuple[str, bool], Attributes] = {}
        for start in range(0, len(keys), READ_CHUNK):
            with self._going_on():
                found |= self._select(keys[start : start + READ_CHUNK])
        wanted = set(keys) if self._waiting else ()
        for place, row in self._waiting.items():
            if place.key not in wanted:
                continue
            if row is None:
                found.pop(place, None)
            else:
                found[place] = row
        return found

    def put(self, place: Place, row: Attributes) -> None:
        """Have a row written, in the place of an older one."""
        self._note(place, row)

    def forget(self, place: Place) -> None:
        """Have a row removed, if there is one."""
        self._note(place, None)

    def forget_below(self, prefix: str) -> None:
        """Remove the rows of a folder and of all below it."""
        self.flush()
        for place in [place for place in self._waiting if place.key.startswith(prefix)]:
            del self._waiting[place]
        with self._going_on():
            self._connection.execute(FORGET_BELOW, _range(prefix))

    def forget_all(self) -> None:
        """Remove every row."""
        self._waiting.clear()
        with self._going_on():
            self._connection.execute(FORGET_ALL)

    def move_below(self, prefix: str, to: str) -> None:
        """Give the rows of a folder and of all below it another prefix, in the place of what is there."""
        self.forget_below(to)
        moved = (to, len(prefix) + 1, *_range(prefix))
        with self._going_on():
            self._connection.execute(MOVE_BELOW, moved)
        for place in [place for place in self._waiting if place.key.startswith(prefix)]:
            self._waiting[Place(to + place.key[len(prefix) :], place.folder)] = self._waiting.pop(place)

    def flush(self) -> None:
        """Write what waits, in one transaction. What a full disk did not take waits on."""
        if not self._waiting:
            return
        with self._going_on():
            with self._transaction():
                self._write()
            self._waiting.clear()
            self._complained = False
        if len(self._waiting) > HELD_ROWS:
            self._waiting.clear()

    def _note(self, place: Place, row: Attributes | None) -> None:
        self._waiting[place] = row
        if len(self._waiting) % WRITE_ROWS == 0:
            self.flush()

    def _select(self, keys: Sequence[str]) -> dict[tuple[str, bool], Attributes]:
        rows = self._connection.execute(f"{SELECT} (?{', ?' * (len(keys) - 1)})", keys)
        return {row[:2]: Attributes._make(row[2:]) for row in rows}  # as keys 0 and 1 are False and True, too

    def _write(self) -> None:
        new = [place + row for place, row in self._waiting.items() if row is not None]
        self._connection.executemany(PUT, new)
        gone = [place for place, row in self._waiting.items() if row is None]
        self._connection.executemany(FORGET, gone)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # SQLite ends some by itself
                self._connection.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def _going_on(self) -> Iterator[None]:
        try:
            yield
        except (
            sqlite3.Error,
            OverflowError,
            UnicodeError,
        ) as error:  # the latter: values that no row can hold
            if not self._complained:
                log.warning("times, modes and lengths are not kept over a remount: %s", error)
            self._complained = True


def _range(prefix: str) -> tuple[str, str]:
    """Give the first string with a prefix, and the first one behind all of those."""
    assert prefix, "the root is not moved"
    return prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1)
