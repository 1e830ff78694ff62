"""Value files and the index below the handlers: garbage, locks, shared commits, refused sizes."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from pathlib import Path

import pytest

from kvsfs.errors import CommandError, ExitCode
from kvsfs.server.database import STORES_AND_RECORDS, Writer, prepare
from kvsfs.server.local import LocalStorage, open_storage
from kvsfs.server.storage import StoreGone
from kvsfs.server.values import SMALL_BYTES, Values

LARGE = bytes(SMALL_BYTES + 1)
"""A value that has a file of its own."""


async def pieces(*content: bytes) -> AsyncIterator[bytes]:
    for piece in content:
        yield piece


async def put(storage: LocalStorage, store_id: str, key: str, *content: bytes) -> None:
    await storage.put_record(store_id, key, pieces(*content), content_type="a/b", content_encoding=None)


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def none_known(names: Sequence[str]) -> Sequence[str]:
    return names


def test_the_collector_takes_what_nobody_holds(tmp_path: Path) -> None:
    values = Values(str(tmp_path))
    crashed_early, crashed_late, known, writing, publishing = (values.receive("") for _ in range(5))
    for upload in (crashed_early, crashed_late, known, writing, publishing):
        upload.append([b"x"])
    for upload in (crashed_late, known, publishing):
        upload.publish()
    for upload in (crashed_early, crashed_late, known):
        upload.close()  # what the kernel does when a process dies

    removed = values.collect(lambda names: [name for name in names if name != known.name])

    assert removed == 2
    assert files_in(tmp_path) == {known.name, writing.name, publishing.name}
    writing.discard()
    publishing.close()
    assert values.collect(none_known) == 2
    assert files_in(tmp_path) == set()


def test_a_discarded_upload_leaves_nothing_and_a_published_one_stays(tmp_path: Path) -> None:
    values = Values(str(tmp_path))
    discarded, published = values.receive(""), values.receive("")
    for upload in (discarded, published):
        upload.append([b"x"])
    published.publish()
    for upload in (discarded, published, discarded):
        upload.discard()
    assert files_in(tmp_path) == {published.name}


def test_a_start_collects_what_a_crash_left(tmp_path: Path) -> None:
    async def first_life() -> None:
        storage = open_storage(str(tmp_path))
        store, _ = await storage.get_or_create_store("joe", None, None)
        await put(storage, store.id, "a", LARGE)
        # A store whose records a crash did not let go, and a file without a row.
        doomed, _ = await storage.get_or_create_store("joe", None, None)
        await put(storage, doomed.id, "b", LARGE)
        await put(storage, doomed.id, "c", b"small")
        storage._index.delete_store(doomed.id).result()
        orphan = storage._values.receive("")
        orphan.append([b"orphan"])
        orphan.publish()
        orphan.close()
        await storage.close()

    async def second_life() -> None:
        storage = open_storage(str(tmp_path))
        storage.collect_garbage()
        await storage.close()

    asyncio.run(first_life())
    assert len(files_in(tmp_path / "values")) == 3
    asyncio.run(second_life())
    assert len(files_in(tmp_path / "values")) == 1
    with sqlite3.connect(tmp_path / "index.sqlite3") as connection:
        assert connection.execute("SELECT key FROM records").fetchall() == [("a",)]
        assert connection.execute("SELECT count(*) FROM small_values").fetchone() == (0,)
    connection.close()


def test_an_open_record_stays_readable_when_it_is_replaced(tmp_path: Path) -> None:
    async def scenario() -> tuple[bytes, bytes]:
        storage = open_storage(str(tmp_path))
        store, _ = await storage.get_or_create_store("joe", None, None)
        await put(storage, store.id, "a", b"old" * 100_000)
        reader = await storage.open_record(store.id, "a")
        assert reader is not None
        await put(storage, store.id, "a", b"new")
        old = b"".join([piece async for piece in reader.chunks(0, reader.entry.size)])
        reader.close()
        newer = await storage.open_record(store.id, "a")
        assert newer is not None
        new = newer.read_at_once()
        newer.close()
        await storage.close()
        assert new is not None
        return old, new

    assert asyncio.run(scenario()) == (b"old" * 100_000, b"new")


def test_a_store_deleted_under_an_upload_keeps_no_file(tmp_path: Path) -> None:
    async def scenario() -> None:
        storage = open_storage(str(tmp_path))
        store, _ = await storage.get_or_create_store("joe", None, None)

        async def body() -> AsyncIterator[bytes]:
            yield b"x"
            await storage.delete_store(store.id)

        with pytest.raises(StoreGone):
            await storage.put_record(store.id, "a", body(), content_type="a/b", content_encoding=None)
        await storage.close()

    asyncio.run(scenario())
    assert files_in(tmp_path / "values") == set()


def test_stores_made_at_once_are_listed_as_they_were_made(tmp_path: Path) -> None:
    async def scenario() -> None:
        storage = open_storage(str(tmp_path))
        made = [
            storage._index.get_or_create_store("joe", f"name-{number}", None).result()[0].id
            for number in range(50)
        ]
        listed, _ = await storage.list_stores("joe", offset=0, limit=100, desc=False, unnamed=False)
        assert [store.id for store in listed] == made
        await storage.close()

    asyncio.run(scenario())


def test_a_cancelled_upload_keeps_no_file(tmp_path: Path) -> None:
    async def scenario() -> None:
        storage = open_storage(str(tmp_path))
        store, _ = await storage.get_or_create_store("joe", None, None)
        stalled = asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            yield bytes(3 * 1024 * 1024)
            stalled.set()
            await asyncio.Event().wait()

        upload = asyncio.create_task(
            storage.put_record(store.id, "a", body(), content_type="a/b", content_encoding=None)
        )
        await stalled.wait()
        assert len(files_in(tmp_path / "values")) == 1
        upload.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upload
        await storage.close()

    asyncio.run(scenario())
    assert files_in(tmp_path / "values") == set()


def test_one_failing_write_does_not_undo_its_neighbours(tmp_path: Path) -> None:
    path = str(tmp_path / "index")
    prepare(path)
    writer = Writer(path)
    gate = threading.Event()

    def insert(value: str) -> None:
        def work(connection: sqlite3.Connection) -> object:
            connection.execute("INSERT INTO numbers VALUES (?)", (value,))
            if value == "bad":
                raise ValueError(value)
            return None

        futures.append(writer.submit(work))

    futures: list[Future[object]] = [writer.submit(lambda on: on.execute("CREATE TABLE numbers (n)"))]
    writer.submit(lambda _: gate.wait(10))  # so that the next three wait together
    for value in ("one", "bad", "two"):
        insert(value)
    gate.set()
    writer.close()
    failures = [future.exception() for future in futures]
    assert [type(failure) for failure in failures] == [type(None), type(None), ValueError, type(None)]
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT n FROM numbers").fetchall() == [("one",), ("two",)]
    connection.close()


def test_a_write_that_was_given_up_before_it_began_is_not_done(tmp_path: Path) -> None:
    path = str(tmp_path / "index")
    prepare(path)
    writer = Writer(path)
    gate, waiting = threading.Event(), threading.Event()
    writer.submit(lambda on: on.execute("CREATE TABLE numbers (n)")).result()

    def wait(_: sqlite3.Connection) -> None:
        waiting.set()
        gate.wait(10)

    writer.submit(wait)
    assert waiting.wait(10)
    given_up = writer.submit(lambda on: on.execute("INSERT INTO numbers VALUES (1)"))
    assert given_up.cancel()
    kept = writer.submit(lambda on: on.execute("INSERT INTO numbers VALUES (2)"))
    gate.set()
    kept.result(10)
    writer.close()
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT n FROM numbers").fetchall() == [(2,)]
    connection.close()


def test_a_folder_of_the_first_version_is_taken_along(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "index.sqlite3")
    connection.executescript(f"{STORES_AND_RECORDS} PRAGMA user_version = 1;")
    connection.execute(
        "INSERT INTO stores (id, username, general_access, signing_key, created_at, modified_at, accessed_at)"
        " VALUES ('old', 'joe', 'RESTRICTED', 'key', 1, 2, 3)"
    )
    connection.execute("INSERT INTO records VALUES ('old', 'a', 3, 'a/b', NULL, 'etag', 5, 'abcd')")
    connection.commit()
    connection.close()
    (tmp_path / "values" / "ab").mkdir(parents=True)
    (tmp_path / "values" / "ab" / "abcd").write_bytes(b"old")

    async def scenario() -> None:
        storage = open_storage(str(tmp_path))
        store = await storage.get_store("old")
        assert store is not None
        assert (store.username, store.run_id) == ("joe", None)
        reader = await storage.open_record("old", "a")
        assert reader is not None
        assert reader.read_at_once() == b"old"
        reader.close()
        await put(storage, "old", "a", b"new")
        await storage.close()

    asyncio.run(scenario())
    assert files_in(tmp_path / "values") == set()


def test_a_folder_of_a_later_version_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "index.sqlite3")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(CommandError, match="later version") as refused:
        open_storage(str(tmp_path))
    assert refused.value.exit_code == ExitCode.CACHE_UNUSABLE
