"""Stores and records in SQLite: every query of the local storage.

Reads run where they are called, on a connection of their own (in WAL mode they wait for no writer, and take
some 20 µs; a page of 1,000 keys 1 ms). Writes return futures of `database.Writer`.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from kvsfs.server import runs
from kvsfs.server.database import Writer, connect
from kvsfs.server.moments import now_ms, to_ms
from kvsfs.server.rows import RECORD_COLUMNS, STORE_COLUMNS, record_of, selected, store_of
from kvsfs.server.storage import KeySelection, NameTaken, RecordEntry, Run, RunFilter, StoreField, StoreGone
from kvsfs.server.users import ALPHANUMERIC, ID_LENGTH
from kvsfs.server.values import is_small
from kvsfs.signatures import new_signing_key
from kvsfs.types import StoreInfo


@dataclass(slots=True)
class Touches:
    """Reads of a store that are not in the database yet."""

    reads: int = 0
    lists: int = 0
    accessed_at: int = 0


def new_id() -> str:
    """Make an ID for a store: random, never used twice."""
    return "".join(secrets.choice(ALPHANUMERIC) for _ in range(ID_LENGTH))


class Index:
    """The queries. Reads: one thread at a time. Writes: any thread."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._reader = connect(path)
        self._writer = Writer(path)

    def close(self) -> None:
        """Run the queued writes and close."""
        self._writer.close()
        self._reader.close()

    # Reads

    def store(self, store_id: str) -> StoreInfo | None:
        """Give a store by its ID."""
        return _one_store(self._reader, "id = ?", (store_id,))

    def named_store(self, username: str, name: str) -> StoreInfo | None:
        """Give a store by its owner and name."""
        return _one_store(self._reader, "username = ? AND name = ?", (username, name))

    def stores(
        self, username: str, *, offset: int, limit: int, desc: bool, unnamed: bool
    ) -> tuple[list[StoreInfo], int]:
        """Give a page of a user's stores and their number in all."""
        where = "username = ?" + ("" if unnamed else " AND name IS NOT NULL")
        order = "DESC" if desc else "ASC"
        rows = self._reader.execute(
            f"SELECT {STORE_COLUMNS} FROM stores WHERE {where}"  # noqa: S608 - only constants are put together
            f" ORDER BY created_at {order}, id {order} LIMIT ? OFFSET ?",
            (username, limit, offset),
        ).fetchall()
        (total,) = self._reader.execute(
            f"SELECT count(*) FROM stores WHERE {where}",  # noqa: S608 - as above
            (username,),
        ).fetchone()
        return [store_of(row) for row in rows], total

    def keys(
        self, store_id: str, *, after: str | None, selection: KeySelection, limit: int
    ) -> list[tuple[str, int]]:
        """Give a page of keys with sizes: one walk along the primary key, wherever it starts."""
        where, values = selected(store_id, selection, after)
        return self._reader.execute(
            f"SELECT key, size FROM records WHERE {where} ORDER BY key LIMIT ?",  # noqa: S608 - only constants
            (*values, limit),
        ).fetchall()

    def all_stores(self) -> list[StoreInfo]:
        """Give the stores of all users, the oldest first."""
        rows = self._reader.execute(f"SELECT {STORE_COLUMNS} FROM stores ORDER BY created_at, id")  # noqa: S608
        return [store_of(row) for row in rows]

    def all_runs(self) -> list[Run]:
        """Give all runs, the oldest first."""
        return runs.everything(self._reader)

    def run(self, run_id: str) -> Run | None:
        """Give a run by its ID."""
        return runs.by_id(self._reader, run_id)

    def last_run(self, wanted: RunFilter) -> Run | None:
        """Give the run that was made last among those wanted."""
        return runs.last(self._reader, wanted)

    def record(self, store_id: str, key: str) -> tuple[RecordEntry, str] | None:
        """Give a record and the name of its file."""
        row = self._reader.execute(
            f"SELECT {RECORD_COLUMNS} FROM records WHERE store_id = ? AND key = ?",  # noqa: S608 - constants
            (store_id, key),
        ).fetchone()
        return None if row is None else record_of(row)

    def record_and_value(self, store_id: str, key: str) -> tuple[RecordEntry, str, bytes | None] | None:
        """Give a record, the name of its file, and its value if it is a small one."""
        row = self._reader.execute(
            f"SELECT {RECORD_COLUMNS}, content FROM records LEFT JOIN small_values ON name = file"  # noqa: S608
            " WHERE store_id = ? AND key = ?",
            (store_id, key),
        ).fetchone()
        return None if row is None else (*record_of(row[:-1]), row[-1])

    # Writes

    def put_record(
        self, store_id: str, entry: RecordEntry, file: str, content: bytes | None = None
    ) -> Future[str | None]:
        """Point a key to a new file, or to `content`; gives the file that it replaces. Raises StoreGone."""
        modified_at = to_ms(entry.modified_at)

        def work(connection: sqlite3.Connection) -> str | None:
            old_file, old_size = _let_go(connection, store_id, entry.key)
            if content is not None:
                connection.execute("INSERT INTO small_values (name, content) VALUES (?, ?)", (file, content))
            values = (entry.key, entry.size, entry.content_type, entry.content_encoding, entry.etag)
            connection.execute(
                f"INSERT OR REPLACE INTO records (store_id, {RECORD_COLUMNS}) VALUES (?,?,?,?,?,?,?,?)",  # noqa: S608
                (store_id, *values, modified_at, file),
            )
            changed = connection.execute(
                "UPDATE stores SET modified_at = max(modified_at, ?), accessed_at = max(accessed_at, ?),"
                " write_count = write_count + 1, storage_bytes = storage_bytes + ? WHERE id = ?",
                (modified_at, modified_at, entry.size - old_size, store_id),
            )
            if changed.rowcount == 0:
                raise StoreGone
            return old_file

        return self._writer.submit(work)

    def delete_record(self, store_id: str, key: str) -> Future[str | None]:
        """Forget a record; gives the file that held it. No error when it is not there."""
        now = now_ms()

        def work(connection: sqlite3.Connection) -> str | None:
            file, size = _let_go(connection, store_id, key)
            deleted = connection.execute(
                "DELETE FROM records WHERE store_id = ? AND key = ?", (store_id, key)
            ).rowcount
            connection.execute(
                "UPDATE stores SET modified_at = CASE WHEN ? THEN max(modified_at, ?) ELSE modified_at END,"
                " accessed_at = max(accessed_at, ?), delete_count = delete_count + 1,"
                " storage_bytes = storage_bytes - ? WHERE id = ?",
                (deleted, now, now, size, store_id),
            )
            return file

        return self._writer.submit(work)

    def get_or_create_store(
        self, username: str, name: str | None, schema: Mapping[str, object] | None
    ) -> Future[tuple[StoreInfo, bool]]:
        """Give the named store, or make one; whether it was made."""
        now = now_ms()

        def work(connection: sqlite3.Connection) -> tuple[StoreInfo, bool]:
            if name is not None:
                known = _one_store(connection, "username = ? AND name = ?", (username, name))
                if known is not None:
                    return known, False
            store_id = new_id()
            _insert_store(connection, store_id, username, name, schema, now)
            made = _one_store(connection, "id = ?", (store_id,))
            assert made is not None
            return made, True

        return self._writer.submit(work)

    def adopt_store(self, store: StoreInfo) -> Future[None]:
        """Enter a store as it is described, without its counters, unless it is there. Raises NameTaken."""
        described = {
            "id": store.id,
            "username": store.username,
            "name": store.name,
            "title": store.title,
            "general_access": store.general_access,
            "signing_key": store.url_signing_secret_key,
            "schema": json.dumps(store.schema) if store.schema else None,
            "created_at": to_ms(store.created_at),
            "modified_at": to_ms(store.modified_at),
            "accessed_at": to_ms(store.accessed_at),
            "actor_id": store.actor_id,
            "run_id": store.run_id,
        }
        columns = ", ".join(described)

        def work(connection: sqlite3.Connection) -> None:
            try:
                connection.execute(
                    f"INSERT INTO stores ({columns}) VALUES ({', '.join('?' * len(described))})"  # noqa: S608
                    f" ON CONFLICT (id) DO NOTHING",
                    tuple(described.values()),
                )
            except sqlite3.IntegrityError as error:
                raise NameTaken from error

        return self._writer.submit(work)

    def adopt_run(self, run: Run) -> Future[None]:
        """Enter a run of a store that is there, unless it is known."""

        def work(connection: sqlite3.Connection) -> None:
            if runs.by_id(connection, run.id) is None:
                runs.insert(connection, run)

        return self._writer.submit(work)

    def create_run(self, run: Run) -> Future[None]:
        """Make a run and its store, both or neither."""
        started_at = to_ms(run.started_at)

        def work(connection: sqlite3.Connection) -> None:
            _insert_store(connection, run.store_id, run.username, None, None, started_at)
            connection.execute(
                "UPDATE stores SET actor_id = ?, run_id = ? WHERE id = ?",
                (run.actor_id, run.id, run.store_id),
            )
            runs.insert(connection, run)

        return self._writer.submit(work)

    def update_store(
        self, store_id: str, changes: Mapping[StoreField, str | None]
    ) -> Future[StoreInfo | None]:
        """Set fields of a store. Raises NameTaken."""
        now = now_ms()

        def work(connection: sqlite3.Connection) -> StoreInfo | None:
            for field, value in changes.items():
                _set_field(connection, store_id, field, value)
            connection.execute(
                "UPDATE stores SET modified_at = max(modified_at, ?) WHERE id = ?", (now, store_id)
            )
            return _one_store(connection, "id = ?", (store_id,))

        return self._writer.submit(work)

    def delete_store(self, store_id: str) -> Future[None]:
        """Forget a store. Its records are no longer reachable, but still there: see `drop_records`."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM stores WHERE id = ?", (store_id,))

        return self._writer.submit(work)

    def drop_records(self, limit: int) -> Future[list[str] | None]:
        """Forget at most `limit` records of deleted stores; gives their files, None when no record was left."""

        def work(connection: sqlite3.Connection) -> list[str] | None:
            # A walk along the stores in records, one seek each, instead of over all their records.
            store_id = _store_without_row(connection)
            if store_id is None:
                return None
            doomed = connection.execute(
                "SELECT key, file FROM records WHERE store_id = ? LIMIT ?", (store_id, limit)
            ).fetchall()
            connection.executemany(
                "DELETE FROM records WHERE store_id = ? AND key = ?", ((store_id, key) for key, _ in doomed)
            )
            connection.executemany(
                "DELETE FROM small_values WHERE name = ?", ((file,) for _, file in doomed if is_small(file))
            )
            return [file for _, file in doomed if not is_small(file)]

        return self._writer.submit(work)

    def add_touches(self, touches: Mapping[str, Touches]) -> Future[None]:
        """Count reads that were gathered in memory."""
        rows = [(t.reads, t.lists, t.accessed_at, store_id) for store_id, t in touches.items()]

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "UPDATE stores SET read_count = read_count + ?, list_count = list_count + ?,"
                " accessed_at = max(accessed_at, ?) WHERE id = ?",
                rows,
            )

        return self._writer.submit(work)

    def unknown_files(self, files: Sequence[str]) -> Future[list[str]]:
        """Give those of `files` that hold no record."""

        def work(connection: sqlite3.Connection) -> list[str]:
            query = "SELECT 1 FROM records WHERE file = ?"
            return [file for file in files if connection.execute(query, (file,)).fetchone() is None]

        return self._writer.submit(work)


def _insert_store(
    connection: sqlite3.Connection,
    store_id: str,
    username: str,
    name: str | None,
    schema: Mapping[str, object] | None,
    now: int,
) -> None:
    # Stores are listed by their creation: those made within one millisecond shall not change places.
    (newest,) = connection.execute(
        "SELECT max(created_at) FROM stores WHERE username = ?", (username,)
    ).fetchone()
    now = now if newest is None else max(now, newest + 1)
    connection.execute(
        "INSERT INTO stores (id, username, name, general_access, signing_key, schema, created_at,"
        " modified_at, accessed_at) VALUES (?, ?, ?, 'FOLLOW_USER_SETTING', ?, ?, ?, ?, ?)",
        (store_id, username, name, new_signing_key(), json.dumps(schema) if schema else None, now, now, now),
    )


def _store_without_row(connection: sqlite3.Connection) -> str | None:
    after = ""
    while True:
        (store_id,) = connection.execute(
            "SELECT min(store_id) FROM records WHERE store_id > ?", (after,)
        ).fetchone()
        if store_id is None:
            return None
        if connection.execute("SELECT 1 FROM stores WHERE id = ?", (store_id,)).fetchone() is None:
            return str(store_id)
        after = store_id


def small_value(connection: sqlite3.Connection, name: str) -> bytes | None:
    """Give a small value."""
    row = connection.execute("SELECT content FROM small_values WHERE name = ?", (name,)).fetchone()
    return None if row is None else row[0]


def _let_go(connection: sqlite3.Connection, store_id: str, key: str) -> tuple[str | None, int]:
    """Remove the small value of a record, or give its file; and its size."""
    row = connection.execute(
        "SELECT file, size FROM records WHERE store_id = ? AND key = ?", (store_id, key)
    ).fetchone()
    if row is None:
        return None, 0
    file, size = row
    if not is_small(file):
        return file, size
    connection.execute("DELETE FROM small_values WHERE name = ?", (file,))
    return None, size


def _set_field(connection: sqlite3.Connection, store_id: str, field: StoreField, value: str | None) -> None:
    try:
        connection.execute(f"UPDATE stores SET {field} = ? WHERE id = ?", (value, store_id))  # noqa: S608 - a Literal
    except sqlite3.IntegrityError as error:
        raise NameTaken from error


def _one_store(connection: sqlite3.Connection, where: str, values: tuple[str, ...]) -> StoreInfo | None:
    query = f"SELECT {STORE_COLUMNS} FROM stores WHERE {where}"  # noqa: S608 - `where` is a constant of ours
    row = connection.execute(query, values).fetchone()
    return None if row is None else store_of(row)
