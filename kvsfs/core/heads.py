"""What only a record's headers tell, and has to be known before it is opened.

True sizes, for programs that trust the `lstat` they make before `open` (`--exact-sizes`): a listing gives stored
bytes. `git add` and Python's tarfile read as many bytes as `lstat` said, and take what they get for the whole file.
Types, of which names are made (`--extensions`): a listing gives none.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence

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
    """Learns what the headers of files tell that are listed, looked up and looked at.

    One question a record, however many wait for it, and only while its answer is wanted. What cannot be known,
    because the store does not answer, is shown as without the option: a stat never fails for it.

    With `whole` the length is wanted, too. A record stored compressed has none in its headers. It is fetched whole,
    whatever its size, and its bytes stay in the cache for the read that usually follows. (A limit in bytes was the
    alternative: above it `git add` would then store the first part of a file without a word. `LONGEST_WAIT` limits
    what it costs.)
    """

    def __init__(
        self,
        versions: Versions,
        background: Background,
        is_wanted: Callable[[File], bool],
        *,
        whole: bool,
        otherwise: str,
    ) -> None:
        """`otherwise`: what is shown of those whose headers cannot be had, for people."""
        self._is_wanted_of = is_wanted
        self._whole = whole
        self._otherwise = otherwise
        self._versions = versions
        self._background = background
        self._heads = trio.CapacityLimiter(HEADS_AT_A_TIME)
        self._fetches = trio.CapacityLimiter(FETCHES_AT_A_TIME)
        self._asked: dict[File, trio.Event] = {}
        """Whose headers are being asked for; set when that has ended, one way or the other."""
        self._quiet_until = -math.inf
        """When a store that did not answer is asked again."""
        self._refused: dict[File, float] = {}
        """Records whose headers could not be had -> when they are asked for again."""

    def ahead(self, inodes: Iterable[File | Folder]) -> None:
        """Begin to learn about what somebody is about to see. No checkpoint."""
        for inode in inodes:
            self._ask(inode)

    async def exact(self, inodes: Sequence[File | Folder]) -> None:
        """Wait until all that is wanted is known, or it is known that it cannot be. Checkpoints only then.

        A record that turns out to be gone has lost its name afterwards. Raises nothing.
        """
        self.ahead(inodes)
        with trio.move_on_after(LONGEST_WAIT) as scope:
            for inode in inodes:
                asked = self._ask(inode)
                if asked is not None:
                    await asked.wait()
        if scope.cancelled_caught:
            log.warning("headers are not known after %g s: %s are shown", LONGEST_WAIT, self._otherwise)

    def _ask(self, inode: File | Folder) -> trio.Event | None:
        """Have headers asked for; None where all is known, or not to be had just now."""
        if not isinstance(inode, File) or not self._is_wanted(inode):
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
                await self._learn_wanted(file)
            self._refused.pop(file, None)
        except RecordNotFound:
            pass  # and so its name is gone
        except (KvsfsError, OSError) as error:
            self._give_up(file, error)
        finally:
            self._asked.pop(file).set()

    async def _learn_wanted(self, file: File) -> None:
        if not self._whole or file.head is None or file.head.length is not None:
            async with self._heads:
                if self._may_ask(file):
                    await self._versions.learn_head(file)
        if self._whole and self._is_wanted(file):
            async with self._fetches:
                if self._may_ask(file):
                    self._versions.release(file, await self._versions.acquire(file))

    def _may_ask(self, file: File) -> bool:
        return self._is_wanted(file) and trio.current_time() >= self._quiet_until

    def _give_up(self, file: File, error: Exception) -> None:
        now = trio.current_time()
        if isinstance(error, OF_ONE_RECORD):
            self._refused[file] = now + PAUSE
        elif now < self._quiet_until:  # one line for all that were asked for at a time
            return
        else:
            self._quiet_until = now + PAUSE
        log.warning("the headers of %s are not known, %s are shown: %s", file.key, self._otherwise, error)

    def _is_wanted(self, file: File) -> bool:
        return file.stored and not file.removed and self._is_wanted_of(file)


def sizes_of(versions: Versions, background: Background) -> Heads:
    """Give what learns true sizes."""
    return Heads(
        versions, background, lambda file: not file.size_is_exact, whole=True, otherwise="stored sizes"
    )
