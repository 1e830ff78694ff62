"""The SQLite file: how it is opened, and one thread that writes to it.

Commits that wait at the same time share one transaction and so one fsync: that is what bounds the rate of
small PUTs. `synchronous=FULL` makes every one of them durable before it is acknowledged.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from kvsfs.errors import CommandError, ExitCode

Result = TypeVar("Result")

BUSY_TIMEOUT_MS = 10_000
"""How long a writer waits for another process on the same folder. Its transactions take milliseconds, but
one fsync of a disk under load has been seen to take seconds."""

BATCH_LIMIT = 128
"""Jobs in one transaction: above any number of requests that wait at once (local.THREADS)."""

STORES_AND_RECORDS = """
CREATE TABLE stores (
    id TEXT PRIMARY KEY,
    username TEXT NOT NULL,
    name TEXT,                    -- NULL: unnamed
    title TEXT,
    general_access TEXT NOT NULL,
    signing_key TEXT NOT NULL,
    schema TEXT,                  -- JSON
    created_at INTEGER NOT NULL,  -- this and every other time: milliseconds since 1970, UTC
    modified_at INTEGER NOT NULL,
    accessed_at INTEGER NOT NULL,
    read_count INTEGER NOT NULL DEFAULT 0,
    write_count INTEGER NOT NULL DEFAULT 0,
    delete_count INTEGER NOT NULL DEFAULT 0,
    list_count INTEGER NOT NULL DEFAULT 0,
    storage_bytes INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE UNIQUE INDEX stores_by_name ON stores (username, name) WHERE name IS NOT NULL;
CREATE INDEX stores_by_age ON stores (username, created_at, id);

-- BINARY, the default collation, compares UTF-8 bytes: the order in which the API lists keys.
CREATE TABLE records (
    store_id TEXT NOT NULL,
    key TEXT NOT NULL,
    size INTEGER NOT NULL,        -- stored bytes
    content_type TEXT NOT NULL,
    content_encoding TEXT,        -- NULL: identity
    etag TEXT NOT NULL,
    modified_at INTEGER NOT NULL,
    file TEXT NOT NULL,           -- name of the value's file: one per version, never used twice
    PRIMARY KEY (store_id, key)
) WITHOUT ROWID;
CREATE UNIQUE INDEX records_by_file ON records (file);
"""

RUNS = """
ALTER TABLE stores ADD actor_id TEXT;  -- of the run whose default store this is; NULL: of none
ALTER TABLE stores ADD run_id TEXT;

CREATE TABLE runs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,  -- tells the last one, also within a millisecond
    id TEXT NOT NULL UNIQUE,
    username TEXT NOT NULL,
    actor_id TEXT NOT NULL,
    task_id TEXT,                              -- NULL: started without a task
    status TEXT NOT NULL,
    origin TEXT NOT NULL,
    store_id TEXT NOT NULL,
    started_at INTEGER NOT NULL
);
CREATE INDEX runs_by_actor ON runs (actor_id, number);
CREATE INDEX runs_by_task ON runs (task_id, number) WHERE task_id IS NOT NULL;
"""

SMALL_VALUES = """
CREATE TABLE small_values (
    name TEXT PRIMARY KEY,  -- as in records.file: begins with "="
    content BLOB NOT NULL
);
"""

MIGRATIONS = (STORES_AND_RECORDS, RUNS, SMALL_VALUES)
"""Each takes a file from the version of its position to the next one. Only ever added to."""

SCHEMA_VERSION = len(MIGRATIONS)


def connect(path: str) -> sqlite3.Connection:
    """Open a connection in autocommit mode. Used by one thread at a time, not always by the same one."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def prepare(path: str) -> None:
    """Make the tables that are not there. Two processes may start at the same time.

    Raises CommandError when the file was written by a later version.
    """
    with _exclusive(path + ".lock"), contextlib.closing(connect(path)) as connection:
        # Changing the journal mode does not honour busy_timeout: hence the lock.
        connection.execute("PRAGMA journal_mode = WAL")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise CommandError(
                ExitCode.CACHE_UNUSABLE, f"{path} was written by a later version of kvsfs: upgrade kvsfs"
            )
        for number, tables in enumerate(MIGRATIONS[version:], version + 1):
            connection.executescript(f"BEGIN; {tables} PRAGMA user_version = {number}; COMMIT;")


@contextlib.contextmanager
def _exclusive(path: str) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@dataclass(slots=True)
class _Job:
    work: Callable[[sqlite3.Connection], Any]
    future: Future[Any]


class Writer:
    """The thread that owns the writing connection."""

    def __init__(self, path: str) -> None:
        self._connection = connect(path)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name="index writer", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[sqlite3.Connection], Result]) -> Future[Result]:
        """Queue `work` for the next transaction. Its future is done when the transaction is durable.

        An exception of `work` undoes what it wrote, and nothing of the others.
        """
        future: Future[Result] = Future()
        self._jobs.put(_Job(work, future))
        return future

    def close(self) -> None:
        """Run what is queued, then end. Nothing may be submitted afterwards."""
        self._jobs.put(None)
        self._thread.join()
        self._connection.close()

    def _loop(self) -> None:
        while True:
            batch, last = self._take()
            # A caller that was cancelled gives up a job that has not begun; one that has cannot be cancelled.
            batch = [job for job in batch if job.future.set_running_or_notify_cancel()]
            if batch:
                self._run(batch)
            if last:
                return

    def _take(self) -> tuple[list[_Job], bool]:
        """Wait for a job and take all that are queued with it; whether `close` was among them."""
        batch: list[_Job] = []
        job = self._jobs.get()
        while job is not None:
            batch.append(job)
            if len(batch) == BATCH_LIMIT or self._jobs.empty():
                return batch, False
            job = self._jobs.get()
        return batch, True

    def _run(self, batch: list[_Job]) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            outcomes = [self._attempt(job.work) for job in batch]
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            for job in batch:
                job.future.set_exception(error)
            return
        for job, (result, failure) in zip(batch, outcomes, strict=True):
            if failure is None:
                job.future.set_result(result)
            else:
                job.future.set_exception(failure)

    def _attempt(self, work: Callable[[sqlite3.Connection], Any]) -> tuple[Any, Exception | None]:
        self._connection.execute("SAVEPOINT job")
        try:
            result = work(self._connection)
        except Exception as failure:  # noqa: BLE001 - it belongs to the job's owner, who gets it
            self._connection.execute("ROLLBACK TO job")
            self._connection.execute("RELEASE job")
            return None, failure
        self._connection.execute("RELEASE job")
        return result, None
