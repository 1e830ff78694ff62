"""Which stores there are, whose, and under which names; agreed upon by any number of servers.

A bucket has no transactions, only compare-and-swap of one object. So each step leaves something that the next
reader understands, and what a server that dies between two steps leaves is either taken over or found by `--check`:

    make      the description, the name's register, the owner's list. Before its name is registered nobody knows it
    rename    the new name's register, the description, the old name's register is freed
    delete    a note in doomed/, the name is freed, the description goes, then the records, then the note

A name is a register that is never removed, but freed: its change is one compare-and-swap, which two servers cannot
both win.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kvsfs.server.bucket import places
from kvsfs.server.bucket.objects import Bucket, Register
from kvsfs.server.moments import from_ms, now_ms, to_ms
from kvsfs.server.storage import NameTaken, StoreField
from kvsfs.server.users import user_id
from kvsfs.signatures import new_signing_key
from kvsfs.types import StoreInfo

TRUST_SECONDS = 1.0
"""How long a server goes by what it knows of a store: what another server has changed (a name, who may read, a
deletion) holds here after that. Each request would cost two otherwise."""

KNOWN_STORES = 10_000
"""Descriptions kept: some 1 KB each."""

CLAIM_MS = 60_000
"""How old a name's register must be before its store's other name counts as what a crash left of a rename: longer than
any rename takes, with the clocks of servers apart by seconds."""

AT_ONCE = 32
"""Descriptions read side by side for a page of the collection of stores."""


@dataclass(frozen=True, slots=True)
class _Known:
    store: StoreInfo
    until: float


class Registry:
    """The stores. Coroutines raise BucketUnavailable; cancelled, what they asked may still happen."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._known: dict[str, _Known] = {}
        self._ids: dict[tuple[str, str], tuple[str, float]] = {}

    async def get(self, store_id: str) -> StoreInfo | None:
        """Describe a store by its ID, without its counts; as of a second ago at most."""
        known = self._known.get(store_id)
        if known is not None and known.until > _now():
            return known.store
        return await self._read(store_id)

    async def find(self, username: str, name: str) -> StoreInfo | None:
        """Describe a store by its owner and name."""
        store_id, until = self._ids.get((username, name), ("", 0.0))
        if until <= _now():
            register = await self._bucket.read(places.name(username, name))
            store_id = "" if register is None else register.value["store"]
        store = await self.get(store_id) if store_id else None
        if store is None or store.name != name:
            self._ids.pop((username, name), None)
            return None
        if until <= _now():
            self._bound()
            self._ids[username, name] = store.id, _now() + TRUST_SECONDS
        return store

    async def make(self, store: StoreInfo) -> StoreInfo | None:
        """Enter a new store; None when its owner has another of that name by now."""
        await self._bucket.write(places.store(store.id), to_json(store))
        if store.name is not None and not await self.claim(store.username or "", store.name, store.id):
            await self._bucket.remove([places.store(store.id)])
            return None
        await self._bucket.write(listed(store), None)
        self._note(store)
        return store

    async def update(self, store_id: str, changes: Mapping[StoreField, str | None]) -> StoreInfo | None:
        """Set the fields of `changes`; None when the store is gone. Raises NameTaken."""
        while (register := await self._bucket.read(places.store(store_id))) is not None:
            old = from_json(register.value)
            new = _changed(old, changes)
            if await self._replace(register, old, new):
                self._note(new)
                return new
        self.forget(store_id)
        return None

    async def delete(self, store: StoreInfo) -> None:
        """Take a store away from everybody. Its records stay: see `doomed`."""
        await self._bucket.write(places.doomed(store.id), None)
        if store.name is not None:
            await self._free(store.username or "", store.name, store.id)
        await self._bucket.remove([places.store(store.id), listed(store)])
        self.forget(store.id)

    async def doomed(self) -> list[str]:
        """Give the IDs of stores whose deletion was begun."""
        return [
            object_["path"].rpartition("/")[2]
            async for page in self._bucket.pages("doomed")
            for object_ in page
        ]

    async def page(
        self, username: str, *, offset: int, limit: int, desc: bool, unnamed: bool
    ) -> tuple[Sequence[StoreInfo], int]:
        """Give a user's stores by creation, and how many there are in all."""
        ids: dict[
            str, bool
        ] = {}  # one that is just being named stands there twice: the named entry comes first
        async for page in self._bucket.pages(places.owned(username)):
            for entry in page:
                _, store_id, kind = entry["path"].rpartition("/")[2].split(".")
                ids[store_id] = ids.get(store_id, False) or kind == "n"
        wanted = [store_id for store_id, named in ids.items() if named or unnamed]
        if desc:
            wanted.reverse()
        limiter = asyncio.Semaphore(AT_ONCE)

        async def described(store_id: str) -> StoreInfo | None:
            async with limiter:
                return await self.get(store_id)

        found = await asyncio.gather(*(described(store_id) for store_id in wanted[offset : offset + limit]))
        return [store for store in found if store is not None], len(wanted)

    async def claim(self, username: str, name: str, store_id: str) -> bool:
        """Register a name for a store; whether it has it now."""
        place, value = places.name(username, name), {"store": store_id, "at": now_ms()}
        while not await self._bucket.create(place, value):
            register = await self._bucket.read(place)
            if register is None:
                continue
            if register.value["store"] == store_id:
                return True
            if not await self._is_free(register, name):
                return False
            if await self._bucket.swap(place, value, register.version):
                return True
        return True

    async def everything(self) -> AsyncIterator[StoreInfo]:
        """Yield the stores of all users."""
        async for page in self._bucket.pages("stores"):
            for meta in page:
                store = await self._read(meta["path"].rpartition("/")[2])
                if store is not None:
                    yield store

    def forget(self, store_id: str) -> None:
        """Trust nothing that is known of a store."""
        self._known.pop(store_id, None)

    async def _read(self, store_id: str) -> StoreInfo | None:
        register = await self._bucket.read(places.store(store_id))
        if register is None:
            self.forget(store_id)
            return None
        store = from_json(register.value)
        self._note(store)
        return store

    def _note(self, store: StoreInfo) -> None:
        self._bound()
        self._known[store.id] = _Known(store, _now() + TRUST_SECONDS)

    def _bound(self) -> None:
        for known in (self._known, self._ids):
            if len(known) >= KNOWN_STORES:
                known.clear()

    async def _replace(self, register: Register, old: StoreInfo, new: StoreInfo) -> bool:
        """Write a store's new description, with its name where it has a new one; whether the old one still held."""
        username = old.username or ""
        if new.name == old.name:
            return await self._bucket.swap(places.store(old.id), to_json(new), register.version)
        if new.name is not None and not await self.claim(username, new.name, old.id):
            raise NameTaken
        replaced = await self._bucket.swap(places.store(old.id), to_json(new), register.version)
        given_up = old.name if replaced else new.name
        if given_up is not None:
            await self._free(username, given_up, old.id)
        if replaced and listed(new) != listed(old):
            await self._bucket.write(listed(new), None)
            await self._bucket.remove([listed(old)])
        return replaced

    async def _is_free(self, register: Register, name: str) -> bool:
        holder = register.value["store"]
        if holder is None:
            return True
        store = await self._read(holder)
        if store is None:  # its description is written first and removed last: it is deleted
            return True
        return store.name != name and now_ms() - register.value["at"] > CLAIM_MS

    async def _free(self, username: str, name: str, store_id: str) -> None:
        """Let go of a name, if the store still has it."""
        place = places.name(username, name)
        while (register := await self._bucket.read(place)) is not None and register.value[
            "store"
        ] == store_id:
            if await self._bucket.swap(place, {"store": None, "at": now_ms()}, register.version):
                break
        self._ids.pop((username, name), None)


def _changed(store: StoreInfo, changes: Mapping[StoreField, str | None]) -> StoreInfo:
    fields: dict[str, Any] = {str(field): value for field, value in changes.items()}
    return replace(store, **fields, modified_at=max(store.modified_at, from_ms(now_ms())))


def new_store(
    store_id: str,
    username: str,
    name: str | None = None,
    schema: Mapping[str, object] | None = None,
    run: tuple[str, str] | None = None,
) -> StoreInfo:
    """Describe a store that is made now. `run`: the Actor's and the run's ID whose store it is."""
    now = from_ms(now_ms())
    return StoreInfo(
        id=store_id,
        created_at=now,
        modified_at=now,
        accessed_at=now,
        name=name,
        user_id=user_id(username),
        username=username,
        general_access="FOLLOW_USER_SETTING",
        actor_id=run and run[0],
        run_id=run and run[1],
        schema=schema or None,
        url_signing_secret_key=new_signing_key(),
    )


def to_json(store: StoreInfo) -> dict[str, Any]:
    """Write a store's description as it lies in the bucket."""
    return {
        "id": store.id,
        "username": store.username,
        "name": store.name,
        "title": store.title,
        "generalAccess": store.general_access,
        "createdAt": to_ms(store.created_at),
        "modifiedAt": to_ms(store.modified_at),
        "actorId": store.actor_id,
        "runId": store.run_id,
        "schema": store.schema,
        "urlSigningSecretKey": store.url_signing_secret_key,
    }


def from_json(value: Mapping[str, Any]) -> StoreInfo:
    """Inverse of `to_json`."""
    return StoreInfo(
        id=value["id"],
        created_at=from_ms(value["createdAt"]),
        modified_at=from_ms(value["modifiedAt"]),
        accessed_at=from_ms(value["modifiedAt"]),
        name=value["name"],
        title=value["title"],
        user_id=user_id(value["username"]),
        username=value["username"],
        general_access=value["generalAccess"],
        actor_id=value["actorId"],
        run_id=value["runId"],
        schema=value["schema"],
        url_signing_secret_key=value["urlSigningSecretKey"],
    )


def listed(store: StoreInfo) -> str:
    """Where a store is in its owner's list."""
    created = to_ms(store.created_at)
    return places.owned_store(store.username or "", created, store.id, named=store.name is not None)


def _now() -> float:
    return asyncio.get_running_loop().time()
