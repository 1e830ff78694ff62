"""Having a folder in the cache before anybody reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import trio

from kvsfs.core.bulk import Bulk
from kvsfs.core.inodes import File, Folder
from kvsfs.core.listing import Lister
from kvsfs.core.prefetch import AT_A_TIME
from kvsfs.core.versions import Versions
from kvsfs.errors import FileError, RecordNotFound, RecordTooLarge, StoreError
from kvsfs.store.priority import in_background

PATIENCE = 30.0
"""Seconds for the headers of one record, while programs that wait go first."""


@dataclass(frozen=True, slots=True)
class Warmth:
    """How far it is: files, and bytes as the listing tells them."""

    files: int
    bytes: int
    all_files: int
    all_bytes: int


async def warm(
    lister: Lister,
    versions: Versions,
    bulk: Bulk,
    inode: File | Folder,
    tell: Callable[[Warmth], None],
    *,
    largest: int,
) -> None:
    """Fetch, or validate, a file or all files below a folder; `tell` is called after each.

    Many small ones come by one request, and what that leaves side by side. What the cache has no room for
    pushes out what came before; records of more than `largest` bytes are left out. Raises the first StoreError or
    OSError; what is here by then stays. Checkpoints.
    """
    with in_background():
        if isinstance(inode, Folder):
            await lister.know_all(inode)
        files = [file for file in _files(inode) if file.in_store]
        left = {file: file.size for file in files}
        all_bytes, done_bytes = sum(left.values()), 0
        failures: list[StoreError | OSError] = []

        def done(file: File) -> None:
            nonlocal done_bytes
            done_bytes += left.pop(file, 0)
            tell(Warmth(len(files) - len(left), done_bytes, len(files), all_bytes))

        if isinstance(inode, Folder):
            await bulk.read(inode.prefix, files, done)
        waiting = iter(list(left))

        async def work() -> None:
            for file in waiting:
                try:
                    await versions.fetch_whole(file, patience=PATIENCE, at_most=largest)
                except (RecordNotFound, RecordTooLarge, FileError):
                    pass  # removed meanwhile, or left out
                except (StoreError, OSError) as error:
                    failures.append(error)
                    nursery.cancel_scope.cancel()
                done(file)

        async with trio.open_nursery() as nursery:
            for _ in range(min(AT_A_TIME, len(left))):
                nursery.start_soon(work)
        if failures:
            raise failures[0]


def _files(inode: File | Folder) -> Iterator[File]:
    if isinstance(inode, File):
        yield inode
        return
    for child in inode.children():
        yield from _files(child)
