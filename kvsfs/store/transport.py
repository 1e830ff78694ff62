"""Connections to hosts, and the two ends of an exchange on them: a body going out, an answer coming in.

httpcore, on which httpx stands, and not httpx's client: that one spends another 0.2 ms a request on redirects, cookies,
authentication and models of headers, of which nothing is wanted here.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from contextlib import ExitStack
from urllib.parse import urlsplit

import httpcore
import httpx
import trio

from kvsfs.errors import StoreUnreachable
from kvsfs.metrics import StoreMeter
from kvsfs.store import faults
from kvsfs.store.connections import MAX_CONNECTIONS
from kvsfs.store.network import Network
from kvsfs.store.protocol import RecordBody
from kvsfs.store.proxies import Proxies
from kvsfs.store.retry import Deadlines

KEEPALIVE_EXPIRY = 4.0
"""Seconds. uvicorn and Node close an idle connection after 5: we let go first, lest a request meet it."""

HOSTS = 2
"""Connections that a line keeps: to the API, and to the object store that it may redirect to."""

_URL_LOGGERS = (
    "httpx",
    "httpcore.connection",
    "httpcore.http11",
    "httpcore.http2",
    "httpcore.proxy",
    "httpcore.socks",
)


class Lines:
    """`MAX_CONNECTIONS` lines, each for one exchange at a time. The one used last goes first: few stay open.

    Not httpcore's pool: for each step of a request that looks at every pair of its connections, and asks the system
    about each: 0.4 ms a request with 24 of them.
    """

    def __init__(self, base_url: str, deadlines: Deadlines) -> None:
        """Raise StoreUnreachable when the URL or the environment's proxy or certificates make no sense."""
        _silence_url_loggers()
        self._dialer = _Dialer(base_url)
        self._timeouts = {
            "connect": deadlines.connect,
            "read": deadlines.stall,
            "write": deadlines.stall,
        }
        self._all: list[Line] = []
        self._free: list[Line] = []
        self._turn = trio.Semaphore(MAX_CONNECTIONS)

    async def take(self, taken: ExitStack) -> Line:
        """Wait for a line, first come first served; closing `taken` gives it back. Cancelled, none was taken.

        Checkpoints only where it has to wait.
        """
        try:
            self._turn.acquire_nowait()
        except trio.WouldBlock:
            await self._turn.acquire()
        taken.callback(self._turn.release)
        if not self._free:
            self._all.append(Line(self._dialer, self._timeouts))
            self._free.append(self._all[-1])
        line = self._free.pop()
        taken.callback(self._free.append, line)
        return line

    async def aclose(self) -> None:
        """Close all connections; answers still being read break off."""
        for line in self._all:
            await line.aclose()


class Line:
    """One exchange at a time, on a connection that is kept for the next one."""

    def __init__(self, dialer: _Dialer, timeouts: Mapping[str, float]) -> None:
        self._dialer = dialer
        self._extensions = {"timeout": timeouts}
        self._kept: list[httpcore.AsyncConnectionInterface] = []

    async def send(
        self,
        method: str,
        url: httpcore.URL,
        headers: Mapping[bytes, bytes],
        content: bytes | AsyncIterator[bytes],
    ) -> httpcore.Response:
        """Send, and give the answer with its body unread. Raises `faults.TRANSPORT_ERRORS`."""
        request = httpcore.Request(
            method, url, headers=list(headers.items()), content=content, extensions=self._extensions
        )
        connection = await self._connection_to(url.origin)
        return await connection.handle_async_request(request)

    async def aclose(self) -> None:
        """Close what is kept."""
        for connection in self._kept:
            await connection.aclose()

    async def _connection_to(self, origin: httpcore.Origin) -> httpcore.AsyncConnectionInterface:
        connection = next((c for c in self._kept if c.can_handle_request(origin)), None)
        if connection is not None:
            if connection.is_available() and not connection.has_expired():
                return connection
            await self._drop(connection)
        elif len(self._kept) == HOSTS:
            await self._drop(self._kept[0])
        connection = self._dialer.connection_to(origin)
        self._kept.append(connection)
        return connection

    async def _drop(self, connection: httpcore.AsyncConnectionInterface) -> None:
        self._kept.remove(connection)
        await connection.aclose()


class _Dialer:
    """Makes connections: HTTP/1.1, keep-alive, TLS verified, proxies as the environment says.

    The embedded store on loopback is never asked through a proxy: HTTP_PROXY is set for the world outside.
    """

    def __init__(self, base_url: str) -> None:
        try:
            self._tls = httpx.create_ssl_context()  # SSL_CERT_FILE holds for loopback, too
            self._proxies = None if is_loopback(base_url) else Proxies()
        except (ValueError, ImportError, OSError):
            # from None: a proxy's URL may hold a password.
            raise _unusable_environment() from None
        self._network = Network()

    def connection_to(self, origin: httpcore.Origin) -> httpcore.AsyncConnectionInterface:
        """Make a connection; it opens with its first request."""
        scheme, host = origin.scheme.decode("ascii"), origin.host.decode("ascii")
        proxy = None if self._proxies is None else self._proxies.leading_to(scheme, host)
        # HTTP/2 is off: httpcore hands the server's GOAWAY after 1,000 requests to the caller as an error.
        pool = httpcore.AsyncConnectionPool(
            ssl_context=self._tls,
            proxy=proxy,
            keepalive_expiry=KEEPALIVE_EXPIRY,
            network_backend=self._network,
        )
        return pool.create_connection(origin)


def _unusable_environment() -> StoreUnreachable:
    return StoreUnreachable(
        "the proxy or the certificates that the environment names cannot be used: "
        "see HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE"
    )


def is_loopback(url: str) -> bool:
    """Whether `url` names this machine by its loopback address."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Upload:
    """A record's body on its way to the socket. An iterator and no generator: it can be left half way."""

    def __init__(self, body: RecordBody, meter: StoreMeter) -> None:
        self._chunks = body.chunks()
        self._meter = meter

    def __aiter__(self) -> Upload:
        return self

    async def __anext__(self) -> bytes:
        chunk = await anext(self._chunks)
        self._meter.count_sent(len(chunk))
        return chunk


class Answer:
    """An answer whose headers are known; iterating gives its body as it is sent, still encoded.

    `headers` have names in lower case. Iterating raises StoreUnreachable when the body breaks off and StoreTimeout
    when it stalls. `aclose` must be called, read or not: a body read to its end leaves a connection to use again, any
    other closes it. It calls `on_close`, the first time.
    """

    def __init__(
        self,
        response: httpcore.Response,
        url: httpcore.URL,
        subject: str,
        meter: StoreMeter,
        on_close: Callable[[], None],
    ) -> None:
        self.status = response.status
        self.headers = _by_name(response.headers)
        self.url = url
        self._response = response
        self._subject = subject
        self._meter = meter
        self._on_close = on_close
        assert isinstance(response.stream, AsyncIterable)
        self._raw = aiter(response.stream)
        self._begun = False

    def __aiter__(self) -> Answer:
        return self

    async def __anext__(self) -> bytes:
        self._begun = True
        try:
            chunk = await anext(self._raw)
        except faults.TRANSPORT_ERRORS as error:
            raise faults.from_exception(error, self._subject) from error
        self._meter.count_received(len(chunk))
        return chunk

    async def aclose(self) -> None:
        """Let go of the connection. Nothing is waited for, so not even cancellation interrupts it."""
        with trio.CancelScope(shield=True):
            try:
                await self._response.aclose()
                if self._begun:
                    await self._end_generators()
            finally:
                self._on_close()

    async def _end_generators(self) -> None:
        # Below stand two of httpcore's generators. Left suspended, each would be collected as garbage, which trio
        # reports, rightly. On the closed connection the next read fails and unwinds them in order.
        try:
            async for _rest in self._raw:
                pass
        except faults.TRANSPORT_ERRORS:
            pass


def _by_name(raw: Iterable[tuple[bytes, bytes]]) -> Mapping[str, str]:
    """Read headers as RFC 9110, 5.3 says: of one name they are a list."""
    headers: dict[str, str] = {}
    for name, value in raw:
        key, text = name.decode("ascii").lower(), _text(value)
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _silence_url_loggers() -> None:
    # They write request URLs (INFO) and Location headers (DEBUG): a pre-signed URL is a key to the record.
    # A filter, because a level could be set again by whoever asks for --debug. Filters are not inherited, so
    # each logger has its own, and adding the same one twice does nothing.
    for name in _URL_LOGGERS:
        logging.getLogger(name).addFilter(_nothing)


def _nothing(_record: logging.LogRecord) -> bool:
    return False
