"""Servers to measure against, all on this machine and all equally far away, and the stores in them.

Those that speak Apify's API are `kvsfs serve --latency`; those that speak S3 are `_s3.py`, below the same
middleware: one delay for each request, one line in a log for each. `round_trip` tells what curl sees of it.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import statistics
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import _servers
import httpx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from _servers import Running

Kind = Literal["apify", "s3"]

TOKEN = "bench"
FILL_IN_FLIGHT = 16
ROUND_TRIPS = 20
LIST = "LIST"


@dataclass(frozen=True)
class Server:
    kind: Kind
    running: Running
    log: Path
    latency: float
    """Seconds."""
    folder: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.running.port}"

    def log_size(self) -> int:
        return self.log.stat().st_size

    def requests_since(self, place: int, *, well: bool = False) -> Counter[str]:
        """Requests by method, maybe only those that were answered well; those for pages of keys are LIST."""
        with self.log.open() as lines:
            lines.seek(place)
            found = [json.loads(line) for line in lines if line.endswith("\n")]
        return Counter(_named(one) for one in found if not well or 200 <= (one["status"] or 0) < 300)


def _named(request: dict[str, str]) -> str:
    path = request["path"].partition("?")[0]
    is_list = path.endswith("/keys") or path.strip("/").count("/") == 0
    return LIST if request["method"] == "GET" and is_list else request["method"]


@dataclass(frozen=True)
class Store:
    server: Server
    name: str
    """Its ID, or the bucket."""

    token: str = TOKEN

    @property
    def url(self) -> str:
        return self.server.url

    def record_url(self, key: str) -> str:
        if self.server.kind == "s3":
            return f"{self.url}/{self.name}/{key}"
        return f"{self.url}/v2/key-value-stores/{self.name}/records/{key}"

    def fill(self, folder: Path) -> None:
        """Put all files of a folder."""
        headers = {**authorization(), "Content-Type": "application/json"}
        with (
            httpx.Client(headers=headers, timeout=60) as client,
            ThreadPoolExecutor(FILL_IN_FLIGHT) as threads,
        ):

            def put(path: Path) -> None:
                client.put(self.record_url(path.name), content=path.read_bytes()).raise_for_status()

            list(threads.map(put, folder.iterdir()))

    def index(self, keys: Iterable[str]) -> None:
        """Write keys into the index, past the server: 100,000 PUTs take minutes. No record is behind them."""
        fill_index(self.server.folder, self.name, keys)

    def round_trip(self, key: str) -> float:
        """Seconds that curl takes for a GET of a record, again and again on one connection."""
        url = self.record_url(key)
        command = [
            "curl",
            "-sf",
            "-w",
            "%{stderr}%{time_total}\n",
            "-H",
            f"Authorization: Bearer {self.token}",
        ]
        ended = subprocess.run([*command, *[url] * ROUND_TRIPS], capture_output=True, text=True, check=True)
        return statistics.median(map(float, ended.stderr.split()))


def authorization() -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKEN}"}


def fill_index(folder: Path, store_id: str, keys: Iterable[str]) -> None:
    """Write records of 4 KiB into the index of `kvsfs serve --data folder`, without their bytes."""
    with contextlib.closing(sqlite3.connect(folder / "index.sqlite3")) as connection, connection:
        connection.executemany(
            "INSERT INTO records (store_id, key, size, content_type, content_encoding, etag, modified_at, file)"
            " VALUES (?, ?, 4096, 'application/octet-stream', NULL, ?, 0, ?)",
            ((store_id, key, f"{n:032x}", f"={store_id}{n:032x}") for n, key in enumerate(keys)),
        )


class Servers(contextlib.ExitStack):
    """Starts servers when they are first asked for, and stops them all at the end."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._servers: dict[tuple[Kind, float], Server] = {}
        self._stores: dict[tuple[Kind, float, str], Store] = {}
        self._made = 0

    def server(self, kind: Kind, latency: float) -> Server:
        found = self._servers.get((kind, latency))
        if found is None:
            folder = self._folder / f"{kind}-{latency * 1000:.0f}ms"
            folder.mkdir(parents=True, exist_ok=True)
            log = folder / "requests"
            log.touch()
            found = Server(kind, self._start(kind, latency, folder, log), log, latency, folder)
            self._servers[kind, latency] = found
        return found

    def _start(self, kind: Kind, latency: float, folder: Path, log: Path) -> Running:
        if kind == "s3":
            return self.enter_context(
                _servers.script("_s3.py", "--latency", str(latency), "--request-log", str(log))
            )
        options = [
            "--latency",
            f"{latency * 1000:.0f}ms",
            "--request-log",
            str(log),
            "--token",
            f"{TOKEN}=me",
        ]
        return self.enter_context(_servers.kvsfs_serve(folder, *options))

    def new_store(self, kind: Kind, latency: float) -> Store:
        server = self.server(kind, latency)
        self._made += 1
        if kind == "s3":
            return Store(server, f"bucket-{self._made}")
        answer = httpx.post(f"{server.url}/v2/key-value-stores", headers=authorization()).raise_for_status()
        return Store(server, answer.json()["data"]["id"])

    def filled_store(self, kind: Kind, latency: float, name: str, fill: Callable[[Store], None]) -> Store:
        """Give the store that was filled under this name before, or fill one."""
        place = (kind, latency, name)
        if place not in self._stores:
            store = self.new_store(kind, latency)
            fill(store)
            self._stores[place] = store
        return self._stores[place]


def forget(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
