"""Decoding: any content, any way of cutting the encoded bytes, bounded pieces; damage is never silent."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping

import brotli  # type: ignore[import-untyped]  # the wheel ships no stubs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvsfs.errors import ProtocolViolation
from kvsfs.store.decoding import PIECE, decoded
from kvsfs.types import ContentEncoding
from tests.support.running import run_async


def raw_deflate(content: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(content) + compressor.flush()


ENCODERS: Mapping[str, tuple[ContentEncoding, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "zlib": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
    "br": ("br", brotli.compress),
}
names = st.sampled_from(sorted(ENCODERS))
contents = st.binary(max_size=5000) | st.builds(
    lambda b, n: b * n, st.binary(max_size=20), st.integers(0, 9999)
)


def cut(content: bytes, sizes: Iterable[int]) -> list[bytes]:
    pieces, offset = [], 0
    for size in sizes:
        pieces.append(content[offset : offset + size])
        offset += size
    return [*pieces, content[offset:]]


def decode(encoding: ContentEncoding | None, chunks: list[bytes]) -> list[bytes]:
    async def arriving() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    async def collect() -> list[bytes]:
        return [piece async for piece in decoded(arriving(), encoding)]

    return run_async(collect)


@given(names, contents, st.lists(st.integers(0, 50), max_size=20))
def test_round_trip_however_it_is_cut(name: str, content: bytes, sizes: list[int]) -> None:
    encoding, encode = ENCODERS[name]
    assert b"".join(decode(encoding, cut(encode(content), sizes))) == content


@given(contents, st.lists(st.integers(0, 50), max_size=20))
def test_without_encoding_bytes_pass_unchanged(content: bytes, sizes: list[int]) -> None:
    assert b"".join(decode(None, cut(content, sizes))) == content


@given(names, st.binary(min_size=1, max_size=3000), st.data())
def test_encoded_bytes_that_end_early_are_an_error(name: str, content: bytes, data: st.DataObject) -> None:
    encoding, encode = ENCODERS[name]
    encoded = encode(content)
    kept = data.draw(st.integers(1, len(encoded) - 1))
    with pytest.raises(ProtocolViolation):
        decode(encoding, [encoded[:kept]])


@given(st.binary(min_size=1, max_size=2000), st.data())
def test_a_flipped_bit_in_gzip_never_passes_for_other_content(content: bytes, data: st.DataObject) -> None:
    encoded = bytearray(gzip.compress(content, mtime=0))
    position = data.draw(st.integers(0, len(encoded) - 1))
    encoded[position] ^= 1 << data.draw(st.integers(0, 7))
    try:
        result = b"".join(decode("gzip", [bytes(encoded)]))
    except ProtocolViolation:
        return
    assert result == content  # a bit of the header that means nothing, such as the file system's name


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate"])
def test_garbage_is_an_error(encoding: ContentEncoding) -> None:
    with pytest.raises(ProtocolViolation):
        decode(encoding, [b"<html>no such encoding</html>"])


@pytest.mark.parametrize("name", ["zlib", "raw deflate", "br"])
@pytest.mark.parametrize("joined", [True, False])
def test_bytes_behind_the_end_are_an_error(name: str, *, joined: bool) -> None:
    encoding, encode = ENCODERS[name]
    encoded = encode(b"content " * 20)
    with pytest.raises(ProtocolViolation):
        decode(encoding, [encoded + b"\x07more"] if joined else [encoded, b"\x07more"])


def test_gzip_members_are_joined() -> None:
    assert b"".join(decode("gzip", [gzip.compress(b"one ") + gzip.compress(b"two")])) == b"one two"


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", None])
def test_no_bytes_are_the_empty_record(encoding: ContentEncoding | None) -> None:
    assert b"".join(decode(encoding, [])) == b""
    assert b"".join(decode(encoding, [b""])) == b""


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_a_bomb_comes_in_bounded_pieces(name: str) -> None:
    encoding, encode = ENCODERS[name]
    size = 48 * PIECE + 17
    pieces = decode(encoding, [encode(bytes(size))])
    assert sum(map(len, pieces)) == size
    assert max(map(len, pieces)) <= PIECE


def test_plain_bytes_come_in_bounded_pieces_too() -> None:
    assert [len(piece) for piece in decode(None, [bytes(2 * PIECE + 5)])] == [PIECE, PIECE, 5]


@given(st.sampled_from(["gzip", "br", "deflate"]), st.binary(max_size=500), st.lists(st.integers(0, 50)))
def test_any_bytes_are_decoded_or_a_protocol_violation(
    encoding: ContentEncoding, encoded: bytes, sizes: list[int]
) -> None:
    try:
        pieces = decode(encoding, cut(encoded, sizes))
    except ProtocolViolation:
        return
    assert all(0 < len(piece) <= PIECE for piece in pieces)


@given(names, st.binary(min_size=1, max_size=300), st.data())
def test_damaged_bytes_are_decoded_or_a_protocol_violation(
    name: str, content: bytes, data: st.DataObject
) -> None:
    encoding, encode = ENCODERS[name]
    encoded = bytearray(encode(content))
    for _ in range(data.draw(st.integers(1, 4))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    try:
        pieces = decode(encoding, [bytes(encoded)])
    except ProtocolViolation:
        return
    assert all(0 < len(piece) <= PIECE for piece in pieces)
