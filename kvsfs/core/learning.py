"""Content types of files whose bytes came without headers: from HEADs in the background."""

from __future__ import annotations

import logging
from collections import deque

from kvsfs.core.background import Background
from kvsfs.core.inodes import File
from kvsfs.core.versions import Versions
from kvsfs.errors import KvsfsError, RecordNotFound

log = logging.getLogger(__name__)

HEADS_AT_A_TIME = 16
"""Of 64 connections: at 20 ms a request 800 a second, of which the rate limit leaves what nobody waits for."""

MOST_WAITING = 100_000
"""Files that are remembered, some 100 bytes each."""


class Learner:
    """Asks for the headers of such files, once somebody has asked for one: `cp -a` wants the type of each.

    Who only reads never pays for them: 10,000 files grepped are one request, not 10,001. A HEAD may prove besides
    that the bytes are the version which it names; then they can be revalidated by a conditional request.
    """

    def __init__(self, versions: Versions, background: Background) -> None:
        self._versions = versions
        self._background = background
        self._waiting: deque[File] = deque(maxlen=MOST_WAITING)
        self._workers = 0

    def came(self, file: File) -> None:
        """Note a file whose bytes came without headers. No checkpoint."""
        self._waiting.append(file)

    def begin(self) -> None:
        """Ask for the headers of all of them, in the background. No checkpoint."""
        while self._workers < min(HEADS_AT_A_TIME, len(self._waiting)):
            self._workers += 1
            self._background.start(self._work)

    def stop(self) -> None:
        """Ask for no more. No checkpoint."""
        self._waiting.clear()

    async def _work(self) -> None:
        try:
            while self._waiting:
                await self._learn(self._waiting.popleft())
        finally:
            self._workers -= 1

    async def _learn(self, file: File) -> None:
        if file.is_asked_for or not _is_wanted(file):
            return
        try:
            await self._versions.learn_head(file)
        except RecordNotFound:
            pass  # and so its name is gone
        except (KvsfsError, OSError) as error:
            log.info("the headers of %s are left for later, and all others: %s", file.key, error)
            self.stop()


def _is_wanted(file: File) -> bool:
    if file.removed or not file.stored or file.dirty or file.origin is not None:
        return False
    return file.content is not None and file.content.unproven
