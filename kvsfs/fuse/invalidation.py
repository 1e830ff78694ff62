"""Telling the kernel what to forget, without ever waiting for it.

Tried: forgetting pages on trio's loop while a READ of that inode is outstanding hangs the daemon, forgetting a
name there during a RENAME hangs everything: the kernel waits for the very request that the loop is to answer. In
a thread both simply end when the request does.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from functools import partial

import pyfuse3
import trio
from pyfuse3 import FileNameT, InodeT

from kvsfs.core.kernel import KernelCaches

log = logging.getLogger(__name__)

MOST_WAITING = 10_000
"""Notices kept while one waits for a request. Those above are dropped: names and attributes are trusted for one
second only, and an open drops pages of another version."""

NOT_KNOWN = {errno.ENOENT, errno.ENOTEMPTY, errno.ENOTDIR, errno.ENOTCONN, errno.ENODEV}
"""The kernel does not know it (any more), a folder has names that are to go after it, or it is unmounted."""


class Invalidation(KernelCaches):
    """The notices of one mount: taken at any time, passed on in one worker thread while `run` runs."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[object, ...], Callable[[], None]] = {}
        self._arrived = trio.Event()

    def attributes_changed(self, inode: int) -> None:
        """Have attributes asked for again, at once: safe inline, also with a READ outstanding (tried)."""
        _tell(partial(pyfuse3.invalidate_inode, InodeT(inode), attr_only=True))

    def pages_changed(self, inode: int) -> None:
        """Have attributes and pages asked for again."""
        self._put((inode,), partial(pyfuse3.invalidate_inode, InodeT(inode)))

    def entry_gone(self, parent: int, name: bytes, inode: int) -> None:
        """Have a name looked up again."""
        notice = partial(pyfuse3.invalidate_entry, InodeT(parent), FileNameT(name), InodeT(inode))
        self._put((parent, name, inode), notice)

    async def run(self) -> None:
        """Pass the notices on, until cancelled. A notice under way is waited for: it uses the session."""
        while True:
            await self._arrived.wait()
            self._arrived = trio.Event()
            while self._waiting:
                key = next(iter(self._waiting))
                await trio.to_thread.run_sync(_tell, self._waiting.pop(key))

    def _put(self, key: tuple[object, ...], notice: Callable[[], None]) -> None:
        if len(self._waiting) < MOST_WAITING:
            self._waiting[key] = notice
            self._arrived.set()


def _tell(notice: Callable[[], None]) -> None:
    try:
        notice()
    except OSError as error:
        log.log(logging.DEBUG if error.errno in NOT_KNOWN else logging.INFO, "%s", error)
