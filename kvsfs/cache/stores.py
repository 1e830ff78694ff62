"""Below an account's cache folder: one for each store that was entered, and a note for each that may have work left."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping

from kvsfs.cache.blobs import ASIDE

_HASH = re.compile("[0-9a-f]{32}")

STORES, NOTES = "stores", "entered"


class StoresOnDisk:
    """Knows the folders. Whoever uses it holds the lock of the account's folder.

    A note is there from before a store is opened until it was closed with nothing left, so that what a killed daemon
    leaves is found without opening the database of each store that was ever entered.
    """

    def __init__(self, path: str) -> None:
        """Make what is missing. Raises OSError."""
        self._stores = os.path.join(path, STORES)
        self._notes = os.path.join(path, NOTES)
        for folder in (self._stores, self._notes):
            os.makedirs(folder, mode=0o700, exist_ok=True)

    @staticmethod
    def below(path: str) -> list[str]:
        """Give the cache folders below one that may be an account's; none where it is a store's."""
        stores = os.path.join(path, STORES)
        with contextlib.suppress(OSError):
            return [os.path.join(stores, name) for name in sorted(os.listdir(stores))]
        return []

    def folder(self, store_id: str) -> str:
        """Give the path of a store's cache folder; hashed, so that no ID can lead out of it."""
        return os.path.join(self._stores, _hashed(store_id))

    def note(self, store_id: str, about: Mapping[str, str | None]) -> None:
        """Note, durably, that a store is entered. Blocks for as long as the disk takes. Raises OSError."""
        path = os.path.join(self._notes, _hashed(store_id))
        fd = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump({**about, "id": store_id}, file)
            file.flush()
            os.fsync(file.fileno())
        os.rename(f"{path}.new", path)
        folder = os.open(self._notes, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def forget(self, store_id: str) -> None:
        """Note that nothing is left of a store."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self._notes, _hashed(store_id)))

    def remove(self, store_id: str) -> None:
        """Remove the cache folder of a store that was deleted, unless it holds what was never uploaded."""
        folder = self.folder(store_id)
        with contextlib.suppress(OSError):
            if not os.listdir(os.path.join(folder, ASIDE)):
                shutil.rmtree(folder)

    def noted(self) -> Iterator[Mapping[str, str | None]]:
        """Give what was noted of the stores that may have work left. Raises OSError."""
        for name in sorted(filter(_HASH.fullmatch, os.listdir(self._notes))):
            with (
                contextlib.suppress(ValueError),
                open(os.path.join(self._notes, name), encoding="utf-8") as file,
            ):
                about = json.load(file)
                if isinstance(about, dict) and isinstance(about.get("id"), str):
                    yield about


def _hashed(store_id: str) -> str:
    return hashlib.sha256(store_id.encode()).hexdigest()[:32]
