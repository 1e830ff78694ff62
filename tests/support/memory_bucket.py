"""Buckets in memory, which fail at the moment that a test says."""

from __future__ import annotations

from typing import Any

from obstore.store import MemoryStore

from kvsfs.server.bucket.objects import Bucket


class Died(Exception):
    """What stands for the death of a process."""


class DyingBucket(Bucket):
    """A bucket whose process dies before its n-th change of an object."""

    def __init__(self, store: MemoryStore, changes: int) -> None:
        super().__init__(store)
        self._left = changes

    async def create(self, path: str, value: Any) -> bool:
        self._count()
        return await super().create(path, value)

    async def write(self, path: str, value: Any) -> None:
        self._count()
        await super().write(path, value)

    async def swap(self, path: str, value: Any, version: Any) -> bool:
        self._count()
        return await super().swap(path, value, version)

    async def remove(self, paths: Any) -> None:
        self._count()
        await super().remove(paths)

    def _count(self) -> None:
        if self._left == 0:
            raise Died
        self._left -= 1
