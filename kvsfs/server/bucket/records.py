"""The records of a bucket: one object each, with its content type and encoding."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, cast

from kvsfs.server.bucket import places
from kvsfs.server.bucket.objects import Bucket
from kvsfs.server.storage import KeySelection, RecordEntry, described_by
from kvsfs.types import ContentEncoding

if TYPE_CHECKING:
    from obstore import Attributes, GetResult

WHOLE_BYTES = 256 * 1024
"""Up to here a record is held in memory: read with its headers, written by one request."""

LARGE_UPLOADS = 16
"""Larger uploads under way at once: each holds up to three parts of 8 MiB in memory."""

READ_BYTES = 256 * 1024
"""What is gathered of a download before it is sent on."""

ETAG_BYTES = 16


class BucketRecords:
    """The records. Coroutines raise BucketUnavailable."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._large = asyncio.Semaphore(LARGE_UPLOADS)

    async def page(
        self, store_id: str, *, after: str | None, selection: KeySelection, limit: int
    ) -> list[tuple[str, int]]:
        """Give a page of keys with sizes: one request of the object store for a thousand."""
        if selection.only is not None:
            return await self._only(store_id, selection, after)
        if not places.is_possible(selection.prefix):
            return []
        found: list[tuple[str, int]] = []
        start = places.start(store_id, selection, after)
        async for page in self._bucket.pages(places.records(store_id), start, limit):
            for meta in page:
                key = places.key_of(meta["path"])
                if not key.startswith(selection.prefix):
                    return found
                found.append((key, meta["size"]))
            if len(found) >= limit:
                break
        return found[:limit]

    async def head(self, store_id: str, key: str) -> RecordEntry | None:
        """Describe a record; None when it is not there."""
        result = await self._bucket.get(places.record(store_id, key), head=True)
        return None if result is None else entry_of(result)

    async def open(self, store_id: str, key: str, *, whole: bool) -> BucketReader | None:
        """Open a record, `whole` when all of it is likely to be read; None when it is not there."""
        result = await self._bucket.get(places.record(store_id, key), head=not whole)
        if result is None:
            return None
        entry = entry_of(result)
        content = await self._bucket.content(result) if whole and entry.size <= WHOLE_BYTES else None
        return BucketReader(self._bucket, places.record(store_id, key), entry, result, content, whole=whole)

    async def put(
        self,
        store_id: str,
        key: str,
        chunks: AsyncIterator[bytes],
        content_type: str,
        content_encoding: ContentEncoding | None,
    ) -> tuple[str, int]:
        """Store a record: seen by every server when this returns. Gives its ETag, and its size.

        An exception of `chunks` passes through, and nothing is stored.
        """
        attributes: Attributes = {"Content-Type": content_type}
        if content_encoding is not None:
            attributes["Content-Encoding"] = content_encoding
        path = places.record(store_id, key)
        begin = await _gathered(chunks, WHOLE_BYTES)
        if len(begin) <= WHOLE_BYTES:
            etag, size = await self._bucket.put(path, begin, attributes), len(begin)
        else:
            body = _Counted(begin, chunks)
            async with self._large:
                etag, size = await self._bucket.put(path, body.pieces(), attributes), body.size
        return record_etag(etag, described_by(content_type, content_encoding)), size

    async def delete(self, store_id: str, key: str) -> None:
        """Delete a record. No error when it is not there."""
        await self._bucket.remove([places.record(store_id, key)])

    async def drop(self, store_id: str) -> None:
        """Delete all records of a store."""
        async for page in self._bucket.pages(places.records(store_id)):
            await self._bucket.remove([meta["path"] for meta in page])

    async def _only(self, store_id: str, selection: KeySelection, after: str | None) -> list[tuple[str, int]]:
        key = selection.only or ""
        if not key or (after is not None and key <= after) or not key.startswith(selection.prefix):
            return []
        entry = await self.head(store_id, key)
        return [] if entry is None else [(entry.key, entry.size)]


class BucketReader:
    """One version of a record, opened."""

    def __init__(
        self,
        bucket: Bucket,
        path: str,
        entry: RecordEntry,
        result: GetResult,
        content: bytes | None,
        *,
        whole: bool,
    ) -> None:
        self.entry = entry
        self._bucket = bucket
        self._path = path
        self._result: GetResult | None = result if whole and content is None else None
        self._version = result.meta["e_tag"] or ""
        self._content = content

    async def chunks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yield the stored bytes from `start` to `stop`. Raises BucketUnavailable, RecordChanged."""
        if self._content is not None:
            yield self._content[start:stop]
            return
        if start == stop:
            return
        result, self._result = self._result, None
        if result is None or (start, stop) != (0, self.entry.size):
            result = await self._bucket.get_range(self._path, start, stop, self._version)
        async for piece in self._bucket.stream(result, READ_BYTES):
            yield piece

    def read_at_once(self) -> bytes | None:
        """Give all bytes of a small record."""
        return self._content

    def close(self) -> None:
        """Let go of the answer: its connection is closed if it was not read to its end."""
        self._result = None


class _Counted:
    """A body whose beginning was read, counted as it is sent."""

    def __init__(self, begin: bytes, rest: AsyncIterator[bytes]) -> None:
        self.size = 0
        self._begin = begin
        self._rest = rest

    async def pieces(self) -> AsyncIterator[bytes]:
        self.size = len(self._begin)
        yield self._begin
        async for chunk in self._rest:
            self.size += len(chunk)
            yield chunk


def entry_of(result: GetResult) -> RecordEntry:
    """Read what an object tells of itself."""
    meta, attributes = result.meta, result.attributes
    content_type = str(attributes.get("Content-Type", "application/octet-stream"))
    encoding = cast("ContentEncoding | None", attributes.get("Content-Encoding") or None)
    return RecordEntry(
        places.key_of(meta["path"]),
        meta["size"],
        content_type,
        encoding,
        record_etag(meta["e_tag"], described_by(content_type, encoding)),
        meta["last_modified"],
    )


def record_etag(object_etag: str | None, description: str) -> str:
    """Name a version: the object store's tag may be that of the bytes alone, ours names their type, too."""
    return hashlib.blake2b(f"{description}\0{object_etag}".encode(), digest_size=ETAG_BYTES).hexdigest()


async def _gathered(chunks: AsyncIterator[bytes], enough: int) -> bytes:
    """Read a stream until it ends, or is longer than `enough`."""
    pieces: list[bytes] = []
    size = 0
    async for chunk in chunks:
        pieces.append(chunk)
        size += len(chunk)
        if size > enough:
            break
    return b"".join(pieces)
