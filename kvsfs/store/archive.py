"""The ZIP call's answer: many records in one body, unpacked as it arrives."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import trio

from kvsfs.errors import ProtocolViolation
from kvsfs.types import RecordKey

ONE_ENTRY = 64 * 1024 * 1024
"""Bytes that an entry nobody wants may inflate to: a thousandfold is what deflate can do, and costs seconds."""

HANDED_BYTES = 4 * 1024 * 1024
"""Unpacked bytes that are held at most: a chunk of 256 KiB can unpack to a thousand times as much."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One record of an archive, proven by its CRC; `content` is None where it is larger than was asked for."""

    key: RecordKey
    content: bytes | None
    date: str | None
    """The server's time when it began to answer, as a Last-Modified would name it; None where it does not tell."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is wanted of an archive: which records, up to how many bytes each, and of how many bytes in all."""

    keys: Collection[RecordKey]
    largest: int
    at_most: int


Take = Callable[[Sequence[Entry]], Awaitable[None]]
"""Gets the entries as they come; none where something came that did not end an entry."""


async def unpack(chunks: AsyncIterator[bytes], date: str | None, wanted: Wanted, take: Take) -> None:
    """Unpack an archive; what is not wanted is left out. At most `HANDED_BYTES` and an entry are in memory.

    Names are only names: `..` is a legal key. In a thread, because the library asks for bytes where it stands; one
    exchange a chunk, as the way to a thread and back costs as much as ten small entries. Raises ProtocolViolation for
    what is damaged, cut short, encrypted, of unknown length (a stored entry whose size comes behind it), or unpacks to
    more than `wanted.at_most` bytes; what `chunks` and `take` raise passes through. Checkpoints.
    """
    found: list[Entry] = []

    async def hand_over() -> None:
        handed = found.copy()
        found.clear()
        await take(handed)

    async def exchange() -> bytes:
        await hand_over()
        return await anext(chunks, b"")

    def pieces() -> Iterator[bytes]:
        while piece := trio.from_thread.run(exchange):
            yield piece

    def work() -> None:
        unpacked = handed = 0
        for key, content, size in _unzipped(pieces(), wanted):
            unpacked += size
            if unpacked > wanted.at_most:
                raise ProtocolViolation("the archive of records unpacks to more than can be true")
            if key in wanted.keys:
                found.append(Entry(key, content, date))
            if unpacked - handed > HANDED_BYTES:
                handed = unpacked
                trio.from_thread.run(hand_over)

    await trio.to_thread.run_sync(work)
    await hand_over()


def _unzipped(pieces: Iterator[bytes], wanted: Wanted) -> Iterator[tuple[RecordKey, bytes | None, int]]:
    # Here, not above: it brings ciphers along, 45 ms for each command and mount that reads no archive.
    from stream_unzip import NO_ENCRYPTION, UnzipError, stream_unzip  # noqa: PLC0415

    try:
        for name, _, content in stream_unzip(pieces, allowed_encryption_mechanisms=(NO_ENCRYPTION,)):
            key = RecordKey(name.decode("utf-8", "replace"))
            yield key, *_content(content, wanted.largest if key in wanted.keys else -1)
    except UnzipError as error:
        # Its own words are a class: the messages hold bytes of the archive.
        raise ProtocolViolation(f"the archive of records is damaged ({type(error).__name__})") from None


def _content(parts: Iterator[bytes], largest: int) -> tuple[bytes | None, int]:
    """Read an entry to its end; its bytes, unless there are more than `largest`, and how many they are."""
    kept: list[bytes] = []
    size = 0
    for part in parts:
        size += len(part)
        if size > ONE_ENTRY:
            raise ProtocolViolation("an entry in the archive of records grows without end")
        if size <= largest:
            kept.append(part)
    return (b"".join(kept) if size <= largest else None), size
