"""Pages of keys as folders: what names there are, asked for no further than somebody needs to know."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator

import trio

from kvsfs.core import names
from kvsfs.core.attributes import KeptAttributes
from kvsfs.core.handles import FolderHandle
from kvsfs.core.inodes import File, Folder, ListingPass
from kvsfs.core.merging import Merger, Seen
from kvsfs.core.pages_ahead import Pages
from kvsfs.errors import FileError, ProtocolViolation, StoreUnreachable
from kvsfs.types import KeyPage, RecordKey

log = logging.getLogger(__name__)

COST_FACTOR = 10
"""A listing is trusted for at least this many times what it took: listing again takes at most a tenth of the
time, however large the store."""

LOOKUPS_BEFORE_LISTING = 4
"""Unknown names in one folder that are asked for one by one before the
whole folder is listed: `cat` of a file in a store of a million keys lists nothing, `cp -r` into a folder does."""


READ_ENTRIES = 512
"""Entries given at a time. The kernel takes what fits into its buffer, 4 KiB (some 30 names) for getdents(2) of
a page, and asks again from there: the rest of a million names must not be prepared anew each time."""

LAST_KEY = "\x7f"
"""Sorts behind every key: what a listing's last page goes past."""

MAX_BARREN_PAGES = 100
"""Pages without a name in a row: 100,000 keys that were removed here while the page before was on its way."""

LOOKUP_PAGE = 100
"""Keys asked for with one name: enough to find a folder behind names that go on with an encoded byte."""


class Lister:
    """Keeps the folders' `files` and `folders` in step with the store.

    A folder is known through its current `ListingPass`. Every await is one page or one lookup; whatever happened to
    the folder meanwhile is merged (`Merger`), so no lock is held but the pass's own.
    """

    def __init__(self, pages: Pages, merger: Merger, attributes: KeptAttributes, ttl: float) -> None:
        self._pages = pages
        self._merger = merger
        self._attributes = attributes
        self._ttl = ttl
        self._pass_numbers = itertools.count(1)
        self.with_extensions = False
        """Whether what a record is shown as depends on names that go on with an extension."""

    async def find(self, folder: Folder, name: bytes) -> File | Folder | None:
        """Find what a name stands for; None when the store has no such key.

        A name that is known is answered without a request, also while the listing is out of date; it is not while
        a folder of that name, which goes before the record, may be on the next page. Raises StoreError,
        FileError(ENAMETOOLONG).
        """
        component = _component_of(name)
        known = folder.child(name)
        if known is not None and not (component in folder.half_known and isinstance(known, File)):
            return known
        listing = self._current(folder)
        if not listing.complete and not self._covers(listing, folder, component):
            await self._learn(folder, listing, component)
        return folder.child(name)

    async def ask(self, folder: Folder, name: bytes) -> File | Folder | None:
        """Find what a name stands for by asking the store, whatever an older listing says. Raises StoreError."""
        if not folder.unknown_to_store:
            await self._look_up(folder, self._current(folder), _component_of(name))
        return folder.child(name)

    async def know_all(self, folder: Folder) -> None:
        """Know every name below a folder. Raises StoreError. Checkpoints for each page."""
        listing = self._current(folder)
        while not listing.complete:
            await self._advance(folder, listing)
        for below in list(folder.folders.values()):
            await self.know_all(below)

    async def is_empty(self, folder: Folder) -> bool:
        """Tell whether nothing but a marker is in a folder, here or in the store. Raises StoreError."""
        listing = self._current(folder)
        while folder.empty and not listing.complete:
            await self._advance(folder, listing)
        return folder.empty

    async def is_bare(self, folder: Folder) -> bool:
        """Tell whether the store has nothing but a marker in a folder, nor is to have. Raises StoreError."""
        listing = self._current(folder)
        while folder.bare and not listing.complete:
            await self._advance(folder, listing)
        return folder.bare

    async def read(self, handle: FolderHandle, start: int) -> list[File | Folder]:
        """Give some entries from place `start` of the handle's order on; none at the end.

        Waits for at most one page more than is known. Raises StoreError, unless an earlier complete listing
        can stand in for a store that is out of reach.
        """
        if start == 0:
            handle.rewind(self._current(handle.folder))
        while start >= len(handle.order) and not handle.finished:
            await self._extend(handle)
        return handle.order[start : start + READ_ENTRIES]

    async def refresh(self, folder: Folder) -> None:
        """List a folder anew, beside the pass that answers until the new one is complete. Raises StoreError."""
        listing = ListingPass(next(self._pass_numbers), trio.current_time())
        while not listing.complete:
            await self._advance(folder, listing)
        if folder.listing is None or folder.listing.number < listing.number:
            folder.listing = listing

    def made_empty(self, folder: Folder) -> None:
        """Know a folder that was just made: nothing is in it, or its parent's listing would have shown it."""
        listing = folder.listing = ListingPass(next(self._pass_numbers), trio.current_time())
        listing.complete = folder.listed_once = True

    async def _extend(self, handle: FolderHandle) -> None:
        folder, listing = handle.folder, handle.listing
        assert listing is not None
        if len(listing.arrivals) == handle.arrived and not listing.complete:
            try:
                await self._advance(folder, listing)
            except StoreUnreachable as error:
                if not folder.listed_once:
                    raise
                log.warning(
                    "showing an older listing of /%s: %s", folder.path.decode(errors="replace"), error
                )
                handle.finish(folder)
                return
        handle.take_arrivals(self._has_name(folder, listing))
        if listing.complete:
            handle.finish(folder)

    def _current(self, folder: Folder) -> ListingPass:
        if folder.unknown_to_store:
            self.made_empty(folder)
        listing, now = folder.listing, trio.current_time()
        if listing is None or now - listing.started > max(self._ttl, COST_FACTOR * listing.took):
            listing = folder.listing = ListingPass(next(self._pass_numbers), now)
        return listing

    def _covers(self, listing: ListingPass, folder: Folder, component: bytes) -> bool:
        """Tell whether the pass went past a component, both as a record and as a folder."""
        if listing.complete:
            return True
        key, prefix = _key_and_prefix(folder, component)
        last = names.past_folder(prefix) if prefix else key
        return listing.cursor is not None and last is not None and last <= listing.cursor

    @staticmethod
    def _covers_extended(listing: ListingPass, folder: Folder, component: bytes) -> bool:
        """Tell whether the pass went past a component as a record, as a folder, and with each extension."""
        # `.` sorts behind `!`: past NAME.EXT is past the folder NAME, too.
        reach = names.past_folder(names.encode_local(folder.path + component + b"."))
        return listing.complete or (listing.cursor is not None and reach <= listing.cursor)

    def _has_name(self, folder: Folder, listing: ListingPass) -> Callable[[File | Folder], bool]:
        """Give what tells whether the pass went past all that decides what an inode is shown as."""
        cursor, prefix = listing.cursor or "", folder.prefix
        past = cursor[len(prefix) :].encode() if cursor.startswith(prefix) else b""
        covers = self._covers_extended if self.with_extensions else self._covers

        def has_name(inode: File | Folder) -> bool:
            if isinstance(inode, Folder) or listing.complete:
                return True
            if inode.is_plain and inode.component < past and not past.startswith(inode.component):
                return True  # all that begins with its name sorts before the cursor
            return covers(listing, folder, inode.component)

        return has_name

    async def _learn(self, folder: Folder, listing: ListingPass, component: bytes) -> None:
        if listing.pages == 0:
            await self._advance(folder, listing)
        if self._covers(listing, folder, component):
            return
        listing.lookups += 1
        if listing.lookups <= LOOKUPS_BEFORE_LISTING:
            await self._look_up(folder, listing, component)
        else:
            while not self._covers(listing, folder, component):
                await self._advance(folder, listing)

    async def _look_up(self, folder: Folder, listing: ListingPass, component: bytes) -> None:
        """Ask for one name, as a record and as a folder.

        Both begin with the record's key, and `!` sorts before everything else that a key can go on with: the
        first keys with that prefix nearly always hold the answer to both.
        """
        key, prefix = _key_and_prefix(folder, component)
        seen = Seen(listing, trio.current_time())
        page = await self._pages.first(key or prefix or "", LOOKUP_PAGE)
        entries = page.items
        if prefix and page.is_truncated and entries and entries[-1].key < prefix:
            entries += (await self._pages.first(prefix, 1)).items
        for entry in entries:
            if entry.key == key or (prefix and entry.key.startswith(prefix)):
                self._merger.see(folder, entry, seen)
        folder.half_known -= {component}
        self._attributes.restore(seen.new)

    async def _advance(self, folder: Folder, listing: ListingPass) -> None:
        """Fetch the next page, or wait for the one that is being fetched."""
        pages = listing.pages
        async with listing.lock:
            if listing.pages != pages or listing.complete:
                return
            begun, prefix = trio.current_time(), folder.prefix
            if listing.ahead is None or listing.ahead.prefix != prefix:
                listing.ahead = self._pages.below(prefix)
            fetched = await listing.ahead.after(listing.cursor)
            seen, page = (
                Seen(listing, fetched.requested_at, is_first=folder.listing is listing),
                fetched.page,
            )
            if folder.prefix != prefix:  # renamed meanwhile: this pass is of no use any more
                listing.complete = True
                return
            listing.took += trio.current_time() - begun
            arrived = len(listing.arrivals)
            self._merger.see_all(folder, page.items, seen)
            listing.barren = listing.barren + 1 if len(listing.arrivals) == arrived else 0
            self._attributes.restore(seen.new)
            listing.pages += 1
            if page.is_truncated:
                _require_yield(listing)
                listing.cursor = _next_cursor(folder, listing.cursor, page)
                listing.asked.append((listing.cursor, seen.requested_at))
                self._note_half_known(folder, listing, seen)
            else:
                listing.asked.append((LAST_KEY, seen.requested_at))
                listing.complete = folder.listed_once = True
                folder.half_known = frozenset()
                self._merger.sweep(folder, listing)

    def _note_half_known(self, folder: Folder, listing: ListingPass, seen: Seen) -> None:
        """Note whose folder only a later page would tell, of the records that came, and which ones are known now."""
        assert listing.cursor is not None
        files = map(folder.files.get, _components_at(folder, listing.cursor))
        new = {file.component for file in files if file is not None and file in seen.new}
        open_still = (c for c in folder.half_known | new if not self._covers(listing, folder, c))
        folder.half_known = frozenset(open_still)


def _component_of(name: bytes) -> bytes:
    """Give the raw component to ask the store for; a reserved name that is not known stands for nothing."""
    beside = names.record_beside_folder(name)
    return names.component(name if beside is None else beside)


def _key_and_prefix(folder: Folder, component: bytes) -> tuple[RecordKey | None, str | None]:
    """Give the key of a record and the prefix of a folder of that name, each None where it cannot exist.

    Raises FileError(ENAMETOOLONG) where neither can.
    """
    path = folder.path + component
    key = names.encode(path, folder.longest_key) if path else None
    try:
        return key, names.encode_prefix(path + b"/", folder.longest_key)
    except FileError:
        return key, None


def _components_at(folder: Folder, cursor: str) -> Iterator[bytes]:
    """Give the components of the records before a cursor whose folders are behind it.

    What a folder's keys go on with sorts before all else but another `!`: the cursor begins with those records' keys.
    """
    if not cursor.startswith(folder.prefix):
        return
    for end in range(max(1, len(folder.prefix)), len(cursor) + 1):
        if cursor[end : end + 1] in ("!", "") and names.is_key(cursor[:end], folder.longest_key):
            yield names.decode(RecordKey(cursor[:end]))[len(folder.path) :]


def _require_yield(listing: ListingPass) -> None:
    """Raise ProtocolViolation for pages that go on and bring nothing: whoever lists could not be interrupted."""
    if listing.barren > MAX_BARREN_PAGES:
        raise ProtocolViolation("the store's listing goes on without a key that could be shown")


def _next_cursor(folder: Folder, cursor: str | None, page: KeyPage) -> str:
    """Where to go on: behind the subfolder that the page ended in, instead of through all of it."""
    following = page.next_exclusive_start_key or (page.items[-1].key if page.items else None)
    if following is None or (cursor is not None and following <= cursor):
        raise ProtocolViolation("the store's listing does not advance from page to page")
    if page.items and names.is_key(page.items[-1].key, folder.longest_key):
        component, slash, _ = names.decode(page.items[-1].key)[len(folder.path) :].partition(b"/")
        if slash:
            past = names.past_folder(names.encode_local(folder.path + component + b"/"))
            return max(past, following)
    return following
