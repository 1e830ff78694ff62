"""Every kind of call against every fault, once and for ever: what is healed, what is raised, how often is asked."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import pytest
import trio

from kvsfs import errors
from kvsfs.metrics import StoreMeter
from kvsfs.store import retry
from kvsfs.store.apify import ApifyStore, ApifyStoreCollection
from kvsfs.store.bodies import BytesBody
from kvsfs.store.retry import Deadlines
from kvsfs.types import RecordKey
from tests.support.fault_server import (
    Exchange,
    Step,
    answering,
    fault_server,
    resetting,
    sending,
    stalling,
    stalling_after,
)
from tests.support.running import run_async

KEY = RecordKey("OUTPUT")
CONTENT = bytes(range(256)) * 2048
"""512 KiB: more than the sockets of a connection hold, so that an upload can be struck amid its body."""

PAGE = json.dumps({"data": {"items": [{"key": "a", "size": 1}], "isTruncated": False}}).encode()
DEADLINES = Deadlines(connect=0.5, stall=0.1, total=0.3)
SLACK = 1.5
"""Seconds that a loaded machine may add to a deadline."""


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.02)


# Calls: what each gives when all is well


async def get(store: ApifyStore) -> object:
    async with store.get_record(KEY) as stream:
        assert stream is not None
        return b"".join([piece async for piece in stream.chunks()])


async def head(store: ApifyStore) -> object:
    found = await store.head_record(KEY)
    return found and found.length


async def put(store: ApifyStore) -> object:
    return (await store.set_record(KEY, BytesBody(CONTENT), content_type="text/plain")).length


async def delete(store: ApifyStore) -> object:
    await store.delete_record(KEY)
    return "done"


async def list_keys(store: ApifyStore) -> object:
    return [entry.key for entry in (await store.list_keys()).items]


@dataclass(frozen=True)
class Kind:
    call: Callable[[ApifyStore], Awaitable[object]]
    good: Step
    result: object
    missing: object = errors.StoreNotFound
    """What 404 comes to."""


KINDS = {
    "GET": Kind(get, answering(200, CONTENT), CONTENT, errors.RecordNotFound),
    "HEAD": Kind(head, answering(200, CONTENT), len(CONTENT), None),
    "PUT": Kind(put, answering(201, b"{}"), len(CONTENT)),
    "DELETE": Kind(delete, answering(204), "done", "done"),
    "list": Kind(list_keys, answering(200, PAGE), ["a"]),
}

# Faults


async def resetting_amid_the_answer(exchange: Exchange) -> None:
    await exchange.read_body()
    await exchange.stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Le")
    await exchange.reset()


async def resetting_amid_the_body(exchange: Exchange) -> None:
    await exchange.stream.receive_some(100_000)
    await exchange.reset()


Faults = dict[str, tuple[Step, type[errors.StoreError]]]

TRANSIENT: Faults = {
    "reset": (resetting, errors.StoreUnreachable),
    "reset amid the answer": (resetting_amid_the_answer, errors.StoreUnreachable),
    "stall": (stalling, errors.StoreTimeout),
    "429": (answering(429), errors.RateLimited),
    "500": (answering(500), errors.StoreUnreachable),
    "502": (answering(502, b"<html>Bad gateway</html>"), errors.StoreUnreachable),
    "503": (answering(503, headers={"Retry-After": "0"}), errors.StoreUnreachable),
    "garbage": (sending(b"\x16\x03\x01 this is no HTTP\r\n\r\n"), errors.StoreUnreachable),
    "nothing": (sending(b""), errors.StoreUnreachable),
    "half a head": (sending(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"), errors.StoreUnreachable),
}
OF_A_BODY_SENT: Mapping[str, Faults] = {
    "PUT": {"reset amid the body": (resetting_amid_the_body, errors.StoreUnreachable)}
}
OF_A_PAGE: Mapping[str, Faults] = {
    "list": {
        "truncated": (answering(200, PAGE[:20], claimed=len(PAGE)), errors.StoreUnreachable),
        "too long a length": (answering(200, PAGE, claimed=len(PAGE) + 9), errors.StoreUnreachable),
        "stall amid the body": (stalling_after(PAGE[:20], claimed=len(PAGE)), errors.StoreTimeout),
    }
}
STRUCK = [
    (kind, fault, step, error)
    for kind in KINDS
    for fault, (step, error) in (TRANSIENT | OF_A_BODY_SENT.get(kind, {}) | OF_A_PAGE.get(kind, {})).items()
]
FINAL = {
    400: errors.RequestRefused,
    401: errors.NotAuthorized,
    402: errors.QuotaExceeded,
    403: errors.PermissionDenied,
    413: errors.RecordTooLarge,
}


@dataclass
class Outcome:
    result: object
    """Or the type of the error."""
    requests: int
    seconds: float
    last_body: bytes


def outcome(kind: str, *script: Step) -> Outcome:
    async def main() -> Outcome:
        async with (
            fault_server(*script) as server,
            ApifyStoreCollection(server.url, deadlines=DEADLINES) as stores,
        ):
            begun = trio.current_time()
            result: object
            try:
                result = await KINDS[kind].call(stores.store("s"))
            except errors.StoreError as error:
                result = type(error)
            seconds = trio.current_time() - begun
            return Outcome(result, len(server.exchanges), seconds, server.exchanges[-1].body)

    return run_async(main)


@pytest.mark.parametrize(
    ("kind", "step"), [pytest.param(kind, step, id=f"{kind}-{fault}") for kind, fault, step, _ in STRUCK]
)
def test_a_fault_is_healed_by_one_more_request(kind: str, step: Step) -> None:
    found = outcome(kind, step, KINDS[kind].good)
    assert (found.result, found.requests) == (KINDS[kind].result, 2)
    assert kind != "PUT" or found.last_body == CONTENT


@pytest.mark.parametrize(
    ("kind", "step", "error"),
    [pytest.param(kind, step, error, id=f"{kind}-{fault}") for kind, fault, step, error in STRUCK],
)
def test_a_fault_that_stays_is_told_in_time(kind: str, step: Step, error: type[errors.StoreError]) -> None:
    found = outcome(kind, step)
    assert isinstance(found.result, type)
    assert issubclass(found.result, error)
    assert 2 <= found.requests <= 20
    assert found.seconds < DEADLINES.total + SLACK


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", FINAL)
def test_a_refusal_is_told_after_one_request(kind: str, status: int) -> None:
    found = outcome(kind, answering(status), KINDS[kind].good)
    assert (found.result, found.requests) == (FINAL[status], 1)


@pytest.mark.parametrize("kind", KINDS)
def test_404_after_one_request(kind: str) -> None:
    found = outcome(kind, answering(404), KINDS[kind].good)
    assert (found.result, found.requests) == (KINDS[kind].missing, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pause_that_is_too_long_is_not_begun(kind: str) -> None:
    found = outcome(kind, answering(429, headers={"Retry-After": "7"}))
    assert (found.result, found.requests) == (errors.RateLimited, 1)
    assert found.seconds < SLACK


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_listens_at_first(kind: str) -> None:
    """The retries of one call outlast a server's restart."""
    meter = StoreMeter()
    patient = Deadlines(connect=1, stall=5, total=10)

    async def main() -> object:
        async with fault_server(stalling) as gone:
            port = gone.port
        results: list[object] = []
        done = trio.Event()
        async with ApifyStoreCollection(f"http://127.0.0.1:{port}", deadlines=patient, meter=meter) as stores:

            async def call() -> None:
                results.append(await KINDS[kind].call(stores.store("s")))
                done.set()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(call)
                while meter.snapshot().retries < 3:
                    await trio.lowlevel.checkpoint()
                async with fault_server(KINDS[kind].good, port=port):
                    await done.wait()
        return results

    assert run_async(main) == [KINDS[kind].result]
    assert meter.snapshot().retries >= 3


TORN: Faults = {
    "truncated": (answering(200, CONTENT[:1000], claimed=len(CONTENT)), errors.StoreUnreachable),
    "too long a length": (answering(200, CONTENT, claimed=len(CONTENT) + 9), errors.StoreUnreachable),
    "stall": (stalling_after(CONTENT[:1000], claimed=len(CONTENT)), errors.StoreTimeout),
}


@pytest.mark.parametrize("fault", TORN)
def test_a_record_that_breaks_off_is_told_to_its_reader(fault: str) -> None:
    """Its bytes are out already: who reads them resumes, with a range."""
    step, error = TORN[fault]
    found = outcome("GET", step, KINDS["GET"].good)
    assert (found.result, found.requests) == (error, 1)
