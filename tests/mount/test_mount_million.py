"""A store of a million keys, for real: what it costs in memory and requests."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.mount.conftest import TOKEN
from tests.support.mounting import Sandbox, mounted_store
from tests.support.serving import running_server
from tests.support.store_api import StoreApi

pytestmark = [pytest.mark.fuse, pytest.mark.long]

COUNT = 1_000_000
MOST_BYTES = 600 * 1024 * 1024
LONGEST_UMOUNT = 300


def fill_index(data: Path, store_id: str, count: int) -> None:
    """Write keys into a server's index, past it: a million PUTs take an hour. No record is behind them."""
    with contextlib.closing(sqlite3.connect(data / "index.sqlite3")) as connection, connection:
        connection.executemany(
            "INSERT INTO records (store_id, key, size, content_type, content_encoding, etag, modified_at, file)"
            " VALUES (?, ?, 4096, 'application/octet-stream', NULL, ?, 0, ?)",
            ((store_id, f"page-{n:09}.html", f"{n:032x}", f"={store_id}{n:032x}") for n in range(count)),
        )


def test_a_million_keys(sandbox: Sandbox, tmp_path: Path) -> None:
    data, log = tmp_path / "data", tmp_path / "log"
    with ExitStack() as stack:
        server = stack.enter_context(running_server(data, tokens=[f"{TOKEN}=joe"], request_log=log))
        headers = {"Authorization": f"Bearer {TOKEN}"}
        store = StoreApi.create(stack.enter_context(httpx.Client(base_url=server.url, headers=headers)))
        fill_index(data, store.id, COUNT)
        mounted = stack.enter_context(
            mounted_store(sandbox, store.id, token=TOKEN, server=server, within=1200)
        )
        with mounted.counting() as asked:
            assert (mounted.path / "page-000999999.html").stat().st_size == 4096
            assert not (mounted.path / "absent").exists()
        assert len(asked) <= 4
        with mounted.counting() as asked:
            assert sum(1 for _ in os.scandir(mounted.path)) == COUNT
        assert len(asked) <= 1.2 * COUNT / 1000
        with mounted.counting() as asked:
            assert (mounted.path / "page-000500000.html").stat().st_size == 4096
            assert not (mounted.path / "page-001000000.html").exists()
            (mounted.path / "new").write_bytes(b"content")
        assert asked == ["PUT new"]
        assert mounted.peak_rss() <= MOST_BYTES
        assert store.content("new") == b"content"
        # The kernel drops a million inodes first: longer than other tests wait.
        subprocess.run(["fusermount3", "-u", "--", str(mounted.path)], check=True, timeout=LONGEST_UMOUNT)
        mounted.wait_for_exit(within=LONGEST_UMOUNT)
