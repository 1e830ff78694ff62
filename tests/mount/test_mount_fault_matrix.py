"""Every request of a mount, struck by every fault: healed, or the right errno in time; and nothing is lost.

Five mounts stand side by side, one for each kind of request, so that a fault in one does not change what the
others see. Each works through its column; the tests then look at one cell each.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import select
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from kvsfs.store.breaker import LAST_PROBE
from tests.support.mounting import Mounted, Sandbox, mounted_store
from tests.support.serving import RunningServer, running_server
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse

TOKEN = "apify_api_hush0123456789"
TIMEOUT = 2.0
"""Seconds: of the mount's calls. A stall lasts as long, so one is never healed."""

IN_TIME = TIMEOUT + 6.0
"""Seconds: two calls of one system call, and a machine that is busy."""

OLD, NEW = os.urandom(200_000), os.urandom(200_000)

Outcome = str | int
"""`healed`, or an errno."""

HEALED = "healed"
AWAY = frozenset({errno.EIO, errno.ETIMEDOUT})
"""EIO, too, for a stall: between two time-outs the breaker may answer."""


# What is asked of the mount


@dataclass(frozen=True)
class Request:
    """A kind of request: what makes the mount send it, and what shows that it was done."""

    method: str
    place: Callable[[str], str]
    """Fault's name -> the path that its rule strikes."""
    prepare: Callable[[StoreApi, str], None]
    act: Callable[[Path, str], None]
    check: Callable[[StoreApi, str], None]
    """After it was done, or done again."""
    unharmed: Callable[[StoreApi, str], None]
    """After it failed: what the store had before it must have still."""


def _put_old(store: StoreApi, name: str) -> None:
    store.put(name, OLD)


def _has_old(store: StoreApi, name: str) -> None:
    assert store.content(name) == OLD


def _has_new(store: StoreApi, name: str) -> None:
    assert store.content(name) == NEW


def _is_gone(store: StoreApi, name: str) -> None:
    assert name not in store.keys()  # noqa: SIM118


def _nothing(_store: StoreApi, _name: str) -> None:
    pass


def _read(folder: Path, name: str) -> None:
    assert (folder / name).read_bytes() == OLD


def _write(folder: Path, name: str) -> None:
    """Write all and close, whichever of them fails; again, the close of an unchanged file has it stored."""
    path = folder / name
    if path.exists():
        assert path.read_bytes() == NEW  # what could not be stored is here
        descriptor = os.open(path, os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        assert os.write(descriptor, NEW) == len(NEW)
    finally:
        os.close(descriptor)


def _unlink(folder: Path, name: str) -> None:
    (folder / name).unlink()


def _ask_type(folder: Path, name: str) -> None:
    assert os.getxattr(folder / name, "user.mime_type") == b"text/plain"


def _put_below(store: StoreApi, name: str) -> None:
    for number in range(20):
        store.put(f"{name}!2Fx{number:02}", b"x")


def _list(folder: Path, name: str) -> None:
    assert len(os.listdir(folder / name)) == 20


def _record(name: str) -> str:
    return f"*/records/{name}"


def _keys(_name: str) -> str:
    return "*/keys"


REQUESTS = {
    "GET": Request("GET", _record, _put_old, _read, _has_old, _has_old),
    "HEAD": Request("HEAD", _record, _put_old, _ask_type, _has_old, _has_old),
    "PUT": Request("PUT", _record, _nothing, _write, _has_new, _nothing),
    "DELETE": Request("DELETE", _record, _put_old, _unlink, _is_gone, _has_old),
    "list": Request("GET", _keys, _put_below, _list, _nothing, _nothing),
}


# What strikes


@dataclass(frozen=True)
class Fault:
    action: Mapping[str, Any]
    expected: frozenset[Outcome]
    count: int | None = 1
    """None: until it is lifted."""
    believed: bool = False
    """Whether the store's word is final: a record that it says is gone is gone."""


def _status(status: int, **more: object) -> Mapping[str, Any]:
    return {"kind": "status", "status": status, **more}


_HEALED: frozenset[Outcome] = frozenset({HEALED})
_LIMITED = _status(429, headers={"Retry-After": "1"})


def _once(action: Mapping[str, Any], *expected: Outcome) -> Fault:
    return Fault(action, frozenset(expected) or _HEALED)


def _refused(status: int, *expected: Outcome) -> Fault:
    return Fault(_status(status), frozenset(expected), None)


def _for_long(action: Mapping[str, Any], *expected: Outcome) -> Fault:
    return Fault(action, frozenset(expected) or frozenset(AWAY), None)


FAULTS: dict[str, Fault] = {
    "reset-before": _once({"kind": "reset", "received": 0}),
    "reset-instead-of-an-answer": _once({"kind": "reset"}),
    "reset-amid-the-answer": _once({"kind": "reset", "after": 300}),
    "stall": _once({"kind": "stall"}, errno.ETIMEDOUT),
    "stall-for-a-moment": _once({"kind": "stall", "seconds": 0.3}),
    "429": _once(_status(429)),
    "429-retry-after": _once(_LIMITED),
    "500": _once(_status(500)),
    "502": _once(_status(502)),
    "503": _once(_status(503)),
    "truncated": _once({"kind": "truncate", "after": 300}),
    "too-long-a-length": _once({"kind": "length", "by": 10}),
    "garbage": _once({"kind": "garbage"}),
    "401": _refused(401, errno.EACCES),
    "403": _refused(403, errno.EACCES),
    "404": _refused(404, errno.ESTALE),
    "413": _refused(413, errno.EFBIG),
    "always-reset": _for_long({"kind": "reset", "received": 0}),
    "always-stall": _for_long({"kind": "stall"}),
    "always-429": _for_long(_status(429), errno.EBUSY),
    "always-503": _for_long(_status(503)),
    "always-garbage": _for_long({"kind": "garbage"}),
}

_GONE = Fault(_status(404), frozenset({errno.ENOENT}), None, believed=True)

SPECIAL: dict[tuple[str, str], Fault] = {
    ("GET", "404"): _GONE,
    ("HEAD", "404"): _GONE,
    ("DELETE", "404"): Fault(_status(404), _HEALED, None, believed=True),
    # The bytes that it promised and that never come cannot be had; the next open asks anew.
    ("GET", "too-long-a-length"): _once({"kind": "length", "by": 10}, errno.ESTALE, errno.EIO),
    ("PUT", "reset-amid-the-body"): _once({"kind": "reset", "received": 100_000}),
    ("GET", "stall-amid-the-body"): _once({"kind": "stall", "after": 1000}),
}


def column(kind: str) -> dict[str, Fault]:
    return FAULTS | {fault: found for (request, fault), found in SPECIAL.items() if request == kind}


CELLS = [(kind, fault) for kind in REQUESTS for fault in column(kind)]


# What came of it


@dataclass(frozen=True)
class Cell:
    outcome: Outcome
    seconds: float
    struck: int
    """Requests that matched the rule."""
    afterwards: str = ""
    """What was wrong once the fault was over; "" for nothing."""


@contextlib.contextmanager
def rule(client: httpx.Client, request: Request, name: str, fault: Fault) -> Iterator[Callable[[], int]]:
    content = {
        "method": request.method,
        "path": request.place(name),
        "count": fault.count,
        "action": fault.action,
    }
    number = client.post("/testing/faults", json=content).raise_for_status().json()["data"]["id"]

    def seen() -> int:
        rules = client.get("/testing/faults").raise_for_status().json()["data"]["items"]
        return next(int(found["seen"]) for found in rules if found["id"] == number)

    try:
        yield seen
    finally:
        client.delete(f"/testing/faults/{number}").raise_for_status()


def attempt(act: Callable[[], None]) -> Outcome:
    try:
        act()
    except OSError as error:
        return error.errno or str(error)
    return HEALED


def in_the_end(act: Callable[[], None]) -> None:
    """Do it once the fault is over: what was found out before may be believed a little longer."""
    deadline = time.monotonic() + LAST_PROBE + TIMEOUT + 2
    while (outcome := attempt(act)) != HEALED:
        assert time.monotonic() < deadline, f"still {os.strerror(int(outcome))}"
        select.select([], [], [], 0.05)


def run_cell(mounted: Mounted, store: StoreApi, kind: str, name: str, fault: Fault) -> Cell:
    request = REQUESTS[kind]
    act = functools.partial(request.act, mounted.path, name)
    with rule(store.client, request, name, fault) as seen:
        begun = time.monotonic()
        outcome = attempt(act)
        seconds = time.monotonic() - begun
        struck = seen()
    afterwards = ""
    try:
        if outcome != HEALED:
            request.unharmed(store, name)
            if not fault.believed:
                in_the_end(act)
        if not fault.believed:
            request.check(store, name)
    except AssertionError as error:
        afterwards = str(error)[:500] or "an assertion failed"
    return Cell(outcome, seconds, struck, afterwards)


def run_column(kind: str, server: RunningServer, sandbox: Sandbox) -> dict[str, Cell]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=30) as client:
        store = StoreApi.create(client)
        for name in column(kind):
            REQUESTS[kind].prepare(store, name)
        options = ("--timeout", f"{TIMEOUT}s")
        with mounted_store(sandbox, store.id, *options, token=TOKEN, server=server) as mounted:
            mounted.expect_log(r" (WARNING|ERROR) kvsfs\.(fuse|core)\.")  # but no traceback
            os.listdir(mounted.path)
            # Against the folder's order: else the next ones would be fetched before their faults stand.
            cells = sorted(column(kind).items(), reverse=True)
            return {name: run_cell(mounted, store, kind, name, fault) for name, fault in cells}


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, dict[str, Cell]]:
    """All cells. Each column has a server, too: a listing's rule does not know one store from another."""
    folder = tmp_path_factory.mktemp("matrix")

    def run(kind: str) -> dict[str, Cell]:
        own = folder / kind
        own.mkdir()
        tokens = [f"{TOKEN}=joe"]
        with running_server(
            own / "data", tokens=tokens, request_log=own / "log", arguments=["--testing"]
        ) as server:
            return run_column(kind, server, Sandbox(own / "sandbox"))

    with ThreadPoolExecutor(len(REQUESTS)) as pool:
        return dict(zip(REQUESTS, pool.map(run, REQUESTS), strict=True))


@pytest.mark.parametrize(("kind", "fault"), CELLS)
def test_cell(matrix: Mapping[str, dict[str, Cell]], kind: str, fault: str) -> None:
    cell = matrix[kind][fault]
    assert cell.struck > 0
    assert cell.outcome in column(kind)[fault].expected
    assert cell.seconds < IN_TIME
    assert cell.afterwards == ""
