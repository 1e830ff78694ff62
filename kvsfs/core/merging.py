"""What a page of keys tells, put beside what is known: what is new, what is as it was, and what is gone.

What this mount changed after a page was asked for wins over the page (`changed_at`, `removals`), and so does what a
page of the current pass showed that was asked for later: of two passes that overlap, the older one brings no name back.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kvsfs.core import names
from kvsfs.core.attributes import KeptAttributes
from kvsfs.core.files import NEVER
from kvsfs.core.inodes import File, Folder, InodeTable, ListingPass
from kvsfs.core.local_only import LocalOnly
from kvsfs.core.versions import Versions
from kvsfs.types import KeyEntry, RecordKey

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Seen:
    """Which pass saw something, and when its page was asked for: the answer is no older than that."""

    listing: ListingPass
    requested_at: float
    is_first: bool = False
    """Whether no page that was asked for later can have told of these keys: the current pass goes on."""
    new: list[File | Folder] = field(default_factory=list)
    """What was not known before."""


class Merger:
    """Makes, updates and removes inodes by what pages tell. No method checkpoints."""

    def __init__(
        self,
        inodes: InodeTable,
        versions: Versions,
        local: LocalOnly,
        attributes: KeptAttributes,
        is_hidden: Callable[[str], bool],
    ) -> None:
        """`is_hidden` tells which keys are gone here, though the store has them still."""
        self._inodes = inodes
        self._versions = versions
        self._local = local
        self._attributes = attributes
        self._is_hidden = is_hidden

    def see_all(self, folder: Folder, entries: Sequence[KeyEntry], seen: Seen) -> None:
        """Take in the entries of a page of a folder's listing."""
        components = _plain_components(folder, entries)
        if components is None:
            for entry in entries:
                self.see(folder, entry, seen)
            return
        for component, entry in zip(components, entries, strict=True):
            if not self._is_hidden(entry.key):
                self._see_file(folder, component, entry, seen)

    def see(self, folder: Folder, entry: KeyEntry, seen: Seen) -> None:
        """Take in one entry."""
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

    def _see_folder(self, parent: Folder, component: bytes, key: RecordKey, seen: Seen) -> Folder | None:
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

    def _see_file(self, parent: Folder, component: bytes, entry: KeyEntry, seen: Seen) -> None:
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

    def sweep(self, folder: Folder, listing: ListingPass) -> None:
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


def _plain_components(folder: Folder, entries: Sequence[KeyEntry]) -> list[bytes] | None:
    if not entries:
        return None
    return names.plain_components([e.key for e in entries], folder.prefix, folder.longest_key)


def _arrive(child: File | Folder, seen: Seen) -> None:
    if child.listed_by < seen.listing.number:
        child.listed_by = seen.listing.number
        seen.listing.arrivals.append(child)


def _is_outdated(folder: Folder, key: RecordKey, seen: Seen) -> bool:
    """Tell whether a page that was asked for later has told already that an unknown key is not there."""
    if seen.is_first:
        return False
    return folder.listing is not None and folder.listing.asked_about(key) > seen.requested_at


def _see_marker(folder: Folder, entry: KeyEntry, seen: Seen) -> None:
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
