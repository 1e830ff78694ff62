"""The stores of an account that are open: opened when somebody enters one, closed when it is idle and others come."""

from __future__ import annotations

import errno
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType

import trio

from kvsfs.cache.folder import CacheFolder
from kvsfs.cache.stores import StoresOnDisk
from kvsfs.core.filesystem import FileSystem
from kvsfs.core.store_folders import StoreFolder
from kvsfs.errors import CommandError, FileError

log = logging.getLogger(__name__)

MOST_OPEN = 64
"""Stores that stay open. Each costs three descriptors and 180 KiB, beside what is known of it; to open one takes 5 ms
of CPU, and it is listed anew, a request."""

OpenCache = Callable[[StoreFolder, str], CacheFolder]
"""Opens a store's cache folder at a path. Raises CommandError."""

Make = Callable[[StoreFolder, CacheFolder, trio.Nursery], FileSystem]
"""Opens a store's file system. Raises OSError."""


@dataclass(slots=True, eq=False)
class Entered:
    """An open store. A context manager: as long as somebody is in it, it is not closed."""

    folder: StoreFolder
    filesystem: FileSystem
    closed: trio.Event
    """Set once its cache folder is given up."""
    closing: trio.Event = field(default_factory=trio.Event)
    users: int = 0

    @property
    def idle(self) -> bool:
        """Whether it can be closed: not while its journal cannot be read."""
        try:
            return not self.users and self.filesystem.idle
        except OSError:
            return False

    def __enter__(self) -> FileSystem:
        self.users += 1
        return self.filesystem

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.users -= 1


class EnteredStores:
    """Opens and closes them.

    INVARIANT: a store that may have something that its server lacks is open, and noted on disk.
    """

    def __init__(
        self,
        open_cache: OpenCache,
        make: Make,
        on_disk: StoresOnDisk,
        nursery: trio.Nursery,
        *,
        read_only: bool = False,
    ) -> None:
        """`read_only`: what is left of earlier mounts stays so, and stays noted."""
        self._open_cache = open_cache
        self._make = make
        self._on_disk = on_disk
        self._read_only = read_only
        self._nursery = nursery
        self._by_place: OrderedDict[int, Entered] = OrderedDict()
        """Least recently entered first."""
        self._opening = trio.Lock()
        """Held while one is opened or closed."""
        self.on_closed: Callable[[StoreFolder], None] = lambda _folder: None
        """Hears of each that was closed, but for those that the end of the mount closes."""

    def __iter__(self) -> Iterator[Entered]:
        return iter(list(self._by_place.values()))

    def at(self, place: int) -> Entered | None:
        """Find the store at a place, if it is open. No checkpoint."""
        return self._by_place.get(place)

    async def enter(self, folder: StoreFolder) -> Entered:
        """Give a store, opened if need be. Makes no request; checkpoints only to open it. Raises FileError, OSError.

        Use it before the next checkpoint: `with await entered.enter(folder) as filesystem`.
        """
        found = self._by_place.get(folder.place)
        while found is None:
            async with self._opening:
                if folder.place not in self._by_place:
                    await self._open(folder)
                    await self._close_idle(but=folder)
            found = self._by_place.get(folder.place)
        self._by_place.move_to_end(folder.place)
        return found

    async def discard(self, folder: StoreFolder) -> None:
        """Close a store that was deleted, and remove its cache folder; later, when somebody still has files open."""
        async with self._opening:
            found = self._by_place.get(folder.place)
            if found is not None and found.idle:
                await self._close(found)
                await trio.to_thread.run_sync(self._on_disk.remove, folder.info.id)

    async def each(self, do: Callable[[FileSystem], Awaitable[None]]) -> None:
        """Do something in all that are open, side by side."""

        async def in_it(entered: Entered) -> None:
            with entered as filesystem:
                await do(filesystem)

        async with trio.open_nursery() as nursery:
            for entered in self:
                nursery.start_soon(in_it, entered)

    async def _open(self, folder: StoreFolder) -> None:
        info = folder.info
        about = {"name": info.name, "username": info.username, "created_at": info.created_at.isoformat()}
        await trio.to_thread.run_sync(self._on_disk.note, info.id, about)
        try:
            self._by_place[folder.place] = await self._nursery.start(self._host, folder)
        except CommandError as error:
            log.error("%s cannot be entered: %s", folder.shown.decode(), error)  # noqa: TRY400 - all is said
            raise FileError(errno.EIO) from error

    async def _host(self, folder: StoreFolder, task_status: trio.TaskStatus[Entered]) -> None:
        """Be what an open store's tasks live in. Raises CommandError and OSError before it has begun."""
        cache = self._open_cache(folder, self._on_disk.folder(folder.info.id))
        filesystem: FileSystem | None = None
        failure: OSError | None = None
        closed = trio.Event()
        try:
            async with trio.open_nursery() as nursery:
                try:
                    filesystem = self._make(folder, cache, nursery)
                except OSError as error:  # raised here, it would come out in a group
                    failure = error
                else:
                    entered = Entered(folder, filesystem, closed)
                    task_status.started(entered)
                    await entered.closing.wait()
                nursery.cancel_scope.cancel()
            if failure is not None:
                raise failure
        finally:
            if filesystem is not None:
                self._take_down(folder, filesystem)
            cache.close()
            closed.set()

    def _take_down(self, folder: StoreFolder, filesystem: FileSystem) -> None:
        try:
            if filesystem.all_stored and not self._read_only:
                self._on_disk.forget(folder.info.id)
            filesystem.close()
        except OSError as error:
            log.error("%s: what is known of it cannot be kept: %s", folder.shown.decode(), error)  # noqa: TRY400

    async def _close_idle(self, but: StoreFolder) -> None:
        """Close the stores that nobody has entered for longest, as long as there are more than stay open."""
        for found in self:
            if len(self._by_place) <= MOST_OPEN:
                return
            if found.folder is not but and found.idle:
                await self._close(found)

    async def _close(self, entered: Entered) -> None:
        del self._by_place[entered.folder.place]
        entered.closing.set()
        await entered.closed.wait()
        self.on_closed(entered.folder)
