"""An HTTP server that misbehaves to order, on raw sockets inside the test's own loop."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.client import parse_headers
from io import BytesIO
from socket import SO_LINGER, SOL_SOCKET

import trio


@dataclass(eq=False)
class Exchange:
    """One request, and the connection to answer it on."""

    stream: trio.SocketStream
    method: str
    target: str
    headers: Mapping[str, str]
    unread: bytes
    body: bytes = b""

    async def read_body(self) -> None:
        """Read the whole body, as the length in the headers tells."""
        length = int(self.headers.get("content-length", "0"))
        body = bytearray(self.unread)
        while len(body) < length and (chunk := await self.stream.receive_some(65536)):
            body += chunk
        self.body = bytes(body)

    async def reset(self) -> None:
        """Close the connection with a RST, as a killed server's machine does."""
        self.stream.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        await self.stream.aclose()


Step = Callable[[Exchange], Awaitable[None]]


@dataclass
class FaultServer:
    """Answers requests by its script, in order; the last step answers all that follow."""

    port: int
    script: list[Step]
    exchanges: list[Exchange] = field(default_factory=list)
    connections: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        async with stream:
            try:
                while (exchange := await _next_request(stream)) is not None:
                    self.exchanges.append(exchange)
                    step = self.script[min(len(self.exchanges), len(self.script)) - 1]
                    await step(exchange)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return  # the client left, or the step closed


async def _next_request(stream: trio.SocketStream) -> Exchange | None:
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = await stream.receive_some(65536)
        if not chunk:
            return None
        received += chunk
    head, _, rest = received.partition(b"\r\n\r\n")
    request_line, _, fields = head.partition(b"\r\n")
    method, target, _version = request_line.decode().split(" ")
    headers = {k.lower(): v for k, v in parse_headers(BytesIO(fields + b"\r\n\r\n")).items()}
    return Exchange(stream, method, target, headers, rest)


@asynccontextmanager
async def fault_server(*script: Step, port: int = 0) -> AsyncIterator[FaultServer]:
    """Serve `script` on a port of loopback; 0 is any free one."""
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
        server = FaultServer(listeners[0].socket.getsockname()[1], list(script))
        nursery.start_soon(trio.serve_listeners, server.serve, listeners)
        yield server
        nursery.cancel_scope.cancel()


def answering(
    status: int, content: bytes = b"", *, claimed: int | None = None, headers: Mapping[str, str] | None = None
) -> Step:
    """Read the request and answer it; `claimed` is a Content-Length that is not the truth."""

    async def step(exchange: Exchange) -> None:
        await exchange.read_body()
        length = len(content) if claimed is None else claimed
        fields = {"Content-Length": str(length), "Content-Type": "text/plain", **(headers or {})}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        body = b"" if exchange.method == "HEAD" or status in (204, 304) else content
        await exchange.stream.send_all(f"HTTP/1.1 {status} Status\r\n{lines}\r\n".encode("latin-1") + body)
        if claimed is not None and claimed > len(content):
            await exchange.stream.send_eof()

    return step


def answering_in_chunks(status: int, *pieces: bytes, headers: Mapping[str, str] | None = None) -> Step:
    """Answer with chunked transfer coding, which tells no length (RFC 9112, 7.1)."""

    async def step(exchange: Exchange) -> None:
        fields = {"Transfer-Encoding": "chunked", "Content-Type": "text/plain", **(headers or {})}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (*pieces, b""))
        await exchange.stream.send_all(f"HTTP/1.1 {status} Status\r\n{lines}\r\n".encode("latin-1") + body)

    return step


def sending(raw: bytes, *, then_close: bool = True) -> Step:
    """Send these bytes, whatever they are, where an answer belongs."""

    async def step(exchange: Exchange) -> None:
        await exchange.read_body()
        await exchange.stream.send_all(raw)
        if then_close:
            await exchange.stream.aclose()

    return step


def sending_for_ever(head: bytes, piece: bytes) -> Step:
    """Send `head`, and then `piece` again and again until the client has had enough."""

    async def step(exchange: Exchange) -> None:
        await exchange.read_body()
        await exchange.stream.send_all(head)
        while True:
            await exchange.stream.send_all(piece)

    return step


async def resetting(exchange: Exchange) -> None:
    """Reset the connection instead of answering."""
    await exchange.reset()


async def stalling(_exchange: Exchange) -> None:
    """Never answer."""
    await trio.sleep_forever()


def stalling_after(content: bytes, *, claimed: int) -> Step:
    """Answer a part of a body, then nothing more."""

    async def step(exchange: Exchange) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {claimed}\r\nContent-Type: text/plain\r\n\r\n"
        await exchange.stream.send_all(head.encode() + content)
        await trio.sleep_forever()

    return step


def dripping(content: bytes, *, every: float) -> Step:
    """Answer one byte every so many seconds."""

    async def step(exchange: Exchange) -> None:
        await exchange.stream.send_all(f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\n\r\n".encode())
        for byte in content:
            await trio.sleep(every)
            await exchange.stream.send_all(bytes([byte]))

    return step


def refusing_early(status: int, *, then_reset: bool) -> Step:
    """Answer before the body was read, then close or reset the connection."""

    async def step(exchange: Exchange) -> None:
        await exchange.stream.send_all(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode())
        if then_reset:
            await exchange.stream.send_eof()
            await exchange.stream.receive_some(65536)
        await exchange.stream.aclose()

    return step
