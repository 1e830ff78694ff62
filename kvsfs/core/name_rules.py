"""What a file's name says about it: whether it is soon renamed or removed, and whether a store is to have it."""

from __future__ import annotations

import errno
import fnmatch
import os
from dataclasses import dataclass

from kvsfs.core import names
from kvsfs.core.inodes import Folder
from kvsfs.core.tuning import Tuning
from kvsfs.errors import FileError
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

    @classmethod
    def of(cls, tuning: Tuning) -> NameRules:
        """Give the built-in rules and those of a mount's options."""
        return cls(TEMPORARY + tuning.deferred, LOCAL_ONLY + tuning.local_only, tuning.longest_key)

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

    def key(self, folder: Folder, component: bytes) -> RecordKey:
        """Give the key of a file in a folder. Raises FileError(ENAMETOOLONG), but for what no store is to have."""
        if self.is_local_only(folder, names.display(component)):
            return names.encode_local(folder.path + component)
        return self.key_of(folder.path + component)

    def key_of(self, path: bytes) -> RecordKey:
        """Give the key of a raw path. Raises FileError(ENAMETOOLONG)."""
        key = names.encode(path)
        if len(key) > self.longest_key:
            raise FileError(
                errno.ENAMETOOLONG,
                f"the key would be {len(key)} long, with --prefix {self.longest_key} are left",
            )
        return key


def _matches(name: bytes, patterns: tuple[str, ...]) -> bool:
    text = os.fsdecode(name)
    return any(fnmatch.fnmatchcase(text, pattern) for pattern in patterns)
