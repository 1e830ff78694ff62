"""The handlers of one record: GET, HEAD, PUT (and POST, its alias), DELETE."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import cast, get_args

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from kvsfs.server.access import Gate, opens_record
from kvsfs.server.answers import ApiError, record_not_found, store_not_found, store_url
from kvsfs.server.conditions import (
    RangeNotSatisfiable,
    Validators,
    not_modified,
    range_applies,
    requested_range,
)
from kvsfs.server.encodings import UndecodableValue, accepts, decoded
from kvsfs.server.storage import RecordEntry, RecordReader, Storage, StoreGone
from kvsfs.types import ContentEncoding

logger = logging.getLogger(__name__)

MAX_RECORD_BYTES = 5 * 1024**3
"""The most that an object store takes in one PUT (S3): what fits here can be moved there."""

MAX_KEY_LENGTH = 256
"""Characters, by the API."""

ILLEGAL_IN_KEY = re.compile(r"[^a-zA-Z0-9!\-_.'()]")

TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # noqa: S105 - RFC 9110's word for a word
CONTENT_TYPE = re.compile(rf'{TOKEN}/{TOKEN}(\s*;\s*({TOKEN}=({TOKEN}|"[^"]*"))?)*\s*')

DEFAULT_CONTENT_TYPE = "application/octet-stream"

HTML_TYPES = ("text/html", "application/xhtml+xml")

STALL_SECONDS = 60
"""An upload of which nothing arrives for so long is given up: its client is gone, or means harm."""


class Records:
    """The handlers. `max_bytes` is the size at which a record is refused."""

    def __init__(self, storage: Storage, gate: Gate, max_bytes: int = MAX_RECORD_BYTES) -> None:
        self._storage = storage
        self._gate = gate
        self._max_bytes = max_bytes

    async def get(self, request: Request) -> Response:
        """Answer keyValueStore_record_get."""
        key = _key(request)
        grant = await self._gate.reading(request, opens_record(key))
        reader = await self._storage.open_record(grant.store.id, key)
        if reader is None:
            raise record_not_found()
        try:
            response = _record_response(request, reader)
        except BaseException:
            reader.close()
            raise
        if not isinstance(response, _RecordStream):
            reader.close()
        return response

    async def head(self, request: Request) -> Response:
        """Answer keyValueStore_record_head."""
        key = _key(request)
        grant = await self._gate.reading(request, opens_record(key))
        entry = await self._storage.head_record(grant.store.id, key)
        if entry is None:
            raise record_not_found()
        representation = Representation(request, entry)
        if not_modified(request.headers, representation.validators):
            return Response(status_code=304, headers=representation.headers)
        headers = dict(representation.headers)
        if representation.as_stored:
            headers["Content-Length"] = str(entry.size)
        return _bare(200, headers)

    async def put(self, request: Request) -> Response:
        """Answer keyValueStore_record_put and keyValueStore_record_post."""
        key = _key(request)
        store = await self._gate.writing(request)
        content_type, encoding = _content_type(request), _content_encoding(request)
        if encoding is not None and content_type.partition(";")[0].strip().lower() in HTML_TYPES:
            raise ApiError(
                400,
                "content-encoding-forbidden-for-html",
                "An HTML record cannot be stored with a Content-Encoding.",
            )
        try:
            async with aclosing(self._body(request)) as body:
                entry = await self._storage.put_record(
                    store.id, key, body, content_type=content_type, content_encoding=encoding
                )
        except StoreGone:
            raise store_not_found() from None
        except ClientDisconnect:  # nobody reads this, but the log shall not call it a fault
            raise ApiError(400, "invalid-request", "The body ended before its length.") from None
        headers = {"Location": f"{store_url(request, store.id)}/records/{key}", "ETag": f'"{entry.etag}"'}
        return JSONResponse({}, 201, headers)

    async def delete(self, request: Request) -> Response:
        """Answer keyValueStore_record_delete."""
        key = _key(request)
        store = await self._gate.writing(request)
        await self._storage.delete_record(store.id, key)
        return Response(status_code=204)

    async def _body(self, request: Request) -> AsyncGenerator[bytes, None]:
        """Yield the request's body as it arrives. Raises ApiError when it is too large or stalls."""
        if int(request.headers.get("content-length", 0)) > self._max_bytes:
            raise self._too_large()
        received = 0
        stream = request.stream()
        while True:
            try:
                async with asyncio.timeout(STALL_SECONDS):
                    chunk = await anext(stream)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise ApiError(
                    408, "invalid-request", f"No data arrived for {STALL_SECONDS} seconds."
                ) from None
            received += len(chunk)
            if received > self._max_bytes:
                raise self._too_large()
            yield chunk

    def _too_large(self) -> ApiError:
        return ApiError(413, "record-too-large", f"The record is too large (limit: {self._max_bytes} bytes).")


class Representation:
    """A record as one client gets it: as stored, or decoded on the way because it must be."""

    def __init__(self, request: Request, entry: RecordEntry) -> None:
        encoding = entry.content_encoding
        self.as_stored = encoding is None or accepts(request.headers.get("accept-encoding"), encoding)
        # The decoded bytes are not those that the strong tag names; the weak one says "the same content".
        self.validators = Validators(
            f'"{entry.etag}"' if self.as_stored else f'W/"{entry.etag}"', entry.modified_at
        )
        self.headers = {
            "Content-Type": entry.content_type,
            "ETag": self.validators.etag,
            "Last-Modified": self.validators.last_modified,
            "Cache-Control": "no-cache",
            "X-Content-Type-Options": "nosniff",
            # A page stored here is somebody's content: it must not act on the API as whoever looks at it.
            "Content-Security-Policy": "sandbox",
        }
        if self.as_stored:
            self.headers["Accept-Ranges"] = "bytes"
        if encoding is not None:
            self.headers["Vary"] = "Accept-Encoding"
            if self.as_stored:
                self.headers["Content-Encoding"] = encoding
        if request.query_params.get("attachment", "").lower() in ("true", "1"):
            self.headers["Content-Disposition"] = f'attachment; filename="{entry.key}"'


def _record_response(request: Request, reader: RecordReader) -> Response:
    """Answer with a record. Only a _RecordStream still needs the reader."""
    entry = reader.entry
    representation = Representation(request, entry)
    if not_modified(request.headers, representation.validators):
        return Response(status_code=304, headers=representation.headers)
    if not representation.as_stored:
        encoding = cast("ContentEncoding", entry.content_encoding)
        return _RecordStream(
            reader, decoded(reader.chunks(0, entry.size), encoding), 200, representation.headers
        )
    wanted = _range(request, representation, entry.size)
    if wanted is not None:
        return _partial(reader, *wanted, representation.headers)
    content = reader.read_at_once()
    if content is not None:
        return Response(content, headers=representation.headers)
    headers = representation.headers | {"Content-Length": str(entry.size)}
    return _RecordStream(reader, reader.chunks(0, entry.size), 200, headers)


def _range(request: Request, representation: Representation, size: int) -> tuple[int, int] | None:
    if not range_applies(request.headers, representation.validators):
        return None
    try:
        return requested_range(request.headers, size)
    except RangeNotSatisfiable:
        raise ApiError(
            416,
            "invalid-request",
            f"The range starts past the end of the record ({size} bytes).",
            {"Content-Range": f"bytes */{size}"},
        ) from None


def _partial(reader: RecordReader, start: int, stop: int, headers: dict[str, str]) -> Response:
    headers = headers | {
        "Content-Range": f"bytes {start}-{stop - 1}/{reader.entry.size}",
        "Content-Length": str(stop - start),
    }
    return _RecordStream(reader, reader.chunks(start, stop), 206, headers)


class _RecordStream(StreamingResponse):
    """Sends a record piece by piece, and closes its reader whatever happens."""

    def __init__(
        self, reader: RecordReader, chunks: AsyncIterator[bytes], status: int, headers: dict[str, str]
    ) -> None:
        super().__init__(chunks, status, headers)
        self._reader = reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except UndecodableValue as error:
            # The headers are out: that the connection is cut before the end is what tells the client.
            logger.warning("a record stored as %s: %s", self._reader.entry.content_encoding, error)
        finally:
            self._reader.close()


def _bare(status: int, headers: dict[str, str]) -> Response:
    """Answer a HEAD: without the Content-Length of 0 that Response would add when the length is unknown."""
    response = Response(status_code=status, headers=headers)
    if "Content-Length" not in headers:
        del response.headers["content-length"]
    return response


def _key(request: Request) -> str:
    """Give the path's key. Raises ApiError naming what a key cannot hold."""
    key: str = request.path_params["key"]
    illegal = ILLEGAL_IN_KEY.search(key)
    if illegal:
        problem = f"it holds {illegal.group()!r}"
    elif not key:
        problem = "it is empty"
    elif len(key) > MAX_KEY_LENGTH:
        problem = f"it has {len(key)} characters"
    else:
        return key
    raise ApiError(
        400,
        "invalid-record-key",
        f"The record key is not valid: {problem}. A key has 1 to {MAX_KEY_LENGTH} characters"
        " out of a-z, A-Z, 0-9 and !-_.'().",
    )


def _content_type(request: Request) -> str:
    content_type = request.headers.get("content-type", DEFAULT_CONTENT_TYPE)
    if not CONTENT_TYPE.fullmatch(content_type):
        raise ApiError(400, "invalid-content-type-header", "The Content-Type header is not a media type.")
    return content_type


def _content_encoding(request: Request) -> ContentEncoding | None:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("identity", ""):
        return None
    if encoding not in get_args(ContentEncoding):
        raise ApiError(
            415, "unsupported-content-encoding", f'Content-Encoding "{encoding}" is not supported.'
        )
    return cast("ContentEncoding", encoding)
