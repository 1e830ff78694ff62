"""The fault matrix with `--write-back`: closes return 0, what strikes an upload heals or is told, nothing is lost.

All files are struck at once, each by a fault of its own. Then the faults are lifted and the mount ends; what does not
heal by itself is there at the next one, and goes when it is asked for.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from kvsfs.errors import ExitCode
from tests.mount.test_mount_fault_matrix import IN_TIME, TIMEOUT, TOKEN, Fault, Request, column, rule
from tests.support.mounting import Mounted, Sandbox, mounted_store, wait_until
from tests.support.serving import running_server
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse

OLD, NEW = os.urandom(200_000), os.urandom(200_000)

STRUCK_SECONDS = 60.0
"""Until each fault has struck: a stall takes `TIMEOUT`, and while the breaker is open nobody asks."""

DRAIN_SECONDS = 60.0

DELAY = 1
"""Seconds: all files are written, and some renamed, before the first upload."""

FINAL = {"413", "404"}
"""What waiting does not heal: the bytes are refused, or there is no such store."""


def _record(name: str) -> str:
    return f"*/records/{name}"


def _nothing(*_: object) -> None:
    pass


@dataclass
class Outcome:
    """What came of one kind of request under each fault."""

    closed: dict[str, float] = field(default_factory=dict)
    """Seconds that the system call took."""
    struck: dict[str, int] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    """user.kvsfs.state under the fault."""
    drained: dict[str, bytes] = field(default_factory=dict)
    """Records after the first mount."""
    resumed: dict[str, str] = field(default_factory=dict)
    """States at the next mount, where they are not clean."""
    shown: dict[str, bytes] = field(default_factory=dict)
    asked: dict[str, bytes] = field(default_factory=dict)
    """Records after the next mount, where what failed was synced."""


def write(path: Path) -> None:
    path.write_bytes(NEW)


def move(path: Path) -> None:
    """Have the bytes stored under another name, and the old record deleted, in the background."""
    path.write_bytes(NEW)
    path.rename(path.with_name(f"{path.name}-moved"))


def state(path: Path) -> str:
    return os.getxattr(path, "user.kvsfs.state").decode()


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def rules(
    client: httpx.Client, method: str, faults: dict[str, Fault]
) -> Iterator[dict[str, Callable[[], int]]]:
    request = Request(method, _record, _nothing, _nothing, _nothing, _nothing)
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(rule(client, request, name, fault)) for name, fault in faults.items()
        }


def run(folder: Path, method: str, act: Callable[[Path], None], faults: dict[str, Fault]) -> Outcome:
    outcome, sandbox = Outcome(), Sandbox(folder / "sandbox")
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(
            running_server(
                folder / "data", tokens=[f"{TOKEN}=joe"], request_log=folder / "log", arguments=["--testing"]
            )
        )
        client = stack.enter_context(
            httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30)
        )
        store = StoreApi.create(client)
        if method == "DELETE":
            for name in faults:
                store.put(name, OLD)
        options = ("--timeout", f"{TIMEOUT}s", "--write-back", f"{DELAY}s", "--rename-grace", "0.1s")

        @contextlib.contextmanager
        def mounted() -> Iterator[Mounted]:
            with mounted_store(sandbox, store.id, *options, token=TOKEN, server=server) as found:
                found.allow_log(r" (WARNING|ERROR) kvsfs\.(core|daemon|fuse)\.?\S*: ")
                os.listdir(found.path)
                yield found

        with mounted() as mount:
            with rules(client, method, faults) as seen:
                for name in faults:
                    begun = time.monotonic()
                    act(mount.path / name)
                    outcome.closed[name] = time.monotonic() - begun
                wait_until(lambda: all(count() for count in seen.values()), within=STRUCK_SECONDS)
                outcome.struck = {name: count() for name, count in seen.items()}
                shown = [path.name for path in mount.path.iterdir()]
                outcome.states = {name: state(mount.path / name) for name in shown}
            mount.umount(ExitCode.NOT_ALL_UPLOADED if method == "PUT" else ExitCode.OK, within=DRAIN_SECONDS)
        outcome.drained = {name: store.content(name) for name in store.sizes()}
        with mounted() as mount:
            outcome.shown = {path.name: path.read_bytes() for path in mount.path.iterdir()}
            outcome.resumed = {
                path.name: state(path) for path in mount.path.iterdir() if state(path) != "clean"
            }
            for name in outcome.resumed:
                sync(mount.path / name)
            mount.umount(within=DRAIN_SECONDS)
        outcome.asked = {name: store.content(name) for name in store.sizes()}
    return outcome


def test_uploads(tmp_path: Path) -> None:
    faults = column("PUT")
    outcome = run(tmp_path, "PUT", write, faults)
    everything = dict.fromkeys(faults, NEW)
    assert max(outcome.closed.values()) < IN_TIME
    assert all(outcome.struck.values())
    for name in FINAL:
        assert re.match(rf"failed: .*\b{name}\b", outcome.states[name])
    assert set(everything) - set(outcome.drained) == FINAL
    assert set(outcome.drained.values()) == {NEW}
    assert outcome.shown == everything
    assert set(outcome.resumed) == FINAL
    assert all(told.startswith("failed: ") for told in outcome.resumed.values())
    assert outcome.asked == everything


def test_removals_after_a_rename(tmp_path: Path) -> None:
    faults = column("DELETE")
    outcome = run(tmp_path, "DELETE", move, faults)
    moved = {f"{name}-moved": NEW for name in faults}
    assert max(outcome.closed.values()) < IN_TIME
    assert all(outcome.struck.values())
    assert set(outcome.states) == set(moved), "an old name is shown"
    drained = {name: content for name, content in outcome.drained.items() if name in moved}
    assert drained == moved
    assert set(outcome.drained) - set(moved) <= {"404"}  # the store said that it has it no more
    assert outcome.asked.items() >= moved.items()
