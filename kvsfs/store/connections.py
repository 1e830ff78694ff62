"""Who may have how many of the client's connections."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Literal

import trio

MAX_CONNECTIONS = 64
"""To one host. Servers, and what stands before them, rarely allow a client more than a hundred."""

MAX_BODIES = 48
"""Connections that bodies of records may hold, for as long as they take. The rest stays for what is over soon:
`ls` and `rm` answer while 64 files of a gigabyte are being closed."""

MAX_UPLOADS = 32
"""Connections that uploads may hold of these: `cat` finds one, too. 32 at a round trip of 150 ms are the 200 uploads
a second that the platform allows, and 24 in the background (`--uploads`) leave some to who closes a file."""

Direction = Literal["up", "down"]


class Connections:
    """Hands out the right to hold a connection for a body."""

    def __init__(self) -> None:
        self._bodies = trio.CapacityLimiter(MAX_BODIES)
        self._uploads = trio.CapacityLimiter(MAX_UPLOADS)

    async def take(self, direction: Direction | None) -> ExitStack:
        """Wait, first come first served, until a body may move; None for a call without one: no wait.

        Closing the result gives the right back. Cancelled, nothing was taken. Checkpoints only where it has to wait.
        """
        borrower = object()  # not the task: who opened an answer need not be who closes it
        with ExitStack() as taken:
            for limiter in self._limiters(direction):
                try:  # a checkpoint is a turn of the scheduler, and a system call
                    limiter.acquire_on_behalf_of_nowait(borrower)
                except trio.WouldBlock:
                    await limiter.acquire_on_behalf_of(borrower)
                taken.callback(limiter.release_on_behalf_of, borrower)
            return taken.pop_all()

    def _limiters(self, direction: Direction | None) -> tuple[trio.CapacityLimiter, ...]:
        if direction is None:
            return ()
        # Always in this order, so nobody who holds a right that another waits for waits for one of theirs.
        return (self._uploads, self._bodies) if direction == "up" else (self._bodies,)
