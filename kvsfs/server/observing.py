"""Around every request: the delay that tests and benchmarks ask for, and what is logged when it is done.

A request is logged before the last byte of its answer leaves, so that whoever has the answer finds it in the
log. Only query parameters that hold no secret are logged.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlencode

from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOGGED_PARAMETERS = frozenset(
    {
        "attachment",
        "collection",
        "desc",
        "exclusiveStartKey",
        "limit",
        "name",
        "offset",
        "origin",
        "ownership",
        "prefix",
        "status",
        "unnamed",
    }
)
"""Everything else stays out: `token` and `signature` are secrets, and so may be what we do not know."""

PATH_CHARACTERS = "/!'()~"
"""What paths of this API hold beside letters, digits and _.-~; all others are escaped, line ends above all."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A request that was answered."""

    method: str
    path: str
    """With the query parameters that are no secrets."""
    status: int | None
    """None: the client went away, or the server failed, before there was an answer."""
    ms: float


logger = logging.getLogger(__name__)

Sink = Callable[[Finished], None]


class Observed:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, sinks: Sequence[Sink], latency: float = 0.0) -> None:
        self._app = app
        self._sinks = sinks
        self._latency = latency

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        watch = _Watch(scope, send, self._finished)
        if self._latency:
            await asyncio.sleep(self._latency)
        try:
            await self._app(scope, receive, watch.send if self._sinks else send)
        except Exception:
            # It was answered with 500, or, amid an answer, uvicorn now cuts the connection. Logged here
            # because only here no secret of the query gets into the line.
            logger.exception("%s %s failed", scope["method"], _logged_path(scope))
        finally:
            if self._sinks:
                watch.finish()

    def _finished(self, finished: Finished) -> None:
        for sink in self._sinks:
            sink(finished)


class _Watch:
    """Follows one answer to its last byte."""

    def __init__(self, scope: Scope, send: Send, report: Sink) -> None:
        self._scope = scope
        self._send = send
        self._report = report
        self._started = time.monotonic()
        self._status: int | None = None
        self._left: int | None = None
        self._done = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._left = self._body_length(message)
        else:
            body = len(message.get("body", b""))
            self._left = None if self._left is None else self._left - body
            if not message.get("more_body", False):
                self._left = 0
        if self._left == 0:
            self.finish()
        await self._send(message)

    def finish(self) -> None:
        if not self._done:
            self._done = True
            ms = round((time.monotonic() - self._started) * 1000, 3)
            self._report(Finished(self._scope["method"], _logged_path(self._scope), self._status, ms))

    def _body_length(self, start: Message) -> int | None:
        """Bytes that follow the headers; None when they do not tell."""
        if self._scope["method"] == "HEAD" or start["status"] in (204, 304):
            return 0
        lengths = [int(value) for name, value in start["headers"] if name.lower() == b"content-length"]
        return lengths[0] if lengths else None


def _logged_path(scope: Scope) -> str:
    path = quote(scope["path"], safe=PATH_CHARACTERS)
    parameters = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    logged = urlencode([(name, value) for name, value in parameters if name in LOGGED_PARAMETERS])
    return f"{path}?{logged}" if logged else path


def request_log(path: str) -> Sink:
    """Append a JSON line for each request to a file. Raises OSError when it cannot be opened."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(finished: Finished) -> None:
        line = {
            "method": finished.method,
            "path": finished.path,
            "status": finished.status,
            "ms": finished.ms,
        }
        os.write(descriptor, json.dumps(line).encode() + b"\n")

    return write


def access_log(finished: Finished) -> None:
    """Write a line for each request to stderr."""
    status = "aborted" if finished.status is None else finished.status
    sys.stderr.write(f"{finished.method} {finished.path} {status} {finished.ms:.1f} ms\n")
    sys.stderr.flush()
