"""An account without a kernel: over stores in memory, on the mock clock, with real cache files."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from unittest.mock import patch

import pytest
import trio

from kvsfs.cache.folder import CacheFolder
from kvsfs.core.account import Account
from kvsfs.core.account_opening import AccountParts
from kvsfs.core.inodes import Inode, Ownership
from kvsfs.core.numbers import ROOT
from kvsfs.core.tuning import Tuning
from kvsfs.errors import FileError
from kvsfs.store.memory import MemoryStoreCollection
from tests.support.interference import Interference
from tests.support.mounted import NOBODY, OtherClient, ToldKernel, inline


class MountedAccount:
    """One account and what stands around it, with the calls that a kernel would make."""

    def __init__(
        self, stores: MemoryStoreCollection, hooks: Interference, folder: str, tuning: Tuning
    ) -> None:
        self.stores = stores
        self.hooks = hooks
        self.folder = folder
        self.tuning = tuning
        self.kernel = ToldKernel()
        self.fs: Account
        self.cache: CacheFolder
        self.hosts: trio.Nursery

    async def mount(self) -> None:
        """Begin with what the cache folder holds."""
        self.cache = CacheFolder(self.folder, "memory:account:memory")
        self._ended = trio.Event()
        self._tasks = await self.hosts.start(self._host)
        self.fs = await AccountParts(
            self.stores,
            "memory",
            "memory",
            self.cache,
            self._tasks,
            tuning=self.tuning,
            ownership=Ownership(),
            kernel=self.kernel,
        ).open()

    async def end(self) -> None:
        """Unmount, or stop at once as kill -9 does where nobody has drained."""
        self._tasks.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await self._ended.wait()
        self.cache.close()

    async def remount(self) -> None:
        await self.end()
        await self.mount()

    async def _host(self, task_status: trio.TaskStatus[trio.Nursery]) -> None:
        try:
            async with trio.open_nursery() as nursery:
                task_status.started(nursery)
                await trio.sleep_forever()
        finally:
            self._ended.set()

    @contextmanager
    def costs(self, **expected: int) -> Iterator[None]:
        """Check that the block makes exactly these requests and no others."""
        before = Counter(self.stores.calls)
        yield
        assert self.stores.calls - before == Counter(expected)

    async def store(self, name: str | None, *keys: str) -> OtherClient:
        """Make a store, past the mount, with records that hold their keys."""
        other = OtherClient(self.stores, (await self.stores.get_or_create(name)).id)
        for key in keys:
            await other.put(key, key.encode())
        return other

    @property
    def open_stores(self) -> list[str]:
        return [entered.folder.shown.decode() for entered in self.fs._entered]

    # --- calls by path ------------------------------------------------------------------------------

    async def walk(self, path: str) -> Inode:
        number, inode = ROOT, await self.fs.getattr(ROOT)
        for name in filter(None, path.encode().split(b"/")):
            inode = await self.fs.lookup(number, name)
            number = inode.number
        return inode

    async def known(self, path: str) -> Inode:
        """Walk as a kernel does, that goes on to know each step."""
        number, inode = ROOT, await self.fs.getattr(ROOT)
        for name in filter(None, path.encode().split(b"/")):
            inode = await self.fs.lookup(number, name)
            self.fs.inodes.looked_up(inode)
            number = inode.number
        return inode

    async def parent(self, path: str) -> tuple[int, bytes]:
        folder, _, name = path.rpartition("/")
        return (await self.walk(folder)).number, name.encode()

    async def create(self, path: str) -> int:
        parent, name = await self.parent(path)
        _, opened = await self.fs.create(parent, name, 0o644, os.O_RDWR | os.O_CREAT, NOBODY)
        return opened.fh

    async def close(self, fh: int) -> None:
        try:
            await self.fs.files.flush(fh)
        finally:
            await self.fs.files.release(fh)

    async def write_file(self, path: str, content: bytes) -> None:
        fh = await self.create(path)
        await self.fs.files.write(fh, 0, content)
        await self.close(fh)

    async def read_file(self, path: str) -> bytes:
        opened = await self.fs.open((await self.walk(path)).number, os.O_RDONLY, NOBODY)
        try:
            return await self.fs.files.read(opened.fh, 0, 1024 * 1024)
        finally:
            await self.close(opened.fh)

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

    async def mkdir(self, path: str) -> Inode:
        return await self.fs.mkdir(*await self.parent(path), 0o755)

    async def rmdir(self, path: str) -> None:
        await self.fs.rmdir(*await self.parent(path))

    async def unlink(self, path: str) -> None:
        await self.fs.unlink(*await self.parent(path))

    async def rename(self, path: str, new: str) -> None:
        await self.fs.rename(*await self.parent(path), *await self.parent(new), replace=True)


@contextmanager
def failing(number: int) -> Iterator[None]:
    """Check that the block fails with this errno."""
    with pytest.raises(FileError) as caught:
        yield
    assert caught.value.errno == number, os.strerror(caught.value.errno)


@asynccontextmanager
async def mounted_account(*, tuning: Tuning | None = None) -> AsyncIterator[MountedAccount]:
    """Mount the account of a user `memory`; at the end all tasks are cancelled."""
    hooks = Interference()
    stores = MemoryStoreCollection()
    stores.before, stores.after, stores.piece = hooks.before, hooks.after, hooks.piece
    with tempfile.TemporaryDirectory() as folder, patch("trio.to_thread.run_sync", inline):
        async with trio.open_nursery() as hosts:
            mount = MountedAccount(stores, hooks, folder, tuning or Tuning())
            mount.hosts = hosts
            await mount.mount()
            try:
                yield mount
                mount.fs.check_invariants()
            finally:
                await mount.end()
