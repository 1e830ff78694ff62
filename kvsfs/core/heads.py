"""True sizes for programs that trust the `lstat` they make before `open`: `--exact-sizes`.

A listing gives stored bytes, and only a record's headers tell whether that is what a reader sees. `git add` and
Python's tarfile read as many bytes as `lstat` said, and take what they get for the whole file.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence

import trio

from kvsfs.core.background import Background
from kvsfs.core.inodes import File, Folder
from kvsfs.core.versions import Versions
from kvsfs.errors import (
    FileError,
    KvsfsError,
    ProtocolViolation,
    RecordChanged,
    RecordNotFound,
    RequestRefused,
)
from kvsfs.store.priority import in_foreground

log = logging.getLogger(__name__)

HEADS_AT_A_TIME = 16
"""Of the client's 64 connections most stay for what is read and written: at 50 ms a request 320 names a second."""

FETCHES_AT_A_TIME = 4
"""Records read whole because their headers do not tell their length: each can be large."""

ENTRIES_AT_A_TIME = 2 * HEADS_AT_A_TIME
"""Names of a folder that are waited for at a time: about what the kernel takes with one READDIRPLUS of a page."""

LONGEST_WAIT = 30.0
"""Seconds that a stat waits: it cannot be killed meanwhile. What is asked goes on, for the next one."""

PAUSE = 10.0
"""Seconds without a question after a failed one: `ls` with a dead network waits for one time-out, not for each."""

OF_ONE_RECORD = (FileError, ProtocolViolation, RecordChanged, RequestRefused)
"""What says nothing about the other records. The rest (network, token, limits, disk) stops all questions."""


class Heads:
    """Learns the true lengths of files that are listed, looked up and looked at.

    One question a record, however many wait for it, and only while its length is not known. What cannot be
    known, because the store does not answer, keeps its stored size as a provisional answer: a stat never fails
    for it.

    A record stored compressed has no length in its headers. It is fetched whole, whatever its size, and its
    bytes stay in the cache for the read that usually follows. (A limit in bytes was the alternative: above it
    `git add` would then store the first part of a file without a word. `LONGEST_WAIT` limits what it costs.)
    """

    def __init__(self, versions: Versions, background: Background) -> None:
        self._versions = versions
        self._background = background
        self._heads = trio.CapacityLimiter(HEADS_AT_A_TIME)
        self._fetches = trio.CapacityLimiter(FETCHES_AT_A_TIME)
        self._asked: dict[File, trio.Event] = {}
        """Whose length is being asked for; set when that has ended, one way or the other."""
        self._quiet_until = -math.inf
        """When a store that did not answer is asked again."""
        self._refused: dict[File, float] = {}
        """Records whose length could not be had -> when it is asked for again."""

    def ahead(self, inodes: Iterable[File | Folder]) -> None:
        """Begin to learn the lengths of what somebody is about to see. No checkpoint."""
        for inode in inodes:
            self._ask(inode)

    async def exact(self, inodes: Sequence[File | Folder]) -> None:
        """Wait until the lengths are known, or it is known that they cannot be. Checkpoints only then.

        A record that turns out to be gone has lost its name afterwards. Raises nothing.
        """
        self.ahead(inodes)
        with trio.move_on_after(LONGEST_WAIT) as scope:
            for inode in inodes:
                asked = self._ask(inode)
                if asked is not None:
                    await asked.wait()
        if scope.cancelled_caught:
            log.warning("true sizes are not known after %g s: stored sizes are shown", LONGEST_WAIT)

    def _ask(self, inode: File | Folder) -> trio.Event | None:
        """Have a length asked for; None where it is known, or not to be had just now."""
        if not isinstance(inode, File) or not _is_wanted(inode):
            return None
        now = trio.current_time()
        if inode not in self._asked:
            if now < max(self._quiet_until, self._refused.get(inode, -math.inf)):
                return None
            self._asked[inode] = trio.Event()
            self._background.start(self._learn, inode)
        return self._asked[inode]

    async def _learn(self, file: File) -> None:
        try:
            with in_foreground():
                await self._learn_length(file)
            self._refused.pop(file, None)
        except RecordNotFound:
            pass  # and so its name is gone
        except (KvsfsError, OSError) as error:
            self._give_up(file, error)
        finally:
            self._asked.pop(file).set()

    async def _learn_length(self, file: File) -> None:
        if file.head is None or file.head.length is not None:
            async with self._heads:
                if self._may_ask(file):
                    await self._versions.learn_head(file)
        if _is_wanted(file):
            async with self._fetches:
                if self._may_ask(file):
                    self._versions.release(file, await self._versions.acquire(file))

    def _may_ask(self, file: File) -> bool:
        return _is_wanted(file) and trio.current_time() >= self._quiet_until

    def _give_up(self, file: File, error: Exception) -> None:
        now = trio.current_time()
        if isinstance(error, OF_ONE_RECORD):
            self._refused[file] = now + PAUSE
        elif now < self._quiet_until:  # one line for all that were asked for at a time
            return
        else:
            self._quiet_until = now + PAUSE
        log.warning("the size of %s is shown as stored: %s", file.key, error)


def _is_wanted(file: File) -> bool:
    return file.stored and not file.removed and not file.size_is_exact
