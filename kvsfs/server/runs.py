"""The runs in SQLite. An Actor or a task is known by an ID only: nothing is run here."""

from __future__ import annotations

import sqlite3
from typing import Any

from kvsfs.server.moments import from_ms, to_ms
from kvsfs.server.storage import Run, RunFilter

COLUMNS = "id, username, actor_id, task_id, status, origin, store_id, started_at"


def insert(connection: sqlite3.Connection, run: Run) -> None:
    """Enter a run: the last one from now on."""
    connection.execute(
        f"INSERT INTO runs ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - a constant
        (
            run.id,
            run.username,
            run.actor_id,
            run.task_id,
            run.status,
            run.origin,
            run.store_id,
            to_ms(run.started_at),
        ),
    )


def by_id(connection: sqlite3.Connection, run_id: str) -> Run | None:
    """Give a run by its ID."""
    row = connection.execute(f"SELECT {COLUMNS} FROM runs WHERE id = ?", (run_id,)).fetchone()  # noqa: S608
    return None if row is None else _run(row)


def everything(connection: sqlite3.Connection) -> list[Run]:
    """Give all runs, the oldest first."""
    return [_run(row) for row in connection.execute(f"SELECT {COLUMNS} FROM runs ORDER BY number")]  # noqa: S608


def last(connection: sqlite3.Connection, wanted: RunFilter) -> Run | None:
    """Give the last of the runs wanted: a walk back along the Actor's or the task's."""
    conditions = {
        "actor_id": wanted.actor_id,
        "task_id": wanted.task_id,
        "username": wanted.username,
        "status": wanted.status,
        "origin": wanted.origin,
    }
    given = {column: value for column, value in conditions.items() if value is not None}
    where = " AND ".join(f"{column} = ?" for column in given)
    row = connection.execute(
        f"SELECT {COLUMNS} FROM runs WHERE {where} ORDER BY number DESC LIMIT 1",  # noqa: S608 - our columns
        tuple(given.values()),
    ).fetchone()
    return None if row is None else _run(row)


def _run(row: tuple[Any, ...]) -> Run:
    run_id, username, actor_id, task_id, status, origin, store_id, started_at = row
    return Run(run_id, username, actor_id, task_id, status, origin, store_id, from_ms(started_at))
