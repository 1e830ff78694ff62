"""Telling the service manager how this process is: sd_notify(3), without a library.

It is a datagram of a few words to the socket that the environment names. libsystemd would have to be there in C, and
the package `sdnotify` has had no release since 2017.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import MutableMapping

log = logging.getLogger(__name__)

STATUS_SECONDS = 5.0
"""Between two lines of status: `systemctl status` is typed by people."""


class ServiceManager:
    """Whoever started this process as a service; nobody, where the environment names no socket."""

    def __init__(self, environment: MutableMapping[str, str] | None = None) -> None:
        """Take the words out of the environment: no child of ours shall speak for us."""
        environment = os.environ if environment is None else environment
        address = environment.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watchdog = _watchdog_seconds(environment)

    @property
    def listens(self) -> bool:
        """Whether anybody is told."""
        return bool(self._address)

    @property
    def interval(self) -> float:
        """Seconds until it wants to hear from us again: half of its watchdog's time (sd_watchdog_enabled(3))."""
        return min(STATUS_SECONDS, self._watchdog / 2) if self._watchdog else STATUS_SECONDS

    def tell(self, *, status: str | None = None, **words: int) -> None:
        """Send words as `READY=1`, and a line for people. Never waits, never fails."""
        if not self._address:
            return
        lines = [f"{word}={value}" for word, value in words.items()]
        if status is not None:
            lines.append(f"STATUS={' '.join(status.split())}")
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
                sender.sendto("\n".join(lines).encode(errors="replace"), self._address)
        except OSError as error:
            log.debug("the service manager was not told %s: %s", lines, error)


def _watchdog_seconds(environment: MutableMapping[str, str]) -> float | None:
    """Give the time after which a silent process is taken for dead; None where nobody watches this one."""
    microseconds, pid = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
    if not microseconds.isdecimal() or pid not in ("", str(os.getpid())):
        return None
    return int(microseconds) / 1e6 or None
