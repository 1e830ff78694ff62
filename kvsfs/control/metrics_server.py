"""`--metrics ADDRESS`: GET /metrics, inside the mount's own loop.

A scrape is a question about numbers that are at hand. No thread and no process: prometheus-client's own server
would read them from another thread while they change.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING

import h11
import trio

from kvsfs.control.status import Status
from kvsfs.errors import CommandError, ExitCode

if TYPE_CHECKING:
    from kvsfs.control.exposition import Exposition

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"

REQUEST_SECONDS = 5.0
"""For a request's headers to arrive, and as long again for its answer to be taken. A scrape takes milliseconds."""

MOST_CONNECTIONS = 8
"""At a time: two Prometheus servers and some curious people. Further ones are closed."""

_PIECE = 16 * 1024


class MetricsServer:
    """Answers scrapes, one a connection."""

    def __init__(self, address: str, status: Status) -> None:
        """`address`: PORT, or HOST:PORT, as options.py reads it."""
        host, _, self._port = address.rpartition(":")
        self._host = host.strip("[]") or LOOPBACK
        self._status = status
        self._connections = 0
        self._exposition: Exposition | None = None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer until cancelled. Raises CommandError where it cannot listen, before it is started."""
        from kvsfs.control.exposition import Exposition  # noqa: PLC0415 - 60 ms that only those wait who ask for it

        self._exposition = Exposition(self._status)
        listeners = await self._listen()
        self._status.metrics = [_url(listener) for listener in listeners]
        task_status.started()
        try:
            await trio.serve_listeners(self._serve, listeners)
        except Exception:
            log.exception("metrics are not served any more")

    async def _listen(self) -> list[trio.SocketListener]:
        try:
            return await trio.open_tcp_listeners(int(self._port), host=self._host)
        except OSError as error:
            message = f"cannot serve metrics on {self._host}:{self._port} ({error.strerror}): give --metrics another"
            raise CommandError(ExitCode.ADDRESS_IN_USE, message) from None

    async def _serve(self, stream: trio.SocketStream) -> None:
        """Answer one connection; raises nothing."""
        self._connections += 1
        try:
            async with stream:
                if self._connections <= MOST_CONNECTIONS:
                    with trio.move_on_after(REQUEST_SECONDS * 2):
                        await self._converse(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            log.debug("a scrape ended: %s", error)
        except Exception:
            log.exception("a scrape failed")
        finally:
            self._connections -= 1

    async def _converse(self, stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER)
        try:
            with trio.fail_after(REQUEST_SECONDS):
                request = await _request(connection, stream)
        except (h11.RemoteProtocolError, trio.TooSlowError):
            return
        status, content_type, content = self._answer(request)
        headers = [
            ("Content-Type", content_type),
            ("Content-Length", str(len(content))),
            ("Connection", "close"),
        ]
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            headers.append(("Allow", "GET"))
        head = h11.Response(status_code=status, headers=headers, reason=status.phrase.encode())
        parts = (head, h11.Data(data=content), h11.EndOfMessage())
        await stream.send_all(b"".join(filter(None, map(connection.send, parts))))

    def _answer(self, request: h11.Request) -> tuple[HTTPStatus, str, bytes]:
        if request.method != b"GET":
            return HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", b"only GET\n"
        if request.target.partition(b"?")[0] != b"/metrics":
            return HTTPStatus.NOT_FOUND, "text/plain", b"metrics are at /metrics\n"
        assert self._exposition is not None
        accept = next((value for name, value in request.headers if name == b"accept"), b"")
        return HTTPStatus.OK, *self._exposition.write(accept.decode("latin-1"))


def _url(listener: trio.SocketListener) -> str:
    host, port, *_ = listener.socket.getsockname()
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"


async def _request(connection: h11.Connection, stream: trio.SocketStream) -> h11.Request:
    """Read a request's headers. Raises h11.RemoteProtocolError for what is none, or is too long."""
    while not isinstance(event := connection.next_event(), h11.Request):
        if event is not h11.NEED_DATA:
            raise h11.RemoteProtocolError("no request")
        connection.receive_data(await stream.receive_some(_PIECE))
    return event
