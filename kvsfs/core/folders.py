"""Folders: a prefix of keys, what is known to be below it, and how far its listing is."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import trio

from kvsfs.core import names
from kvsfs.core.files import File, Inode
from kvsfs.core.pages_ahead import PagesAhead


@dataclass(slots=True, eq=False)
class ListingPass:
    """One walk through the keys of a folder, page by page, as far as somebody needed it."""

    number: int
    started: float
    cursor: str | None = None
    """Where the next page starts; every key up to it was seen."""
    pages: int = 0
    barren: int = 0
    """The last so many pages brought nothing."""
    asked: list[tuple[str, float]] = field(default_factory=list)
    """The last key that each page went past, and when the page was asked for."""
    took: float = 0.0
    """Seconds that the pages cost so far."""
    complete: bool = False
    lookups: int = 0
    """Names that had to be looked up beside it."""
    arrivals: list[File | Folder] = field(default_factory=list)
    """In the order of their keys."""
    ahead: PagesAhead | None = None
    """The pages that come next."""
    lock: trio.Lock = field(default_factory=trio.Lock)
    """Held while a page is waited for."""

    def asked_about(self, key: str) -> float:
        """When the page was asked for that shows a key, or shows that it is not there; -inf when none did."""
        page = bisect.bisect_left(self.asked, (key, -math.inf))
        return self.asked[page][1] if page < len(self.asked) else -math.inf


@dataclass(slots=True, eq=False)
class Folder(Inode):
    """A key prefix that ends in an encoded slash, or the root.

    INVARIANT: `files` and `folders` are keyed by raw component; their inodes' `parent` is this folder.
    """

    path: bytes = b""
    """Raw path from the root with a slash behind it; empty for the root."""
    prefix: str = ""
    longest_key: int = names.MAX_KEY_LENGTH
    """Characters of a key in it: more than the API allows where a layout's folder, which no store sees, is in front."""
    marker: bool = False
    """Whether the store has this folder's marker record."""
    marker_changed_at: float = -math.inf
    """When this mount last put or deleted it (trio time): an earlier page knows nothing of that."""
    marker_request: trio.Lock = field(default_factory=trio.Lock)
    """Held around requests for it: none arrives after the folder was removed."""
    local_only: bool = False
    """Whether what is made in it never reaches the store: by its own name, or that of a folder above."""
    listed: bool = False
    """Whether a listing has shown a key below it."""
    files: dict[bytes, File] = field(default_factory=dict)
    folders: dict[bytes, Folder] = field(default_factory=dict)
    half_known: frozenset[bytes] = frozenset()
    """Components of files that a page of a listing ended at: whether a folder has that name, nobody has told yet."""
    listing: ListingPass | None = None
    listed_once: bool = False
    """Whether a listing pass was ever completed: what is known can then stand in for a store out of reach."""
    removals: dict[bytes, float] = field(default_factory=dict)
    """Component of a file that this mount removed -> when, until a later listing has confirmed it."""

    @property
    def removed(self) -> bool:
        """Whether no name leads here any more; the root needs none."""
        return self.parent is None and bool(self.path)

    def shown_path(self, name: bytes = b"") -> bytes:
        """Give the path from the mount's root as file names, of the folder or of a name in it."""
        components = self.path.split(b"/")[:-1]
        return b"/".join([names.display(component) for component in components] + [name])

    @property
    def empty(self) -> bool:
        """Whether nothing is known to be in it."""
        return not self.files and not self.folders

    @property
    def bare(self) -> bool:
        """Whether nothing is known to be in it that a store has or is to have."""
        return all(child.local_only for child in self.children())

    @property
    def unknown_to_store(self) -> bool:
        """Whether the store need not be asked for what is in it."""
        return self.local_only and not self.listed

    def child(self, name: bytes) -> File | Folder | None:
        """Find what the file name `name` stands for, among what is known. Raises FileError(EINVAL)."""
        beside = names.record_beside_folder(name)
        if beside is not None:
            component = names.component(beside)
            return self.files.get(component) if component in self.folders else None
        component = names.component(name)
        return self.folders.get(component) or self.files.get(component)

    def note_removal(self, component: bytes, at: float) -> None:
        """Note that this mount took a name away: listings that were asked for before do not bring it back."""
        self.removals[component] = max(at, self.removals.get(component, -math.inf))

    def name_of(self, child: Inode) -> bytes:
        """Give the file name under which a child is shown."""
        name = names.display(child.component)
        if isinstance(child, File) and child.component in self.folders:
            return names.beside_folder(name)
        return name

    def children(self) -> Iterator[File | Folder]:
        """All that is known to be in it."""
        yield from self.folders.values()
        yield from self.files.values()
