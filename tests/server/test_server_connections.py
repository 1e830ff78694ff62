"""Slow, silent and too many clients: in process, with small limits."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kvsfs.server import bodies
from kvsfs.server.app import build
from kvsfs.server.connection import Limits
from kvsfs.server.local import open_storage
from kvsfs.server.run import HEAD_BYTES, _config, _Server
from kvsfs.server.users import Tokens
from kvsfs.service_manager import ServiceManager

PATIENCE = 10.0
"""Far above every limit that these tests set."""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def serving(folder: Path, limits: Limits) -> AsyncIterator[int]:
    """Run the server in this event loop; gives its port. Nothing may fail in a callback, unseen."""
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failures.append(context))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ready = asyncio.Event()
        storage = open_storage(str(folder))
        server = _Server(_config(build(storage, Tokens({})), limits), storage, ready.set, ServiceManager({}))
        running = asyncio.create_task(server._serve([listener]))
        try:
            await asyncio.wait_for(ready.wait(), PATIENCE)
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            server.force_exit = True
            await running
        assert failures == []


async def connect(port: int) -> Streams:
    return await asyncio.open_connection("127.0.0.1", port)


async def answer_of(streams: Streams) -> tuple[int, str]:
    """Read to the end of the connection: status and error type."""
    received = await asyncio.wait_for(streams[0].read(), PATIENCE)
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head.lower()
    return int(head.split()[1]), json.loads(body)["error"]["type"]


async def ask(streams: Streams, request: bytes) -> bytes:
    """Send a request and read the head of the answer."""
    streams[1].write(request)
    return await asyncio.wait_for(streams[0].readuntil(b"\r\n\r\n"), PATIENCE)


GET = b"GET /v2/users/me HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_headers_that_do_not_end_are_given_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, Limits(head_seconds=0.2)) as port:
            silent, slow = await connect(port), await connect(port)
            slow[1].write(b"GET /v2/users/me HTTP/1.1\r\nX-Slow: ")
            assert await answer_of(silent) == (408, "invalid-request")
            assert await answer_of(slow) == (408, "invalid-request")
            # A connection that is kept alive may be silent, but not begin a request and leave it.
            second = await connect(port)
            assert b" 200 " in await ask(second, GET)
            second[1].write(b"GET /v2")
            await asyncio.wait_for(second[0].read(), PATIENCE)
            for _, writer in (silent, slow, second):
                writer.close()

    asyncio.run(scenario())


def test_dripping_headers_gain_no_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, Limits(head_seconds=0.3)) as port:
            streams = await connect(port)
            reading = asyncio.create_task(answer_of(streams))
            with contextlib.suppress(ConnectionError):
                while not reading.done():
                    streams[1].write(b"G")
                    await asyncio.sleep(0.02)
            assert (await reading)[0] in (400, 408)
            streams[1].close()

    asyncio.run(scenario())


def test_an_upload_that_drips_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "STALL_SECONDS", 0.3)

    async def scenario() -> None:
        async with serving(tmp_path, Limits()) as port:
            streams = await connect(port)
            made = await ask(streams, b"POST /v2/key-value-stores HTTP/1.1\r\nHost: localhost\r\n\r\n")
            location = made.partition(b"location: ")[2].partition(b"\r\n")[0].partition(b"/v2")[2]
            streams[1].close()
            streams = await connect(port)
            head = b"PUT /v2%s/records/a HTTP/1.1\r\nHost: localhost\r\n" % location
            streams[1].write(head + b"Content-Length: 1000\r\n\r\n")
            reading = asyncio.create_task(asyncio.wait_for(streams[0].readuntil(b"\r\n\r\n"), PATIENCE))
            while not reading.done():
                streams[1].write(b"x")  # never silent for long, but slower than 1 KiB/s
                await asyncio.sleep(0.02)
            assert b" 408 " in await reading
            streams[1].close()

    asyncio.run(scenario())


def test_a_body_nobody_waits_for_comes_to_an_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, Limits(head_seconds=0.2)) as port:
            streams = await connect(port)
            head = b"PUT /v2/nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
            assert b" 404 " in await ask(streams, head)
            ended = asyncio.create_task(asyncio.wait_for(streams[0].read(), PATIENCE))
            with contextlib.suppress(ConnectionError):
                while not ended.done():
                    streams[1].write(b"x")
                    await asyncio.sleep(0.02)
                await ended
            streams[1].close()

    asyncio.run(scenario())


def test_a_client_that_does_not_read_is_cut(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, Limits(stall_seconds=0.3)) as port:
            streams = await connect(port)
            made = await ask(streams, b"POST /v2/key-value-stores HTTP/1.1\r\nHost: localhost\r\n\r\n")
            path = b"/v2" + made.partition(b"location: ")[2].partition(b"\r\n")[0].partition(b"/v2")[2]
            streams[1].close()
            streams = await connect(port)
            size = 32 * 1024 * 1024
            head = b"PUT %s/records/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (
                path,
                size,
            )
            assert b" 201 " in await ask(streams, head + bytes(size))
            streams[1].close()
            reader = socket.create_connection(("127.0.0.1", port))
            reader.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(reader, b"GET %s/records/a HTTP/1.1\r\nHost: localhost\r\n\r\n" % path)
            await asyncio.sleep(1)  # the one thing to wait for is that nothing is read
            received = 0
            with contextlib.suppress(ConnectionResetError):
                while piece := await asyncio.wait_for(loop.sock_recv(reader, 1 << 20), PATIENCE):
                    received += len(piece)
            reader.close()
            assert received < size

    asyncio.run(scenario())


def test_connections_past_the_most_are_told_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, Limits(connections=3, refusals=2)) as port:
            taken = [await connect(port) for _ in range(3)]
            for streams in taken:
                assert b" 200 " in await ask(streams, GET)
            refused = await connect(port)
            refused[1].write(GET)
            assert await answer_of(refused) == (503, "too-many-requests")
            others = [await connect(port) for _ in range(8)]
            ended = await asyncio.gather(
                *(asyncio.wait_for(reader.read(), PATIENCE) for reader, _ in others), return_exceptions=True
            )
            # Past the refusals that may linger, the socket is closed at once.
            assert sum(isinstance(end, bytes) and b" 503 " in end for end in ended) <= 2
            assert b" 200 " in await ask(taken[0], GET)
            taken[0][1].close()
            await taken[0][1].wait_closed()
            freed = await connect(port)
            assert b" 200 " in await ask(freed, GET)
            for _, writer in [*taken[1:], refused, *others, freed]:
                writer.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: x\r\n\r\n", 400),
        (b"GET /" + b"x" * (HEAD_BYTES + 1024), 431),
        (b"GET / HTTP/1.1\r\n" + b"X-Long: x\r\n" * (HEAD_BYTES // 10), 431),
    ],
)
def test_what_is_no_request_is_answered_in_the_apis_form(
    tmp_path: Path, request_bytes: bytes, status: int
) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, Limits()) as port:
            streams = await connect(port)
            streams[1].write(request_bytes)
            assert await answer_of(streams) == (status, "invalid-request")
            streams[1].close()

    asyncio.run(scenario())
