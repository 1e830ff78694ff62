"""Calls of the API: attempts, redirects, refusals, answers of bounded size. Knows no operation by name."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import ExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from importlib.metadata import version
from typing import TypeVar
from urllib.parse import urlencode

import httpcore
import httpx
import trio

from kvsfs.credentials import Credential
from kvsfs.errors import NotAuthorized, ProtocolViolation, RequestRefused, StoreError, StoreUnreachable
from kvsfs.metrics import StoreMeter
from kvsfs.store import faults
from kvsfs.store.breaker import Breaker
from kvsfs.store.connections import Connections, Direction
from kvsfs.store.decoding import decoded
from kvsfs.store.limit import Headroom, Kind, Limits, TokenBucket
from kvsfs.store.parsing import parse_encoding, parse_error, parse_json
from kvsfs.store.protocol import RecordBody
from kvsfs.store.retry import Deadlines, Transient, retrying
from kvsfs.store.transport import Answer, Line, Lines, Upload, is_loopback

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_HOPS = 3
"""Redirects of a record: one leads to the object store, the rest is caution."""

LARGEST_ANSWER = 4 * 1024 * 1024
"""Bytes of JSON: a page of 1,000 keys with their URLs is under 1 MiB, a schema may be larger. Python's objects
may take twenty times as much: 4 MiB of `[],` are 90 MB."""

LARGEST_ERROR = 64 * 1024
"""Bytes of an error's answer that are looked at: enough for its type and message."""

ACCEPT_ENCODING = "gzip, br, deflate"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_COMMON_HEADERS = {
    b"User-Agent": f"kvsfs/{version('kvsfs')}".encode(),
    b"Accept-Encoding": ACCEPT_ENCODING.encode(),
}

Query = Mapping[str, "str | int | bool | None"]
Headers = Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Call:
    """One operation of the API, however often it has to be sent."""

    operation: str
    """The name that metrics and logs use: that of the method of `protocol.py`."""
    method: str
    path: str
    """Below the base URL, escaped."""
    subject: str
    """What messages to people are about: `record OUTPUT`."""
    missing: type[StoreError]
    """What 404 means."""
    store: str = ""
    """Whose rate limit it falls under, and under which one; "" for no store's."""
    kind: Kind = "store"
    query: Query = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    accepted: frozenset[int] = frozenset({200, 201, 204})
    follows_redirects: bool = False
    content: bytes = b""
    """A small content; a record's goes into `body`."""
    body: RecordBody | None = None
    streamed: bool = False
    """Whether its answer's body is taken at its reader's own pace."""

    @property
    def direction(self) -> Direction | None:
        """Where a record's body goes, if it has one."""
        if self.body is not None:
            return "up"
        return "down" if self.streamed else None


def query_string(query: Query) -> str:
    """Spell a query with its question mark, without what is None; `""` when nothing is left."""
    spelled = {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in query.items()
        if value is not None
    }
    return f"?{urlencode(spelled)}" if spelled else ""


class ApiClient:
    """Sends calls. Every method raises StoreError only, checkpoints, and keeps the `Deadlines`."""

    def __init__(
        self, base_url: str, credential: Credential, *, deadlines: Deadlines, meter: StoreMeter
    ) -> None:
        _check_token(credential.token)
        self.base_url = _checked(base_url)
        self._credential = credential
        self._deadlines = deadlines
        self._meter = meter
        self._api_url = _parts(httpx.URL(self.base_url))
        self._lines = Lines(self.base_url, deadlines)
        # The embedded server has no limits of its own; one that plays the platform's names them.
        self._limits = Limits(assumed=not is_loopback(self.base_url))
        self._connections = Connections()
        self._breaker = Breaker()

    def __repr__(self) -> str:
        return f"ApiClient({self.base_url!r})"

    @property
    def answers(self) -> bool:
        """Whether the API answered when it was last asked."""
        return not self._breaker.is_open

    def headroom(self, store: str) -> list[Headroom]:
        """Tell what a store's rate limits leave just now."""
        return self._limits.headroom(store)

    async def aclose(self) -> None:
        """Close all connections; answers still being read break off."""
        await self._lines.aclose()

    async def fetch_json(self, call: Call) -> object:
        """Send and read the answer's JSON."""
        return await self.fetch(call, parse_json)

    async def fetch(self, call: Call, parse: Callable[[bytes], T]) -> T:
        """Send and read the answer's body; what `parse` raises is not tried again."""

        async def attempt() -> T:
            async with aclosing(await self._open(call)) as answer:
                return parse(await self._read(call, answer, LARGEST_ANSWER))

        return await self._retrying(call, attempt)

    async def fetch_headers(self, call: Call) -> Mapping[str, str]:
        """Send; of the answer only the headers matter. They find a name in any case."""

        async def attempt() -> Mapping[str, str]:
            async with aclosing(await self._open(call)) as answer:
                _require_no_page(call, answer)
                await self._drain(answer)
                return answer.headers

        return await self._retrying(call, attempt)

    @asynccontextmanager
    async def stream(self, call: Call) -> AsyncIterator[Answer]:
        """Send and give the answer with its body unread; leaving the context closes it."""
        async with aclosing(await self._retrying(call, lambda: self._open(call))) as answer:
            yield answer

    async def _retrying(self, call: Call, attempt: Callable[[], Awaitable[T]]) -> T:
        return await retrying(
            attempt,
            deadlines=self._deadlines,
            body_length=call.body.length if call.body else 0,
            subject=call.subject,
            on_retry=self._meter.count_retry,
            on_give_up=lambda: self._breaker.gave_up(call.subject),
        )

    async def _open(self, call: Call) -> Answer:
        """Make one attempt: follow redirects, raise a refusal, give an accepted answer."""
        answer = await self._ask_with_token(call)
        for _hop in range(MAX_HOPS):
            if not (call.follows_redirects and answer.status in _REDIRECTS):
                break
            await answer.aclose()
            answer = await self._follow(call, _next_hop(call, answer))
        if answer.status in call.accepted:
            return answer
        async with aclosing(answer):
            raise await self._refusal(call, answer)

    async def _ask_with_token(self, call: Call) -> Answer:
        """Ask the API; a token that it does not know is looked for anew, and if there is another, that one is tried."""
        token = self._credential.token
        answer = await self._ask(call)
        if answer.status != HTTPStatus.UNAUTHORIZED:
            return answer
        try:
            renewed = await self._credential.is_renewed(token)
        except BaseException:
            await answer.aclose()
            raise
        if not renewed:
            return answer
        await answer.aclose()
        return await self._ask(call)

    async def _ask(self, call: Call) -> Answer:
        """Ask the API, when it is the call's turn, unless it is known not to answer."""
        self._breaker.check(call.subject)
        bucket = self._limits.bucket(call.store, call.kind)
        with await self._connections.take(call.direction) as taken:
            begun = trio.current_time()
            await bucket.take(patience=self._deadlines.total)
            self._meter.count_wait(trio.current_time() - begun)
            self._breaker.asked(call.subject)
            url = self._url_of(call)
            try:
                response = await self._send(call, url, self._authorization(), taken)
            except faults.TRANSPORT_ERRORS as error:
                if isinstance(error, httpcore.ConnectError | httpcore.ConnectTimeout):
                    self._breaker.could_not_connect()
                raise _attempt_fault(call, error) from error
            answer = Answer(response, url, call.subject, self._meter, taken.pop_all().close)
            self._heed(answer, bucket)
            return answer

    async def _follow(self, call: Call, url: httpcore.URL) -> Answer:
        """Ask where the API sends us: another host, with its own limits, and the token stays with the API."""
        with await self._connections.take(call.direction) as taken:
            try:
                response = await self._send(call, url, {}, taken)
            except faults.TRANSPORT_ERRORS as error:
                raise _attempt_fault(call, error) from error
            return Answer(response, url, call.subject, self._meter, taken.pop_all().close)

    def _heed(self, answer: Answer, bucket: TokenBucket) -> None:
        """Take from the headers of the API's answer what they say about the calls to come."""
        if answer.status < 500:
            self._breaker.answered()
        bucket.learn(answer.headers.get("x-ratelimit-limit"))
        if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
            bucket.slow_down(faults.parse_retry_after(answer.headers.get("retry-after")))

    async def _send(
        self, call: Call, url: httpcore.URL, authorization: Headers, taken: ExitStack
    ) -> httpcore.Response:
        line = await self._lines.take(taken)
        self._meter.count_request(call.operation)
        begun = trio.current_time()
        try:
            response = await self._exchange(line, call, url, authorization)
        except faults.TRANSPORT_ERRORS as error:
            log.debug("%s of %s: %s", call.operation, call.subject, type(error).__name__)
            raise
        self._meter.observe(call.operation, trio.current_time() - begun)
        log.debug("%s of %s: %d", call.operation, call.subject, response.status)
        return response

    async def _exchange(
        self, line: Line, call: Call, url: httpcore.URL, authorization: Headers
    ) -> httpcore.Response:
        own = {name.encode("ascii"): value.encode("ascii") for name, value in call.headers.items()}
        headers = {b"Host": _authority(url), **_COMMON_HEADERS, **authorization, **own}
        if call.body is not None:
            headers[b"Content-Length"] = b"%d" % call.body.length
            return await line.send(call.method, url, headers, Upload(call.body, self._meter))
        if call.content or call.method in ("POST", "PUT"):
            headers[b"Content-Length"] = b"%d" % len(call.content)
            self._meter.count_sent(len(call.content))
        return await line.send(call.method, url, headers, call.content)

    def _url_of(self, call: Call) -> httpcore.URL:
        api = self._api_url
        target = api.target.rstrip(b"/") + f"{call.path}{query_string(call.query)}".encode("ascii")
        return httpcore.URL(scheme=api.scheme, host=api.host, port=api.port, target=target)

    async def _refusal(self, call: Call, answer: Answer) -> Exception:
        if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
            self._meter.count_rate_limited()
        error_type, message = parse_error(await self._read_error(call, answer))
        error = faults.from_status(
            answer.status,
            subject=call.subject,
            error_type=self._without_token(error_type),
            message=self._without_token(message),
            missing=call.missing,
        )
        return faults.as_attempt(error, answer.headers)

    async def _read(self, call: Call, answer: Answer, largest: int) -> bytes:
        """Read a small body whole. One that breaks off is Transient, one too large a ProtocolViolation."""
        body = bytearray()
        try:
            async with aclosing(decoded(answer, parse_encoding(answer.headers))) as pieces:
                async for piece in pieces:
                    body += piece
                    if len(body) > largest:
                        raise ProtocolViolation(f"{call.subject}: an answer of more than {largest} bytes")
        except StoreUnreachable as error:
            raise Transient(error) from error
        return bytes(body)

    async def _read_error(self, call: Call, answer: Answer) -> bytes:
        # The status has been told: whatever is wrong with the words behind it does not change the verdict.
        try:
            return await self._read(call, answer, LARGEST_ERROR)
        except (Transient, ProtocolViolation):
            return b""

    async def _drain(self, answer: Answer) -> None:
        """Read the rest of a small answer, so that its connection can be used again."""
        left = LARGEST_ERROR
        try:
            async for chunk in answer:
                left -= len(chunk)
                if left < 0:
                    return
        except StoreUnreachable:
            log.debug("the body of an answer broke off: its headers were all that was asked for")

    def _without_token(self, message: str | None) -> str | None:
        return message and self._credential.struck_out(message)

    def _authorization(self) -> Headers:
        token = self._credential.token
        _check_token(token)
        return {b"Authorization": b"Bearer " + token.encode()} if token else {}


def _check_token(token: str | None) -> None:
    """Raise NotAuthorized for what no header can hold."""
    if token is not None and not (token and token.isascii() and token.isprintable()):
        raise NotAuthorized("the token holds characters that no token has: check where it comes from")


def _checked(base_url: str) -> str:
    try:
        url = httpx.URL(base_url)
        is_legal = url.scheme in ("http", "https") and bool(url.host) and not url.userinfo and not url.query
    except httpx.InvalidURL:
        is_legal = False
    if not is_legal:
        raise RequestRefused("the API's URL must read https://HOST or http://HOST, with :PORT if need be")
    return base_url.rstrip("/")


def _require_no_page(call: Call, answer: Answer) -> None:
    """Raise ProtocolViolation where some proxy's page stands for the API's word that a change was made."""
    if call.method in ("PUT", "DELETE") and answer.headers.get("content-type", "").startswith("text/html"):
        raise ProtocolViolation(f"{call.subject}: a web page is the answer: is a proxy in between?")


def _next_hop(call: Call, answer: Answer) -> httpcore.URL:
    asked = httpx.URL(bytes(answer.url).decode("ascii"))
    try:
        url = asked.join(answer.headers["location"])
    except (KeyError, httpx.InvalidURL, ValueError):
        # from None: the cause would quote the URL, and its signature with it.
        raise ProtocolViolation(f"{call.subject}: a redirect to no valid URL") from None
    if url.scheme not in ("http", "https") or (asked.scheme == "https" and url.scheme != "https"):
        raise ProtocolViolation(f"{call.subject}: a redirect away from HTTPS")
    return _parts(url)


def _parts(url: httpx.URL) -> httpcore.URL:
    return httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)


def _authority(url: httpcore.URL) -> bytes:
    """Spell the Host header (RFC 9110, 7.2)."""
    host = b"[%s]" % url.host if b":" in url.host else url.host
    return host if url.port is None else b"%s:%d" % (host, url.port)


def _attempt_fault(call: Call, error: Exception) -> Exception:
    translated = faults.from_exception(error, call.subject)
    return Transient(translated) if faults.is_transient(translated, error) else translated
