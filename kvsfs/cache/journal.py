"""What is to be done in the store, on disk.

Versions that were closed here and not confirmed there, and records that were removed here and are still there.

A row is written before the bytes are sent and removed when the store has confirmed them, so whatever ends the daemon,
the next one knows what is left. Rows outlast kill -9 by themselves; what an application was told is safe is made to
outlast a power failure as well (`make_durable`).

Every method raises OSError (ENOSPC on a full disk), and none checkpoints.
"""

from __future__ import annotations

import errno
import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import Any

from kvsfs.cache.database import Database
from kvsfs.types import RecordKey


@dataclass(frozen=True, slots=True)
class Base:
    """The version of a record that an upload replaces, as far as it is known here."""

    stored: bool
    """Whether the store had, or may have, a record under the key."""
    validator: str | None
    size: int
    """Stored bytes, as listed."""
    sent: tuple[int | None, ...] = ()
    """Bytes of each older version of ours that may be there instead, None of one sent compressed: nobody answered."""


NO_RECORD = Base(False, None, 0)  # noqa: FBT003


@dataclass(frozen=True, slots=True)
class Closed:
    """A version of a file that somebody closed. `blob` is the name of its cache file."""

    key: RecordKey
    blob: str
    size: int
    """Bytes."""
    content_type: str | None
    type_guessed: bool
    base: Base
    mtime_ns: int
    mode: int
    """Permission bits."""
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Upload:
    """A closed version with the number of its row, and what became of it so far."""

    row: int
    closed: Closed
    attempts: int
    failure: str | None
    final: bool
    """The failure cannot heal by itself."""
    closed_at: int
    """Nanoseconds since 1970."""
    checksum: int | None
    """What `Blob.checksum` gave; None where nobody was told that the bytes are safe on this disk."""


@dataclass(frozen=True, slots=True)
class Removed:
    """A record that is gone here and still in the store. `heir` is the key of the file that has its bytes now."""

    key: RecordKey
    content_type: str | None
    type_guessed: bool
    validator: str | None
    heir: RecordKey | None
    moving: bool
    """The heir's bytes are nowhere but in this record."""
    size: int
    """Stored bytes of what the heir is to be read from, as listed."""


_FIELDS = (
    "key",
    "blob",
    "size",
    "content_type",
    "type_guessed",
    "stored",
    "base_validator",
    "base_size",
    "sent",
    "mtime_ns",
    "mode",
    "uid",
    "gid",
)
_COLUMNS = ", ".join(_FIELDS)
_INSERT = f"INSERT INTO uploads ({_COLUMNS}, closed_at) VALUES ({'?, ' * len(_FIELDS)}?)"  # noqa: S608
_UPDATE = f"UPDATE uploads SET {', '.join(f'{field} = ?' for field in _FIELDS)} WHERE id = ?"  # noqa: S608


def _values(version: Closed) -> tuple[object, ...]:
    """Give the columns in the order of `_FIELDS`."""
    base = version.base  # all by hand: dataclasses.astuple copies deeply, 50 µs
    return (
        version.key,
        version.blob,
        version.size,
        version.content_type,
        version.type_guessed,
        base.stored,
        base.validator,
        base.size,
        json.dumps(base.sent) if base.sent else "[]",
        version.mtime_ns,
        version.mode,
        version.uid,
        version.gid,
    )


def _closed(values: list[Any]) -> Closed:
    key, blob, size, content_type, guessed, stored, validator, base_size, sent, *attributes = values
    base = Base(bool(stored), validator, base_size, tuple(json.loads(sent)))
    return Closed(RecordKey(key), blob, size, content_type, bool(guessed), base, *attributes)


class Journal:
    """The rows of one cache folder."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection = database.connection
        self._together = False

    def closed(self, version: Closed, *, replaces: int | None = None) -> int:
        """Note a closed version, in the place of an older one of the same file; the number of its row."""
        # A single statement is a transaction of its own.
        with self._errors() if replaces is None else self._transaction():
            if replaces is not None:
                self._connection.execute("DELETE FROM uploads WHERE id = ?", (replaces,))
            cursor = self._connection.execute(_INSERT, (*_values(version), time.time_ns()))
            assert cursor.lastrowid is not None
            return cursor.lastrowid

    def changed(self, row: int, version: Closed) -> None:
        """Note what is known of a version by now: another key, type or time."""
        with self._errors():
            self._connection.execute(_UPDATE, (*_values(version), row))

    def failed(self, row: int, failure: str, *, final: bool) -> None:
        """Note one more attempt, and why it failed."""
        with self._errors():
            self._connection.execute(
                "UPDATE uploads SET attempts = attempts + 1, failure = ?, final = ? WHERE id = ?",
                (failure, final, row),
            )

    def checked(self, row: int, checksum: int) -> None:
        """Note what the bytes of a version are to be found by."""
        with self._errors():
            self._connection.execute("UPDATE uploads SET checksum = ? WHERE id = ?", (checksum, row))

    def forget(self, row: int) -> None:
        """Forget a version: the store has it, or nobody wants it any more."""
        with self._errors():
            self._connection.execute("DELETE FROM uploads WHERE id = ?", (row,))

    def uploads(self, most: int = -1) -> list[Upload]:
        """Give the closed versions, oldest first: all of them, or `most` with those that failed for good before."""
        order = "id" if most < 0 else "final DESC, id"
        with self._errors():
            rows = self._connection.execute(
                f"SELECT id, attempts, failure, final, closed_at, checksum, {_COLUMNS} FROM uploads "  # noqa: S608
                f"ORDER BY {order} LIMIT ?",
                (most,),
            ).fetchall()
        return [
            Upload(row, _closed(values), attempts, failure, bool(final), closed_at, checksum)
            for row, attempts, failure, final, closed_at, checksum, *values in rows
        ]

    def failed_for_good(self) -> int:
        """Count the closed versions that are not tried again by themselves."""
        with self._errors():
            (count,) = self._connection.execute("SELECT count(*) FROM uploads WHERE final").fetchone()
        return int(count)

    def removed(self, *records: Removed) -> None:
        """Note records that are gone here and still in the store."""
        with self._transaction():
            self._connection.executemany(
                "INSERT OR REPLACE INTO ghosts VALUES (?, ?, ?, ?, ?, ?, ?)",
                [astuple(record) for record in records],
            )

    def settled(self, key: RecordKey) -> None:
        """Forget a removed record: the store has it no more, or it is to stay."""
        with self._errors():
            self._connection.execute("DELETE FROM ghosts WHERE key = ?", (key,))

    def inherited(self, key: RecordKey, heir: RecordKey | None) -> None:
        """Note that the file which has a removed record's bytes has another name by now."""
        with self._errors():
            self._connection.execute("UPDATE ghosts SET heir = ? WHERE key = ?", (heir, key))

    def all_removed(self) -> list[Removed]:
        """Give all records that are gone here and still in the store."""
        with self._errors():
            rows = self._connection.execute(
                "SELECT key, content_type, type_guessed, validator, heir, moving, size FROM ghosts"
            ).fetchall()
        return [
            Removed(
                RecordKey(key), kind, bool(guessed), validator, heir and RecordKey(heir), bool(moving), size
            )
            for key, kind, guessed, validator, heir, moving, size in rows
        ]

    def make_durable(self) -> None:
        """Let all rows outlast a power failure. Blocks for as long as the disk takes: use a thread."""
        self._database.make_durable()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write all rows of the block, or none. It must not checkpoint."""
        with self._transaction():
            self._together = True
            try:
                yield
            finally:
                self._together = False

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        if self._together:
            yield
            return
        with self._errors():
            self._connection.execute("BEGIN")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
            raise OSError(errno.ENOSPC if full else errno.EIO, f"the journal: {error}") from error
