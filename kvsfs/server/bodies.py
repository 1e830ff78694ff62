"""Bodies of requests: how much, how slowly, and JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, cast, get_args

from starlette.requests import ClientDisconnect, Request

from kvsfs.server.answers import ApiError, invalid_input
from kvsfs.server.encodings import UndecodableValue, decoded
from kvsfs.types import ContentEncoding

STALL_SECONDS = 60
"""A body of which nothing arrives for so long is given up: its client is gone, or means harm."""

LEAST_BYTES_PER_SECOND = 1024
"""A body that is slower than this on average, STALL_SECONDS aside, is given up: some clients send a byte now
and then to hold a connection. The slowest modem was five times as fast."""

MAX_JSON_BYTES = 1024 * 1024
"""The JSON body of a store call: a schema of many collections has some 10 KiB."""


def has_body(request: Request) -> bool:
    """Whether a request has a body."""
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers


async def received(request: Request, most: int, too_large: ApiError) -> AsyncGenerator[bytes, None]:
    """Yield the body as it arrives. Raises `too_large` past `most` bytes, and ApiError when it stalls or ends early."""
    if int(request.headers.get("content-length", 0)) > most:
        raise too_large
    clock = asyncio.get_running_loop().time
    started, size = clock(), 0
    stream = request.stream()
    while True:
        patience = started + STALL_SECONDS + size / LEAST_BYTES_PER_SECOND
        try:
            async with asyncio.timeout_at(min(clock() + STALL_SECONDS, patience)):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise ApiError(408, "invalid-request", "The body arrives too slowly.") from None
        except ClientDisconnect:  # nobody reads this, but the log shall not call it a fault
            raise ApiError(400, "invalid-request", "The body ended before its length.") from None
        size += len(chunk)
        if size > most:
            raise too_large
        yield chunk


def content_encoding(request: Request) -> ContentEncoding | None:
    """Give the encoding of the body, None for identity. Raises ApiError 415."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("identity", ""):
        return None
    if encoding not in get_args(ContentEncoding):
        raise ApiError(
            415, "unsupported-content-encoding", f'Content-Encoding "{encoding}" is not supported.'
        )
    return cast("ContentEncoding", encoding)


async def json_object(request: Request) -> dict[str, Any]:
    """Give the body, a JSON object or nothing; the official clients compress it. Raises ApiError."""
    too_large = ApiError(
        413, "request-too-large", f"The payload is too large (limit: {MAX_JSON_BYTES} bytes)."
    )
    encoding = content_encoding(request)
    async with aclosing(received(request, MAX_JSON_BYTES, too_large)) as body:
        try:
            plain = await gathered(
                body if encoding is None else decoded(body, encoding), MAX_JSON_BYTES, too_large
            )
            content = json.loads(plain or b"{}")
            # NaN, numbers past the largest float and halves of surrogate pairs are read, but cannot be answered.
            json.dumps(content, allow_nan=False, ensure_ascii=False).encode()
        except UndecodableValue:
            raise invalid_input(f"The payload is not in the encoding {encoding}.") from None
        except (ValueError, RecursionError):
            raise invalid_input("The payload is not JSON.") from None
    if not isinstance(content, dict):
        raise invalid_input("The payload must be a JSON object.")
    return content


async def gathered(chunks: AsyncIterator[bytes], most: int, too_large: ApiError) -> bytes:
    """Join chunks. Raises `too_large` past `most` bytes: a few bytes may decode to gigabytes."""
    joined = bytearray()
    async for chunk in chunks:
        joined += chunk
        if len(joined) > most:
            raise too_large
    return bytes(joined)
