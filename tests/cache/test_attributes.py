"""Rows of attributes: what is read is what was written last, and a database that fails is no error of anybody."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvsfs.cache.attributes import HELD_ROWS, READ_CHUNK, WRITE_ROWS, AttributeRows, Attributes, Place
from kvsfs.cache.database import Database

FULL_ROW = Attributes(
    stored_size=10,
    validator='"v1"',
    length=100,
    content_type="text/plain",
    content_encoding="gzip",
    mtime_ns=1_234_567_890_123_456_789,
    mode=0o4751,
    uid=2**32 - 2,
    gid=0,
)


@contextmanager
def opened(folder: Path) -> Iterator[tuple[AttributeRows, Database]]:
    database = Database(str(folder / "journal.db"))
    rows = AttributeRows(database)
    yield rows, database
    rows.flush()
    database.close()


def count(database: Database) -> int:
    (found,) = database.connection.execute("SELECT count(*) FROM attributes").fetchone()
    assert isinstance(found, int)
    return found


def test_a_row_comes_back_whole(tmp_path: Path) -> None:
    record, folder = Place("a!2F", folder=False), Place("a!2F", folder=True)
    with opened(tmp_path) as (rows, _):
        rows.put(record, FULL_ROW)
        rows.put(folder, Attributes(0))
        before = rows.read(["a!2F", "b"])
    with opened(tmp_path) as (rows, _):
        assert before == rows.read(["a!2F"]) == {record: FULL_ROW, folder: Attributes(0)}


def test_writes_wait_for_each_other_and_not_for_ever(tmp_path: Path) -> None:
    with opened(tmp_path) as (rows, database):
        for number in range(WRITE_ROWS - 1):
            rows.put(Place(f"k{number}", folder=False), FULL_ROW)
        assert (count(database), rows.waiting) == (0, WRITE_ROWS - 1)
        rows.put(Place("last", folder=False), FULL_ROW)
        assert (count(database), rows.waiting) == (WRITE_ROWS, 0)


def test_more_places_than_one_select_takes(tmp_path: Path) -> None:
    places = [Place(f"k{number}", folder=False) for number in range(2 * READ_CHUNK + 1)]
    with opened(tmp_path) as (rows, _):
        for place in places:
            rows.put(place, FULL_ROW)
        assert rows.read([place.key for place in places]) == dict.fromkeys(places, FULL_ROW)


keys = st.sampled_from(("a", "a!2F", "a!2Fb", "a!2Fb!2Fc", "a!20", "a.", "ab", "b!2F", "b!2Fb", "z"))
places = st.builds(Place, keys, folder=st.booleans())
prefixes = st.sampled_from(("a!2F", "b!2F", "a!2Fb!2F"))
steps = st.one_of(
    st.tuples(st.just("put"), places, st.integers(0, 3)),
    st.tuples(st.just("put"), places, st.integers(0, 3)),
    st.tuples(st.just("forget"), places),
    st.tuples(st.just("move_below"), prefixes, prefixes),
    st.tuples(st.just("forget_below"), prefixes),
    st.tuples(st.just("flush")),
    st.tuples(st.just("reopen")),
)


class Model:
    """A dict that does the same."""

    def __init__(self) -> None:
        self.rows: dict[Place, Attributes] = {}

    def put(self, place: Place, row: Attributes) -> None:
        self.rows[place] = row

    def forget(self, place: Place) -> None:
        self.rows.pop(place, None)

    def forget_below(self, prefix: str) -> None:
        self.rows = {p: row for p, row in self.rows.items() if not p.key.startswith(prefix)}

    def move_below(self, prefix: str, to: str) -> None:
        moved = {p: row for p, row in self.rows.items() if p.key.startswith(prefix)}
        self.forget_below(prefix)
        self.forget_below(to)
        self.rows |= {Place(to + p.key[len(prefix) :], p.folder): row for p, row in moved.items()}


@settings(max_examples=200, deadline=None, derandomize=True)
@given(script=st.lists(steps, max_size=25))
def test_it_does_what_a_dict_does(script: list[tuple[Any, ...]]) -> None:
    model, seen = Model(), set[Place]()
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"{folder}/journal.db")
        rows = AttributeRows(database)
        for name, *arguments in script:
            if name == "put":
                arguments[1] = Attributes(arguments[1])
            if name == "move_below" and (
                arguments[0].startswith(arguments[1]) or arguments[1].startswith(arguments[0])
            ):
                continue  # rename(2): EINVAL, or nothing to do
            if name == "reopen":
                rows.flush()
                database.close()
                database = Database(f"{folder}/journal.db")
                rows = AttributeRows(database)
            else:
                getattr(rows, name)(*arguments)
                getattr(model, name, lambda: None)(*arguments)
            seen |= model.rows.keys()
            assert rows.read([place.key for place in seen]) == model.rows
        rows.flush()
        assert count(database) == len(model.rows)
        database.close()


# --- a database that fails ----------------------------------------------------------------------------


def test_a_full_disk_is_logged_once_and_what_waits_is_written_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = Place("k", folder=False)
    with opened(tmp_path) as (rows, database):
        (pages,) = database.connection.execute("PRAGMA page_count").fetchone()
        database.connection.execute(f"PRAGMA max_page_count = {pages}")
        for number in range(WRITE_ROWS):
            rows.put(Place(f"k{number}", folder=False), FULL_ROW)
        rows.put(place, FULL_ROW)
        rows.flush()
        assert len(caplog.records) == 1
        assert "not kept over a remount: database or disk is full" in caplog.text
        assert rows.read([place.key]) == {place: FULL_ROW}
        assert count(database) == 0
        database.connection.execute("PRAGMA max_page_count = 1000000")
        rows.flush()
        assert count(database) == WRITE_ROWS + 1
        assert rows.waiting == 0


def test_what_waits_for_a_database_that_never_takes_it_is_given_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database(str(tmp_path / "journal.db"))
    rows = AttributeRows(database)
    database.close()
    for number in range(HELD_ROWS + WRITE_ROWS):
        rows.put(Place(f"k{number}", folder=False), FULL_ROW)
    assert rows.waiting <= HELD_ROWS
    assert len(caplog.records) == 1


def test_a_database_that_is_damaged_while_it_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = Place("new", folder=False)
    with opened(tmp_path) as (rows, database):
        for number in range(3 * WRITE_ROWS):
            rows.put(Place(f"k{number}", folder=False), FULL_ROW)
    database = Database(str(tmp_path / "journal.db"))
    damaged = (tmp_path / "journal.db").read_bytes()
    (tmp_path / "journal.db").write_bytes(damaged[:4096] + b"\xa5" * (len(damaged) - 4096))
    database.connection.execute("PRAGMA shrink_memory")
    rows = AttributeRows(database)
    with pytest.raises(sqlite3.DatabaseError, match="malformed"):
        database.connection.execute("SELECT * FROM attributes WHERE key = 'k0'").fetchall()
    assert rows.read(["k0"]) == {}
    rows.put(place, FULL_ROW)
    rows.flush()
    rows.move_below("a!2F", "b!2F")
    assert rows.read([place.key]) == {place: FULL_ROW}
    assert len(caplog.records) == 1
    database.close()


def test_values_that_no_row_can_hold_fail_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with opened(tmp_path) as (rows, database):
        rows.put(Place("k", folder=False), Attributes(2**63))
        rows.flush()
        assert "not kept" in caplog.text
        rows.put(Place("k", folder=False), FULL_ROW)
        rows.flush()
        assert count(database) == 1
