"""Copying a store's folder of Crawlee into a store."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

from kvsfs.core import content_types
from kvsfs.crawlee import marks
from kvsfs.crawlee.folder import StoreFolder
from kvsfs.crawlee.records import LocalRecord, contents
from kvsfs.crawlee.transfers import Tally, each
from kvsfs.store.bodies import FileBody
from kvsfs.store.protocol import RecordBody, Store

HEAD_BYTES = 64 * 1024
"""What a type is guessed from."""


async def import_folder(
    folder: StoreFolder, store: Store | None, store_id: str, tally: Tally, *, dry_run: bool = False
) -> None:
    """Store each record of a folder, but those that the store is known to have. Nothing is deleted.

    `store` may be None for a dry run: there is none yet. Raises StoreError for what ends all, OSError of the folder.
    """
    found = contents(folder)
    tally.misfits += found.misfits
    tally.records = len(found.records)
    tally.bytes = sum(record.size for record in found.records.values())
    importer = _Importer(folder, store, store_id, tally, dry_run=dry_run)
    records = _iterated(list(found.records.values()))
    await each(records, importer.copy, lambda record: record.file, tally)


async def _iterated(records: list[LocalRecord]) -> AsyncIterator[LocalRecord]:
    for record in records:
        yield record


class _Importer:
    def __init__(
        self, folder: StoreFolder, store: Store | None, store_id: str, tally: Tally, *, dry_run: bool
    ) -> None:
        self._folder = folder
        self._store = store
        self._store_id = store_id
        self._tally = tally
        self._dry_run = dry_run

    async def copy(self, record: LocalRecord) -> None:
        fd = self._folder.open(record.file)
        try:
            content_type = record.content_type or _guessed(fd, record)
            if await self._is_stored(fd, record, content_type):
                self._tally.found_same(record.size)
                return
            if self._dry_run:
                self._tally.moved(record.size)
            else:
                await self._upload(fd, record, content_type)
            self._tally.copied_one(record.key)
        finally:
            os.close(fd)

    async def _is_stored(self, fd: int, record: LocalRecord, content_type: str) -> bool:
        if self._store is None or not marks.is_marked(fd, self._store_id, record.key):
            return False
        head = await self._store.head_record(record.key)
        return head is not None and head.content_type == content_type and marks.is_copy(fd, head)

    async def _upload(self, fd: int, record: LocalRecord, content_type: str) -> None:
        assert self._store is not None
        before = os.fstat(fd)
        body = _Told(FileBody(fd, before.st_size), self._tally)
        try:
            head = await self._store.set_record(record.key, body, content_type=content_type)
        except BaseException:
            body.take_back()
            raise
        marks.mark(fd, self._store_id, record.key, head, before)


class _Told:
    """A body whose bytes are counted as they go; those of an attempt that failed are taken back."""

    def __init__(self, body: RecordBody, tally: Tally) -> None:
        self._body = body
        self._tally = tally
        self._counted = 0

    @property
    def length(self) -> int:
        return self._body.length

    def take_back(self) -> None:
        self._tally.moved(-self._counted)
        self._counted = 0

    def chunks(self) -> AsyncIterator[bytes]:
        self.take_back()
        self._pieces = self._body.chunks()
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        piece = await anext(self._pieces)
        self._counted += len(piece)
        self._tally.moved(len(piece))
        return piece


def _guessed(fd: int, record: LocalRecord) -> str:
    """Guess as for a new file in a mount; a name without a dot may be an extension, as JavaScript has it."""
    head = os.pread(fd, HEAD_BYTES, 0)
    name = os.fsencode(f"x.{record.file.rpartition('.')[2]}")
    return content_types.guess(name, head, whole=len(head) == record.size)
