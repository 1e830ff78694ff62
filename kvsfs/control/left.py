"""What ended mounts have left in their cache folders, read while no daemon uses these."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator
from typing import Any

from kvsfs.cache.blobs import DIRTY, LOCK
from kvsfs.cache.database import UnusedDatabase
from kvsfs.cache.folder import DATABASE
from kvsfs.cache.journal import Journal
from kvsfs.cache.stores import StoresOnDisk
from kvsfs.config import folder_for
from kvsfs.control.status import local_only_files, unstored
from kvsfs.control.told import NOT_MOUNTED
from kvsfs.core.unstored import Report, left_by_earlier_mount
from kvsfs.errors import CommandError, ExitCode


def cache_folders() -> list[str]:
    """Give the user's cache folders; not those that --cache-dir has put elsewhere."""
    base = folder_for("XDG_CACHE_HOME", "~/.cache")
    with contextlib.suppress(OSError):
        return [path for name in sorted(os.listdir(base)) for path in with_stores(os.path.join(base, name))]
    return []


def with_stores(path: str) -> list[str]:
    """Give a cache folder, if it is one, and those below it of the stores of an account."""
    return [folder for folder in (path, *StoresOnDisk.below(path)) if is_cache_folder(folder)]


def is_cache_folder(path: str) -> bool:
    """Tell whether a folder is one of kvsfs's."""
    return all(os.path.isfile(os.path.join(path, name)) for name in (LOCK, DATABASE))


def last_mount(folder: str) -> dict[str, Any]:
    """Tell what was mounted last with a cache folder: `source`, `store_id`, `mount_point`, if that is noted."""
    try:
        with open(os.path.join(folder, LOCK), encoding="utf-8") as file:
            noted = json.load(file)
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def folders_of(word: str, mount_point: str) -> list[str]:
    """Find the cache folders of what `word` names: a source, a store's ID; or of a mount point. No request.

    An account's come with those of its stores.
    """
    found: dict[str, None] = {}
    for folder in cache_folders():
        noted = last_mount(folder)
        if word in (noted.get("source"), noted.get("store_id")) or mount_point == noted.get("mount_point"):
            found |= dict.fromkeys(with_stores(folder))
    return list(found)


def status(folder: str) -> dict[str, Any] | None:
    """Tell what is left in a cache folder; None while a daemon uses it. Raises CommandError."""
    with _journal(folder) as journal:
        if journal is None:
            return None
        report = _report(folder, journal)
    noted = last_mount(folder)
    return {
        "state": NOT_MOUNTED,
        "source": noted.get("source"),
        "mount_point": noted.get("mount_point"),
        "store": {"id": noted.get("store_id"), "name": None},
        "cache": {"folder": folder, "local_only_files": local_only_files(folder)},
        **unstored(report),
    }


def closed_blobs(folder: str) -> set[str] | None:
    """Give the names of the cache files that the next mount uploads; None while a daemon uses the folder.

    Raises CommandError.
    """
    with _journal(folder) as journal:
        return None if journal is None else {upload.closed.blob for upload in journal.uploads()}


@contextlib.contextmanager
def _journal(folder: str) -> Iterator[Journal | None]:
    path = os.path.join(folder, DATABASE)
    try:
        database = UnusedDatabase(path)
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
            yield None
            return
        raise CommandError(ExitCode.CACHE_UNUSABLE, f"cannot read {path}: {error}") from None
    try:
        yield Journal(database)
    finally:
        database.close()


def _report(folder: str, journal: Journal) -> Report:
    def size_of(blob: str) -> int:
        with contextlib.suppress(OSError):
            return os.path.getsize(os.path.join(folder, DIRTY, os.path.basename(blob)))
        return 0

    try:
        return left_by_earlier_mount(journal, size_of)
    except OSError as error:
        raise CommandError(ExitCode.CACHE_UNUSABLE, f"cannot read {folder}: {error.strerror}") from None
