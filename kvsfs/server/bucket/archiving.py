"""The records of a bucket for an archive: fetched in threads, small ones ahead of their turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import obstore

from kvsfs.server.bucket import places
from kvsfs.server.bucket.objects import translated
from kvsfs.server.bucket.records import WHOLE_BYTES, entry_of
from kvsfs.server.storage import KeySelection, RecordEntry
from kvsfs.server.values import Value

if TYPE_CHECKING:
    from obstore import GetResult
    from obstore.store import ObjectStore

AHEAD = 16
"""Records asked for before their turn, each a request of some 30 ms: 500 a second, with 4 MiB in memory at most."""


class ObjectValue:
    """The bytes of one object, read once from its beginning to its end."""

    def __init__(self, result: GetResult) -> None:
        self.size = result.meta["size"]
        self._result: GetResult | None = result
        self._content: bytes | None = None
        if self.size <= WHOLE_BYTES:
            with translated():
                self._content = bytes(result.bytes())

    def read(self, start: int, count: int) -> bytes:
        """Read at most `count` bytes of a small object."""
        assert self._content is not None
        return self._content[start : start + count]

    def pieces(self, size: int) -> Iterator[bytes]:
        """Yield the first `size` bytes, which are all. Raises BucketUnavailable."""
        if self._content is not None:
            yield self._content[:size]
        elif self._result is not None:
            with translated():
                yield from (bytes(piece) for piece in self._result.stream(min_chunk_size=WHOLE_BYTES))

    def close(self) -> None:
        """Let go of the answer."""
        self._result = None


def fetched_records(
    store: ObjectStore, store_id: str, selection: KeySelection
) -> Iterator[tuple[RecordEntry, Value]]:
    """Yield records in the order of their keys. Raises BucketUnavailable. Blocks: for threads."""
    asked: deque[Future[tuple[RecordEntry, Value] | None]] = deque()
    with ThreadPoolExecutor(AHEAD, thread_name_prefix="archive") as threads:
        try:
            for path in _paths(store, store_id, selection):
                asked.append(threads.submit(_fetched, store, path))
                if len(asked) >= AHEAD:
                    yield from _whole(asked.popleft())
            while asked:
                yield from _whole(asked.popleft())
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


def _whole(asked: Future[tuple[RecordEntry, Value] | None]) -> Iterator[tuple[RecordEntry, Value]]:
    found = asked.result()
    if found is not None:
        yield found
        found[1].close()


def _fetched(store: ObjectStore, path: str) -> tuple[RecordEntry, Value] | None:
    try:
        with translated():
            result = obstore.get(store, path)
    except FileNotFoundError:
        return None  # deleted since it was listed
    return entry_of(result), ObjectValue(result)


def _paths(store: ObjectStore, store_id: str, selection: KeySelection) -> Iterator[str]:
    if selection.only is not None:
        if selection.only:
            yield places.record(store_id, selection.only)
        return
    if not places.is_possible(selection.prefix):
        return
    listing = iter(
        obstore.list(store, prefix=places.records(store_id), offset=places.start(store_id, selection, None))
    )
    while True:
        with translated():
            page = next(listing, None)
        if page is None:
            return
        for meta in page:
            if not places.key_of(meta["path"]).startswith(selection.prefix):
                return
            yield meta["path"]
