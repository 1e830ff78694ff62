"""Which clean content goes when the cache is full."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

from cachetools import LRUCache

from kvsfs.cache.blobs import Blob

K = TypeVar("K", bound=Hashable)


class CleanBlobs(Generic[K]):
    """The clean blobs that nobody has open, least recently used first out.

    Dirty and open blobs are never in here, so eviction cannot lose a byte. `evicted` is called for each blob
    that had to go, after its file was removed.
    """

    def __init__(self, capacity: int, evicted: Callable[[K], None]) -> None:
        self._blobs = _Lru(capacity, evicted)

    def add(self, key: K, blob: Blob) -> None:
        """Keep a blob for later, at the cost of older ones; one larger than the cache is evicted at once."""
        if blob.size > self._blobs.maxsize:
            self._blobs.evict(key, blob)
        else:
            self._blobs[key] = blob

    def take(self, key: K) -> None:
        """Take a blob out, because it is opened, written or gone."""
        self._blobs.pop(key, None)

    def make_room(self) -> bool:
        """Let the older half go, because the disk is full; False when there is nothing to go."""
        if not self._blobs:
            return False
        enough = self.used_bytes // 2
        while self._blobs and self.used_bytes >= enough:
            self._blobs.popitem()
        return True

    @property
    def used_bytes(self) -> int:
        """Bytes of all blobs in here."""
        return int(self._blobs.currsize)

    def check_invariants(self) -> None:
        """For tests."""
        assert self.used_bytes == sum(blob.size for blob in self._blobs.values()) <= self._blobs.maxsize
        for blob in self._blobs.values():
            assert os.path.exists(blob.path)
            assert not blob.in_use

    def __iter__(self) -> Iterator[K]:
        return iter(self._blobs)


class _Lru(LRUCache[K, Blob]):
    def __init__(self, capacity: int, evicted: Callable[[K], None]) -> None:
        super().__init__(maxsize=capacity, getsizeof=lambda blob: blob.size)
        self._evicted = evicted

    def evict(self, key: K, blob: Blob) -> None:
        blob.remove()
        self._evicted(key)

    def popitem(self) -> tuple[K, Blob]:
        key, blob = super().popitem()
        self.evict(key, blob)
        return key, blob
