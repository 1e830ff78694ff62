"""A file system without a kernel: over a store in memory, on the mock clock, with real cache files."""

from __future__ import annotations

import copy
import errno
import os
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from unittest.mock import patch

import trio
from trio.testing import MockClock

from kvsfs.cache.blobs import BlobFolder
from kvsfs.cache.folder import CacheFolder
from kvsfs.core.filesystem import FileSystem
from kvsfs.core.inodes import File, Folder, Ownership
from kvsfs.core.kernel import KernelCaches
from kvsfs.core.layouts import collections_layout
from kvsfs.core.numbers import ROOT
from kvsfs.core.requests import OpenFile
from kvsfs.core.tuning import Tuning
from kvsfs.errors import FileError, KvsfsError, RecordNotFound
from kvsfs.fuse.errnos import errno_of
from kvsfs.store.bodies import BytesBody
from kvsfs.store.layout_view import LayoutStore
from kvsfs.store.memory import MemoryStoreCollection
from kvsfs.types import ContentEncoding, RecordHead, RecordKey, StoreInfo
from tests.support.interference import Interference

NOBODY = 2**22 + 1
"""A process that does not exist (PID_MAX_LIMIT is 2**22): each flush is then the last one."""


def on_mock_clock(test: Callable[[], Awaitable[None]]) -> None:
    """Run `test()`; whenever all tasks wait, time goes to the next deadline. A wait that has none hangs: the
    deadline makes that a failure."""

    async def bounded() -> None:
        with trio.fail_after(7 * 24 * 3600):
            await test()

    trio.run(bounded, clock=MockClock(autojump_threshold=0))


class OtherClient:
    """Somebody else who uses the store: neither counted nor interfered with."""

    def __init__(self, stores: MemoryStoreCollection, store_id: str) -> None:
        quiet = copy.copy(stores)  # the same stores behind it
        quiet.before = quiet.after = quiet.piece = None
        quiet.calls = Counter()
        self.store = quiet.store(store_id)

    async def put(
        self,
        key: str,
        content: bytes,
        content_type: str = "text/plain",
        content_encoding: ContentEncoding | None = None,
    ) -> None:
        body = BytesBody(content)
        await self.store.set_record(
            RecordKey(key), body, content_type=content_type, content_encoding=content_encoding
        )

    async def delete(self, key: str) -> None:
        await self.store.delete_record(RecordKey(key))

    async def head(self, key: str) -> RecordHead | None:
        return await self.store.head_record(RecordKey(key))

    async def read(self, key: str) -> bytes:
        """One record's bytes, decoded."""
        async with self.store.get_record(RecordKey(key)) as stream:
            assert stream is not None
            return b"".join([chunk async for chunk in stream.chunks()])

    async def records(self) -> dict[str, bytes]:
        """All records, decoded."""
        found = {}
        for key in [entry.key async for entry in self.store.iter_keys()]:
            with suppress(RecordNotFound):  # deleted since it was listed
                found[str(key)] = await self.read(key)
        return found


class ToldKernel(KernelCaches):
    """A kernel that only notes what it is told."""

    def __init__(self) -> None:
        self.attributes: list[int] = []
        self.pages: list[int] = []
        self.gone: list[tuple[int, bytes, int]] = []
        """(parent, name, inode), in the order in which they went."""

    def attributes_changed(self, inode: int) -> None:
        self.attributes.append(inode)

    def pages_changed(self, inode: int) -> None:
        self.pages.append(inode)

    def entry_gone(self, parent: int, name: bytes, inode: int) -> None:
        self.gone.append((parent, name, inode))


class Mounted:
    """One file system and what stands around it, with the calls that a kernel would make."""

    def __init__(self, stores: MemoryStoreCollection, store_id: str, hooks: Interference) -> None:
        self.stores = stores
        self.store = stores.store(store_id)
        self.hooks = hooks
        self.other = OtherClient(stores, store_id)
        self.cache: CacheFolder
        self.fs: FileSystem
        self.nursery: trio.Nursery
        """For what a test runs beside."""
        self.hosts: trio.Nursery
        self.info: StoreInfo
        self.tuning: Tuning
        self.kernel = ToldKernel()

    async def mount(self, folder: str) -> None:
        """Begin with what the cache folder holds."""
        self.cache = CacheFolder(folder, self.info.id)
        self._ended = trio.Event()
        self._tasks = await self.hosts.start(self._host)
        layout = self.tuning.layout
        self.fs = FileSystem(
            self.store if layout is None else LayoutStore(self.store, layout, self.info.schema),
            self.info,
            self.cache,
            self._tasks,
            tuning=self.tuning,
            ownership=Ownership(),
            kernel=self.kernel,
        )

    async def end(self) -> None:
        """Unmount, or stop at once as kill -9 does where nobody has drained."""
        self.fs.close()
        self._tasks.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await self._ended.wait()
        self.cache.close()

    async def remount(self) -> None:
        """End, and begin again."""
        await self.end()
        await self.mount(self.blobs.path)

    async def _host(self, task_status: trio.TaskStatus[trio.Nursery]) -> None:
        try:
            async with trio.open_nursery() as nursery:
                task_status.started(nursery)
                await trio.sleep_forever()
        finally:
            self._ended.set()

    @property
    def blobs(self) -> BlobFolder:
        return self.cache.blobs

    @property
    def calls(self) -> Counter[str]:
        """Requests so far, but for those that opened the store."""
        return Counter({k: v for k, v in self.stores.calls.items() if k not in ("get_or_create", "get")})

    @contextmanager
    def costs(self, **expected: int) -> Iterator[None]:
        """Check that the block makes exactly these requests and no others."""
        before = self.calls
        yield
        assert self.calls - before == Counter(expected)

    # --- calls by path ------------------------------------------------------------------------------

    async def walk(self, path: str) -> File | Folder:
        inode: File | Folder = self.fs.inodes.root
        for name in path.encode().split(b"/"):
            if name:
                inode = await self.fs.lookup(inode.number, name)
        return inode

    async def parent(self, path: str) -> tuple[int, bytes]:
        folder, _, name = path.rpartition("/")
        return (await self.walk(folder)).number, name.encode()

    async def file(self, path: str) -> File:
        inode = await self.walk(path)
        assert isinstance(inode, File)
        return inode

    async def create(self, path: str, flags: int = os.O_RDWR) -> int:
        parent, name = await self.parent(path)
        _, opened = await self.fs.create(parent, name, 0o644, flags | os.O_CREAT, NOBODY)
        return opened.fh

    async def open(self, path: str, flags: int = os.O_RDONLY) -> int:
        return (await self.open_answer(path, flags)).fh

    async def open_answer(self, path: str, flags: int = os.O_RDONLY) -> OpenFile:
        """Do what open(2) does: after ESTALE it looks the name up once more."""
        number = (await self.walk(path)).number
        try:
            return await self.fs.open(number, flags, NOBODY)
        except FileError as error:
            if error.errno != errno.ESTALE:
                raise
            again = await self.walk(path)
            if again.number == number:
                raise
            return await self.fs.open(again.number, flags, NOBODY)

    async def close(self, fh: int) -> None:
        """Do what close(2) of the last descriptor does: FLUSH, whose error is close's, then RELEASE."""
        try:
            await self.fs.files.flush(fh)
        finally:
            await self.fs.files.release(fh)

    async def write_file(self, path: str, content: bytes) -> None:
        """Do what `> path` does."""
        try:
            fh = await self.open(path, os.O_WRONLY | os.O_TRUNC)
        except FileError:
            fh = await self.create(path, os.O_WRONLY)
        if content:
            await self.fs.files.write(fh, 0, content)
        await self.close(fh)

    async def read_file(self, path: str) -> bytes:
        """Do what `cat path` does."""
        fh = await self.open(path)
        try:
            return await self.read_all(fh)
        finally:
            await self.close(fh)

    async def read_all(self, fh: int, step: int = 128 * 1024) -> bytes:
        found = b""
        while piece := await self.fs.files.read(fh, len(found), step):
            found += piece
        return found

    async def names(self, path: str = "") -> list[str]:
        """Do what `ls -U path` does."""
        fh = self.fs.opendir((await self.walk(path)).number)
        try:
            found, place = [], 0
            while entries := await self.fs.readdir(fh, place):
                found += [name.decode() for name, _, _ in entries]
                place = entries[-1][2]
            return found
        finally:
            self.fs.releasedir(fh)

    async def unlink(self, path: str) -> None:
        await self.fs.unlink(*await self.parent(path))

    async def rename(self, path: str, new: str, *, replace: bool = True) -> None:
        await self.fs.rename(*await self.parent(path), *await self.parent(new), replace=replace)

    async def mkdir(self, path: str) -> Folder:
        return await self.fs.mkdir(*await self.parent(path), 0o755)

    async def rmdir(self, path: str) -> None:
        await self.fs.rmdir(*await self.parent(path))

    async def state(self, path: str) -> bytes:
        return await self.fs.xattrs.get(await self.file(path), b"user.kvsfs.state")

    async def mime_type(self, path: str) -> bytes:
        return await self.fs.xattrs.get(await self.file(path), b"user.mime_type")

    async def idle(self) -> None:
        """Wait for the background: uploads after a release, markers past their grace."""
        await self.fs._background.idle()
        while len(self.fs._uploads._queue):  # noqa: ASYNC110 - on the mock clock
            await trio.sleep(0.1)
        await self.fs._background.idle()


async def inline(function: Callable[..., object], *args: object) -> object:
    """Stand in for a thread: the mock clock would jump while a real one works. Others run meanwhile."""
    await trio.sleep(0.05)
    return function(*args)


@asynccontextmanager
async def mounted(
    *,
    tuning: Tuning | None = None,
    page_size: int = 1000,
    validators: bool = True,
    folder: str | None = None,
    stores: MemoryStoreCollection | None = None,
    hooks: Interference | None = None,
    schema: Mapping[str, object] | None = None,
) -> AsyncIterator[Mounted]:
    """Mount a store, by the collections of a schema if there is one.

    At the end all tasks are cancelled and what the cache folder leaks is a failure."""
    hooks = hooks or Interference()
    stores = stores or MemoryStoreCollection(page_size=page_size, validators=validators)
    stores.before, stores.after, stores.piece = hooks.before, hooks.after, hooks.piece
    info = await stores.get_or_create("s", schema=schema)
    mount = Mounted(stores, info.id, hooks)
    with tempfile.TemporaryDirectory() as temporary, patch("trio.to_thread.run_sync", inline):
        async with trio.open_nursery() as hosts, trio.open_nursery() as nursery:
            mount.hosts, mount.nursery = hosts, nursery
            mount.info, mount.tuning = info, tuning or Tuning()
            if schema is not None:
                mount.tuning = replace(mount.tuning, layout=collections_layout(schema))
            await mount.mount(folder or temporary)
            try:
                yield mount
            finally:
                nursery.cancel_scope.cancel()
                await mount.end()


def errno_in(error: BaseException) -> int:
    """Give what the boundary would tell the kernel."""
    assert isinstance(error, KvsfsError | OSError), error
    return errno_of(error)[0]


__all__ = ["NOBODY", "ROOT", "Mounted", "OtherClient", "errno_in", "inline", "mounted", "on_mock_clock"]
