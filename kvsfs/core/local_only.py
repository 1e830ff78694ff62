"""What no store is to have: editors' swap files, desktops' trash. Kept in the cache folder, under its own names."""

from __future__ import annotations

import math
import os

from kvsfs.cache.folder import CacheFolder
from kvsfs.core import names
from kvsfs.core.attributes import KeptAttributes
from kvsfs.core.content import Content
from kvsfs.core.inodes import File, Folder, InodeTable
from kvsfs.core.name_rules import NameRules


class LocalOnly:
    """Makes local-only files and folders, and puts those of earlier mounts back. No method checkpoints.

    A folder with a local-only name is so with everything below it. What a store has under such a name all the
    same is shown and asked for like any other: no record is ever hidden.
    """

    def __init__(
        self, inodes: InodeTable, cache: CacheFolder, attributes: KeptAttributes, rules: NameRules
    ) -> None:
        self._inodes = inodes
        self._cache = cache
        self._blobs = cache.blobs
        self._attributes = attributes
        self._rules = rules

    def covers(self, folder: Folder, component: bytes) -> bool:
        """Tell whether what gets this name in a folder never reaches the store."""
        return self._rules.is_local_only(folder, names.display(component))

    def new_content(self, folder: Folder, name: bytes) -> Content:
        """Make content for a new file. Raises OSError."""
        content = Content(self._cache, self._blobs.create_local(folder.shown_path(name)))
        content.local_only = True
        return content

    def make_folder(self, parent: Folder, name: bytes) -> Folder:
        """Make a folder, on disk too. Raises OSError."""
        self._blobs.make_local_folder(parent.shown_path(name))
        folder = self._add_folder(parent, names.component(name))
        self.restore(folder)
        return folder

    def remove_folder(self, folder: Folder) -> None:
        """Take an empty folder from the disk. Raises OSError."""
        if folder.local_only:
            self._blobs.remove_local_folder(folder.shown_path())

    def restore(self, folder: Folder) -> None:
        """Put back what earlier mounts kept in a folder. Raises OSError."""
        path = folder.shown_path()
        restored: list[File | Folder] = []
        for name, blob in self._blobs.local_files(path):
            component = names.component(name)
            if component in folder.files:
                continue
            file = self._inodes.add_file(folder, component, names.encode_local(folder.path + component))
            file.changed_at = math.inf
            file.mtime_ns = file.ctime_ns = os.stat(blob.path).st_mtime_ns
            blob.acquire()
            file.content = Content(self._cache, blob)
            file.content.local_only = True
            file.content.release()
            restored.append(file)
        for name in self._blobs.local_folders(path):
            component = names.component(name)
            if component not in folder.folders and self.covers(folder, component):
                below = self._add_folder(folder, component)
                restored.append(below)
                self.restore(below)
        self._attributes.restore(restored)

    def _add_folder(self, parent: Folder, component: bytes) -> Folder:
        folder = self._inodes.add_folder(parent, component, local_only=True)
        folder.changed_at = math.inf
        return folder
