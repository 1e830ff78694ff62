"""When a call is tried again, and how long it may take in all."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Self, TypeVar

import trio

from kvsfs.errors import StoreError, StoreTimeout
from kvsfs.options import DEFAULTS

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

    `total`: from the start of a call until its answer is in the caller's hands, all retries, pauses and waits
    for a free connection included. For a record being read the answer is its headers. For a record being
    stored each attempt has the time that `SLOWEST_UPLOAD` needs for the body on top, and a failed one weighs
    no more than `stall`: a 10 GiB upload is legal and may be tried again, an endless one is cut off, and a
    server that hangs is given up as soon for a large record as for a small one.
    """

    connect: float = 10.0
    stall: float = 20.0
    total: float = DEFAULTS.timeout

    @classmethod
    def within(cls, total: float) -> Self:
        """Give deadlines that keep this total; the others shrink with it where they would be longer."""
        usual = cls()
        return cls(min(usual.connect, total), min(usual.stall, total), total)


class Transient(Exception):
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
    deadlines: Deadlines,
    body_length: int = 0,
    subject: str,
    on_retry: Callable[[], None],
    on_give_up: Callable[[], None],
) -> T:
    """Call `attempt` until it succeeds, fails for good, or no further pause fits into the deadline.

    `body_length`: bytes that each attempt uploads. Raises the last Transient's error when there is no time
    left for another attempt, StoreTimeout when an attempt itself is still running at its end; `on_give_up` is
    called before either. Checkpoints; cancelled, it cancels the attempt.
    """
    body_time = body_length / SLOWEST_UPLOAD
    heaviest = deadlines.stall if body_length else deadlines.total
    spent = 0.0
    for tries in itertools.count():
        begun = trio.current_time()
        try:
            with trio.move_on_after(deadlines.total - spent + body_time):
                return await attempt()
            break
        except Transient as fault:
            pause = _pause(tries, fault.retry_after)
            spent += min(trio.current_time() - begun, heaviest) + pause
            if spent >= deadlines.total:
                on_give_up()
                raise fault.error from fault.__cause__
        await trio.sleep(pause)
        on_retry()
    on_give_up()
    raise StoreTimeout(f"{subject}: no answer within {trio.current_time() - begun + spent:.0f} s")


def _pause(tries: int, retry_after: float | None) -> float:
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * math.ldexp(1.0, min(tries, 10)))
    # Between half and all of it: clients that failed together do not come back together.
    jittered = longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
    return max(jittered, retry_after or 0.0)
