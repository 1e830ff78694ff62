"""The SQLite file of a cache folder: what must outlast the daemon beside the cache files themselves.

One connection, used on the event loop: in WAL mode a transaction is a write into the page cache, 15 to 40 µs, so
no thread is worth its hand-over (PERFORMANCE.md). What a killed daemon wrote is there at the next start. What has to
outlast a power failure calls `make_durable`, which is the fsync that a commit would otherwise wait for inline.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from urllib.parse import quote

from kvsfs.errors import CommandError, ExitCode

log = logging.getLogger(__name__)

JOURNAL = """
CREATE TABLE uploads (            -- a version of a file that was closed and that the store has not confirmed
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL,
    blob TEXT NOT NULL UNIQUE,    -- name of the cache file in dirty/
    content_type TEXT,            -- NULL: to be guessed at the upload
    type_guessed INTEGER NOT NULL,
    stored INTEGER NOT NULL,      -- whether the store had, or may have, a record under the key
    base_validator TEXT,          -- of the record's version that this one replaces; NULL: none known
    base_size INTEGER NOT NULL,   -- stored bytes of that version, as listed
    mtime_ns INTEGER NOT NULL,
    mode INTEGER NOT NULL,        -- permission bits
    uid INTEGER NOT NULL,
    gid INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    failure TEXT,                 -- why the last attempt failed; NULL: none has
    final INTEGER NOT NULL DEFAULT 0,  -- the failure cannot heal: not tried again by itself
    closed_at INTEGER NOT NULL    -- this and every other time: nanoseconds since 1970
);
CREATE TABLE ghosts (             -- a record that is gone here and still in the store
    key TEXT PRIMARY KEY,
    content_type TEXT,
    type_guessed INTEGER NOT NULL,
    validator TEXT,
    heir TEXT,                    -- key of the file that has its bytes now; NULL: nobody needs them
    moving INTEGER NOT NULL,      -- the heir's bytes are only in this record
    size INTEGER NOT NULL         -- stored bytes of what the heir is to be read from, as listed
) WITHOUT ROWID;
"""

ATTRIBUTES = """
CREATE TABLE attributes (         -- what was learned of a record, and what the API has no place for
    key TEXT NOT NULL,            -- a record's key, or a folder's prefix
    folder INTEGER NOT NULL,
    stored_size INTEGER NOT NULL, -- what is known holds while a listing shows this size; 0 for a folder, -1 for a
                                  -- file that no store has
    validator TEXT,
    length INTEGER,               -- bytes as a reader sees them; NULL: not known
    content_type TEXT,
    content_encoding TEXT,
    mtime_ns INTEGER,             -- this and what follows: NULL where nobody set it here
    mode INTEGER,                 -- permission bits
    uid INTEGER,
    gid INTEGER,
    PRIMARY KEY (key, folder)
) WITHOUT ROWID;
"""

SENT = """
-- Sizes of older versions of ours that may be what the store has, as JSON; null for one that was sent compressed.
ALTER TABLE uploads ADD COLUMN sent TEXT NOT NULL DEFAULT '[]'
"""

STORE = """
CREATE TABLE store (              -- one row: the store that all the others are about
    identity TEXT NOT NULL
)
"""

CHECKED = """
-- Bytes of the blob, -1 where an older version of kvsfs wrote the row; its CRC-32, once the blob was made durable.
ALTER TABLE uploads ADD COLUMN size INTEGER NOT NULL DEFAULT -1;
ALTER TABLE uploads ADD COLUMN checksum INTEGER
"""

MIGRATIONS = (JOURNAL + ATTRIBUTES, SENT, STORE, CHECKED)
"""Each takes a file from the version of its position to the next one. Only ever added to."""

SCHEMA_VERSION = len(MIGRATIONS)


class Database:
    """The open file. Whoever opens it holds the folder's lock: no other process uses it."""

    def __init__(self, path: str) -> None:
        """Open, make or migrate it. One that is damaged is set aside, and begun anew.

        Raises CommandError when a later version of kvsfs wrote it, sqlite3.Error when the disk does not let us.
        """
        self.path = path
        try:
            self.connection = _open(path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):  # a full disk, no permission: not damaged
                raise
            _set_aside(path, error)
            self.connection = _open(path)

    def belongs_to(self, identity: str) -> bool:
        """Tell whether the rows are about that store; those of a new file are from now on. Raises sqlite3.Error."""
        row = self.connection.execute("SELECT identity FROM store").fetchone()
        if row is None:
            self.connection.execute("INSERT INTO store VALUES (?)", (identity,))
        return row in {None, (identity,)}

    def make_durable(self) -> None:
        """Let all that was written so far outlast a power failure. Raises OSError.

        Blocks for as long as the disk takes: use a thread. A commit does not do it (synchronous=NORMAL), and none
        is held up by it: this is a descriptor of our own on the write-ahead log.
        """
        fd = os.open(self.path + "-wal", os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fdatasync(fd)  # what a checkpoint moved from here into the file, SQLite has synced itself
        finally:
            os.close(fd)

    def close(self) -> None:
        """Write the log back into the file, and close it."""
        self.connection.close()


class UnusedDatabase(Database):
    """The file of a folder that no daemon uses, as it lies there: to be read, and closed at once."""

    def __init__(self, path: str) -> None:
        """Open it. Raises sqlite3.OperationalError while a daemon has it, CommandError as `Database` does."""
        self.path = path
        # A reader in a log that a killed daemon left is as good as any: SQLite makes its index beside it.
        self.connection = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, timeout=0)
        try:
            version = _version(path, self.connection)
        except BaseException:
            self.connection.close()
            raise
        if version < SCHEMA_VERSION:
            self.connection.close()
            message = f"{path} was written by an earlier version of kvsfs: mount its store once"
            raise CommandError(ExitCode.CACHE_UNUSABLE, message)


def _open(path: str) -> sqlite3.Connection:
    # Before SQLite makes it as the umask says: the folder may be open to others. Its log gets the same mode.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute(
            "PRAGMA locking_mode = EXCLUSIVE"
        )  # no shared memory file: we hold the folder's lock
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        _check(connection)
        _migrate(path, connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection) -> None:
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)


def _version(path: str, connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        message = (
            f"{path} was written by a later version of kvsfs: upgrade kvsfs, or name another --cache-dir"
        )
        raise CommandError(ExitCode.CACHE_UNUSABLE, message)
    return int(version)


def _migrate(path: str, connection: sqlite3.Connection) -> None:
    version = _version(path, connection)
    for number, tables in enumerate(MIGRATIONS[version:], version + 1):
        connection.executescript(f"BEGIN; {tables}; PRAGMA user_version = {number}; COMMIT")


def _set_aside(path: str, error: sqlite3.DatabaseError) -> None:
    kept = f"{path}.damaged-{time.time_ns()}"
    for suffix in ("", "-wal"):
        with contextlib.suppress(FileNotFoundError):
            os.rename(path + suffix, kept + suffix)
    log.error("%s was damaged (%s): it is kept as %s, and begun anew", path, error, kept)
