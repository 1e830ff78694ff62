"""Uploads with a Content-Encoding: what `--compress` sends compressed, and the compressed body."""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Protocol

import brotli  # type: ignore[import-untyped]  # the wheel ships no stubs
import trio

from kvsfs.cache.blobs import Blob, BlobFolder
from kvsfs.store.bodies import FileBody
from kvsfs.types import ContentEncoding

log = logging.getLogger(__name__)

LEAST_BYTES = 1024
"""Below this a header costs what is saved: Apify's clients compress from here on, too."""

GZIP_LEVEL = 6
"""zlib's default: 51 MB/s and 4.56 times smaller for source text; level 9 takes 14 MB/s for 4.60 times."""

BROTLI_QUALITY = 5
"""75 MB/s and 5.10 times smaller for the same text: quicker and smaller than gzip. Quality 6 takes 63 MB/s for 5.24,
9 takes 20 MB/s for 5.53."""

STEP_BYTES = 1024 * 1024
"""Compressed by one call in a thread: 20 ms, after which a cancelled upload ends. A thread costs 0.1 ms."""

INLINE_BYTES = 64 * 1024
"""Compressed without a thread: about 1 ms, in which nobody else waits for long."""

_COMPRESSIBLE = frozenset(
    f"application/{name}"
    for name in (
        "ecmascript",
        "graphql",
        "javascript",
        "json",
        "rtf",
        "sql",
        "toml",
        "wasm",
        "x-httpd-php",
        "x-javascript",
        "x-ndjson",
        "x-sh",
        "x-tex",
        "xml",
        "yaml",
    )
)

_HTML = ("text/html", "application/xhtml+xml")
"""The API answers `content-encoding-forbidden-for-html`."""


def is_compressible(content_type: str) -> bool:
    """Tell whether bytes of this type get smaller as a rule, and may be stored compressed."""
    essence = content_type.partition(";")[0].strip().lower()
    if essence in _HTML:
        return False
    return essence in _COMPRESSIBLE or essence.startswith("text/") or essence.endswith(("+json", "+xml"))


class Compression:
    """Makes the bodies of uploads: compressed where it is asked for, allowed and worth it, else as they are."""

    def __init__(self, blobs: BlobFolder, encoding: ContentEncoding | None) -> None:
        self._blobs = blobs
        self._encoding = encoding

    @asynccontextmanager
    async def body(
        self, blob: Blob, content_type: str
    ) -> AsyncIterator[tuple[FileBody, ContentEncoding | None]]:
        """Give what to send for the bytes of a complete blob, which stays acquired and unchanged meanwhile.

        A PUT needs its length beforehand, so the compressed bytes are a cache file of their own until the end. A
        disk that has no room for it is no reason not to upload. Checkpoints only to compress.
        """
        if self._encoding is None or blob.size < LEAST_BYTES or not is_compressible(content_type):
            yield FileBody(blob.fd, blob.size), None
            return
        with self._new_blob() as compressed:
            smaller = compressed is not None and await _is_smaller(blob, compressed, self._encoding)
            if compressed is None or not smaller:
                yield FileBody(blob.fd, blob.size), None
            else:
                yield FileBody(compressed.fd, compressed.size), self._encoding

    @contextmanager
    def _new_blob(self) -> Iterator[Blob | None]:
        try:
            blob = self._blobs.create()
        except OSError as error:
            _log_sent_plain(error)
            yield None
            return
        try:
            yield blob
        finally:
            blob.release()
            blob.remove()


async def _is_smaller(blob: Blob, compressed: Blob, encoding: ContentEncoding) -> bool:
    """Compress a blob into an empty one, unless that does not get smaller or the disk is full."""
    try:
        await _compress(blob, compressed, _ENCODERS[encoding]())
    except OSError as error:
        _log_sent_plain(error)
        return False
    return compressed.size < blob.size


async def _compress(blob: Blob, compressed: Blob, encoder: _Encoder) -> None:
    """Compress as far as the result is the smaller one. Threads compress only: a full disk evicts, which is ours."""
    in_thread = blob.size > INLINE_BYTES
    for offset in range(0, blob.size, STEP_BYTES):
        step = partial(encoder.feed, blob.pread(STEP_BYTES, offset))
        compressed.pwrite(await trio.to_thread.run_sync(step) if in_thread else step(), compressed.size)
        if compressed.size >= blob.size:
            return
    end = await trio.to_thread.run_sync(encoder.finish) if in_thread else encoder.finish()
    compressed.pwrite(end, compressed.size)


class _Encoder(Protocol):
    def feed(self, piece: bytes) -> bytes: ...

    def finish(self) -> bytes: ...


class _Gzip:
    def __init__(self) -> None:
        self._stream = zlib.compressobj(GZIP_LEVEL, wbits=16 + zlib.MAX_WBITS)
        self.feed: Callable[[bytes], bytes] = self._stream.compress
        self.finish: Callable[[], bytes] = self._stream.flush


class _Brotli:
    def __init__(self) -> None:
        self._stream = brotli.Compressor(quality=BROTLI_QUALITY)
        self.feed: Callable[[bytes], bytes] = self._stream.process
        self.finish: Callable[[], bytes] = self._stream.finish


_ENCODERS: dict[ContentEncoding, Callable[[], _Encoder]] = {"gzip": _Gzip, "br": _Brotli}


def _log_sent_plain(error: OSError) -> None:
    log.warning("an upload is sent uncompressed: %s", os.strerror(error.errno or 0))
