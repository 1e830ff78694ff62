"""The end of a mount: what the store lacks is uploaded, or left to the next one."""

from __future__ import annotations

from contextlib import suppress

import trio

from kvsfs.core.background import Background
from kvsfs.core.content import Content
from kvsfs.core.deletes import DeferredDeletes
from kvsfs.core.handles import FileHandle, HandleTable
from kvsfs.core.inodes import File, InodeTable
from kvsfs.core.markers import Markers
from kvsfs.core.records import Records
from kvsfs.core.uploads import Uploads

MARKERS_SECONDS = 5.0
"""For the markers of folders that are empty and new when a mount ends without waiting for uploads."""


class Ending:
    """Brings to rest what goes on behind a mount, but for what only guesses that somebody will want it."""

    def __init__(
        self,
        inodes: InodeTable,
        handles: HandleTable[FileHandle],
        uploads: Uploads,
        deletes: DeferredDeletes,
        markers: Markers,
        records: Records,
        background: Background,
    ) -> None:
        self._inodes = inodes
        self._handles = handles
        self._uploads = uploads
        self._deletes = deletes
        self._markers = markers
        self._records = records
        self._background = background

    async def drain(self) -> None:
        """Upload all that is dirty, as the release of every handle would, and wait for what is under way.

        What fails is not tried again: it is in the journal.
        """
        self._deletes.stop_waiting()
        for file, content in self.unstored():
            file.temporary = False
            if not self._uploads.has_given_up(file):
                self._uploads.later(file, content)
        await self._uploads.drain()
        await self._markers.settle()
        await self._background.idle()
        await self._deletes.settle()

    async def hand_over(self) -> None:
        """Journal all that was closed, or released by the end of the mount, for the next one: no upload is waited for.

        What cannot be journalled, because it is not all here or the disk is full, is left to be set aside.
        """
        self._deletes.stop_waiting()
        for file, content in self.unstored():
            if content.complete:
                with suppress(OSError):
                    self._records.keep(file, content)
                    await content.make_durable()
        with trio.move_on_after(MARKERS_SECONDS):  # the journal knows nothing of an empty folder
            await self._markers.settle()

    def left(self) -> list[str]:
        """Tell, for people, what the store does not have yet: the next mount goes on.

        What was never closed is set aside. No checkpoint.
        """
        left = []
        for file, content in self.unstored():
            if content.closed:
                left.append(f"{file.key} (not uploaded: {file.failure or 'no time'})")
            else:
                left.append(f"{file.key} (not uploaded: its bytes are in {content.set_aside()})")
        left += [
            f"{file.key} (still {file.origin} in the store)" for file in self._inodes.files() if file.origin
        ]
        return left + [f"{key} (removed here, still in the store)" for key in self._deletes.left()]

    def unstored(self) -> list[tuple[File, Content]]:
        """All contents with bytes that the store lacks: those of files, and older ones that handles wrote to."""
        users = {handle.content: handle.file for handle in self._handles}
        users |= {file.content: file for file in self._inodes.files() if file.content is not None}
        return [(file, content) for content, file in users.items() if content.dirty and not file.removed]
