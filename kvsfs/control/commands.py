"""What a daemon does when it is asked over its control socket."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import asdict
from typing import Any

import trio

from kvsfs.control.server import Answer, Command, Tell
from kvsfs.control.status import Status
from kvsfs.control.wire import Arguments
from kvsfs.core.mountable import Steerable
from kvsfs.core.steering import Pending
from kvsfs.core.unstored import MOST_TOLD
from kvsfs.core.warming import Warmth
from kvsfs.errors import CommandError, ExitCode, KvsfsError

PROGRESS_SECONDS = 0.25
"""Between two lines of progress: often enough to look alive."""


class Commands:
    """The commands of one mount. Paths are from its root, as file names."""

    def __init__(self, status: Status, steering: Steerable) -> None:
        self._status = status
        self._steering = steering

    def by_name(self) -> Mapping[str, Command]:
        """Give them as requests name them."""
        return {
            "status": self._tell_status,
            "watch": self._watch,
            "pending": self._pending,
            "try": self._try,
            "discard": self._discard,
            "bytes": self._bytes,
            "refresh": self._refresh,
            "warm": self._warm,
            "drain": self._drain,
        }

    async def _tell_status(self, _arguments: Arguments, _tell: Tell) -> Answer:
        return Answer(self._status.now())

    async def _watch(self, _arguments: Arguments, tell: Tell) -> Answer:
        """Tell what is left to do, until the daemon has ended."""
        while True:
            await tell(asdict(self._status.totals()))
            await trio.sleep(PROGRESS_SECONDS)

    async def _pending(self, arguments: Arguments, _tell: Tell) -> Answer:
        found = self._steering.pending(_path(arguments))
        return Answer({"pending": [_told(pending) for pending in found[:MOST_TOLD]]})

    async def _try(self, arguments: Arguments, tell: Tell) -> Answer:
        failed_too = bool(arguments.get("failed_too"))
        chosen = self._steering.pending(_path(arguments))
        await _with_progress(self._steering.try_now(chosen, failed_too=failed_too), chosen, tell)
        left = [pending for pending in chosen if not pending.done]
        return Answer(
            {"tried": len(chosen) - len(left), "left": [_told(pending) for pending in left[:MOST_TOLD]]}
        )

    async def _discard(self, arguments: Arguments, _tell: Tell) -> Answer:
        agreed = arguments.get("agreed")
        if not isinstance(agreed, list):
            raise CommandError(ExitCode.USAGE, "nobody has agreed to anything")
        for pending in self._steering.pending(_path(arguments)):
            if pending.path in agreed:
                await self._steering.discard(pending)
        return Answer({})

    async def _bytes(self, arguments: Arguments, _tell: Tell) -> Answer:
        fd, size = self._steering.bytes_of(_path(arguments))
        return Answer({"size": size}, fd)

    async def _refresh(self, arguments: Arguments, _tell: Tell) -> Answer:
        await self._steering.refresh(_path(arguments))
        return Answer({})

    async def _warm(self, arguments: Arguments, tell: Tell) -> Answer:
        """Fill the cache, for as long as somebody listens."""
        latest = Warmth(0, 0, 0, 0)
        failure: KvsfsError | OSError | None = None

        def note(warmth: Warmth) -> None:
            nonlocal latest
            latest = warmth

        async def ticker() -> None:
            try:
                while True:
                    await trio.sleep(PROGRESS_SECONDS)
                    await tell(asdict(latest))
            except trio.BrokenResourceError:
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ticker)
            try:
                await self._steering.warm(_path(arguments), note)
            except (KvsfsError, OSError) as error:
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return Answer(asdict(latest))

    async def _drain(self, arguments: Arguments, _tell: Tell) -> Answer:
        """Say whether the end of the mount waits for uploads."""
        self._status.drains = bool(arguments.get("drain", True))
        return Answer({})


async def _with_progress(work: Awaitable[None], chosen: list[Pending], tell: Tell) -> None:
    """Tell what is left of it while something is done."""
    async with trio.open_nursery() as nursery:

        async def ticker() -> None:
            while True:
                await trio.sleep(PROGRESS_SECONDS)
                left = [pending for pending in chosen if not pending.done]
                await tell({"files": len(left), "bytes": sum(pending.size for pending in left)})

        nursery.start_soon(ticker)
        await work
        nursery.cancel_scope.cancel()


def _path(arguments: Arguments) -> str:
    path = arguments.get("path", "")
    if not isinstance(path, str):
        raise CommandError(ExitCode.USAGE, "a path is a string")
    return path.strip("/")


def _told(pending: Pending) -> dict[str, Any]:
    return {
        "path": pending.path,
        "bytes": pending.size,
        "error": pending.failure,
        "if_discarded": pending.if_discarded,
    }
