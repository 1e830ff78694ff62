"""httpx clients, and the two ends of an exchange on it: a body going out, an answer coming in.

httpx is told nothing that it could act on by itself: no redirects, no decoding, no cookies.
"""

from __future__ import annotations

import ipaddress
import logging
import ssl
from collections.abc import Callable
from contextlib import ExitStack
from http.cookiejar import CookieJar, DefaultCookiePolicy
from urllib.parse import urlsplit

import httpcore
import httpx
import trio

from kvsfs.errors import StoreUnreachable
from kvsfs.metrics import StoreMeter
from kvsfs.store import faults
from kvsfs.store.connections import MAX_CONNECTIONS
from kvsfs.store.protocol import RecordBody
from kvsfs.store.retry import Deadlines

KEEPALIVE_EXPIRY = 4.0
"""Seconds. uvicorn and Node close an idle connection after 5: we let go first, lest a request meet it."""

READ_BYTES = 256 * 1024
"""Read from a socket at a time. With httpcore's 64 KiB 1 GiB cost 1.9 s of CPU, with these 1.2, with 1 MiB 1.3."""

httpcore.AsyncHTTP11Connection.READ_NUM_BYTES = READ_BYTES  # it has no option

HOSTS = 2
"""Connections that a client keeps: to the API, and to the object store that it may redirect to."""

_URL_LOGGERS = (
    "httpx",
    "httpcore.connection",
    "httpcore.http11",
    "httpcore.http2",
    "httpcore.proxy",
    "httpcore.socks",
)


class HttpClients:
    """`MAX_CONNECTIONS` clients, each for one exchange at a time. The one used last goes first: few stay open.

    Not one client with many connections: for each step of a request httpcore looks at every pair of connections that
    its pool has, and asks the system about each: 0.4 ms a request with 24 of them, as much as all the rest.
    """

    def __init__(self, base_url: str, deadlines: Deadlines) -> None:
        """Raise StoreUnreachable when the URL or the environment's proxy or certificates make no sense."""
        _silence_url_loggers()
        self._base_url = base_url
        self._deadlines = deadlines
        self._tls = _tls_context()
        self._all = [self._open()]
        self._free = list(self._all)
        self._turn = trio.Semaphore(MAX_CONNECTIONS)

    async def take(self, taken: ExitStack) -> httpx.AsyncClient:
        """Wait for a client, first come first served; closing `taken` gives it back. Cancelled, none was taken."""
        await self._turn.acquire()
        taken.callback(self._turn.release)
        if not self._free:
            self._all.append(self._open())
            self._free.append(self._all[-1])
        client = self._free.pop()
        taken.callback(self._free.append, client)
        return client

    async def aclose(self) -> None:
        """Close all connections; answers still being read break off."""
        for client in self._all:
            await client.aclose()

    def _open(self) -> httpx.AsyncClient:
        return _open_http_client(self._base_url, self._deadlines, self._tls)


def _tls_context() -> ssl.SSLContext:
    """Make what all connections share: reading the certificates takes 20 ms."""
    try:
        return httpx.create_ssl_context()  # SSL_CERT_FILE holds for loopback, too
    except (ValueError, OSError):
        raise _unusable_environment() from None


def _open_http_client(base_url: str, deadlines: Deadlines, tls: ssl.SSLContext) -> httpx.AsyncClient:
    """Make a client for `base_url`: HTTP/1.1, keep-alive, TLS verified, proxies as the environment says.

    The embedded store on loopback is never asked through a proxy: HTTP_PROXY is set for the world outside.
    """
    try:
        # HTTP/2 is off: httpx hands the server's GOAWAY after 1,000 requests to the caller as an error.
        return httpx.AsyncClient(
            http2=False,
            follow_redirects=False,
            trust_env=not is_loopback(base_url),
            verify=tls,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            # No bound of its own on the wait for a connection: it is in the call's, which for uploads grows
            # with their size. A bound of `total` failed the 33rd upload while the 32 before it still moved.
            timeout=httpx.Timeout(deadlines.stall, connect=deadlines.connect, pool=None),
            limits=httpx.Limits(
                max_connections=HOSTS,
                max_keepalive_connections=HOSTS,
                keepalive_expiry=KEEPALIVE_EXPIRY,
            ),
        )
    except (ValueError, ImportError, OSError):
        # from None: a proxy's URL may hold a password.
        raise _unusable_environment() from None


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


class Upload(httpx.AsyncByteStream):
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

    Iterating raises StoreUnreachable when the body breaks off and StoreTimeout when it stalls. `aclose` must
    be called, read or not: a body read to its end leaves a connection to use again, any other closes it.
    It calls `on_close`, the first time.
    """

    def __init__(
        self, response: httpx.Response, subject: str, meter: StoreMeter, on_close: Callable[[], None]
    ) -> None:
        self.status = response.status_code
        self.headers = response.headers
        self.url = response.url
        self._response = response
        self._subject = subject
        self._meter = meter
        self._on_close = on_close
        self._raw = response.aiter_raw()
        self._begun = False

    def __aiter__(self) -> Answer:
        return self

    async def __anext__(self) -> bytes:
        self._begun = True
        try:
            chunk = await anext(self._raw)
        except httpx.HTTPError as error:
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
        # Below aiter_raw() stand five more of httpx's and httpcore's generators. Left suspended, each would
        # be collected as garbage, which trio reports, rightly. On the closed connection the next read fails
        # and unwinds them all in order.
        try:
            async for _rest in self._raw:
                pass
        except (httpx.HTTPError, httpx.StreamError):
            pass


def _silence_url_loggers() -> None:
    # They write request URLs (INFO) and Location headers (DEBUG): a pre-signed URL is a key to the record.
    # A filter, because a level could be set again by whoever asks for --debug. Filters are not inherited, so
    # each logger has its own, and adding the same one twice does nothing.
    for name in _URL_LOGGERS:
        logging.getLogger(name).addFilter(_nothing)


def _nothing(_record: logging.LogRecord) -> bool:
    return False
