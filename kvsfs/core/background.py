"""Tasks beside the requests."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVarTuple

import trio

from kvsfs.errors import KvsfsError
from kvsfs.store.priority import in_background

log = logging.getLogger(__name__)

Args = TypeVarTuple("Args")


class Background:
    """Starts tasks that may fail without taking the mount down: what they raise is logged.

    Their calls of the store give way to those that a process waits for.

    `idle` waits until none of them is left.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self._running = 0
        self._idle = trio.Event()
        self._idle.set()

    def start(self, function: Callable[[*Args], Awaitable[object]], *args: *Args) -> None:
        """Run `function(*args)` in a task of its own. No checkpoint."""
        if self._running == 0:
            self._idle = trio.Event()
        self._running += 1
        self.nursery.start_soon(self._guard, function, args)

    @property
    def busy(self) -> bool:
        """Whether tasks are left."""
        return self._running > 0

    async def idle(self) -> None:
        """Wait until no task is left."""
        await self._idle.wait()

    async def _guard(self, function: Callable[[*Args], Awaitable[object]], args: tuple[*Args]) -> None:
        try:
            with in_background():
                await function(*args)
        except KvsfsError as error:
            log.error("in the background: %s", error)  # noqa: TRY400 - one line: no bug of ours
        except Exception:
            log.exception("a background task failed")
        finally:
            self._running -= 1
            if self._running == 0:
                self._idle.set()
