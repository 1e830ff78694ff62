"""`kvsfs serve --records URL --check`: whether every object that another one names is there, and whole.

What a server leaves that dies between two steps is put right: a name held for nobody, a store missing in its owner's
list, what is left of deleted stores. Safe beside running servers.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

from kvsfs.server.bucket import places
from kvsfs.server.bucket.objects import Bucket
from kvsfs.server.bucket.registry import Registry, listed
from kvsfs.server.checking import Checked
from kvsfs.types import StoreInfo

MD5 = re.compile(r'"([0-9a-f]{32})"')
"""An ETag that says what the bytes are: S3's of an object written by one request, without a key of one's own."""

READ_BYTES = 1024**2


class BucketCheck:
    """One look at everything."""

    def __init__(
        self, bucket: Bucket, registry: Registry, tell: Callable[[str], None], seen: Callable[[int], None]
    ) -> None:
        self._bucket = bucket
        self._tell = tell
        self._seen = seen
        self._registry = registry
        self._records = 0
        self._damaged = 0
        self._orphans = 0

    async def run(self) -> Checked:
        """Look at every store and record, and read every byte. Raises BucketUnavailable."""
        stores = {store.id: store async for store in self._registry.everything()}
        for store in stores.values():
            await self._check_store(store)
            await self._check_records(store.id)
        await self._free_unused_names()
        for kind in ("records", "counts"):
            for store_id in await self._bucket.folders(kind):
                if store_id not in stores and await self._bucket.read(places.store(store_id)) is None:
                    await self._remove(f"{kind}/{store_id}")
                    await self._bucket.remove([places.doomed(store_id)])
        return Checked(self._records, self._damaged, self._orphans)

    async def _check_store(self, store: StoreInfo) -> None:
        if await self._bucket.get(listed(store), head=True) is None:
            await self._bucket.write(listed(store), None)
        if store.name is not None and not await self._registry.claim(
            store.username or "", store.name, store.id
        ):
            self._damaged += 1
            self._tell(f"store {store.id}: its name {store.name} is another store's: rename it")

    async def _free_unused_names(self) -> None:
        async for page in self._bucket.pages("names"):
            for meta in page:
                register = await self._bucket.read(meta["path"])
                holder = register and register.value["store"]
                if register and holder and await self._bucket.read(places.store(holder)) is None:
                    await self._bucket.swap(meta["path"], {**register.value, "store": None}, register.version)

    async def _check_records(self, store_id: str) -> None:
        async for page in self._bucket.pages(places.records(store_id)):
            for meta in page:
                self._records += 1
                self._seen(self._records)
                fault = await self._fault(meta["path"])
                if fault is not None:
                    self._damaged += 1
                    self._tell(f"store {store_id}, record {places.key_of(meta['path'])}: {fault}")

    async def _fault(self, path: str) -> str | None:
        result = await self._bucket.get(path)
        if result is None:
            return None  # deleted since it was listed
        size, digest = 0, hashlib.md5(usedforsecurity=False)
        async for piece in self._bucket.stream(result, READ_BYTES):
            digest.update(piece)
            size += len(piece)
        if size != result.meta["size"]:
            return f"it has {size} bytes instead of {result.meta['size']}"
        told = MD5.fullmatch(result.meta["e_tag"] or "")
        if told is not None and told.group(1) != digest.hexdigest():
            return "it holds other bytes than were stored"
        return None

    async def _remove(self, prefix: str) -> None:
        async for page in self._bucket.pages(prefix):
            await self._bucket.remove([meta["path"] for meta in page])
            self._orphans += len(page)
