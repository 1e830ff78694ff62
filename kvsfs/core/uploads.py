"""When the bytes of a file go to the store."""

from __future__ import annotations

import trio

from kvsfs.core.background import Background
from kvsfs.core.content import Content
from kvsfs.core.deferral import Deferral
from kvsfs.core.inodes import File
from kvsfs.core.records import Records
from kvsfs.core.versions import Versions
from kvsfs.errors import StoreTimeout

IN_BACKGROUND = 8
"""Uploads in the background at a time: of the client's 32 connections most stay for what somebody waits for."""


class Uploads:
    """Uploads at a close, while the process waits; later, in the background; or after a grace.

    Whoever calls uses the content.
    """

    def __init__(
        self, records: Records, versions: Versions, background: Background, close_timeout: float
    ) -> None:
        self._records = records
        self._versions = versions
        self._background = background
        self._close_timeout = close_timeout
        self._parallel = trio.CapacityLimiter(IN_BACKGROUND)
        self._deferral = Deferral(self.later, background)

    async def now(self, file: File, content: Content) -> None:
        """Have the newest bytes in the store when this returns; those of a temporary file on disk.

        Raises StoreError, OSError; StoreTimeout when `close_timeout` is over: the process gets its error, and
        the bytes stay.
        """
        if content.local_only:
            return
        if file.temporary and not file.stored:
            await self._deferral.hold(file, content)
            if file.temporary:
                return  # else it got its final name meanwhile
        with trio.move_on_after(self._close_timeout) as scope:
            await self._records.upload(file, content)
        if scope.cancelled_caught:
            message = f"{file.key} was not uploaded within {self._close_timeout:g} s"
            file.failure = StoreTimeout(message)
            raise file.failure

    async def renamed(self, file: File) -> None:
        """Hold a file that was renamed to a temporary name. Raises OSError.

        Also where it replaced a record: the rename is done here by now, and must not fail for the network.
        """
        content = file.content
        if content is None or not content.dirty or not file.temporary or self._deferral.holds(file):
            return
        content.acquire()
        try:
            await self._deferral.hold(file, content)
        finally:
            self._versions.release(file, content)

    async def hurry(self, file: File) -> None:
        """Upload a held file now. Raises as `now`."""
        content = file.content
        if content is None or not content.dirty:
            return
        file.temporary = False
        content.acquire()
        try:
            await self.now(file, content)
        finally:
            self._versions.release(file, content)

    def released(self, file: File, content: Content) -> None:
        """Take over what a handle leaves dirty at its release. No checkpoint.

        Those are pages of a shared mmap, or what its close has just failed to upload: that is tried once more.
        """
        if not self._deferral.holds(file):
            self.later(file, content)

    def later(self, file: File, content: Content) -> None:
        """Upload in the background; what fails is logged. No checkpoint."""
        content.acquire()
        self._background.start(self._upload_and_release, file, content)

    def stop_waiting(self) -> None:
        """End all graces: whoever calls this uploads all that is dirty. No checkpoint."""
        self._deferral.stop()

    async def _upload_and_release(self, file: File, content: Content) -> None:
        try:
            if file.temporary and not file.stored:
                await self._deferral.hold(file, content)
                return
            async with self._parallel:
                await self._records.upload(file, content, again=file.failure is not None)
        finally:
            self._versions.release(file, content)
