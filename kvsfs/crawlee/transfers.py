"""Copying many records at once: so many at a time, each failure told, and nothing more once all would fail."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterable, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import trio

from kvsfs.crawlee.records import Misfit
from kvsfs.errors import (
    NotAuthorized,
    PermissionDenied,
    QuotaExceeded,
    StoreError,
    StoreNotFound,
    StoreUnreachable,
)

T = TypeVar("T")

AT_A_TIME = 16
"""Records under way: as many as the client uploads at once, and enough for the platform's 200 a second."""

_ENDS_ALL = (NotAuthorized, PermissionDenied, QuotaExceeded, StoreNotFound)
_DISK_TAKES_NO_MORE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(slots=True)
class Tally:
    """How far it is; `tell` is called whenever that changes."""

    tell: Callable[[Tally], None]
    tell_key: Callable[[str], None] | None = None
    """Called with the key of each record that is copied."""
    records: int = 0
    """That were looked at or are known to be there."""
    bytes: int = 0
    """Of those, as far as it is known."""
    copied: int = 0
    copied_bytes: int = 0
    """Of those that are under way, too."""
    same: int = 0
    same_bytes: int = 0
    failed: list[Misfit] = field(default_factory=list)
    """What the store, the disk or the way between them refused."""
    misfits: list[Misfit] = field(default_factory=list)
    """What the other side cannot hold, under any name or size."""

    def moved(self, count: int) -> None:
        """Count bytes."""
        self.copied_bytes += count
        self.tell(self)

    def found_same(self, size: int) -> None:
        """Count a record that need not be copied."""
        self.same += 1
        self.same_bytes += size
        self.tell(self)

    def copied_one(self, key: str) -> None:
        """Count a record that is copied, or would be."""
        self.copied += 1
        self.tell(self)
        if self.tell_key is not None:
            self.tell_key(key)


async def each(
    items: AsyncIterable[T], copy: Callable[[T], Awaitable[None]], name: Callable[[T], str], tally: Tally
) -> None:
    """Copy each, `AT_A_TIME` side by side. What fails is in the tally.

    Raises StoreError or OSError where all that follows would fail, too: no token, no permission, no store, a full plan,
    a full disk, and no answer to any of those under way.
    """
    room = trio.Semaphore(AT_A_TIME)
    fatal: list[StoreError | OSError] = []
    unanswered = 0

    def end(error: StoreError | OSError) -> None:
        fatal.append(error)
        nursery.cancel_scope.cancel()

    async def one(item: T) -> None:
        nonlocal unanswered
        try:
            await copy(item)
            unanswered = 0
        except OSError as error:
            tally.failed.append(Misfit(name(item), error.strerror or str(error)))
            if error.errno in _DISK_TAKES_NO_MORE:
                end(error)
        except StoreError as error:
            tally.failed.append(Misfit(name(item), str(error)))
            unanswered = unanswered + 1 if isinstance(error, StoreUnreachable) else 0
            if isinstance(error, _ENDS_ALL) or unanswered >= AT_A_TIME:
                end(error)
        finally:
            room.release()

    async with trio.open_nursery() as nursery:
        try:
            async for item in items:
                await room.acquire()
                nursery.start_soon(one, item)
        except StoreError as error:
            end(error)
    if fatal:
        raise fatal[0]
