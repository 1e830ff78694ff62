"""The stores of an account as folders: which there are, under which names, asked for no further than needed."""

from __future__ import annotations

import errno
import itertools
import logging
import math
import re
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import trio

from kvsfs.core.inodes import Inode, Ownership
from kvsfs.core.kernel import KernelCaches
from kvsfs.core.numbers import ROOT, Numbers, place_of
from kvsfs.core.store_xattrs import check_name
from kvsfs.errors import FileError
from kvsfs.store.protocol import Store, StoreCollection
from kvsfs.store.sources import is_store_name
from kvsfs.types import StoreInfo

log = logging.getLogger(__name__)

UNNAMED = b".unnamed"

LOOKUPS_BEFORE_LISTING = 4
"""Unknown names that are asked for one by one before all stores are listed, as in a folder of a store."""

COST_FACTOR = 10
"""A listing is trusted for at least this many times what it took."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_ID = re.compile("[a-zA-Z0-9]{17}")
_OTHERS = re.compile("([a-zA-Z0-9][a-zA-Z0-9._-]*)~(.+)")


@dataclass(slots=True, eq=False)
class StoreFolder(Inode):
    """A store. Its number is that of the root in its own file system, which may be open or not."""

    info: StoreInfo = field(kw_only=True)
    numbers: Numbers = field(kw_only=True)
    group: StoreGroup | None = None
    """Where it is shown; None when it is not: it was deleted, or is not ours to see any more."""
    own: bool = True
    listed: bool = False
    """Whether the list of stores shows it. Of others' public ones it does not, which are found by name only."""
    doubted: bool = False
    """It may be gone: the next lookup asks."""

    @property
    def place(self) -> int:
        """Where its numbers are."""
        return place_of(self.number)

    @property
    def shown(self) -> bytes:
        """The path from the mount's root, or what it was."""
        return self.component if self.info.name is not None else UNNAMED + b"/" + self.component


@dataclass(slots=True, eq=False)
class StoresPass:
    """One walk through the list of stores, page by page, as far as somebody needed it."""

    started: float
    asked: int = 0
    """Stores that its pages held."""
    total: int | None = None
    steady: bool = True
    """Whether all pages were of one list: else stores may have slipped between two of them."""
    took: float = 0.0
    complete: bool = False
    lookups: int = 0
    seen: dict[str, StoreFolder] = field(default_factory=dict)
    """By ID."""
    arrivals: list[StoreFolder] = field(default_factory=list)
    """Those of the folder that is listed."""
    lock: trio.Lock = field(default_factory=trio.Lock)


@dataclass(slots=True, eq=False)
class StoreGroup(Inode):
    """A folder of stores: the root, with those that have names, or `.unnamed`."""

    unnamed: bool = False
    children: dict[bytes, StoreFolder] = field(default_factory=dict)
    listing: StoresPass | None = None
    listed_once: bool = False


class StoreFolders:
    """Keeps the folders in step with the account. What this mount did after a page was asked for wins over it.

    INVARIANT: a folder with a group is that group's child under its component; each is found by ID and by place.
    """

    def __init__(
        self,
        stores: StoreCollection,
        username: str,
        ownership: Ownership,
        kernel: KernelCaches,
        ttl: float,
    ) -> None:
        self._stores = stores
        self._username = username
        self._ownership = ownership
        self._kernel = kernel
        self._ttl = ttl
        self._places = itertools.count(1)
        self._by_place: dict[int, StoreFolder] = {}
        self._by_id: dict[str, StoreFolder] = {}
        self._removed: set[str] = set()
        """IDs of stores that were deleted through this mount: no page brings them back."""
        self.root = self._new_group(ROOT, b"", unnamed=False)
        self.unnamed = self._new_group(ROOT + 1, UNNAMED, unnamed=True)
        self.is_used: Callable[[StoreFolder], bool] = lambda _folder: False
        """Tells whether somebody needs a folder that has no name any more. Whoever opens stores sets it."""

    def store(self, folder: StoreFolder) -> Store:
        """Give the client of a folder's store."""
        return self._stores.store(folder.info.id)

    def group(self, number: int) -> StoreGroup | None:
        """Give the group that has a number."""
        return next((group for group in (self.root, self.unnamed) if group.number == number), None)

    def at(self, place: int) -> StoreFolder | None:
        """Find a folder by the place of its numbers."""
        return self._by_place.get(place)

    def __iter__(self) -> Iterator[StoreFolder]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def forget(self, inode: Inode, nlookup: int) -> None:
        """Count lookups back."""
        inode.lookup_count = max(0, inode.lookup_count - nlookup)
        if isinstance(inode, StoreFolder):
            self.drop_if_unknown(inode)

    def check_invariants(self) -> None:
        """For tests."""
        for group in (self.root, self.unnamed):
            for name, folder in group.children.items():
                assert folder.group is group
                assert folder.component == name
                assert self._by_place[folder.place] is folder
                assert self._by_id[folder.info.id] is folder
        for place, folder in self._by_place.items():
            assert folder.place == place
            assert folder.group is None or folder.group.children[folder.component] is folder

    def drop_if_unknown(self, folder: StoreFolder) -> None:
        """Let go of a folder without a name that nobody has to do with any more."""
        if folder.group is None and not folder.lookup_count and not self.is_used(folder):
            self._by_place.pop(folder.place, None)
            if self._by_id.get(folder.info.id) is folder:
                del self._by_id[folder.info.id]

    # --- asking -----------------------------------------------------------------------------------

    async def find(self, group: StoreGroup, name: bytes) -> StoreFolder | None:
        """Find what a name stands for. One that is known, or cannot be a store's, costs no request.

        Raises StoreError: PermissionDenied for a store that is there and not ours to read.
        """
        known = group.children.get(name)
        if known is not None and not known.doubted:
            return known
        reference = self._reference(group, name) if known is None else known.info.id
        if reference is None:
            return None
        listing = self.current(group)
        if known is None and not _is_others(reference):
            if listing.complete and listing.steady:
                return None
            listing.lookups += 1
            if listing.lookups > LOOKUPS_BEFORE_LISTING:
                await self._complete(group, listing)
                return group.children.get(name)
        asked_at = trio.current_time()
        info = await self._stores.store(reference).get()
        if info is not None:
            self.see(info, asked_at)
        elif known is not None:
            self.detach(known)
        return group.children.get(name)

    async def advance(self, group: StoreGroup, listing: StoresPass) -> None:
        """Fetch the next page of a pass, or wait for the one that is being fetched. Raises StoreError."""
        asked = listing.asked
        async with listing.lock:
            if listing.asked != asked or listing.complete:
                return
            asked_at = trio.current_time()
            page = await self._stores.list_stores(offset=asked, unnamed=group.unnamed)
            listing.took += trio.current_time() - asked_at
            listing.steady &= listing.total in (None, page.total)
            listing.total = page.total
            new = [info for info in page.items if info.id not in listing.seen]
            for info in new:
                self._arrive(group, listing, info, asked_at)
            listing.asked += len(page.items)
            if not new or listing.asked >= page.total:
                listing.complete = group.listed_once = True
                if listing.steady and len(listing.seen) == page.total:
                    self._sweep(group, listing)

    async def refresh(self, group: StoreGroup) -> None:
        """List a folder anew. Raises StoreError."""
        group.listing = None
        await self._complete(group, self.current(group))

    async def _complete(self, group: StoreGroup, listing: StoresPass) -> None:
        while not listing.complete:
            await self.advance(group, listing)

    def current(self, group: StoreGroup) -> StoresPass:
        """Give the pass that is trusted now, or begin one. No checkpoint."""
        listing, now = group.listing, trio.current_time()
        if listing is None or now - listing.started > max(self._ttl, COST_FACTOR * listing.took):
            listing = group.listing = StoresPass(now)
        return listing

    def _arrive(self, group: StoreGroup, listing: StoresPass, info: StoreInfo, asked_at: float) -> None:
        folder = self.see(info, asked_at)
        if folder is not None:
            listing.seen[info.id] = folder
            folder.listed = True
            if folder.group is group:
                listing.arrivals.append(folder)

    def _sweep(self, group: StoreGroup, listing: StoresPass) -> None:
        """Take out what a complete pass did not see, unless this mount made it since."""
        for folder in list(group.children.values()):
            if folder.info.id in listing.seen or folder.changed_at >= listing.started:
                continue
            if folder.listed:
                self.detach(folder)
            else:
                folder.doubted = True

    def _reference(self, group: StoreGroup, name: bytes) -> str | None:
        """Give what the API is asked for by a name; None for one that no store has."""
        text = name.decode("ascii", errors="replace")
        if group.unnamed:
            return text if _ID.fullmatch(text) else None
        if match := _OTHERS.fullmatch(text):
            return text if is_store_name(match[2]) and match[1] != self._username else None
        return f"~{text}" if is_store_name(text) else None

    async def make(self, name: bytes) -> StoreFolder:
        """Make a store. EINVAL for what cannot be its name, EACCES for another user's, EEXIST; StoreError."""
        text = name.decode(errors="replace")
        if _OTHERS.fullmatch(text) and self._reference(self.root, name) is not None:
            log.warning("%s would be another user's store, who alone can make it", text)
            raise FileError(errno.EACCES)
        check_name(text)
        asked_at = trio.current_time()
        there = await self._stores.store(f"~{text}").get()  # get_or_create would not tell
        if there is not None:
            self.see(there, asked_at)
            raise FileError(errno.EEXIST)
        info = await self._stores.get_or_create(text)
        folder = self._by_id.get(info.id) or self._new_folder(info)
        self.changed(folder, info)
        return folder

    # --- what changes -----------------------------------------------------------------------------

    def see(self, info: StoreInfo, asked_at: float) -> StoreFolder | None:
        """Take over what the API tells of a store; None for one that was deleted here. No checkpoint."""
        if info.id in self._removed:
            return None
        folder = self._by_id.get(info.id)
        if folder is None:
            folder = self._new_folder(info)
        elif folder.changed_at >= asked_at:
            return folder
        folder.info, folder.doubted = info, False
        _show_times(folder)
        self._place(folder)
        return folder

    def changed(self, folder: StoreFolder, info: StoreInfo) -> None:
        """Take over what a change through this mount has made of a store. No checkpoint."""
        folder.changed_at = -math.inf
        self.see(info, trio.current_time())
        folder.changed_at = trio.current_time()

    def deleted(self, folder: StoreFolder) -> None:
        """Note that a store was deleted through this mount. No checkpoint."""
        self._removed.add(folder.info.id)
        self.detach(folder)

    def orphan(self, info: StoreInfo) -> StoreFolder:
        """Make a folder that is not shown, for a store that cannot be found and of which something is left here."""
        return self._by_id.get(info.id) or self._new_folder(info)

    def detach(self, folder: StoreFolder) -> None:
        """Take a folder's name away. What is open in it, or waits in it, goes on."""
        group = folder.group
        if group is not None:
            del group.children[folder.component]
            folder.group = None
            self._kernel.entry_gone(group.number, folder.component, folder.number)
        self.drop_if_unknown(folder)

    def _place(self, folder: StoreFolder) -> None:
        """Show a folder under the name that its store has now."""
        group = self.unnamed if folder.info.name is None else self.root
        name = self._name(folder)
        if folder.group is group and folder.component == name:
            return
        if folder.group is not None:
            del folder.group.children[folder.component]
            self._kernel.entry_gone(folder.group.number, folder.component, folder.number)
        folder.group = None
        other = group.children.get(name)
        if other is not None:  # it has another name now, or is gone: the next page tells
            self.detach(other)
        folder.group, folder.component = group, name
        group.children[name] = folder

    def _name(self, folder: StoreFolder) -> bytes:
        info = folder.info
        if info.name is None:
            return info.id.encode()
        return (info.name if folder.own else f"{info.username}~{info.name}").encode()

    def _new_folder(self, info: StoreInfo) -> StoreFolder:
        numbers, defaults = Numbers.at(next(self._places)), self._ownership
        folder = StoreFolder(
            number=numbers.root,
            parent=None,
            component=b"",
            mode=stat.S_IFDIR | defaults.folder_mode,
            uid=defaults.uid,
            gid=defaults.gid,
            atime_ns=0,
            mtime_ns=0,
            ctime_ns=0,
            info=info,
            numbers=numbers,
            own=info.username in (None, self._username),
        )
        folder.component = self._name(folder)
        _show_times(folder)
        self._by_place[folder.place] = self._by_id[info.id] = folder
        return folder

    def _new_group(self, number: int, name: bytes, *, unnamed: bool) -> StoreGroup:
        now, defaults = time.time_ns(), self._ownership
        return StoreGroup(
            number=number,
            parent=None,
            component=name,
            mode=stat.S_IFDIR | defaults.folder_mode,
            uid=defaults.uid,
            gid=defaults.gid,
            atime_ns=now,
            mtime_ns=now,
            ctime_ns=now,
            unnamed=unnamed,
        )


def _show_times(folder: StoreFolder) -> None:
    info = folder.info
    folder.atime_ns, folder.mtime_ns = _ns(info.accessed_at), max(folder.mtime_ns, _ns(info.modified_at))
    folder.ctime_ns = _ns(info.created_at)


def _ns(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000  # a float would lose the last digits


def _is_others(reference: str) -> bool:
    return not reference.startswith("~")
