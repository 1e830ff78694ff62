"""The journal's file: made, migrated, and never trusted when it is damaged."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from kvsfs.cache.database import MIGRATIONS, SCHEMA_VERSION, Database
from kvsfs.cache.folder import CacheFolder
from kvsfs.errors import CommandError, ExitCode


def test_what_was_written_is_there_again(tmp_path: Path) -> None:
    path = str(tmp_path / "journal.db")
    database = Database(path)
    database.connection.execute("INSERT INTO ghosts VALUES ('k', NULL, 0, NULL, NULL, 0, 0)")
    database.make_durable()
    database.close()
    database = Database(path)
    assert database.connection.execute("SELECT key FROM ghosts").fetchall() == [("k",)]
    assert database.connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    database.close()


def test_nobody_else_can_read_the_journal(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    cache = CacheFolder(str(tmp_path), "store")
    files = [path for path in tmp_path.iterdir() if path.is_file()]
    assert {path.name for path in files} >= {"journal.db", "journal.db-wal", "lock"}
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    cache.close()


def test_a_file_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "journal.db")
    database = Database(path)
    database.connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    database.close()
    before = Path(path).read_bytes()
    with pytest.raises(CommandError, match="later version") as refused:
        Database(path)
    assert refused.value.exit_code == ExitCode.CACHE_UNUSABLE
    assert Path(path).read_bytes() == before


def test_a_damaged_file_is_kept_and_begun_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(b"no database" * 1000)
    with caplog.at_level(logging.ERROR):
        database = Database(str(path))
    assert database.connection.execute("SELECT count(*) FROM uploads").fetchone() == (0,)
    (kept,) = tmp_path.glob("journal.db.damaged-*")
    assert kept.read_bytes() == b"no database" * 1000
    assert "was damaged" in caplog.text
    database.close()


def test_rows_are_one_stores_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "cache")
    CacheFolder(path, "one").close()
    with pytest.raises(CommandError, match="another store") as refused:
        CacheFolder(path, "two")
    assert refused.value.exit_code == ExitCode.CACHE_UNUSABLE
    CacheFolder(path, "one").close()  # nothing of it is locked, or open


def test_a_file_of_an_earlier_version_becomes_that_of_the_store_it_was_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "journal.db")
    with monkeypatch.context() as earlier:
        earlier.setattr("kvsfs.cache.database.MIGRATIONS", MIGRATIONS[:2])
        earlier.setattr("kvsfs.cache.database.SCHEMA_VERSION", 2)
        Database(path).close()
    database = Database(path)
    assert database.belongs_to("one")
    assert not database.belongs_to("two")
    database.close()
