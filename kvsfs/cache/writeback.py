"""Uploads that wait: until their delay is over, for a free place, or for the next attempt."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import trio

from kvsfs.logs import operation

T = TypeVar("T", bound=Hashable)

FIRST_PAUSE = 1.0
"""Seconds before the first repetition; the call itself has repeated its requests by then (store/retry.py)."""

LONGEST_PAUSE = 60.0
"""Seconds between attempts while the store cannot be reached: who comes back on line sees the uploads go on within a
minute, and a laptop that is closed for a week does not wake the network in vain too often."""

FEW = 2
"""Uploads at a time while files keep coming: each costs as much CPU as a close, and the program that copies waits for
every one of its closes behind them. Held back, the upload of 1,000 files is over as soon, and `cp` long before."""

QUIET = 0.1
"""Seconds without a new file, after which nobody seems to copy any more: `cp -r` brings one each 2 to 20 ms."""

LONGEST_WAY = 5.0
"""Seconds that an upload gives way to a program that goes on and on, at the most."""

PATIENCE = 5.0
"""Seconds in which `drain` tries again what fails: a store that has just come back is not missed."""


@dataclass(slots=True, eq=False)
class _Waiting:
    due: float
    attempts: int = 0
    running: trio.CancelScope | None = None
    changed: bool = False
    """Put again while it was running."""
    awaited: bool = False
    """`drain` waits for that, too."""
    operation: int = 0
    """Whose it is, in the log."""


@dataclass(slots=True, eq=False)
class _Round(Generic[T]):
    """What a `drain` waits for."""

    left: set[T]
    ends: float


class WriteBack(Generic[T]):
    """Calls `upload(item)` for each item that was put, when its time has come, at most `parallel` at once.

    `upload` returns True when the item is settled, False when it is to be tried again later. An item is in here
    once, however often it is put: what is uploaded is its newest state. `upload` must not raise; what it raises all
    the same ends the task that `run` is.
    """

    def __init__(self, upload: Callable[[T], Awaitable[bool]], parallel: int) -> None:
        self._upload = upload
        self._places = trio.CapacityLimiter(parallel)
        self._waiting: dict[T, _Waiting] = {}
        self._due: list[tuple[float, int, T]] = []
        self._order = itertools.count()
        self._changed = trio.Event()
        self._rounds: list[_Round[T]] = []
        self._running = 0
        self._last_put = -math.inf

    def put(self, item: T, delay: float = 0.0) -> None:
        """Have an item uploaded after `delay` seconds; one that waits already waits anew. No checkpoint."""
        entry = self._waiting.setdefault(item, _Waiting(math.inf))
        self._last_put = trio.current_time()
        entry.due = self._last_put + delay
        entry.operation = operation.get() or entry.operation
        entry.changed = entry.running is not None
        if entry.running is None:
            self._schedule(item, entry.due)

    def cancel(self, item: T) -> None:
        """Forget an item; an upload of it that is running is cancelled. No checkpoint."""
        entry = self._waiting.pop(item, None)
        if entry is not None and entry.running is not None:
            entry.running.cancel()
        self._settled(item)

    def due_at(self, item: T) -> float | None:
        """Tell when an item's next attempt is due (trio time); None for one that is not waiting."""
        entry = self._waiting.get(item)
        return None if entry is None else entry.due

    def __contains__(self, item: object) -> bool:
        return item in self._waiting

    def __iter__(self) -> Iterator[T]:
        return iter(list(self._waiting))

    def __len__(self) -> int:
        return len(self._waiting)

    async def run(self) -> None:
        """Start what is due, for ever. Cancelled, it cancels the uploads that are running."""
        async with trio.open_nursery() as nursery:
            while True:
                if self._changed.is_set():  # else somebody waits on it
                    self._changed = trio.Event()
                while self._due and self._starts_at() <= trio.current_time():
                    _, _, item = heapq.heappop(self._due)
                    entry = self._waiting.get(item)
                    if entry is not None and entry.running is None and entry.due <= trio.current_time():
                        entry.running = trio.CancelScope()
                        self._running += 1
                        nursery.start_soon(self._attempt, item, entry, entry.running)
                with trio.move_on_at(self._starts_at() if self._due else math.inf):
                    await self._changed.wait()

    def _starts_at(self) -> float:
        """Tell when the next upload may start: later than it is due while files keep coming, unless few are running."""
        due = self._due[0][0]
        if self._running < FEW or self._rounds:
            return due
        return max(due, min(self._last_put + QUIET, due + LONGEST_WAY))

    async def drain(self, items: Iterable[T] | None = None) -> None:
        """Have items that wait tried now, or all, and wait until each was settled, or has failed for `PATIENCE`."""
        chosen = self._waiting if items is None else self._waiting.keys() & set(items)
        waited_for = _Round(set(chosen), trio.current_time() + PATIENCE)
        self._rounds.append(waited_for)
        try:
            for item in waited_for.left:
                entry = self._waiting[item]
                entry.awaited = entry.changed
                self.hurry(item)
            while waited_for.left:
                await self._changed.wait()
        finally:
            self._rounds.remove(waited_for)

    def hurry(self, item: T) -> None:
        """Have an item that waits tried now. No checkpoint."""
        entry = self._waiting.get(item)
        if entry is not None and entry.running is None:
            entry.due, entry.attempts = trio.current_time(), 0
            self._schedule(item, entry.due)

    async def _attempt(self, item: T, entry: _Waiting, scope: trio.CancelScope) -> None:
        operation.set(entry.operation)
        settled = False
        with scope:
            async with self._places:
                entry.changed = False
                settled = await self._upload(item)
        entry.running = None
        self._running -= 1
        self._changed.set()
        if self._waiting.get(item) is not entry:  # cancelled, and perhaps put anew since
            return
        if entry.changed:
            awaited, entry.awaited, entry.attempts = entry.awaited, False, 0
            entry.due = trio.current_time() if awaited else entry.due
            self._schedule(item, entry.due)
            if awaited:
                return
        elif settled:
            del self._waiting[item]
        else:
            entry.attempts += 1
            entry.due = trio.current_time() + _pause(entry.attempts)
            self._schedule(item, entry.due)
        self._settled(item, math.inf if settled else entry.due)

    def _schedule(self, item: T, due: float) -> None:
        heapq.heappush(self._due, (due, next(self._order), item))
        self._changed.set()

    def _settled(self, item: T, due: float = math.inf) -> None:
        """Let nobody wait for an item any more whose patience ends before `due`."""
        for waited_for in self._rounds:
            if due >= waited_for.ends:
                waited_for.left.discard(item)
        self._changed.set()


def _pause(attempts: int) -> float:
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * math.ldexp(1.0, min(attempts - 1, 10)))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
