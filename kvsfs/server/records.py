"""The handlers of one record: GET, HEAD, PUT (and POST, its alias), DELETE."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import cast

from starlette.requests import Request
from starlette.responses import Content, JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from kvsfs.server.access import Gate, opens_record
from kvsfs.server.answers import ApiError, record_not_found, store_not_found, store_url
from kvsfs.server.bodies import content_encoding, gathered, received
from kvsfs.server.conditions import (
    RangeNotSatisfiable,
    Validators,
    not_modified,
    range_applies,
    requested_range,
)
from kvsfs.server.encodings import UndecodableValue, accepts, decoded
from kvsfs.server.parameters import flag
from kvsfs.server.schemas import Collection, RecordRefused, collections_of
from kvsfs.server.storage import (
    RecordChanged,
    RecordEntry,
    RecordReader,
    Storage,
    StorageUnavailable,
    StoreGone,
)
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

MAX_CHECKED_BYTES = 16 * 1024**2
"""The largest value that a collection's JSON schema is applied to: that takes the whole of it in memory, as
text and as objects."""


OPENINGS = 3
"""Of a record that others replace between the look at its headers and the first byte."""

Elsewhere = Callable[[Request, str, RecordEntry], str | None]
"""Gives the URL at which another server has a record of a store; None to serve it here."""


class Records:
    """The handlers. `max_bytes` is the size at which a record is refused."""

    def __init__(
        self,
        storage: Storage,
        gate: Gate,
        max_bytes: int = MAX_RECORD_BYTES,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self._storage = storage
        self._gate = gate
        self._max_bytes = max_bytes
        self._elsewhere = elsewhere

    async def get(self, request: Request) -> Response:
        """Answer keyValueStore_record_get."""
        key = _key(request)
        grant = await self._gate.reading(request, opens_record(key))
        for _ in range(OPENINGS - 1):
            with contextlib.suppress(RecordChanged):
                return await self._read(request, grant.store.id, key)
        return await self._read(request, grant.store.id, key)

    async def _read(self, request: Request, store_id: str, key: str) -> Response:
        in_part = "range" in request.headers or "if-none-match" in request.headers
        reader = await self._storage.open_record(store_id, key, whole=not in_part)
        if reader is None:
            raise record_not_found()
        if self._elsewhere is not None and Representation(request, reader.entry).as_stored:
            location = self._elsewhere(request, store_id, reader.entry)
            if location is not None:
                reader.close()
                return Response(status_code=302, headers={"Location": location})
        response = served(request, reader)
        if isinstance(response, _RecordStream):
            await response.begin()
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
        media_type, encoding = content_type(request), content_encoding(request)
        if encoding is not None and media_type.partition(";")[0].strip().lower() in HTML_TYPES:
            raise ApiError(
                400,
                "content-encoding-forbidden-for-html",
                "An HTML record cannot be stored with a Content-Encoding.",
            )
        collections = [of for of in collections_of(store.schema).values() if of.holds(key)]
        try:
            for collection in collections:
                collection.check_type(media_type)
            async with aclosing(received(request, self._max_bytes, self._too_large())) as body:
                strict = [of for of in collections if of.json_schema is not None]
                entry = await self._storage.put_record(
                    store.id,
                    key,
                    self._checked(body, encoding, strict) if strict else body,
                    content_type=media_type,
                    content_encoding=encoding,
                )
        except RecordRefused as refused:
            raise ApiError(400, "schema-validation-error", str(refused)) from None
        except StoreGone:
            raise store_not_found() from None
        headers = {"Location": f"{store_url(request, store.id)}/records/{key}", "ETag": f'"{entry.etag}"'}
        return JSONResponse({}, 201, headers)

    async def delete(self, request: Request) -> Response:
        """Answer keyValueStore_record_delete."""
        key = _key(request)
        store = await self._gate.writing(request)
        await self._storage.delete_record(store.id, key)
        return Response(status_code=204)

    async def _checked(
        self, body: AsyncIterator[bytes], encoding: ContentEncoding | None, collections: Sequence[Collection]
    ) -> AsyncIterator[bytes]:
        """Yield a body that its collections take, at once. Raises RecordRefused."""
        too_large = ApiError(
            413,
            "record-too-large",
            f"The record is too large for a collection with a JSON schema (limit: {MAX_CHECKED_BYTES} bytes).",
        )
        stored = await gathered(body, MAX_CHECKED_BYTES, too_large)
        try:
            plain = (
                stored
                if encoding is None
                else await gathered(decoded(_once(stored), encoding), MAX_CHECKED_BYTES, too_large)
            )
        except UndecodableValue:
            raise RecordRefused(f"The value is not in the encoding {encoding}.") from None
        for collection in collections:
            await asyncio.to_thread(collection.check_json, plain)
        yield stored

    def _too_large(self) -> ApiError:
        return ApiError(413, "record-too-large", f"The record is too large (limit: {self._max_bytes} bytes).")


def served(request: Request, reader: RecordReader, *, as_stored: bool = False) -> Response:
    """Answer a GET with a record, and close its reader. Raises ApiError.

    With `as_stored` whatever encoding the client accepts.
    """
    try:
        response = _record_response(
            request, reader, Representation(request, reader.entry, as_stored=as_stored)
        )
    except BaseException:
        reader.close()
        raise
    if not isinstance(response, _RecordStream):
        reader.close()
    return response


class Representation:
    """A record as one client gets it: as stored, or decoded on the way because it must be."""

    def __init__(self, request: Request, entry: RecordEntry, *, as_stored: bool = False) -> None:
        encoding = entry.content_encoding
        accepted = encoding is None or accepts(request.headers.get("accept-encoding"), encoding)
        self.as_stored = as_stored or accepted
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
        if flag(request, "attachment"):
            self.headers["Content-Disposition"] = f'attachment; filename="{entry.key}"'


def _record_response(request: Request, reader: RecordReader, representation: Representation) -> Response:
    """Answer with a record. Only a _RecordStream still needs the reader."""
    entry = reader.entry
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
    if "range" not in request.headers or not range_applies(request.headers, representation.validators):
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

    async def begin(self) -> None:
        """Fetch the first piece: what fails until then is answered, later the connection is cut.

        Raises StorageUnavailable, RecordChanged.
        """
        pieces = self.body_iterator
        try:
            first = await anext(aiter(pieces), b"")
        except UndecodableValue as error:
            self.body_iterator = _raising(error)
        except BaseException:
            self._reader.close()
            raise
        else:
            self.body_iterator = _chained(first, pieces)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except (UndecodableValue, StorageUnavailable) as error:
            # The headers are out: that the connection is cut before the end is what tells the client.
            logger.warning("a record broke off: %s", error)
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


def content_type(request: Request) -> str:
    """Give the type of the body. Raises ApiError."""
    given = request.headers.get("content-type", DEFAULT_CONTENT_TYPE)
    if not CONTENT_TYPE.fullmatch(given):
        raise ApiError(400, "invalid-content-type-header", "The Content-Type header is not a media type.")
    return given


async def _chained(first: Content, rest: AsyncIterable[Content]) -> AsyncIterator[Content]:
    yield first
    async for piece in rest:
        yield piece


async def _raising(error: Exception) -> AsyncIterator[Content]:
    for failure in (error,):  # a generator, although nothing comes of it
        raise failure
    yield b""


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
