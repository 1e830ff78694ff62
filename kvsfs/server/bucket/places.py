"""Where things are in a bucket: store and key to object name, and back.

    stores/ID                 what a store is, JSON
    names/USERNAME/NAME       which store has that name, JSON: a register, changed by compare-and-swap only
    owners/USERNAME/MS.ID.N   a user's stores by creation; N is `n` (named) or `u` (unnamed); empty objects
    records/ID/KEY            the records as they are, with their Content-Type and Content-Encoding
    counts/ID/PROCESS         what one server has counted of a store
    runs/ID, last/MS.ID       runs, and their order: the newest first
    doomed/ID                 a deletion that is under way

An object store lists in the order of UTF-8 bytes, as the API does, and keys are ASCII. So a page of keys is a page of
objects. Only `.` and `..` cannot be object names: a space follows them, which sorts before all that a key can hold.
"""

from __future__ import annotations

import string

from kvsfs.server.storage import KeySelection

ORDER = "".join(sorted("!-_.'()" + string.ascii_letters + string.digits))
"""What a key can hold, in the order of UTF-8."""

FULL = ORDER[-1] * 257
"""After every key that begins with what stands before it: none has more than 256 characters."""

MOST_MS = 10**15
"""Milliseconds since 1970 that fit the names: until the year 33658."""

DOTS = (".", "..")


def store(store_id: str) -> str:
    """Where a store is described."""
    return f"stores/{store_id}"


def name(username: str, store_name: str) -> str:
    """Where a name is registered."""
    return f"names/{username}/{store_name}"


def owned(username: str) -> str:
    """Where a user's stores are listed."""
    return f"owners/{username}"


def owned_store(username: str, created_ms: int, store_id: str, *, named: bool) -> str:
    """Where one of them is."""
    return f"{owned(username)}/{created_ms:015}.{store_id}.{'n' if named else 'u'}"


def records(store_id: str) -> str:
    """Where a store's records are."""
    return f"records/{store_id}"


def record(store_id: str, key: str) -> str:
    """Where a record is."""
    return f"{records(store_id)}/{_written(key)}"


def key_of(path: str) -> str:
    """Inverse of `record`."""
    return path.rpartition("/")[2].rstrip(" ")


def counts(store_id: str) -> str:
    """Where the servers' counts of a store are."""
    return f"counts/{store_id}"


def run(run_id: str) -> str:
    """Where a run is described."""
    return f"runs/{run_id}"


def last_run(started_ms: int, run_id: str) -> str:
    """Where a run is in the order of runs: later ones come first."""
    return f"last/{MOST_MS - started_ms:015}.{run_id}"


def doomed(store_id: str) -> str:
    """Where a deletion that is under way is noted."""
    return f"doomed/{store_id}"


def start(store_id: str, selection: KeySelection, after: str | None) -> str | None:
    """Give the object name after which a listing begins; None: at the first.

    Both `after` and the prefix may be any string.
    """
    starts = [_greatest_up_to(after)] if after else []
    if selection.prefix:
        starts.append(_greatest_below(selection.prefix))
    greatest = max(starts, default="")
    return f"{records(store_id)}/{greatest}" if greatest else None


def is_possible(prefix: str) -> bool:
    """Whether a key can begin like this."""
    return all(character in ORDER for character in prefix)


def _written(key: str) -> str:
    return f"{key} " if key in DOTS else key


def _greatest_up_to(text: str) -> str:
    """Give a name that sorts after every key up to `text`, and before every key above it; empty if there is none."""
    text = text[: len(FULL)]  # longer than any key
    for place, character in enumerate(text):
        if character not in ORDER:
            return _below(text[:place], character)
    return _written(text)


def _greatest_below(text: str) -> str:
    """Give a name that sorts after every key below `text`, and before `text`; empty if there is none."""
    return _below(text[:-1], text[-1])


def _below(before: str, character: str) -> str:
    """Give a name after all keys that begin with `before` and something smaller than `character`."""
    lower = [other for other in ORDER if other < character]
    return before + lower[-1] + FULL if lower else _written(before)
