"""A proxy between a server and its object store that fails to order: answers lost, cut, late, or never given.

It understands as much of HTTP/1.1 as S3 clients send: requests and answers with a Content-Length, or answers in chunks.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

HEAD_END = b"\r\n\r\n"
PIECE = 65536

HANG_SECONDS = 60.0
"""How long a request that is to hang is held at most: above every deadline that a test sets."""


@dataclass(frozen=True)
class Request:
    """What a rule sees of a request."""

    method: str
    target: str
    """Path and query, as sent."""
    headers: str = ""
    """As sent."""


@dataclass(eq=False)
class Rule:
    """What happens to requests that fit, `count` times; -1 is for ever."""

    fits: Callable[[Request], bool]
    count: int = -1
    status: int | None = None
    """Answer with it, and with `code` in the body as S3 does; nothing reaches the object store."""
    code: str = ""
    done: bool = False
    """With a status: that is a lie, the object store has done it."""
    hang: bool = False
    """Neither pass it on nor answer."""
    cut_request: int | None = None
    """Pass so many bytes of the body on, then reset both connections."""
    cut_answer: int | None = None
    """The deed is done; so many bytes of the answer's body come back, then the connection ends; 0: a reset."""
    meanwhile: Callable[[], object] | None = None
    """What happens before the request is passed on."""
    struck: int = 0

    def strikes(self, request: Request) -> bool:
        return self.struck != self.count and self.fits(request)


def asked(method: str, pattern: str = "") -> Callable[[Request], bool]:
    """Fit requests of a method (`*` is any) whose path and query match somewhere."""
    return lambda request: method in ("*", request.method) and re.search(pattern, request.target) is not None


@dataclass
class FaultyS3:
    """The proxy. Rules hold from the next request on; the first that fits strikes."""

    upstream: tuple[str, int]
    listener: socket.socket
    rules: list[Rule] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    @contextlib.contextmanager
    def failing(self, rule: Rule) -> Iterator[Rule]:
        """Hold a rule for a while."""
        self.rules.append(rule)
        try:
            yield rule
        finally:
            self.rules.remove(rule)

    def _converse(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(self.upstream) as store:
            for connection in (client, store):
                connection.settimeout(HANG_SECONDS)
            while self._exchange(client, store):
                pass

    def _exchange(self, client: socket.socket, store: socket.socket) -> bool:
        """Carry one request and its answer; whether the connection goes on."""
        head, begun = _head(client)
        if not head:
            return False
        method, target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
        rule = self._strike(Request(method, target, head.decode("latin-1")))
        if rule is not None and rule.meanwhile is not None:
            rule.meanwhile()
        if rule is not None and rule.hang:
            self.ended.wait(HANG_SECONDS)
            return False
        if rule is not None and rule.status is not None:
            if rule.done:
                store.sendall(head)
                _pass(client, store, begun, _length(head))
                _drain(store, _answer_size(_head(store), method))
            else:
                _drain(client, _length(head) - len(begun))
            client.sendall(_error(rule.status, rule.code, empty=method == "HEAD"))
            return True
        store.sendall(head)
        if rule is not None and rule.cut_request is not None:
            _pass(client, store, begun, min(rule.cut_request, _length(head)))
            _reset(client)
            _reset(store)
            return False
        _pass(client, store, begun, _length(head))
        return _answer(store, client, method, None if rule is None else rule.cut_answer)

    def _strike(self, request: Request) -> Rule | None:
        with self._lock:
            self.requests.append(request)
            rule = next((rule for rule in self.rules if rule.strikes(request)), None)
            if rule is not None:
                rule.struck += 1
            return rule


def _head(source: socket.socket) -> tuple[bytes, bytes]:
    received = b""
    while HEAD_END not in received:
        piece = source.recv(PIECE)
        if not piece:
            return b"", b""
        received += piece
    head, _, rest = received.partition(HEAD_END)
    return head + HEAD_END, rest


def _field(head: bytes, name: str) -> str | None:
    found = re.search(rf"\r\n{name}: *([^\r]*)".encode(), head, re.IGNORECASE)
    return found and found[1].decode("latin-1")


def _length(head: bytes) -> int:
    return int(_field(head, "content-length") or 0)


def _pass(source: socket.socket, target: socket.socket, begun: bytes, size: int) -> None:
    target.sendall(begun[:size])
    left = size - len(begun)
    while left > 0:
        piece = source.recv(min(PIECE, left))
        if not piece:
            raise ConnectionError("the body ended early")
        target.sendall(piece)
        left -= len(piece)


def _drain(source: socket.socket, size: int) -> None:
    while size > 0:
        piece = source.recv(min(PIECE, size))
        if not piece:
            raise ConnectionError("the body ended early")
        size -= len(piece)


def _answer_size(answer: tuple[bytes, bytes], method: str) -> int:
    """How much of an answer's body is still to come."""
    head, begun = answer
    return 0 if method == "HEAD" or head.split(b" ", 2)[1] == b"204" else _length(head) - len(begun)


def _answer(store: socket.socket, client: socket.socket, method: str, cut: int | None) -> bool:
    head, begun = _head(store)
    if not head:
        return False
    status = int(head.split(b" ", 2)[1])
    assert _field(head, "transfer-encoding") is None, "this proxy passes no chunks on"
    size = 0 if method == "HEAD" or status in (204, 304) else _length(head)
    if cut is not None:
        if cut:
            client.sendall(head)
            _pass(store, client, begun, min(cut, size))
        else:
            _reset(client)  # it would take away what was sent and is not read yet
        return False
    client.sendall(head)
    _pass(store, client, begun, size)
    return (_field(head, "connection") or "").lower() != "close"


def _error(status: int, code: str, *, empty: bool) -> bytes:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>As ordered</Message></Error>".encode()
    head = f"HTTP/1.1 {status} As ordered\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + (b"" if empty else body)


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@contextlib.contextmanager
def faulty_s3(upstream: str) -> Iterator[FaultyS3]:
    """Run a proxy before the object store at a URL, and end it whatever happens."""
    parts = urlsplit(upstream)
    assert parts.hostname is not None
    assert parts.port is not None
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = FaultyS3((parts.hostname, parts.port), listener)
        thread = threading.Thread(target=proxy.serve, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.ended.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)
