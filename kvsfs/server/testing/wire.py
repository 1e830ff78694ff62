"""Fault rules on the wire: an ASGI layer that holds back, alters or cuts answers.

h11 lets nobody send a wrong answer, so where bytes must be wrong the connection itself is used: its transport
is closed, reset or written to past h11. Nothing more is sent on it afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kvsfs.server.answers import error_response
from kvsfs.server.connection import Connection
from kvsfs.server.testing.faults import Action, Garbage, Length, Reset, Rules, Stall, Status, Truncate

NO_HTTP = b"\x16\x03\x01 this is no HTTP\r\n\r\n"

Break = Callable[[], Awaitable[None]]


class Faulty:
    """ASGI middleware: does to a request what the rules say."""

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        self._app = app
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or do not."""
        action = self._rules.action(scope["method"], scope["path"])
        if action is None:
            await self._app(scope, receive, send)
        else:
            await self._strike(action, scope, receive, send)

    async def _strike(self, action: Action, scope: Scope, receive: Receive, send: Send) -> None:
        connection: Connection = scope["state"]["connection"]
        match action:
            case Status(status, headers, error_type, message):
                await error_response(status, error_type, message, headers)(scope, receive, send)
                return
            case Garbage():
                connection.transport.write(NO_HTTP)
                connection.transport.close()
            case Stall(seconds, None):
                await _stall(seconds, receive)
            case Stall(seconds, int(after)):
                send = Cut(send, after, lambda: _stall(seconds, receive), connection).send
            case Reset(_, int(received)):
                receive = Counted(receive, received, connection.reset).receive
            case Reset(after, None):
                send = Cut(send, after, _now(connection.reset), connection).send
            case Truncate(after):
                send = Cut(send, after, _now(connection.transport.close), connection).send
            case Length(by):
                send = Mislabelled(send, by, connection, bodyless=scope["method"] == "HEAD").send
        if not connection.transport.is_closing():
            await self._app(scope, receive, send)


def _now(act: Callable[[], None]) -> Break:
    async def act_now() -> None:
        act()

    return act_now


async def _stall(seconds: float | None, receive: Receive) -> None:
    if seconds is not None:
        await asyncio.sleep(seconds)
        return
    while (await receive())["type"] != "http.disconnect":
        pass


class Cut:
    """Sends an answer up to a byte of its body, or to its last one if it has fewer, and then does something.

    The headers wait for the body: with 0 bytes nothing at all was answered. What goes on after that is sent
    only if the connection is still open, and only what it takes.
    """

    def __init__(self, send: Send, after: int, then: Break, connection: Connection) -> None:
        self._send = send
        self._left = after
        self._then = then
        self._connection = connection
        self._start: Message | None = None
        self._broken = False

    async def send(self, message: Message) -> None:
        """Take a message of the application."""
        if message["type"] == "http.response.start":
            self._start = message
            return
        if self._broken:
            await self._send_on(message)
            return
        body = message.get("body", b"")
        sent, rest = body[: self._left], body[self._left :]
        self._left -= len(sent)
        if rest or not message.get("more_body", False):
            await self._break(sent)
            await self._send_on({**message, "body": rest})
        else:
            await self._send_on({**message, "body": sent})

    async def _break(self, sent: bytes) -> None:
        if sent:
            await self._send_on({"type": "http.response.body", "body": sent, "more_body": True})
        self._broken = True
        await self._then()

    async def _send_on(self, message: Message) -> None:
        if self._start is not None:
            start, self._start = self._start, None
            await self._send(start)
        # A transport that is closing, but has not sent everything yet, would send this, too.
        if not self._connection.transport.is_closing():
            await self._send(message)


class Counted:
    """Reads a request's body up to a byte, and then does something: nothing more arrives."""

    def __init__(self, receive: Receive, most: int, then: Callable[[], None]) -> None:
        self._receive = receive
        self._left = most
        self._then = then
        if most == 0:
            then()

    async def receive(self) -> Message:
        """Give a message of the client's."""
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left <= 0 or not message.get("more_body", False):
            self._then()
            return {"type": "http.disconnect"}
        return message


class Mislabelled:
    """Sends an answer whose Content-Length is wrong: the client waits for more, or gets more than it waits for."""

    def __init__(self, send: Send, by: int, connection: Connection, *, bodyless: bool) -> None:
        self._send = send
        self._by = by
        self._connection = connection
        self._bodyless = bodyless
        self._claimed: int | None = None

    async def send(self, message: Message) -> None:
        """Take a message of the application."""
        if message["type"] == "http.response.start":
            await self._send({**message, "headers": [self._header(*header) for header in message["headers"]]})
            return
        if self._claimed is None or self._bodyless:  # it tells no length, or nothing follows it
            await self._send(message)
            return
        body = message.get("body", b"")
        fitting, excess = body[: self._claimed], body[self._claimed :]
        self._claimed -= len(fitting)
        last = not message.get("more_body", False)
        await self._send({**message, "body": fitting, "more_body": True})
        if excess:
            self._connection.transport.write(excess)
        if last:
            self._connection.transport.close()

    def _header(self, name: bytes, value: bytes) -> tuple[bytes, bytes]:
        if name.lower() != b"content-length":
            return name, value
        self._claimed = max(0, int(value) + self._by)
        return name, str(self._claimed).encode()
