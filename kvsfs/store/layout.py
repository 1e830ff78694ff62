"""A store as one folder for each collection of its schema: which record is in which.

A folder is a prefix of the keys that are shown: the record `img-1` of the collection `images` is `images!2Fimg-1`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from kvsfs.errors import RequestRefused
from kvsfs.store.view import KeyGroup
from kvsfs.types import KeyEntry, RecordKey

PAST = "~"
"""Behind a prefix: after all keys that have it, and in none itself."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """One folder of a layout. `group` is None for that of the records which are in no collection."""

    name: str
    """For people."""
    prefix: str
    """Of all keys that are shown in it."""
    group: KeyGroup | None = None
    folders: tuple[str, ...] = ()
    """Shown keys of the folders in it that its records' keys begin with: always there, or nobody could fill them."""


class Layout:
    """A bijection between a store's keys and those that are shown; no I/O.

    A record that fits several collections is in the one that says most of its key: that of the key itself, else the
    one with the longest prefix, else the first by ID.
    """

    def __init__(self, shelves: Iterable[Shelf], other: Shelf) -> None:
        self.shelves = sorted(shelves, key=_specific_first)
        self.other = other
        self._fixed = {key for shelf in self._all() for key in (shelf.prefix, *shelf.folders)}

    def home(self, key: str) -> Shelf:
        """Give the shelf of a record of the store."""
        return next((shelf for shelf in self.shelves if _holds(shelf, key)), self.other)

    def shown(self, key: str) -> RecordKey:
        """Give the key that a record of the store is shown under."""
        return RecordKey(self.home(key).prefix + key)

    def shelf_of(self, shown: str) -> Shelf | None:
        """Give the shelf that a shown key, or prefix of keys, is in; None for the folder of all shelves."""
        return next((shelf for shelf in self._all() if shown.startswith(shelf.prefix)), None)

    def bare(self, shown: str) -> RecordKey:
        """Give a shown key without its shelf, whether it belongs there or not."""
        shelf = self.shelf_of(shown)
        return RecordKey(shown if shelf is None else shown.removeprefix(shelf.prefix))

    def stored(self, shown: str) -> RecordKey:
        """Give the store's key for a shown one: the inverse of `shown`. Raises RequestRefused, saying why, for none."""
        shelf, key = self.shelf_of(shown), self.bare(shown)
        if shelf is None:
            raise RequestRefused(
                f"{key}: records are in the folders of their collections, and in {self.other.name}"
            )
        home = self.home(key)
        if home is not shelf:
            takes = "" if shelf.group is None else f"{shelf.name} is for {shelf.group.place}, "
            raise RequestRefused(f"record {key}: {takes}this key belongs into {home.name}")
        return key

    def is_fixed(self, prefix: str) -> bool:
        """Tell whether the folder of a prefix is there whatever the store holds."""
        return prefix in self._fixed

    def fixed(self, prefix: str, after: str) -> list[KeyEntry]:
        """Give the markers of such folders, in order, as a listing would."""
        shelf = self.shelf_of(prefix)
        keys = [shelf.prefix for shelf in self._all()] if shelf is None else shelf.folders
        return [KeyEntry(RecordKey(key), 0) for key in sorted(keys) if key.startswith(prefix) and key > after]

    def taken(self, shelf: Shelf) -> list[str]:
        """Give the prefixes of keys that a shelf has none of, though by itself it would."""
        found = []
        for other in self.shelves:
            if other is shelf:
                break
            if other.group is not None and other.group.key is None:
                found.append(other.group.key_prefix)
        return found

    def is_shared(self, shelf: Shelf, prefix: str) -> bool:
        """Tell whether records of a prefix that a shelf's filter lets through may be on another one."""
        before = itertools.takewhile(lambda other: other is not shelf, self.shelves)
        return any(_overlap(other, shelf, prefix) for other in before)

    def _all(self) -> list[Shelf]:
        return [*self.shelves, self.other]


def _specific_first(shelf: Shelf) -> tuple[bool, int, str]:
    assert shelf.group is not None
    return shelf.group.key is None, -len(shelf.group.key_prefix), shelf.group.id


def _overlap(other: Shelf, shelf: Shelf, prefix: str) -> bool:
    """Tell whether a key with a prefix may be for both shelves."""
    group = other.group
    assert group is not None
    if group.key is not None:
        return group.key.startswith(prefix) and (shelf.group is None or _holds(shelf, group.key))
    filters = [
        prefix,
        group.key_prefix,
        "" if shelf.group is None else shelf.group.key or shelf.group.key_prefix,
    ]
    return all(max(filters, key=len).startswith(filter_) for filter_ in filters)


def _holds(shelf: Shelf, key: str) -> bool:
    return shelf.group is not None and shelf.group.holds(key)
