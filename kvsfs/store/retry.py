"""When a call is tried again, and how long it may take in all."""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import trio

from kvsfs.errors import StoreError, StoreTimeout

T = TypeVar("T")

FIRST_PAUSE = 0.5
"""Seconds before the first retry: what the API's documentation asks for. It doubles from there."""

LONGEST_PAUSE = 8.0
"""Seconds: longer than this only if the server asks for it. A store that is back is noticed soon."""

SLOWEST_UPLOAD = 64 * 1024
"""Bytes per second. An upload below it (a poor mobile uplink) counts as stuck, however steadily it drips."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long the store may keep a caller waiting; seconds.

    `connect`: until TCP and TLS stand. A lost SYN is repeated after 1, 3 and 7 s: ten allow for three.

    `stall`: without a single byte moving. It holds for each read and write of every call, and it is the only
    bound on the body of a record being read: how long that takes is up to the reader, who may pause.

    `total`: from the start of a call until its answer is in the caller's hands, all retries and pauses
    included. For a record being read the answer is its headers. For a record being stored the time that
    `SLOWEST_UPLOAD` needs for the body comes on top, so a 10 GiB upload is legal, an endless one not.
    """

    connect: float = 10.0
    stall: float = 20.0
    total: float = 30.0

    def for_upload(self, length: int) -> float:
        """Seconds that storing `length` bytes may take in all."""
        return self.total + length / SLOWEST_UPLOAD


class Transient(Exception):  # noqa: N818 - not an error of its own: it carries one
    """An attempt failed with `error` in a way that another attempt may heal.

    `retry_after`: seconds that the server asked us to wait, None if it did not.
    """

    def __init__(self, error: StoreError, retry_after: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.retry_after = retry_after


async def retrying(
    attempt: Callable[[], Awaitable[T]],
    *,
    within: float,
    subject: str,
    on_retry: Callable[[], None],
) -> T:
    """Call `attempt` until it succeeds, fails for good, or no further pause fits into `within` seconds.

    Raises the last Transient's error then, and StoreTimeout when an attempt itself is still running at the
    end. Checkpoints; cancelled, it cancels the attempt.
    """
    end = trio.current_time() + within
    for tries in range(_MORE_THAN_FIT):
        try:
            with trio.move_on_at(end):
                return await attempt()
        except Transient as fault:
            pause = _pause(tries, fault.retry_after)
            if trio.current_time() + pause >= end:
                raise fault.error from fault.__cause__
            await trio.sleep(pause)
            on_retry()
        else:
            break
    raise StoreTimeout(f"{subject}: no answer within {within:.3g} s")


_MORE_THAN_FIT = 10**6  # the deadline ends the loop


def _pause(tries: int, retry_after: float | None) -> float:
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * math.ldexp(1.0, min(tries, 10)))
    # Between half and all of it: clients that failed together do not come back together.
    jittered = longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
    return max(jittered, retry_after or 0.0)
