"""When the bytes of a file go to the store, and what becomes of those that it does not take.

At a close the bytes are journalled first; then they are uploaded while the process waits, or, of a temporary file and
with `--write-back`, later. What fails and may heal is tried again for ever, what cannot heal stays as it is, `failed`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import NoReturn

import trio

from kvsfs.cache.journal import Journal
from kvsfs.cache.writeback import FIRST_PAUSE, WriteBack
from kvsfs.core.content import Content
from kvsfs.core.handles import FileHandle
from kvsfs.core.inodes import File
from kvsfs.core.records import Records
from kvsfs.core.tuning import Tuning
from kvsfs.core.versions import Versions
from kvsfs.errors import RecordTooLarge, RequestRefused, StoreError, StoreNotFound, StoreTimeout
from kvsfs.store.priority import in_background

SWEEPS = 4
"""Looks at the open files in the time that one may stay dirty: it is then at most a quarter late."""

log = logging.getLogger(__name__)


class Uploads:
    """The uploads of one mount. Whoever calls uses the content."""

    def __init__(
        self, records: Records, versions: Versions, journal: Journal, nursery: trio.Nursery, tuning: Tuning
    ) -> None:
        self._records = records
        self._versions = versions
        self._journal = journal
        self._tuning = tuning
        self._queue = WriteBack[File](self._attempt, tuning.uploads)
        nursery.start_soon(self._queue.run)

    async def close(self, file: File, content: Content) -> None:
        """Have the newest bytes in the store when this returns; where they may come later, on disk.

        Raises StoreError, OSError; StoreTimeout when `close_timeout` is over: the process gets its error, the bytes
        stay, and are tried again.
        """
        if content.local_only or not content.dirty or file.removed:
            return
        await self._keep(file, content)
        delay = self._delay(file)
        if delay is not None:
            await content.make_durable()
            if delay == self._delay(file):  # else it got its final name meanwhile
                self._queue.put(file, delay)
                return
        await self._upload(file, content)

    async def renamed(self, file: File) -> None:
        """Hold a file that was renamed and is not in the store under its new name. Raises OSError.

        Also where it replaced a record: the rename is done here by now, and must not fail for the network.
        """
        content = file.content
        if file.origin is not None:
            await trio.to_thread.run_sync(self._journal.make_durable)
        elif content is None or not content.dirty or not content.closed:
            return
        else:
            content.acquire()
            try:
                await content.make_durable()
            finally:
                self._versions.release(file, content)
        self._queue.put(file, self._tuning.grace if file.temporary else self._tuning.write_back or 0.0)

    async def hurry(self, file: File) -> None:
        """Upload a held file now. Raises as `close`."""
        content = file.content
        if content is None or not content.dirty:
            return
        file.temporary = False
        content.acquire()
        try:
            await self._keep(file, content)
            await self._upload(file, content)
        finally:
            self._versions.release(file, content)

    def released(self, file: File, content: Content) -> None:
        """Take over what a handle leaves dirty at its release: pages of a shared mmap. No checkpoint.

        What was closed is uploaded, waits or has failed by now.
        """
        if not content.closed:
            self.later(file, content)

    def later(self, file: File, content: Content, delay: float = 0.0) -> None:
        """Upload in the background as it is now; what fails is logged, and tried again. No checkpoint."""
        content.owed = content.version
        self._versions.make_current(file, content)
        self._queue.put(file, self._delay(file) or delay)

    def has_given_up(self, file: File) -> bool:
        """Tell whether a file has failed in a way that does not heal by itself."""
        closed = file.content is not None and file.content.closed
        return closed and file.failure is not None and file not in self._queue

    async def sweep(self, handles: Iterable[FileHandle]) -> NoReturn:
        """Upload what stays open and dirty for too long (a log), again and again."""
        while True:
            await trio.sleep(self._tuning.max_dirty_age / SWEEPS)
            oldest = trio.current_time() - self._tuning.max_dirty_age
            for handle in handles:
                content = handle.content
                if handle.dirty and not content.closed and content.dirty_since <= oldest:
                    self.later(handle.file, content)

    def retry(self, file: File) -> None:
        """Have a file that failed, or waits for its next attempt, tried now. No checkpoint."""
        self._queue.put(file)

    @property
    def waiting(self) -> list[File]:
        """The files that are uploaded, wait, or are to be tried again."""
        return list(self._queue)

    def cancel(self, file: File) -> None:
        """Let an upload wait for nothing any more; one that is under way ends. No checkpoint."""
        self._queue.cancel(file)
        file.stop_upload()

    async def try_now(self, files: list[File]) -> None:
        """Have files tried now, failed ones too, and wait until each is stored or has failed."""
        for file in files:
            if file not in self._queue:
                self._queue.put(file)
        await self._queue.drain(files)

    def next_attempt(self, file: File) -> float | None:
        """Tell when a file is due (trio time); None when nothing is waiting for it."""
        return self._queue.due_at(file)

    async def drain(self) -> None:
        """Have all that waits tried once, now, and wait for it."""
        await self._queue.drain()

    def _delay(self, file: File) -> float | None:
        """Give how long a closed file may wait; None when its process waits for the store."""
        if file.temporary and not file.stored:
            return self._tuning.grace
        return self._tuning.write_back

    async def _keep(self, file: File, content: Content) -> None:
        """Journal the newest bytes as closed. Those that are missing have to be fetched before."""
        while not content.complete:
            await content.complete_blob()
        self._versions.make_current(file, content)
        self._records.keep(file, content)

    async def _upload(self, file: File, content: Content) -> None:
        """Upload while a process waits."""
        try:
            with trio.move_on_after(self._tuning.close_timeout) as scope:
                await self._records.upload(file, content)
            if scope.cancelled_caught:
                message = f"{file.key} was not uploaded within {self._tuning.close_timeout:g} s"
                raise StoreTimeout(message)
        except (StoreError, OSError) as error:
            if self._failed(file, content, error):
                self._queue.put(file, FIRST_PAUSE)
            await _try_durable(content)
            raise

    async def _attempt(self, file: File) -> bool:
        """Upload in the background; True when there is nothing more to do."""
        with in_background():
            return await self._settle(file)

    async def _settle(self, file: File) -> bool:
        try:
            while not file.removed and (file.dirty or file.origin is not None):
                file.temporary = False
                content = await self._versions.acquire(file)  # of a moving file: from its old record
                try:
                    if await content.is_damaged():
                        self._versions.damaged(file, content)
                        return True
                    if not await self._try(file, content):
                        return file.failure is not None and not _heals(file.failure)
                    if content.dirty and not content.is_owed:
                        return True  # written again meanwhile: its next close decides
                finally:
                    self._versions.release(file, content)
        except (StoreError, OSError) as error:
            log.warning("%s is not uploaded yet: %s", file.key, error)
            return False
        except Exception:
            log.exception("uploading %s failed unexpectedly", file.key)
            return False
        return True

    async def _try(self, file: File, content: Content) -> bool:
        level = logging.WARNING if file.failure is None else logging.INFO  # each failure is told once
        try:
            if content.is_owed:
                await self._keep(file, content)
            await self._records.upload(file, content)
        except (StoreError, OSError) as error:
            log.log(level, "%s is not uploaded yet: %s", file.key, error)
            self._failed(file, content, error)
            return False
        return True

    def _failed(self, file: File, content: Content, error: StoreError | OSError) -> bool:
        """Note a failed attempt; True when another one may do better."""
        heals = _heals(error)
        file.failure, file.late = error, True
        content.note_failure(str(error), final=not heals)
        return heals


def _heals(error: StoreError | OSError) -> bool:
    """Tell whether waiting can help: a refusal of these bytes under this key stands."""
    return not isinstance(error, RecordTooLarge | RequestRefused | StoreNotFound)


async def _try_durable(content: Content) -> None:
    try:
        await content.make_durable()
    except OSError as error:
        log.warning("bytes that the store did not take may not outlast a power failure: %s", error)
