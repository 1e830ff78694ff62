"""Pages of keys as folders: what names there are, asked for no further than somebody needs to know."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import trio

from kvsfs.core import names
from kvsfs.core.attributes import KeptAttributes
from kvsfs.core.files import NEVER
from kvsfs.core.handles import FolderHandle
from kvsfs.core.inodes import File, Folder, InodeTable, ListingPass
from kvsfs.core.local_only import LocalOnly
from kvsfs.core.pages_ahead import Pages
from kvsfs.core.versions import Versions
from kvsfs.errors import FileError, ProtocolViolation, StoreUnreachable
from kvsfs.types import KeyEntry, KeyPage, RecordKey

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


@dataclass(frozen=True, slots=True)
class _Seen:
    """Which pass saw something, and when its page was asked for: the answer is no older than that."""

    listing: ListingPass
    requested_at: float
    is_first: bool = False
    """Whether no page that was asked for later can have told of these keys: the current pass goes on."""
    new: list[File | Folder] = field(default_factory=list)
    """What was not known before."""


class Lister:
    """Keeps the folders' `files` and `folders` in step with the store.

    A folder is known through its current `ListingPass`. What this mount changed after a page was asked for
    wins over the page (`changed_at`, `removals`), and so does what a page of the current pass showed that was
    asked for later: of two passes that overlap, the older one brings no name back. Names lead to inodes only
    here and in `InodeTable`.

    Every await is one page or one lookup; whatever happened to the folder meanwhile is merged by the rule
    above, so no lock is held but the pass's own.
    """

    def __init__(
        self,
        pages: Pages,
        inodes: InodeTable,
        versions: Versions,
        local: LocalOnly,
        attributes: KeptAttributes,
        is_hidden: Callable[[str], bool],
        ttl: float,
    ) -> None:
        """`is_hidden` tells which keys are gone here, though the store has them still."""
        self._pages = pages
        self._is_hidden = is_hidden
        self._inodes = inodes
        self._versions = versions
        self._local = local
        self._attributes = attributes
        self._ttl = ttl
        self._pass_numbers = itertools.count(1)
        self.with_extensions = False
        """Whether what a record is shown as depends on names that go on with an extension."""

    async def find(self, folder: Folder, name: bytes) -> File | Folder | None:
        """Find what a name stands for; None when the store has no such key.

        A name that is known is answered without a request, also while the listing is out of date. Raises
        StoreError, FileError(ENAMETOOLONG).
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
        seen = _Seen(listing, trio.current_time())
        page = await self._pages.first(key or prefix or "", LOOKUP_PAGE)
        entries = page.items
        if prefix and page.is_truncated and entries and entries[-1].key < prefix:
            entries += (await self._pages.first(prefix, 1)).items
        for entry in entries:
            if entry.key == key or (prefix and entry.key.startswith(prefix)):
                self._see(folder, entry, seen)
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
                _Seen(listing, fetched.requested_at, is_first=folder.listing is listing),
                fetched.page,
            )
            if folder.prefix != prefix:  # renamed meanwhile: this pass is of no use any more
                listing.complete = True
                return
            listing.took += trio.current_time() - begun
            arrived = len(listing.arrivals)
            self._see_all(folder, page.items, seen)
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
                self._sweep(folder, listing)

    def _note_half_known(self, folder: Folder, listing: ListingPass, seen: _Seen) -> None:
        """Note whose folder only a later page would tell, of the records that came, and which ones are known now."""
        assert listing.cursor is not None
        files = map(folder.files.get, _components_at(folder, listing.cursor))
        new = {file.component for file in files if file is not None and file in seen.new}
        open_still = (c for c in folder.half_known | new if not self._covers(listing, folder, c))
        folder.half_known = frozenset(open_still)

    def _see_all(self, folder: Folder, entries: Sequence[KeyEntry], seen: _Seen) -> None:
        components = _plain_components(folder, entries)
        if components is None:
            for entry in entries:
                self._see(folder, entry, seen)
            return
        for component, entry in zip(components, entries, strict=True):
            if not self._is_hidden(entry.key):
                self._see_file(folder, component, entry, seen)

    def _see(self, folder: Folder, entry: KeyEntry, seen: _Seen) -> None:
        if self._is_hidden(entry.key):
            return
        if not names.is_key(entry.key, folder.longest_key) or not entry.key.startswith(folder.prefix):
            log.warning("the store lists %r, which is no key of this folder: not shown", entry.key)
            return
        path = names.decode(entry.key)[len(folder.path) :]
        component, slash, below = path.partition(b"/")
        if slash:
            below_it = self._see_folder(folder, component, entry.key, seen)
            if below_it is not None and not below:
                _see_marker(below_it, entry, seen)
            return
        if not path:
            _see_marker(folder, entry, seen)
        if path or entry.size:
            self._see_file(folder, component, entry, seen)

    def _see_folder(self, parent: Folder, component: bytes, key: RecordKey, seen: _Seen) -> Folder | None:
        folder = parent.folders.get(component)
        if folder is None:
            if parent.removals.get(component + b"/", NEVER) >= seen.requested_at:
                return None
            if _is_outdated(parent, key, seen):
                return None
            if component in parent.files:
                self._versions.names_gone(parent.files[component])
            folder = self._inodes.add_folder(
                parent, component, local_only=self._local.covers(parent, component)
            )
            seen.new.append(folder)
            self._local.restore(folder)
        if not folder.listed:
            _ask_from_now_on(folder)
        _arrive(folder, seen)
        return folder

    def _see_file(self, parent: Folder, component: bytes, entry: KeyEntry, seen: _Seen) -> None:
        file = parent.files.get(component)
        if file is None:
            if parent.removals and parent.removals.get(component, NEVER) >= seen.requested_at:
                return
            if _is_outdated(parent, entry.key, seen):
                return
            file = self._inodes.add_file(parent, component, entry.key)
            file.listed_size = entry.size
            seen.new.append(file)
        _arrive(file, seen)
        if file.changed_at == math.inf and not file.local_only:
            file.stored = (
                True  # somebody else's, under a name that is ours too: to be replaced, or removed with it
            )
        elif file.changed_at < seen.requested_at:
            file.stored, file.missed_at = True, NEVER
            if file.listed_size != entry.size:
                file.listed_size = entry.size
                self._versions.outdated(file, None)
                self._attributes.forget(file)

    def _sweep(self, folder: Folder, listing: ListingPass) -> None:
        """Take out what a complete pass did not see, unless it is this mount's own and newer."""
        for child in list(folder.children()):
            if child.listed_by >= listing.number:
                continue
            if not _is_ours(child, listing.started):
                self._take_out(child)
            elif isinstance(child, File) and child.changed_at < listing.started:
                self._versions.missed(child)
        folder.removals = {c: at for c, at in folder.removals.items() if at >= listing.started}

    def _take_out(self, child: File | Folder) -> None:
        if isinstance(child, File):
            self._versions.vanished(child)
            return
        for below in list(child.children()):
            self._take_out(below)
        self._versions.detach(child)


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
    for end in range(len(folder.prefix) + 1, len(cursor) + 1):
        if cursor[end : end + 1] in ("!", "") and names.is_key(cursor[:end], folder.longest_key):
            yield names.decode(RecordKey(cursor[:end]))[len(folder.path) :]


def _plain_components(folder: Folder, entries: Sequence[KeyEntry]) -> list[bytes] | None:
    if not entries:
        return None
    return names.plain_components([e.key for e in entries], folder.prefix, folder.longest_key)


def _arrive(child: File | Folder, seen: _Seen) -> None:
    if child.listed_by < seen.listing.number:
        child.listed_by = seen.listing.number
        seen.listing.arrivals.append(child)


def _is_outdated(folder: Folder, key: RecordKey, seen: _Seen) -> bool:
    """Tell whether a page that was asked for later has told already that an unknown key is not there."""
    if seen.is_first:
        return False
    return folder.listing is not None and folder.listing.asked_about(key) > seen.requested_at


def _see_marker(folder: Folder, entry: KeyEntry, seen: _Seen) -> None:
    """Note what lies under a folder's marker key: only what is empty is one, the rest is somebody's record."""
    if seen.requested_at > folder.marker_changed_at:
        folder.marker = entry.size == 0


def _ask_from_now_on(folder: Folder) -> None:
    """Note that the store has something below a folder, and forget listings that only seemed complete."""
    below = [folder]
    while below:
        folder = below.pop()
        if folder.unknown_to_store:
            folder.listing = None
        folder.listed = True
        below += folder.folders.values()


def _is_ours(child: File | Folder, since: float) -> bool:
    """Tell whether this mount made or changed it after `since`, has it open, or holds bytes that the store lacks.

    An open file keeps its name: what is written to it would go nowhere.
    """
    if child.changed_at >= since:
        return True
    if isinstance(child, File):
        return child.dirty or child.handles > 0
    return any(_is_ours(below, since) for below in child.children())


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
