"""Content-Encodings undone piece by piece, in bounded memory however well the bytes were compressed."""

from __future__ import annotations

import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from itertools import islice
from typing import Protocol

import brotli  # type: ignore[import-untyped]  # the wheel ships no stubs
import trio

from kvsfs.errors import ProtocolViolation
from kvsfs.types import ContentEncoding

PIECE = 1024 * 1024
"""Bytes: the longest piece that a reader is handed."""

_BROTLI_LIMIT = 256 * 1024
"""Bytes. brotli grows its output by whole blocks and passes its limit by the last one: given 1 MiB it
returned 2,064,288 bytes at a time, given 256 KiB it stays below half a MiB."""

_LOOKED_AT = 8
"""Pieces that are unpacked to see whether bytes are encoded."""

_GZIP_WINDOW = 16 + zlib.MAX_WBITS
_ZLIB_WINDOW = zlib.MAX_WBITS
_RAW_WINDOW = -zlib.MAX_WBITS


class Decoder(Protocol):
    """Undoes one Content-Encoding."""

    def feed(self, encoded: bytes) -> Iterator[bytes]:
        """Give what `encoded` adds, in pieces of at most `PIECE`. Raises ProtocolViolation."""

    def finish(self) -> None:
        """Raise ProtocolViolation if the encoded bytes ended too early."""


async def decoded(
    chunks: AsyncIterator[bytes], encoding: ContentEncoding | None
) -> AsyncGenerator[bytes, None]:
    """Give the bytes of `chunks` without `encoding`, in pieces of at most `PIECE`.

    A body of no bytes is the empty record in every encoding: servers keep such bodies as they were sent.
    Raises ProtocolViolation when the bytes are not in that encoding, end early or go on behind its end.
    Checkpoints before every piece. Close the generator (`aclosing`) when it is left before its end.
    """
    decoder = _DECODERS[encoding]() if encoding else _Identity()
    fed = False
    async for chunk in chunks:
        for piece in decoder.feed(chunk):
            await trio.lowlevel.checkpoint()  # a well compressed chunk is many pieces: let others run
            yield piece
        fed = fed or bool(chunk)
    if fed:
        decoder.finish()


def may_be_encoded(content: bytes) -> bool:
    """Tell whether bytes are, as a whole, what a Content-Encoding makes: for bytes that came without headers.

    Never false for what `decoded` would take: it is what the same decoders say. What unpacks to more than a few MiB
    counts as encoded without a look at the rest.
    """
    return any(_is_whole(make_decoder(), content) for make_decoder in _DECODERS.values())


def _is_whole(decoder: Decoder, content: bytes) -> bool:
    try:
        if sum(1 for _ in islice(decoder.feed(content), _LOOKED_AT)) == _LOOKED_AT:
            return True
        decoder.finish()
    except ProtocolViolation:
        return False
    return True


class _Identity:
    def feed(self, encoded: bytes) -> Iterator[bytes]:
        for offset in range(0, len(encoded), PIECE):
            yield encoded[offset : offset + PIECE]

    def finish(self) -> None:
        pass


class _Gzip:
    """RFC 1952: members one after the other, whose contents are joined."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP_WINDOW)

    def feed(self, encoded: bytes) -> Iterator[bytes]:
        while encoded:
            if self._member.eof:
                self._member = zlib.decompressobj(_GZIP_WINDOW)
            yield from _inflate(self._member, encoded, "gzip")
            encoded = self._member.unused_data

    def finish(self) -> None:
        if not self._member.eof:
            raise _cut_short("gzip")


class _Deflate:
    """RFC 9110 means zlib's wrapping, but senders of bare deflate exist: the first two bytes tell."""

    def __init__(self) -> None:
        self._first = b""
        self._inflater: zlib._Decompress | None = None

    def feed(self, encoded: bytes) -> Iterator[bytes]:
        if self._inflater is None:
            encoded = self._first + encoded
            if len(encoded) < 2:
                self._first = encoded
                return
            self._inflater = zlib.decompressobj(_ZLIB_WINDOW if _is_zlib(encoded) else _RAW_WINDOW)
        if self._inflater.eof and encoded:
            raise _corrupt("deflate")
        yield from _inflate(self._inflater, encoded, "deflate")
        if self._inflater.unused_data:
            raise _corrupt("deflate")

    def finish(self) -> None:
        if self._inflater is None or not self._inflater.eof:
            raise _cut_short("deflate")


class _Brotli:
    def __init__(self) -> None:
        self._decompressor = brotli.Decompressor()

    def feed(self, encoded: bytes) -> Iterator[bytes]:
        if encoded and self._decompressor.is_finished():
            raise _corrupt("br")
        while piece := self._process(encoded):
            yield piece
            # can_accept_more_data() tells of input kept back only: output may be pending when it is true.
            encoded = b""

    def _process(self, encoded: bytes) -> bytes:
        try:
            return bytes(self._decompressor.process(encoded, output_buffer_limit=_BROTLI_LIMIT))
        except brotli.error as error:
            raise _corrupt("br") from error

    def finish(self) -> None:
        if not self._decompressor.is_finished():
            raise _cut_short("br")


_DECODERS: Mapping[ContentEncoding, Callable[[], Decoder]] = {
    "gzip": _Gzip,
    "deflate": _Deflate,
    "br": _Brotli,
}


def _inflate(inflater: zlib._Decompress, encoded: bytes, encoding: ContentEncoding) -> Iterator[bytes]:
    try:
        while not inflater.eof:
            piece = inflater.decompress(encoded, PIECE)
            if piece:
                yield piece
            encoded = inflater.unconsumed_tail
            if not encoded and len(piece) < PIECE:
                return  # a full piece may have left more inside, even with no input left
    except zlib.error as error:
        raise _corrupt(encoding) from error


def _is_zlib(encoded: bytes) -> bool:
    # RFC 1950: method 8, and the two bytes as a number are a multiple of 31.
    return encoded[0] & 0x0F == 8 and (encoded[0] << 8 | encoded[1]) % 31 == 0


def _corrupt(encoding: ContentEncoding) -> ProtocolViolation:
    return ProtocolViolation(f"the record's bytes are not the {encoding} that its headers promise")


def _cut_short(encoding: ContentEncoding) -> ProtocolViolation:
    return ProtocolViolation(f"the record's {encoding} bytes end too early")
