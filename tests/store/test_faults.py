"""The client against servers and networks that fail: what is tried again, for how long, what is raised."""

from __future__ import annotations

import gc
import json
import logging
import traceback
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
import trio

from kvsfs import errors
from kvsfs.metrics import StoreMeter
from kvsfs.store import retry
from kvsfs.store.apify import ApifyStore, ApifyStoreCollection
from kvsfs.store.bodies import BytesBody
from kvsfs.store.connections import MAX_BODIES, MAX_CONNECTIONS, MAX_UPLOADS
from kvsfs.store.retry import Deadlines
from kvsfs.types import ByteRange, RecordHead, RecordKey
from tests.support.fault_server import (
    Exchange,
    FaultServer,
    Step,
    answering,
    answering_in_chunks,
    dripping,
    fault_server,
    refusing_early,
    resetting,
    stalling,
    stalling_after,
)
from tests.support.running import run_async

T = TypeVar("T")

TOKEN = "apify_api_t0ps3cret"
KEY = RecordKey("OUTPUT")
QUICK = Deadlines(connect=0.5, stall=0.4, total=1.2)  # seconds
SLACK = 0.8  # seconds that a loaded machine may add to a deadline
PAGE = json.dumps({"data": {"items": [{"key": "a", "size": 1}], "isTruncated": False}}).encode()


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.01)


def error_body(kind: str, message: str = "No.") -> bytes:
    return json.dumps({"error": {"type": kind, "message": message}}).encode()


class Outcome:
    """What a call against a script came to."""

    def __init__(self) -> None:
        self.meter = StoreMeter()
        self.server: FaultServer
        self.seconds = 0.0


def call(
    operation: Callable[[ApifyStore], Awaitable[T]], *script: Step, deadlines: Deadlines = QUICK
) -> tuple[T | errors.StoreError, Outcome]:
    """Run `operation` against a server with `script`; give its result or its error."""
    outcome = Outcome()

    async def main() -> T | errors.StoreError:
        async with fault_server(*script) as outcome.server:
            url = outcome.server.url
            async with ApifyStoreCollection(
                url, token=TOKEN, deadlines=deadlines, meter=outcome.meter
            ) as stores:
                started = trio.current_time()
                try:
                    return await operation(stores.store("me/store"))
                except errors.StoreError as error:
                    return error
                finally:
                    outcome.seconds = trio.current_time() - started

    result = run_async(main, within=20)
    gc.collect()
    return result, outcome


async def list_keys(store: ApifyStore) -> list[str]:
    return [entry.key for entry in (await store.list_keys()).items]


async def read(store: ApifyStore) -> bytes:
    async with store.get_record(KEY) as stream:
        assert stream is not None
        return b"".join([piece async for piece in stream.chunks()])


def write(content: bytes) -> Callable[[ApifyStore], Awaitable[RecordHead]]:
    async def operation(store: ApifyStore) -> RecordHead:
        return await store.set_record(KEY, BytesBody(content), content_type="text/plain")

    return operation


TRANSIENT: dict[str, Step] = {
    "408": answering(408, error_body("invalid-request", "The body arrives too slowly.")),
    "429": answering(429, error_body("rate-limit-exceeded")),
    "500": answering(500),
    "502 with HTML": answering(502, b"<html>Bad gateway</html>"),
    "503": answering(503, error_body("internal")),
    "reset": resetting,
    "truncated body": answering(200, PAGE[:20], claimed=len(PAGE)),
    "no answer": stalling,
}


@pytest.mark.parametrize("fault", sorted(TRANSIENT))
def test_transient_faults_are_tried_again(fault: str) -> None:
    patient = Deadlines(connect=2, stall=0.4, total=10)
    keys, outcome = call(
        list_keys, TRANSIENT[fault], TRANSIENT[fault], answering(200, PAGE), deadlines=patient
    )
    traffic = outcome.meter.snapshot()
    assert keys == ["a"]
    assert len(outcome.server.exchanges) == 3
    assert traffic.requests == {"list_keys": 3}
    assert traffic.retries == 2
    assert traffic.rate_limited == (2 if fault == "429" else 0)


@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        (400, "invalid-value", errors.RequestRefused),
        (401, "invalid-token", errors.NotAuthorized),
        (402, "limit", errors.QuotaExceeded),
        (403, "insufficient-permissions", errors.PermissionDenied),
        (404, "record-or-token-not-found", errors.StoreNotFound),
        (413, "record-too-large", errors.RecordTooLarge),
        (415, "unsupported-content-encoding", errors.RequestRefused),
        (418, "teapot", errors.RequestRefused),
        (302, "moved", errors.ProtocolViolation),
    ],
)
@pytest.mark.parametrize("operation", [list_keys, write(b"x")])
def test_refusals_are_told_at_once(
    operation: Callable[[ApifyStore], Awaitable[object]],
    status: int,
    kind: str,
    expected: type[errors.StoreError],
) -> None:
    message = f"No {TOKEN}\nsee https://host/x?signature=SIGNED"
    error, outcome = call(operation, answering(status, error_body(kind, message)))
    assert type(error) is expected
    assert (error.status, error.error_type) == (status, kind)
    assert len(outcome.server.exchanges) == 1
    assert TOKEN not in str(error)
    assert "SIGNED" not in str(error)
    assert "\n" not in str(error)


def test_404_of_a_record() -> None:
    refusal = answering(404, error_body("record-not-found"))
    assert isinstance(call(read, refusal)[0], errors.RecordNotFound)
    assert call(lambda store: store.head_record(KEY), refusal)[0] is None
    assert call(lambda store: store.record_exists(KEY), refusal)[0] is False
    assert call(lambda store: store.delete_record(KEY), refusal)[0] is None
    assert call(lambda store: store.get(), refusal)[0] is None


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("429", errors.RateLimited),
        ("503", errors.StoreUnreachable),
        ("reset", errors.StoreUnreachable),
        ("no answer", errors.StoreTimeout),
    ],
)
def test_a_fault_that_stays_ends_in_time(fault: str, expected: type[errors.StoreError]) -> None:
    error, outcome = call(list_keys, TRANSIENT[fault])
    assert type(error) is expected
    assert len(outcome.server.exchanges) >= 2
    assert outcome.seconds < QUICK.total + SLACK


def test_a_dripping_answer_ends_in_time() -> None:
    error, outcome = call(list_keys, dripping(PAGE, every=0.1))
    assert type(error) is errors.StoreTimeout
    assert outcome.seconds < QUICK.total + SLACK


def test_nobody_listens() -> None:
    async def main() -> float:
        async with fault_server(stalling) as gone:
            url = gone.url
        async with ApifyStoreCollection(url, token=TOKEN, deadlines=QUICK) as stores:
            started = trio.current_time()
            with pytest.raises(errors.StoreUnreachable, match="cannot be reached"):
                await stores.store("s").get()
            return trio.current_time() - started

    assert run_async(main) < QUICK.total + SLACK


def test_retry_after_is_honoured() -> None:
    keys, outcome = call(
        list_keys,
        answering(429, headers={"Retry-After": "1"}),
        answering(200, PAGE),
        deadlines=Deadlines(total=5),
    )
    assert keys == ["a"]
    assert 1.0 <= outcome.seconds < 1.0 + SLACK


def test_a_longer_wait_than_the_deadline_is_not_begun() -> None:
    error, outcome = call(list_keys, answering(503, headers={"Retry-After": "3600"}))
    assert type(error) is errors.StoreUnreachable
    assert len(outcome.server.exchanges) == 1
    assert outcome.seconds < SLACK


@pytest.mark.parametrize(
    "answer",
    [
        b"<html>Log in to the hotel's network</html>",
        b"[]",
        b'{"data": {}}',
        b'{"data": {"items": [{}]}}',
        b"",
    ],
)
def test_an_answer_that_is_not_the_apis(answer: bytes) -> None:
    error, outcome = call(list_keys, answering(200, answer, headers={"Content-Type": "text/html"}))
    assert type(error) is errors.ProtocolViolation
    assert len(outcome.server.exchanges) == 1


def test_an_endless_answer_is_not_collected() -> None:
    error, outcome = call(
        list_keys, answering(200, b" " * (5 * 1024 * 1024)), deadlines=Deadlines(stall=5, total=10)
    )
    assert type(error) is errors.ProtocolViolation
    assert outcome.meter.snapshot().received_bytes < 5 * 1024 * 1024


@pytest.mark.parametrize("following", [None, "b", "a"])
def test_pages_that_do_not_advance(following: str | None) -> None:
    def page(cursor: str | None) -> Step:
        data = {"items": [], "isTruncated": True, "nextExclusiveStartKey": cursor}
        return answering(200, json.dumps({"data": data}).encode())

    async def every_key(store: ApifyStore) -> list[str]:
        return [entry.key async for entry in store.iter_keys()]

    error, outcome = call(every_key, page("b"), page(following))
    assert type(error) is errors.ProtocolViolation
    assert len(outcome.server.exchanges) == 2


# Records being read


def collect_into(received: bytearray) -> Callable[[ApifyStore], Awaitable[None]]:
    async def operation(store: ApifyStore) -> None:
        async with store.get_record(KEY) as stream:
            assert stream is not None
            async for piece in stream.chunks():
                received.extend(piece)

    return operation


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (answering(200, b"half", claimed=8), errors.StoreUnreachable),
        (stalling_after(b"half", claimed=8), errors.StoreTimeout),
    ],
)
def test_a_record_that_breaks_off_raises_behind_its_bytes(
    step: Step, expected: type[errors.StoreError]
) -> None:
    received = bytearray()
    error, outcome = call(collect_into(received), step)
    assert type(error) is expected
    assert received == b"half"
    assert len(outcome.server.exchanges) == 1
    assert outcome.seconds < QUICK.stall + SLACK


def test_a_slow_record_may_take_longer_than_total() -> None:
    content, outcome = call(read, dripping(b"0123456789abcdef", every=0.1))
    assert content == b"0123456789abcdef"
    assert outcome.seconds > QUICK.total


def test_faults_before_the_headers_of_a_record_are_tried_again() -> None:
    content, outcome = call(read, resetting, answering(500), answering(200, b"content"))
    assert content == b"content"
    assert [e.target for e in outcome.server.exchanges] == [
        "/v2/key-value-stores/me~store/records/OUTPUT?attachment=true"
    ] * 3


def test_corrupt_encoding_is_told() -> None:
    error, _ = call(read, answering(200, b"not gzip", headers={"Content-Encoding": "gzip"}))
    assert type(error) is errors.ProtocolViolation


def read_part(store: ApifyStore) -> Awaitable[tuple[int, bytes, int | None]]:
    async def operation() -> tuple[int, bytes, int | None]:
        async with store.get_record(KEY, byte_range=ByteRange(2, 4)) as stream:
            assert stream is not None
            return stream.start, b"".join([piece async for piece in stream.chunks()]), stream.head.length

    return operation()


def test_ranges() -> None:
    part, outcome = call(read_part, answering(206, b"23", headers={"Content-Range": "bytes 2-3/10"}))
    assert part == (2, b"23", 10)
    sent = outcome.server.exchanges[0].headers
    assert (sent["range"], sent["accept-encoding"]) == ("bytes=2-3", "identity")
    assert call(read_part, answering(200, b"0123456789"))[0] == (0, b"0123456789", 10)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (answering(206, b"01", headers={"Content-Range": "bytes 0-1/10"}), errors.ProtocolViolation),
        (answering(206, b"23"), errors.ProtocolViolation),
        (answering(206, b"2", headers={"Content-Range": "bytes 2-2/10"}), errors.ProtocolViolation),
        (answering(206, b"234", headers={"Content-Range": "bytes 2-4/10"}), errors.ProtocolViolation),
        (
            answering(206, b"23", headers={"Content-Range": "bytes 2-3/9", "Content-Encoding": "gzip"}),
            errors.ProtocolViolation,
        ),
        (answering(416), errors.RequestRefused),
    ],
)
def test_ranges_that_are_not_what_was_asked(step: Step, expected: type[errors.StoreError]) -> None:
    assert type(call(read_part, step)[0]) is expected


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ((b"2", b"3"), (2, b"23", 10)),
        ((b"2",), errors.StoreUnreachable),
        ((), errors.StoreUnreachable),
        ((b"2", b"34"), errors.ProtocolViolation),
    ],
)
def test_a_part_without_a_length_is_as_long_as_its_range_says(
    pieces: tuple[bytes, ...], expected: tuple[int, bytes, int] | type[errors.StoreError]
) -> None:
    step = answering_in_chunks(206, *pieces, headers={"Content-Range": "bytes 2-3/10"})
    part, outcome = call(read_part, step)
    assert part == expected or type(part) is expected
    assert len(outcome.server.exchanges) == 1


@pytest.mark.parametrize(
    ("seen", "header", "value"),
    [
        (RecordHead("t", etag='"1"', last_modified="Mon"), "if-none-match", '"1"'),
        (RecordHead("t", etag='W/"1"', last_modified="Mon"), "if-modified-since", "Mon"),
        (
            RecordHead("t", last_modified="Mon, 01 Jan 2024 00:00:00 GMT"),
            "if-modified-since",
            "Mon, 01 Jan 2024",
        ),
    ],
)
def test_conditional_reads(seen: RecordHead, header: str, value: str) -> None:
    async def unchanged(store: ApifyStore) -> bool:
        async with store.get_record(KEY, if_none_match=seen) as stream:
            return stream is None

    result, outcome = call(unchanged, answering(304))
    assert result is True
    assert outcome.server.exchanges[0].headers[header].startswith(value)


@pytest.mark.parametrize("etag", ['W/"weak"', '"\xe9"'])
def test_a_validator_that_proves_nothing_is_not_sent(etag: str) -> None:
    async def twice(store: ApifyStore) -> bool:
        head = await store.head_record(KEY)
        async with store.get_record(KEY, if_none_match=head) as stream:
            return stream is not None

    result, outcome = call(twice, answering(200, b"content", headers={"ETag": etag}))
    assert result is True
    assert "if-none-match" not in outcome.server.exchanges[1].headers


# Redirects


def redirected(
    *object_store: Step, hops: int = 1
) -> tuple[bytes | errors.StoreError, FaultServer, FaultServer]:
    """Read a record whose API answers a redirect to another server's signed URL."""
    servers: list[FaultServer] = []

    async def main() -> bytes | errors.StoreError:
        async with fault_server(*object_store) as other:
            location = {"Location": f"{other.url}/bucket/OUTPUT?Signature=S1GNED"}
            other.script[:0] = [answering(302, headers=location)] * (hops - 1)
            async with fault_server(answering(302, headers=location)) as api:
                servers.extend((api, other))
                async with ApifyStoreCollection(api.url, token=TOKEN, deadlines=QUICK) as stores:
                    try:
                        return await read(stores.store("me/store"))
                    except errors.StoreError as error:
                        return error

    result = run_async(main)
    return result, servers[0], servers[1]


@pytest.mark.parametrize("hops", [1, 3])
def test_a_redirect_is_followed_without_the_token(hops: int) -> None:
    content, api, other = redirected(answering(200, b"content"), hops=hops)
    assert content == b"content"
    assert api.exchanges[0].headers["authorization"] == f"Bearer {TOKEN}"
    assert [e.target for e in other.exchanges] == ["/bucket/OUTPUT?Signature=S1GNED"] * hops
    assert not any("authorization" in e.headers for e in other.exchanges)


def test_redirects_in_a_circle_end() -> None:
    error, _, other = redirected(answering(200, b"never"), hops=4)
    assert type(error) is errors.ProtocolViolation
    assert len(other.exchanges) == 3


def test_an_expired_redirect_is_asked_for_anew() -> None:
    content, api, other = redirected(answering(503), answering(200, b"content"))
    assert content == b"content"
    assert (len(api.exchanges), len(other.exchanges)) == (2, 2)


@pytest.mark.parametrize(
    "location",
    [None, "ftp://127.0.0.1/x?Signature=S1GNED", "http://host:port/x?Signature=S1GNED"],
)
def test_a_redirect_to_nowhere(location: str | None) -> None:
    error, _ = call(read, answering(302, headers={"Location": location} if location else {}))
    assert isinstance(error, errors.ProtocolViolation)
    assert "S1GNED" not in "".join(traceback.format_exception(error))


def test_no_secret_reaches_a_log_or_a_message(caplog: pytest.LogCaptureFixture) -> None:
    for name in ("httpx", "httpcore", "httpcore.http11", "httpcore.connection", "kvsfs"):
        caplog.set_level(logging.DEBUG, logger=name)
    caplog.set_level(logging.DEBUG)
    content, _, _ = redirected(answering(200, b"content"))
    error, _, _ = redirected(answering(403, b"<xml>Signature=S1GNED</xml>"))
    assert content == b"content"
    assert type(error) is errors.PermissionDenied
    assert any(record.name.startswith("kvsfs.store") for record in caplog.records)
    for text in (caplog.text, str(error), repr(error)):
        assert "S1GNED" not in text
        assert TOKEN not in text


# Uploads


def test_each_attempt_sends_the_body_from_its_start() -> None:
    content = bytes(range(256)) * 4096  # 1 MiB
    head, outcome = call(
        write(content), answering(503), answering(500), answering(201, b"{}", headers={"ETag": '"v"'})
    )
    assert head == RecordHead("text/plain", length=len(content), etag='"v"')
    assert [e.body == content for e in outcome.server.exchanges] == [True] * 3
    assert {e.headers["content-length"] for e in outcome.server.exchanges} == {str(len(content))}
    assert outcome.meter.snapshot().sent_bytes == 3 * len(content)


@pytest.mark.parametrize("then_reset", [True, False])
def test_an_answer_before_the_body_was_read_counts(*, then_reset: bool) -> None:
    error, outcome = call(write(bytes(64)), refusing_early(413, then_reset=then_reset))
    assert type(error) is errors.RecordTooLarge
    assert len(outcome.server.exchanges) == 1


def test_a_server_that_stops_reading_ends_in_time() -> None:
    error, outcome = call(write(bytes(32 * 1024 * 1024)), stalling)
    assert type(error) is errors.StoreTimeout
    assert len(outcome.server.exchanges) >= 2
    assert outcome.seconds < QUICK.total + QUICK.stall + SLACK


def test_a_long_upload_that_failed_late_is_tried_again() -> None:
    async def reading_slowly(exchange: Exchange) -> None:
        await trio.sleep(0.3)  # each wait is shorter than a stall, all of them longer than `total`
        for _ in range(6):
            await trio.sleep(0.3)
            await exchange.stream.receive_some(512 * 1024)
        await exchange.reset()

    content = bytes(32 * 1024 * 1024)
    deadlines = Deadlines(connect=1, stall=1.0, total=1.5)
    head, outcome = call(write(content), reading_slowly, answering(201), deadlines=deadlines)
    assert isinstance(head, RecordHead)
    assert outcome.seconds > deadlines.total
    assert len(outcome.server.exchanges[1].body) == len(content)


@pytest.mark.parametrize("content_type", ["text/plain\r\nX-Evil: 1", "text/ü"])
def test_a_content_type_that_no_header_can_hold(content_type: str) -> None:
    async def operation(store: ApifyStore) -> RecordHead:
        return await store.set_record(KEY, BytesBody(b"x"), content_type=content_type)

    error, outcome = call(operation, answering(201))
    assert type(error) is errors.RequestRefused
    assert outcome.server.exchanges == []


# Connections


async def first_piece_only(store: ApifyStore) -> int:
    async with store.get_record(KEY) as stream:
        assert stream is not None
        async for piece in stream.chunks():
            return len(piece)
    raise AssertionError


def test_read_answers_share_a_connection_and_abandoned_ones_leave_nothing() -> None:
    async def operation(store: ApifyStore) -> list[int]:
        await store.head_record(KEY)
        await store.record_exists(KEY)
        await read(store)
        before = server_connections()
        await first_piece_only(store)
        await read(store)
        return [before, server_connections()]

    outcome_box: list[FaultServer] = []

    def server_connections() -> int:
        return outcome_box[0].connections

    async def main() -> list[int]:
        async with fault_server(answering(200, bytes(4 * 1024 * 1024))) as server:
            outcome_box.append(server)
            async with ApifyStoreCollection(server.url, token=TOKEN, deadlines=Deadlines()) as stores:
                return await operation(stores.store("s"))

    assert run_async(main) == [1, 2]
    gc.collect()


def test_cancelling_a_read_closes_its_connection() -> None:
    async def main() -> int:
        async with (
            fault_server(stalling_after(b"half", claimed=8)) as server,
            ApifyStoreCollection(server.url, token=TOKEN) as stores,
        ):
            with trio.move_on_after(0.2) as scope:
                await read(stores.store("s"))
            assert scope.cancelled_caught
            server.script[:] = [answering(200, b"content")]
            assert await read(stores.store("s")) == b"content"
            return server.connections

    assert run_async(main) == 2
    gc.collect()


def test_more_calls_than_connections_wait_for_each_other() -> None:
    async def main() -> tuple[int, int]:
        async with fault_server(answering(200, b"content")) as server:
            async with (
                ApifyStoreCollection(server.url, token=TOKEN) as stores,
                trio.open_nursery() as nursery,
            ):
                for _ in range(100):
                    nursery.start_soon(read, stores.store("s"))
            return len(server.exchanges), server.connections

    requests, connections = run_async(main)
    assert requests == 100
    assert connections <= MAX_CONNECTIONS


def test_the_store_answers_while_more_uploads_run_than_may() -> None:
    """The wait for a connection once was cut off at `total`, however long the uploads before it may take; and
    where they had all the connections, a listing waited with them."""
    content, uploads = bytes(1024 * 1024), 40
    deadlines = Deadlines(connect=1.0, stall=5.0, total=1.0)

    async def main() -> tuple[list[int], int]:
        all_busy, done = trio.Event(), trio.Event()
        most = 0

        async def slow(exchange: Exchange) -> None:
            nonlocal most
            if exchange.method == "GET":
                await answering(200, PAGE)(exchange)
                return
            running.add(exchange)
            most = max(most, len(running))
            if len(running) == MAX_UPLOADS:
                all_busy.set()
            while not done.is_set():
                await trio.sleep(0.05)
                exchange.unread += await exchange.stream.receive_some(1024)
            await answering(201)(exchange)
            running.remove(exchange)

        running: set[Exchange] = set()
        async with (
            fault_server(slow) as server,
            ApifyStoreCollection(server.url, token=TOKEN, deadlines=deadlines) as stores,
            trio.open_nursery() as nursery,
        ):
            for _ in range(uploads):
                nursery.start_soon(write(content), stores.store("s"))
            await all_busy.wait()
            assert await list_keys(stores.store("s")) == ["a"]
            assert await read(stores.store("s")) == PAGE
            done.set()
        return [len(exchange.body) for exchange in server.exchanges if exchange.method == "PUT"], most

    received, most = run_async(main, within=20)
    gc.collect()
    assert received == [len(content)] * uploads
    assert most == MAX_UPLOADS


@pytest.mark.parametrize("operation", [read, write(b"x")])
def test_nobody_waits_for_a_connection_for_ever(operation: Callable[[ApifyStore], Awaitable[object]]) -> None:
    """Readers that pause hold theirs: what has no body is answered, what has one fails in time."""
    deadlines = Deadlines(connect=1.0, stall=30.0, total=0.5)

    async def pausing(store: ApifyStore, *, task_status: trio.TaskStatus[None]) -> None:
        async with store.get_record(KEY):
            task_status.started()
            await trio.sleep_forever()

    async def main() -> float:
        async def endless(exchange: Exchange) -> None:
            if exchange.target.endswith("/keys"):
                await answering(200, PAGE)(exchange)
            else:
                await stalling_after(b"half", claimed=8)(exchange)

        async with (
            fault_server(endless) as server,
            ApifyStoreCollection(server.url, token=TOKEN, deadlines=deadlines) as stores,
            trio.open_nursery() as nursery,
        ):
            for _ in range(MAX_BODIES):
                await nursery.start(pausing, stores.store("s"))
            started = trio.current_time()
            with pytest.raises(errors.StoreTimeout):
                await operation(stores.store("s"))
            seconds = trio.current_time() - started
            assert await list_keys(stores.store("s")) == ["a"]
            assert len(server.exchanges) == MAX_BODIES + 1
            nursery.cancel_scope.cancel()
            return seconds

    seconds = run_async(main, within=20)
    gc.collect()
    assert seconds < deadlines.total + SLACK


# Proxies and tokens


def test_loopback_is_asked_directly_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # discard: nobody listens
    assert call(list_keys, answering(200, PAGE))[0] == ["a"]


def test_a_proxy_of_the_environment_is_used_for_the_world(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)

    async def main() -> str:
        async with fault_server(answering(200, PAGE)) as proxy:
            monkeypatch.setenv("http_proxy", proxy.url)
            async with ApifyStoreCollection(
                "http://api.kvsfs.invalid", token=TOKEN, deadlines=QUICK
            ) as stores:
                assert await list_keys(stores.store("s")) == ["a"]
            return proxy.exchanges[0].target

    assert run_async(main) == "http://api.kvsfs.invalid/v2/key-value-stores/s/keys"


def test_an_unusable_proxy_is_one_line_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "gopher://user:p4ssword@host")
    with pytest.raises(errors.StoreUnreachable, match="HTTPS_PROXY") as caught:
        ApifyStoreCollection("https://api.kvsfs.invalid")
    assert "p4ssword" not in str(caught.value)


@pytest.mark.parametrize("token", ["", "two\nlines", "tökén"])
def test_a_token_that_cannot_be_one(token: str) -> None:
    with pytest.raises(errors.NotAuthorized) as caught:
        ApifyStoreCollection("http://127.0.0.1:9", token=token)
    assert not token or token not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.apify.com",
        "ftp://host",
        "http://",
        "http://host:port",
        "https://user:p4ss@host",
        "https://h?a=b",
    ],
)
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(errors.RequestRefused, match="https://HOST") as caught:
        ApifyStoreCollection(url)
    assert "p4ss" not in str(caught.value)


def test_the_token_is_in_no_repr() -> None:
    stores = ApifyStoreCollection("http://127.0.0.1:9", token=TOKEN)
    assert TOKEN not in repr(stores) + repr(stores.store("s"))
