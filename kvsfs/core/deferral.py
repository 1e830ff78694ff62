"""Uploads that wait a moment: files made to be renamed or removed at once.

Editors, `sed -i`, `rsync` and `git` write a temporary file, close it, and rename it over the real one. Such a file is
kept on disk at its close; renamed within the grace it is uploaded once, under its final name; removed, it costs
nothing; still there after the grace it is uploaded like any other: late, never lost.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from kvsfs.core.background import Background
from kvsfs.core.content import Content
from kvsfs.core.inodes import File
from kvsfs.core.tuning import GRACE


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
