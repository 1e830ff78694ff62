"""A mount as a service: what the service manager is told of it, for as long as its loop turns."""

from __future__ import annotations

from dataclasses import asdict

import trio

from kvsfs.control import text
from kvsfs.control.status import Status
from kvsfs.control.told import DRAINING
from kvsfs.service_manager import ServiceManager

EXTENSION_INTERVALS = 3
"""Intervals of reports by which a drain asks for more time: two of them may be late on a busy machine."""

MICROSECONDS = 1_000_000


async def report(manager: ServiceManager, status: Status) -> None:
    """Tell, until cancelled, what is left to upload, and that the loop is alive: a watchdog hears of nothing else.

    While what is left is uploaded at the end, more time is asked for. The drain ends by itself (--drain-timeout); a
    daemon that hangs asks for nothing, and is killed when its time is up.
    """
    while manager.listens:
        words = {"WATCHDOG": 1}
        if status.state == DRAINING:
            more = EXTENSION_INTERVALS * manager.interval
            words |= {"STOPPING": 1, "EXTEND_TIMEOUT_USEC": int(more * MICROSECONDS)}
        manager.tell(status=_line(status), **words)
        await trio.sleep(manager.interval)


def _line(status: Status) -> str:
    about = status.about
    place = "unmounted" if status.state == DRAINING else f"mounted on {about.mount_point}"
    try:
        left = text.left(asdict(status.totals()))
    except OSError:
        left = "cannot be told"
    return f"{about.source} is {place}; left to upload: {left}"
