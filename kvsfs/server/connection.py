"""One client's connection: uvicorn's, with an end to every wait for the client.

Whoever connects and then says nothing, or says it a byte at a time, or does not read its answer, holds a
socket, and they are few: each wait has a deadline, and there is a most of connections.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import sys
from dataclasses import dataclass
from http import HTTPStatus
from typing import ClassVar, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

LINGER_SECONDS = 2.0
"""How long a refused client may take to read why: a socket closed with unread bytes of the client's in it
takes the answer back (it sends RST)."""

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER on, for 0 s: closing sends RST instead of FIN."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may take."""

    connections: int = 500
    """Each may hold a socket and a file: together below 1024, the usual limit of descriptors (see run.py)."""
    refusals: int = 100
    """Connections past the most that are told so at once; those past this are closed without a word."""
    head_seconds: float = 20.0
    """From the connection, or the first byte of a further request, to the end of its headers. Clients send
    them in one piece."""
    stall_seconds: float = 60.0
    """How long the client may leave the answer unread once 64 KiB of it wait: 1 KiB/s is enough."""


class Connection(H11Protocol):
    """The protocol of one connection. Made by uvicorn, of the class that `limited` gives."""

    limits: ClassVar[Limits] = Limits()
    refused: ClassVar[set[_Refused]] = set()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        """Take the connection, or refuse it."""
        if len(self.connections) >= self.limits.connections:
            _refuse(transport, self.refused, self.limits.refusals)
            return
        super().connection_made(transport)
        # So that a fault rule finds the connection that it is to break (testing/wire.py).
        self.app_state = {**self.app_state, "connection": self}
        self._head_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadlines."""
        self._forget_head()
        self._forget_stall()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes, and see to it that headers come to their end."""
        super().data_received(data)
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn's annotation leaves the None out
        if cycle is not None and not cycle.response_complete:
            self._forget_head()
        elif not self.transport.is_closing():
            # Also for the body of a request that was answered before it was read: that has to end, too.
            self._await_head()

    def pause_writing(self) -> None:
        """Wait for the client to read: not for ever."""
        super().pause_writing()
        self._stall_timer = self.loop.call_later(self.limits.stall_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: the client has read."""
        self._forget_stall()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request, in the API's form. Called by uvicorn while it handles h11's error."""
        self._end_with(getattr(sys.exception(), "error_status_hint", 400), msg)

    def reset(self) -> None:
        """Close with a RST, as a killed server's machine does. What is written, but not sent, is lost."""
        connected = cast("socket.socket", self.transport.get_extra_info("socket"))
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.transport.abort()

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.limits.head_seconds, self._give_up)

    def _forget_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _forget_stall(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _give_up(self) -> None:
        self._end_with(408, f"The request did not arrive within {self.limits.head_seconds:g} seconds.")

    def _end_with(self, status: int, message: str) -> None:
        """Answer, if an answer can still be told from the last one, and close."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.write(_answer(status, "invalid-request", message))
            self.transport.close()
        else:
            self.transport.abort()


def limited(limits: Limits) -> type[Connection]:
    """Make the class of connections with these limits."""
    return type("LimitedConnection", (Connection,), {"limits": limits, "refused": set()})


class _Refused(asyncio.Protocol):
    """A connection past the most: told so, then closed, its bytes unread."""

    def __init__(self, refused: set[_Refused]) -> None:
        self._refused = refused

    def connection_lost(self, _exc: Exception | None) -> None:
        self._refused.discard(self)


def _refuse(transport: asyncio.Transport, refused: set[_Refused], most: int) -> None:
    protocol = _Refused(refused)
    transport.set_protocol(protocol)
    if len(refused) >= most:
        transport.abort()
        return
    refused.add(protocol)
    transport.write(
        _answer(503, "too-many-requests", "The server has too many connections.", "Retry-After: 1\r\n")
    )
    transport.write_eof()
    asyncio.get_running_loop().call_later(LINGER_SECONDS, transport.abort)


def _answer(status: int, error_type: str, message: str, headers: str = "") -> bytes:
    body = json.dumps({"error": {"type": error_type, "message": message}})
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{headers}"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return (head + body).encode()
