"""What a daemon does when it is asked over its control socket."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import trio

from kvsfs.control.server import Answer, Command, Tell
from kvsfs.control.status import Status
from kvsfs.control.wire import Arguments

PROGRESS_SECONDS = 0.25
"""Between two lines of progress: often enough to look alive."""


class Commands:
    """The commands of one mount."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def by_name(self) -> Mapping[str, Command]:
        """Give them as requests name them."""
        return {"status": self._tell_status, "watch": self._watch}

    async def _tell_status(self, _arguments: Arguments, _tell: Tell) -> Answer:
        return Answer(self._status.now())

    async def _watch(self, _arguments: Arguments, tell: Tell) -> Answer:
        """Tell what is left to do, until the daemon has ended."""
        while True:
            await tell(asdict(self._status.totals()))
            await trio.sleep(PROGRESS_SECONDS)
