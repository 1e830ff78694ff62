"""Reading a record over HTTP: what is asked for in headers, and what an answer's headers make of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from http import HTTPStatus

from kvsfs.errors import ProtocolViolation, StoreUnreachable
from kvsfs.store.decoding import decoded
from kvsfs.store.parsing import parse_content_range, parse_head
from kvsfs.store.transport import Answer
from kvsfs.types import ByteRange, RecordHead


def range_header(byte_range: ByteRange | None) -> dict[str, str]:
    """Ask for a part; ValueError for a part of no bytes, which HTTP cannot ask for."""
    if byte_range is None:
        return {}
    if byte_range.start < 0 or (byte_range.stop is not None and byte_range.stop <= byte_range.start):
        raise ValueError(f"a range of no bytes: {byte_range}")
    last = "" if byte_range.stop is None else byte_range.stop - 1
    # Offsets of an encoded body would not be those of the record.
    return {"Range": f"bytes={byte_range.start}-{last}", "Accept-Encoding": "identity"}


def condition(seen: RecordHead | None) -> dict[str, str]:
    """Ask for the record only if it is no longer the version that `seen` describes."""
    # A weak ETag promises the same meaning, not the same bytes: `validator` leaves it out, and so do we.
    if seen is None or seen.validator is None:
        return {}
    if seen.validator == seen.etag:
        return {"If-None-Match": seen.validator}
    return {"If-Modified-Since": seen.validator}


class ApifyRecordStream:
    """A record's answer, its encoding undone."""

    def __init__(self, answer: Answer, byte_range: ByteRange | None) -> None:
        """Raise ProtocolViolation when the answer is not the part that was asked for."""
        head = parse_head(answer.headers)
        chunks: AsyncIterator[bytes] = answer
        self.start = 0
        if answer.status == HTTPStatus.PARTIAL_CONTENT:
            self.start, stop, head = _part(answer, head, byte_range)
            chunks = _Measured(answer, stop - self.start)
        self.head = head
        self._pieces = decoded(chunks, head.content_encoding)

    def chunks(self) -> AsyncIterator[bytes]:
        """Give the bytes from `start`. There is one body: a second call goes on where the first stopped."""
        return self._pieces

    async def aclose(self) -> None:
        """End the decoding; whoever opened the answer closes it."""
        await self._pieces.aclose()


class _Measured:
    """The bytes of a part, held against its Content-Range: a proxy that sends chunks drops Content-Length.

    An iterator and no generator: it can be left half way.
    """

    def __init__(self, chunks: AsyncIterator[bytes], length: int) -> None:
        self._chunks = chunks
        self._left = length

    def __aiter__(self) -> _Measured:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk = await anext(self._chunks)
        except StopAsyncIteration:
            if self._left:
                raise StoreUnreachable("the record's bytes broke off") from None
            raise
        self._left -= len(chunk)
        if self._left < 0:
            raise ProtocolViolation("the answer is more of the record than its headers say")
        return chunk


def _part(answer: Answer, head: RecordHead, wanted: ByteRange | None) -> tuple[int, int, RecordHead]:
    """Give where the part starts and stops, and the head of the whole record."""
    start, stop, whole = parse_content_range(answer.headers)
    if wanted is None or start != wanted.start or not _reaches_far_enough(stop, whole, wanted):
        raise ProtocolViolation("the answer is a part of the record that was not asked for")
    if head.content_encoding is not None:
        raise ProtocolViolation("the answer is a part of an encoded record, which cannot be decoded")
    return start, stop, replace(head, length=whole, accepts_ranges=True)


def _reaches_far_enough(stop: int, whole: int | None, wanted: ByteRange) -> bool:
    # HTTP lets a server send less than was asked for; a reader would take it for the record's end.
    if whole is None:
        return wanted.stop is None or stop <= wanted.stop
    return stop == (whole if wanted.stop is None else min(wanted.stop, whole))
