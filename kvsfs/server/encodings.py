"""Content encodings: what a client accepts, and decoding as a stream of bounded pieces."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Protocol

import brotli  # type: ignore[import-untyped] # ships no types

from kvsfs.types import ContentEncoding

OUTPUT_BYTES = 256 * 1024
"""What a decoder gives at once. A few bytes of a bomb decode to gigabytes: pieces keep memory bounded."""

INPUT_BYTES = 64 * 1024
"""What a decoder is fed at once: zlib copies the input that it has not used at every call."""


def accepts(accept_encoding: str | None, encoding: ContentEncoding) -> bool:
    """Whether a client takes `encoding`. Without the header it gets plain bytes, as the API says."""
    wildcard = False
    for item in (accept_encoding or "").lower().split(","):
        coding, _, parameters = item.partition(";")
        name = coding.strip().removeprefix("x-")
        if name == encoding:
            return _quality(parameters) > 0
        if name == "*":
            wildcard = _quality(parameters) > 0
    return wildcard


def _quality(parameters: str) -> float:
    name, _, value = parameters.partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0


class UndecodableValue(Exception):
    """The bytes are not in the encoding that they were stored as."""


class Decoder(Protocol):
    """Decodes a stream fed to it in pieces."""

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Yield what the piece decodes to, in pieces of about OUTPUT_BYTES."""

    def finish(self) -> None:
        """Raise UndecodableValue when the stream is not at its end."""


class _Zlib:
    """gzip, also of several members, and deflate, also without the zlib header that some senders omit."""

    def __init__(self, encoding: ContentEncoding) -> None:
        self._window_bits = 31 if encoding == "gzip" else 15
        self._raw_possible = encoding == "deflate"
        self._stream = zlib.decompressobj(self._window_bits)

    def feed(self, piece: bytes) -> Iterator[bytes]:
        while piece:
            if self._stream.eof:
                self._stream = zlib.decompressobj(self._window_bits)
            output = self._decompress(piece)
            piece = self._stream.unconsumed_tail or self._stream.unused_data
            if output:
                yield output

    def finish(self) -> None:
        if not self._stream.eof:
            raise UndecodableValue("the compressed value ends too early")

    def _decompress(self, piece: bytes) -> bytes:
        try:
            output = self._stream.decompress(piece, OUTPUT_BYTES)
        except zlib.error:
            if not self._raw_possible:
                raise
            self._window_bits, self._raw_possible = -15, False
            self._stream = zlib.decompressobj(self._window_bits)
            output = self._stream.decompress(piece, OUTPUT_BYTES)
        self._raw_possible = False
        return output


class _Brotli:
    def __init__(self) -> None:
        self._stream = brotli.Decompressor()

    def feed(self, piece: bytes) -> Iterator[bytes]:
        # `can_accept_more_data` is no sign that nothing is left: it says True with megabytes still inside
        # (brotli 1.2.1, tried). An empty output is one.
        output = self._stream.process(piece, output_buffer_limit=OUTPUT_BYTES)
        while output:
            yield output
            if self._stream.is_finished():
                return
            output = self._stream.process(b"", output_buffer_limit=OUTPUT_BYTES)

    def finish(self) -> None:
        if not self._stream.is_finished():
            raise UndecodableValue("the compressed value ends too early")


async def decoded(chunks: AsyncIterator[bytes], encoding: ContentEncoding) -> AsyncIterator[bytes]:
    """Decode a stream. Raises UndecodableValue."""
    decoder = _decoder(encoding)
    async for chunk in chunks:
        for output in _fed(decoder, chunk):
            yield output
    decoder.finish()


def decoded_here(chunks: Iterable[bytes], encoding: ContentEncoding) -> Iterator[bytes]:
    """Decode a stream in a thread of its own. Raises UndecodableValue."""
    decoder = _decoder(encoding)
    for chunk in chunks:
        yield from _fed(decoder, chunk)
    decoder.finish()


def _decoder(encoding: ContentEncoding) -> Decoder:
    return _Brotli() if encoding == "br" else _Zlib(encoding)


def _fed(decoder: Decoder, chunk: bytes) -> Iterator[bytes]:
    try:
        for start in range(0, len(chunk), INPUT_BYTES):
            yield from decoder.feed(chunk[start : start + INPUT_BYTES])
    except (zlib.error, brotli.error) as error:
        raise UndecodableValue("the value is not in the encoding that it was stored as") from error
