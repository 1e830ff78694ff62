"""Puts an account's file system together, and goes on with what an earlier mount has left in its stores."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import trio

from kvsfs.cache.eviction import CleanBlobs
from kvsfs.cache.folder import CacheFolder
from kvsfs.cache.stores import StoresOnDisk
from kvsfs.core.account import Account
from kvsfs.core.entered import EnteredStores
from kvsfs.core.filesystem import FileSystem
from kvsfs.core.inodes import File, Ownership
from kvsfs.core.kernel import KernelCaches
from kvsfs.core.store_folders import StoreFolder, StoreFolders
from kvsfs.core.tuning import Tuning
from kvsfs.core.versions import clean_files
from kvsfs.errors import FileError, StoreError
from kvsfs.store.protocol import StoreCollection
from kvsfs.types import StoreInfo

log = logging.getLogger(__name__)

_UNKNOWN = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class AccountParts:
    """What an account's file system is made of. `identity` is the same at each mount of it."""

    stores: StoreCollection
    username: str
    identity: str
    cache: CacheFolder
    """The account's own: its lock is that of its stores' folders, too."""
    nursery: trio.Nursery
    tuning: Tuning
    ownership: Ownership
    kernel: KernelCaches = field(default_factory=KernelCaches)
    min_free: int = 0
    mount_point: str = ""

    async def open(self) -> Account:
        """Make it; stores with something left are open then, and their uploads go on. Raises OSError."""
        on_disk = StoresOnDisk(self.cache.blobs.path)
        clean = clean_files(self.tuning.cache_bytes)
        read_only = self.tuning.read_only
        folders = StoreFolders(
            self.stores, self.username, self.ownership, self.kernel, self.tuning.listing_ttl
        )

        def make(folder: StoreFolder, cache: CacheFolder, nursery: trio.Nursery) -> FileSystem:
            filesystem = self._filesystem(folder, cache, nursery, clean)
            filesystem.files.device = account.files.device
            return filesystem

        entered = EnteredStores(self._open_cache, make, on_disk, self.nursery, read_only=read_only)
        account = Account(folders, entered, read_only=read_only)
        if not read_only:
            for noted in on_disk.noted():
                await self._resume(folders, entered, noted)
        return account

    def _open_cache(self, folder: StoreFolder, path: str) -> CacheFolder:
        info = folder.info
        cache = CacheFolder(path, f"{self.identity}:{info.id}", self.min_free)
        source = info.id if info.name is None else f"{info.username or self.username}/{info.name}"
        cache.blobs.note_mount({"source": source, "store_id": info.id, "mount_point": self.mount_point})
        return cache

    def _filesystem(
        self, folder: StoreFolder, cache: CacheFolder, nursery: trio.Nursery, clean: CleanBlobs[File]
    ) -> FileSystem:
        return FileSystem(
            self.stores.store(folder.info.id),
            folder.info,
            cache,
            nursery,
            tuning=self.tuning,
            ownership=self.ownership,
            kernel=self.kernel,
            numbers=folder.numbers,
            clean=clean,
        )

    async def _resume(
        self, folders: StoreFolders, entered: EnteredStores, noted: Mapping[str, str | None]
    ) -> None:
        """Open a store that may have something left. One that is not found is not shown, but kept and told of."""
        remembered = _remembered(noted)
        asked_at = trio.current_time()
        try:
            info = await self.stores.store(remembered.id).get()
        except StoreError as error:
            log.warning("a store with changes that may wait, %s: %s", remembered.name or remembered.id, error)
            info = None
        else:
            if info is None:
                log.warning(
                    "a store with changes that may wait is gone: %s", remembered.name or remembered.id
                )
        folder = folders.orphan(remembered) if info is None else folders.see(info, asked_at)
        assert folder is not None  # nothing was deleted yet
        try:
            await entered.enter(folder)
        except FileError:
            return  # the log has the reason


def _remembered(noted: Mapping[str, str | None]) -> StoreInfo:
    try:
        created_at = datetime.fromisoformat(noted.get("created_at") or "")
    except ValueError:
        created_at = _UNKNOWN
    return StoreInfo(
        id=noted["id"] or "",
        created_at=created_at,
        modified_at=created_at,
        accessed_at=created_at,
        name=noted.get("name"),
        username=noted.get("username"),
    )
