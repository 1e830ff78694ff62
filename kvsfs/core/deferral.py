"""Uploads that wait a moment: files made to be renamed or removed at once.

Editors, `sed -i`, `rsync` and `git` write a temporary file, close it, and rename it over the real one. Such a file is
kept on disk at its close; renamed within the grace it is uploaded once, under its final name; removed, it costs
nothing; still there after the grace it is uploaded like any other: late, never lost.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable

import trio

from kvsfs.core.background import Background
from kvsfs.core.content import Content
from kvsfs.core.inodes import File
from kvsfs.core.tuning import GRACE

NAMES = ("4913", "*~", "*.part", "*.tmp")
"""vim's probe of the folder, backups, downloads, and saves by way of `f.tmp`."""


LOCAL_ONLY_NAMES = (
    ".*.sw[a-p]",  # vim's swap
    "#*#",  # emacs' auto-save
    ".#*",  # emacs' lock
    ".~lock.*#",  # LibreOffice's lock
    ".DS_Store",
    "._*",  # macOS' resource forks
    "Thumbs.db",
)
"""What no store is to have. Short on purpose: whatever could be a user's own file is not in it."""


def is_local_only(name: bytes) -> bool:
    """Tell by its name whether a file never reaches the store."""
    return _matches(name, LOCAL_ONLY_NAMES)


def is_temporary(name: bytes, flags: int = 0) -> bool:
    """Tell whether a file is made to be renamed or removed: by the open flags of mkstemp(3), or by its name.

    sed, perl, rsync, git, zip, emacs and vim's swap file use those flags; `cp`, `mv` and `install` create with
    O_WRONLY and are not meant.
    """
    if flags & os.O_ACCMODE == os.O_RDWR and flags & os.O_EXCL:
        return True
    return _matches(name, NAMES)


def _matches(name: bytes, patterns: tuple[str, ...]) -> bool:
    text = os.fsdecode(name)
    return any(fnmatch.fnmatchcase(text, pattern) for pattern in patterns)


class Deferral:
    """Holds the uploads of temporary files back for the grace. Their bytes are on disk meanwhile."""

    def __init__(self, upload: Callable[[File, Content], None], background: Background) -> None:
        self._upload = upload
        self._background = background
        self._waiting: dict[File, trio.CancelScope] = {}

    def holds(self, file: File) -> bool:
        """Tell whether the newest bytes of a file are held."""
        content = file.content
        return file in self._waiting and content is not None and content.version == content.closed_version

    async def hold(self, file: File, content: Content) -> None:
        """Make the bytes of a temporary file durable, and upload them after the grace. Raises OSError.

        The caller uses the content.
        """
        version = content.version
        await content.make_durable()
        content.closed_version = version
        self._stop_waiting(file)
        scope = self._waiting[file] = trio.CancelScope()
        self._background.start(self._wait_and_upload, file, scope)

    def stop(self) -> None:
        """Wait for nothing any more: whoever calls this uploads all that is dirty. No checkpoint."""
        for file in list(self._waiting):
            self._stop_waiting(file)

    def _stop_waiting(self, file: File) -> None:
        scope = self._waiting.pop(file, None)
        if scope is not None:
            scope.cancel()

    async def _wait_and_upload(self, file: File, scope: trio.CancelScope) -> None:
        with scope:
            await trio.sleep(GRACE)
        if self._waiting.get(file) is not scope:  # stopped, perhaps in the moment in which the grace was over
            return
        held = self.holds(file)
        del self._waiting[file]
        if held and file.content is not None and not file.removed:  # else its next close decides
            file.temporary = False
            self._upload(file, file.content)
