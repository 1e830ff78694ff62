"""The cache folder of one mount: its cache files, and the database beside them."""

from __future__ import annotations

import os
import sqlite3

from kvsfs.cache.blobs import BlobFolder
from kvsfs.cache.database import Database
from kvsfs.cache.journal import Journal
from kvsfs.errors import CommandError, ExitCode

DATABASE = "journal.db"


class CacheFolder:
    """What a mount keeps on disk. The lock that `blobs` holds is the database's, too."""

    def __init__(self, path: str, store: str, min_free: int = 0) -> None:
        """Take the folder and open its database, each made where it is missing. Raises CommandError.

        `store` names the store, the same at every mount: what is left for one is never sent to another.
        `min_free`: bytes of its disk that clean blobs leave to others.
        """
        self.blobs = BlobFolder(path, min_free)
        try:
            self.database = _open_database(os.path.join(self.blobs.path, DATABASE), store)
        except BaseException:
            self.blobs.close()
            raise
        try:
            self.blobs.make_names_durable()  # once, instead of at each close
        except OSError as error:
            self.close()
            message = (
                f"cannot use {self.blobs.path}: {error.strerror}; choose another folder with --cache-dir"
            )
            raise CommandError(ExitCode.CACHE_UNUSABLE, message) from error
        self.journal = Journal(self.database)

    def close(self) -> None:
        """Give the folder up. Only then may another mount take it."""
        self.database.close()
        self.blobs.close()


def _open_database(path: str, store: str) -> Database:
    try:
        database = Database(path)
        if database.belongs_to(store):
            return database
        database.close()
    except sqlite3.Error as error:
        message = f"cannot use {path}: {error}; free some space, or choose another folder with --cache-dir"
        raise CommandError(ExitCode.CACHE_UNUSABLE, message) from error
    message = (
        f"the cache folder {os.path.dirname(path)} is another store's, and may hold what that one is to get: "
        "name a folder for this store alone with --cache-dir"
    )
    raise CommandError(ExitCode.CACHE_UNUSABLE, message)
