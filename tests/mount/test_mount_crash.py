"""`kill -9` at random moments of a mixed load, of the daemon, of the server, and of both: nothing acknowledged is lost.

`KVSFS_CRASH_SEED` begins with another seed; the one of a round stands in its failure.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from kvsfs.core import names
from kvsfs.types import RecordKey
from tests.support.load import WORKER_SECONDS, History, State, working
from tests.support.mounting import Mounted, Sandbox, mounted_store
from tests.support.serving import Home, RunningServer
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse

SEED = int(os.environ.get("KVSFS_CRASH_SEED", "5"))
WORKERS = 4
ENOUGH = 60
"""Steps of a round before its kill, at most: some 0.3 s."""

AWAY_SECONDS = 0.6
"""How long a killed server is away, at most."""

TIMEOUT = "2s"
DRAIN_SECONDS = 60.0

LONG_ROUNDS = 34
"""In each of the six tests: some 200 kills."""

MODES = {"default": (), "write-back": ("--write-back", "0.2s")}


@dataclass
class Crashes:
    """One store, mounted again and again."""

    home: Home
    servers: contextlib.ExitStack
    sandbox: Sandbox
    token: str
    options: tuple[str, ...]
    chance: random.Random
    server: RunningServer | None = None
    store_id: str = ""
    history: History = field(default_factory=History)
    state: State = field(default_factory=dict)
    number: int = 0

    # --- a round ------------------------------------------------------------------------------------

    def round(self, whom: str) -> None:
        """Let the workers work, kill, and compare once all is uploaded."""
        self.number += 1
        with self.mounted() as mounted:
            logs = self.work(mounted, whom)
        for log in logs:
            self.history.read(log)
        self.compare(whom)

    def work(self, mounted: Mounted, whom: str) -> list[Path]:
        folder = self.sandbox.folder / f"load-{self.number}"
        folder.mkdir()
        logs = [folder / f"w{number}" for number in range(WORKERS)]
        with contextlib.ExitStack() as stack:
            seed = f"{SEED}.{self.number}"
            workers = [stack.enter_context(working(mounted.path, log, seed, self.state)) for log in logs]
            wait_for(lambda: all(log.exists() for log in logs), workers)
            enough = self.chance.randrange(ENOUGH)
            wait_for(lambda: sum(_lines(log) for log in logs) >= 2 * enough, workers)
            self.strike(mounted, whom)
        return logs

    def strike(self, mounted: Mounted, whom: str) -> None:
        pause(self.chance.random() * 0.02)
        if whom != "daemon":
            assert self.server is not None
            self.server.kill()
            pause(self.chance.random() * AWAY_SECONDS)
        if whom != "server":
            mounted.kill()
            mounted.detach_dead()
        if whom != "daemon":
            self.serve()
            pause(self.chance.random() * AWAY_SECONDS)

    # --- what is there ---------------------------------------------------------------------------------

    def compare(self, whom: str) -> None:
        """Mount again: the files show what may be there; and so does the store when the mount is gone."""
        if self.chance.random() < 0.3:  # once more, while it takes up what was left
            with self.mounted() as mounted:
                pause(self.chance.random() * 0.1)
                mounted.kill()
                mounted.detach_dead()
        with self.mounted() as mounted:
            shown = contents_of(mounted.path)
            faults = [f"in the mount: {fault}" for fault in self.history.faults(shown)]
            mounted.umount(within=DRAIN_SECONDS)
        with self.client() as client:
            store = StoreApi(client, self.store_id)
            records = {key: store.content(key) for key in store.sizes()}
        markers = {key for key in records if key.endswith("!2F")}
        stored = {path_of(key): content for key, content in records.items() if key not in markers}
        faults += [f"in the store: {fault}" for fault in self.history.faults(stored)]
        assert not faults, "\n".join([f"seed {SEED}, round {self.number} ({whom} killed):", *faults])
        self.state = self.history.settle(stored)

    # --- what it runs on -------------------------------------------------------------------------------

    def serve(self) -> None:
        self.server = self.servers.enter_context(self.home.serving())

    @contextlib.contextmanager
    def client(self) -> Iterator[httpx.Client]:
        assert self.server is not None
        headers = {"Authorization": f"Bearer {self.token}"}
        with httpx.Client(base_url=self.server.url, headers=headers, timeout=30) as client:
            yield client

    @contextlib.contextmanager
    def mounted(self) -> Iterator[Mounted]:
        options = ("--timeout", TIMEOUT, *self.options)
        with mounted_store(
            self.sandbox, self.store_id, *options, token=self.token, server=self.server
        ) as mounted:
            mounted.allow_log(r" (WARNING|ERROR) kvsfs\.")  # but no traceback
            yield mounted


def pause(seconds: float) -> None:
    """Not a wait for something: a random moment."""
    time.sleep(seconds)


def wait_for(condition: Callable[[], bool], workers: list[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + WORKER_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the workers do nothing"
        if any(worker.poll() is not None for worker in workers):
            return  # what it says is told at the end
        select.select([], [], [], 0.002)


def contents_of(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def path_of(key: str) -> str:
    return os.fsdecode(names.decode(RecordKey(key)))


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def crash(folder: Path, sandbox: Sandbox, token: str, mode: str, whom: str, rounds: int) -> None:
    with contextlib.ExitStack() as servers:
        home, chance = Home(folder / "server", token), random.Random(f"{SEED} {mode} {whom}")
        crashes = Crashes(home, servers, sandbox, token, MODES[mode], chance)
        crashes.serve()
        with crashes.client() as client:
            crashes.store_id = StoreApi.create(client).id
        for _ in range(rounds):
            crashes.round(whom)
        # A daemon that is alone in dying lets nothing fail before.
        assert whom != "daemon" or not crashes.history.failed


@pytest.mark.parametrize(("whom", "rounds"), [("daemon", 2), ("server", 1), ("both", 1)])
@pytest.mark.parametrize("mode", MODES)
def test_nothing_acknowledged_is_lost(
    tmp_path: Path, sandbox: Sandbox, token: str, mode: str, whom: str, rounds: int
) -> None:
    crash(tmp_path, sandbox, token, mode, whom, rounds)


@pytest.mark.long
@pytest.mark.parametrize("whom", ["daemon", "server", "both"])
@pytest.mark.parametrize("mode", MODES)
def test_nothing_acknowledged_is_lost_at_length(
    tmp_path: Path, sandbox: Sandbox, token: str, mode: str, whom: str
) -> None:
    crash(tmp_path, sandbox, token, mode, whom, LONG_ROUNDS)
