"""What a file's name says about it: whether it is soon renamed or removed, and whether a store is to have it."""

from __future__ import annotations

import errno
import fnmatch
import os
from dataclasses import dataclass

from kvsfs.core import names
from kvsfs.core.inodes import Folder
from kvsfs.core.tuning import Tuning
from kvsfs.errors import FileError, RequestRefused
from kvsfs.store.layout import Layout
from kvsfs.types import RecordKey

TEMPORARY = (
    "4913",  # vim's probe of the folder
    "*~",  # backups
    "*.part",  # downloads
    "*.tmp",  # saves by way of `f.tmp`
    ".goutputstream-*",  # saves by GLib: gedit and the rest of GNOME. It creates them with O_WRONLY, as cp does
)

LOCAL_ONLY = (
    ".*.sw[a-p]",  # vim's swap
    "#*#",  # emacs' auto-save
    ".#*",  # emacs' lock
    ".~lock.*#",  # LibreOffice's lock
    ".DS_Store",
    "._*",  # macOS' resource forks
    ".Trash-*",  # desktops' trash, one for each user (the XDG trash specification)
    "Thumbs.db",
)
"""What no store is to have. Short on purpose: whatever could be a user's own file is not in it."""


@dataclass(frozen=True, slots=True)
class NameRules:
    """Patterns as fnmatch(3) reads them, for whole names; case matters. `--deferred` and `--local-only` add some."""

    temporary: tuple[str, ...] = TEMPORARY
    local_only: tuple[str, ...] = LOCAL_ONLY
    longest_key: int = names.MAX_KEY_LENGTH
    layout: Layout | None = None
    """Which keys a folder takes; None: all that begin with its path."""

    @classmethod
    def of(cls, tuning: Tuning) -> NameRules:
        """Give the built-in rules and those of a mount's options."""
        return cls(
            TEMPORARY + tuning.deferred, LOCAL_ONLY + tuning.local_only, tuning.longest_key, tuning.layout
        )

    def is_temporary(self, name: bytes, flags: int = 0) -> bool:
        """Tell whether a file is made to be renamed or removed: by the open flags of mkstemp(3), or by its name.

        sed, perl, rsync, git, zip, emacs and vim's swap file use those flags; `cp`, `mv` and `install` create with
        O_WRONLY and are not meant.
        """
        if flags & os.O_ACCMODE == os.O_RDWR and flags & os.O_EXCL:
            return True
        return _matches(name, self.temporary)

    def is_local_only(self, folder: Folder, name: bytes) -> bool:
        """Tell whether what gets this name in a folder never reaches the store."""
        return folder.local_only or self.is_local_name(name)

    def is_local_name(self, name: bytes) -> bool:
        """Tell whether a name is local-only wherever it stands."""
        return _matches(name, self.local_only)

    def key(self, folder: Folder, component: bytes, flags: int = 0) -> RecordKey:
        """Give the key of a file in a folder, as it is opened.

        Raises as `key_of` does, but for what no store is to have. A temporary file may have any name anywhere: sed
        and rsync make theirs beside the original.
        """
        path, name = folder.path + component, names.display(component)
        if self.is_local_only(folder, name):
            return names.encode_local(path)
        return self._key_of(path) if self.is_temporary(name, flags) else self.key_of(path)

    def key_of(self, path: bytes) -> RecordKey:
        """Give the key of a raw path. Raises FileError(ENAMETOOLONG), RequestRefused for none of the layout."""
        key = self._key_of(path)
        if self.layout is not None:
            self.layout.stored(key)
        return key

    def key_in_store(self, key: RecordKey) -> RecordKey:
        """Give the key by which others know a record."""
        return key if self.layout is None else self.layout.bare(key)

    def home(self, path: bytes) -> bytes:
        """Give the raw path where a record of that path's name is shown."""
        if self.layout is None:
            return path
        return names.decode(self.layout.shown(self.layout.bare(names.encode_local(path))))

    def require_folder(self, path: bytes) -> None:
        """Raise RequestRefused for the raw path of a new folder that the layout has no place for."""
        if self.layout is not None:
            self.layout.stored(names.encode_local(path))

    def is_fixed(self, folder: Folder) -> bool:
        """Tell whether a folder is always there: with no marker, and not to be removed or renamed."""
        return self.layout is not None and self.layout.is_fixed(folder.prefix)

    def require_not_fixed(self, folder: Folder) -> None:
        """Raise RequestRefused for a folder that is always there."""
        if self.is_fixed(folder):
            raise RequestRefused(f"{folder.prefix}: the folder belongs to a collection of the store's schema")

    def require_length(self, key: RecordKey) -> None:
        """Raise FileError(ENAMETOOLONG) for a key, or a folder's, that is too long for the store."""
        length = len(self.key_in_store(key))
        if length > self.longest_key:
            whose = "the API allows" if self.longest_key == names.MAX_KEY_LENGTH else "--prefix leaves"
            raise FileError(
                errno.ENAMETOOLONG, f"the key would be {length} characters long, {whose} {self.longest_key}"
            )

    def _key_of(self, path: bytes) -> RecordKey:
        key = names.encode(path, None)
        self.require_length(key)
        return key


def _matches(name: bytes, patterns: tuple[str, ...]) -> bool:
    text = os.fsdecode(name)
    return any(fnmatch.fnmatchcase(text, pattern) for pattern in patterns)
