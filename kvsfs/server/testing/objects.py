"""The object store that the platform redirects to for records: another port, and a URL that is signed."""

from __future__ import annotations

import secrets

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from kvsfs.server.answers import ApiError
from kvsfs.server.moments import now_ms
from kvsfs.server.records import served
from kvsfs.server.storage import RecordEntry, Storage
from kvsfs.signatures import sign_record, verify_record

EXPIRY_MS = 15 * 60 * 1000
"""How long a signed URL opens what it names."""


class Objects:
    """Signs URLs, and is the ASGI application that serves them."""

    def __init__(self, storage: Storage, above: int, port: int) -> None:
        self._storage = storage
        self._above = above
        self.port = port
        self._secret = secrets.token_urlsafe(24)

    def location(self, request: Request, store_id: str, entry: RecordEntry) -> str | None:
        """Give the URL that a GET of a record is redirected to; None for one that is served where it is."""
        if entry.size <= self._above:
            return None
        expires = str(now_ms() + EXPIRY_MS)
        host = request.url.hostname or ""
        host = f"[{host}]" if ":" in host else host
        signature = sign_record(self._secret, f"{store_id}/{entry.key}/{expires}")
        query = f"Expires={expires}&Signature={signature}"
        return f"{request.url.scheme}://{host}:{self.port}/{store_id}/{entry.key}?{query}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            response = await self._answer(Request(scope, receive))
        except ApiError as error:
            response = _failure(error.status, "InvalidRange", error.message)
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            return _failure(405, "MethodNotAllowed", "Only GET and HEAD are served here.")
        if "authorization" in request.headers:
            return _failure(400, "InvalidArgument", "Only one auth mechanism is allowed: the URL is signed.")
        store_id, _, key = request.url.path.strip("/").partition("/")
        if not self._is_signed(request, store_id, key):
            return _failure(403, "AccessDenied", "The URL is not signed, or expired.")
        reader = await self._storage.open_record(store_id, key)
        if reader is None:
            return _failure(404, "NoSuchKey", "The key does not exist.")
        return served(request, reader, as_stored=True)

    def _is_signed(self, request: Request, store_id: str, key: str) -> bool:
        expires = request.query_params.get("Expires", "")
        signature = request.query_params.get("Signature", "")
        genuine = verify_record(self._secret, f"{store_id}/{key}/{expires}", signature)
        return genuine and now_ms() < int(expires)


def _failure(status: int, code: str, message: str) -> Response:
    """Answer as S3 does."""
    content = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return Response(content, status, media_type="application/xml")
