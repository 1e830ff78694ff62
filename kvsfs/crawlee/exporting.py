"""Copying a store into a folder, as Crawlee has it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import suppress

import trio

from kvsfs.crawlee import layout, marks
from kvsfs.crawlee.folder import NewFile, StoreFolder
from kvsfs.crawlee.layout import Layout, Named
from kvsfs.crawlee.records import LocalRecord, Misfit, contents
from kvsfs.crawlee.transfers import Tally, each
from kvsfs.errors import RecordNotFound, StoreUnreachable
from kvsfs.store.protocol import RecordStream, Store
from kvsfs.types import KeyEntry, RecordHead

PAUSES = (1.0, 2.0)
"""Seconds before a record is read again whose bytes broke off on the way: the client does not repeat what has begun."""


async def export_store(
    store: Store,
    store_id: str,
    folder: StoreFolder | None,
    written: Layout,
    tally: Tally,
    *,
    dry_run: bool = False,
) -> None:
    """Write each record of a store, but those that the folder is known to have. Other files stay.

    `folder` may be None for a dry run: there is none yet. Raises StoreError for what ends all, OSError of the folder.
    """
    here = {} if folder is None else contents(folder).records
    exporter = _Exporter(store, store_id, folder, written, tally, here, dry_run=dry_run)
    await each(exporter.listed(), exporter.copy, lambda entry: entry.key, tally)


class _Cannot(Exception):
    """The folder cannot hold a record."""


class _Exporter:
    def __init__(
        self,
        store: Store,
        store_id: str,
        folder: StoreFolder | None,
        written: Layout,
        tally: Tally,
        here: dict[str, LocalRecord],
        *,
        dry_run: bool,
    ) -> None:
        self._store = store
        self._store_id = store_id
        self._folder = folder
        self._layout = written
        self._tally = tally
        self._here = here
        self._dry_run = dry_run
        self._written: set[str] = set()
        """Names, which no record's former file can be."""

    async def listed(self) -> AsyncIterator[KeyEntry]:
        async for entry in self._store.iter_keys():
            self._tally.records += 1
            self._tally.bytes += entry.size
            yield entry

    async def copy(self, entry: KeyEntry) -> None:
        try:
            if await self._is_here(entry):
                self._tally.found_same(entry.size)
                return
            if self._dry_run:
                await self._try(entry)
            else:
                await self._download(entry)
            self._tally.copied_one(entry.key)
        except RecordNotFound:
            self._tally.records -= 1  # deleted meanwhile
        except _Cannot as error:
            self._tally.misfits.append(Misfit(entry.key, str(error)))

    async def _is_here(self, entry: KeyEntry) -> bool:
        local = self._here.get(entry.key)
        if local is None or self._folder is None:
            return False
        try:
            fd = self._folder.open(local.file)
        except FileNotFoundError:
            return False
        try:
            if not marks.is_marked(fd, self._store_id, entry.key):
                return False
            head = await self._store.head_record(entry.key)
            if head is None or not marks.is_copy(fd, head):
                return False
        finally:
            os.close(fd)
        names = self._named(entry, head, local.size)
        noted = local.content_type if local.sidecar is not None else head.content_type
        return (names.file, names.sidecar, noted) == (local.file, local.sidecar, head.content_type)

    async def _try(self, entry: KeyEntry) -> None:
        head = await self._store.head_record(entry.key)
        if head is None:
            raise RecordNotFound(f"record {entry.key}: there is none")
        self._named(entry, head, 0)
        self._tally.moved(entry.size)

    async def _download(self, entry: KeyEntry) -> None:
        for pause in PAUSES:
            async with self._store.get_record(entry.key) as stream:
                assert stream is not None  # nothing was asked of its version
                with suppress(StoreUnreachable):
                    await self._write(entry, stream)
                    return
            await trio.sleep(pause)
        async with self._store.get_record(entry.key) as stream:
            assert stream is not None
            await self._write(entry, stream)

    async def _write(self, entry: KeyEntry, stream: RecordStream) -> None:
        assert self._folder is not None
        self._named(entry, stream.head, 0)  # before any byte of it is fetched
        with self._folder.new_file() as file:
            size = await self._receive(stream, file)
            names = self._named(entry, stream.head, size)
            marks.mark(file.fd, self._store_id, entry.key, stream.head)
            self._put(file, names, self._folder)
            self._written |= {names.file, names.sidecar or names.file}
        self._remove_former(entry, self._folder)

    async def _receive(self, stream: RecordStream, file: NewFile) -> int:
        size = 0
        try:
            async for piece in stream.chunks():
                file.write(piece)
                size += len(piece)
                self._tally.moved(len(piece))
        except BaseException:
            self._tally.moved(-size)
            raise
        return size

    def _put(self, file: NewFile, names: Named, folder: StoreFolder) -> None:
        """Name both files, with nothing that could be cancelled in between."""
        if names.sidecar is None:
            file.name_it(names.file)
            return
        with folder.new_file() as sidecar:
            sidecar.write(names.noted)
            file.name_it(names.file)
            sidecar.name_it(names.sidecar)

    def _remove_former(self, entry: KeyEntry, folder: StoreFolder) -> None:
        """Remove what held the record until now, where its type or the layout has given it another name."""
        former = self._here.get(entry.key)
        if former is None:
            return
        for name in (former.file, former.sidecar):
            if name is not None and name not in self._written:
                folder.remove(name)

    def _named(self, entry: KeyEntry, head: RecordHead, size: int) -> Named:
        try:
            return layout.named(entry.key, head.content_type, size, self._layout)
        except ValueError as error:
            raise _Cannot(str(error)) from None
