"""Which storage a server keeps its records in, and what is done with one without serving it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import unquote, urlsplit

from kvsfs.errors import CommandError, ExitCode
from kvsfs.server import checking, local
from kvsfs.server.checking import Checked
from kvsfs.server.moving import CopyDiffers, MovableStorage, Moved, copy_all
from kvsfs.server.storage import NameTaken, StorageUnavailable

FILE = "file"
"""obstore's own local files keep no content type (NotImplementedError, tried with 0.12) and are not listed in order.
A data folder does both, so `file:` means one."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where records are kept: in a folder, or, with `url`, in an object store."""

    folder: str
    url: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    """obstore's, for the object store; they may hold credentials."""

    @classmethod
    def at(cls, folder: str, url: str | None, options: Mapping[str, str]) -> Place:
        """Give the place that a URL names, the folder without one."""
        if url is not None and urlsplit(url).scheme == FILE:
            return cls(unquote(urlsplit(url).path))
        return cls(folder, url, options)

    def __str__(self) -> str:
        return self.url or self.folder


class ServedStorage(MovableStorage, Protocol):
    """A storage with what its process does beside answering."""

    def collect_garbage_in_background(self) -> None:
        """Clear away what crashes left, without delaying anyone. On the event loop."""


def open_storage(place: Place) -> ServedStorage:
    """Open a place. Raises CommandError. Blocks."""
    if place.url is None:
        return local.open_storage(place.folder)
    try:
        from kvsfs.server.bucket.opening import open_bucket  # noqa: PLC0415 - an extra, and 60 ms to load
    except ModuleNotFoundError:
        raise CommandError(
            ExitCode.USAGE, f"--records {place.url} needs obstore: pip install 'kvsfs[records]'"
        ) from None
    from kvsfs.server.bucket.objects import Bucket  # noqa: PLC0415
    from kvsfs.server.bucket.storage import BucketStorage  # noqa: PLC0415

    return BucketStorage(Bucket(open_bucket(place.url, place.options)))


def check(place: Place, tell: Callable[[str], None], seen: Callable[[int], None]) -> Checked:
    """Look at every record; `tell` gets a line for each fault, `seen` how many were looked at. Raises CommandError."""
    if place.url is None:
        return checking.check(place.folder, tell, seen)
    return asyncio.run(_check(place, tell, seen))


def copy(source: Place, target: Place, tell: Callable[[Moved], None]) -> Moved:
    """Copy everything from one place to another; `tell` gets how far it is. Raises CommandError."""
    if str(source) == str(target):
        raise CommandError(ExitCode.USAGE, "--copy-to: that is where the records are")
    return asyncio.run(_copy(source, target, tell))


async def _check(place: Place, tell: Callable[[str], None], seen: Callable[[int], None]) -> Checked:
    from kvsfs.server.bucket.storage import BucketStorage  # noqa: PLC0415 - an extra

    async with _opened(place) as storage:
        assert isinstance(storage, BucketStorage)
        return await storage.check(tell, seen)


async def _copy(source: Place, target: Place, tell: Callable[[Moved], None]) -> Moved:
    async with _opened(source) as from_storage, _opened(target) as to_storage:
        return await copy_all(from_storage, to_storage, tell)


@asynccontextmanager
async def _opened(place: Place) -> AsyncIterator[ServedStorage]:
    storage = open_storage(place)
    try:
        yield storage
    except StorageUnavailable as failed:
        raise CommandError(
            ExitCode.UNREACHABLE,
            f"{place} cannot answer ({failed}): begin again, and it goes on",
        ) from None
    except NameTaken:
        raise CommandError(ExitCode.INVALID_NAME, f"{place} has another store of one of the names") from None
    except CopyDiffers as failed:
        raise CommandError(ExitCode.DATA_DAMAGED, f"{place}: {failed}") from None
    finally:
        await storage.close()
