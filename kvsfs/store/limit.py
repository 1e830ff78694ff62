"""The platform's rate limits, kept on this side: a call waits here for its turn, not there for a 429.

The platform allows so many requests a second for the records of a store, and so many for the store itself. How
it counts a second is not documented. A bucket that refills at nine tenths of the limit and holds one tenth
lets no second, wherever it begins, see more than the limit.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

import trio

from kvsfs.errors import RateLimited
from kvsfs.store.priority import is_background

Kind = Literal["record", "store"]
"""GET, PUT, HEAD and DELETE of records; or everything else: listings, the store itself, the list of stores."""

PLATFORM_LIMITS: dict[Kind, int] = {"record": 200, "store": 60}
"""Requests a second of a store (docs.apify.com, "Rate limiting"); answers tell them in X-RateLimit-Limit."""

REFILL = 0.9
"""The part of a limit that trickles into the bucket each second."""

BURST = 0.1
"""The part of a limit that the bucket holds. Together with `REFILL` it must not exceed 1."""

RESERVE = 0.5
"""The part of a full bucket that calls in the background leave to the others."""

LONGEST_YIELD = 0.25
"""Seconds for which the first call of the background lets others pass. Then it takes its turn: four a second,
so that uploads do not starve, and run into their deadlines, under a `grep -r` that lasts for minutes."""

SLOWEST = 1 / 16
"""The part of the usual rate that is left after many answers 429: somebody else uses up the limit."""

RECOVERY = 0.1
"""The part of the usual rate that comes back each second: five seconds after a single 429 all is as before."""

SAME_BURST = 1.0
"""Seconds after a 429 in which others are taken for answers to requests that were under way."""

LONGEST_PAUSE = 60.0
"""Seconds of a Retry-After that are honoured before somebody asks again: an hour may be a mistake."""

LARGEST_LIMIT = 100_000
"""A second. More than this in a header is no limit, and 0 would be the end of the mount: both are ignored."""

_TICK = 1e-6
"""Tokens, and seconds: what floating point may lose is not waited for."""


@dataclass(frozen=True, slots=True)
class Headroom:
    """What a rate limit leaves."""

    kind: Kind
    limit: int | None
    """Requests a second that the server allows; None where it has named no limit."""
    rate: float | None
    """Requests a second that are sent at most at present: less than the limit after an answer 429."""
    available: float | None
    """Requests that may go out at once."""
    pause: float
    """Seconds for which the server has asked for nothing at all."""


class TokenBucket:
    """Gives tokens at the rate of one limit; those in the background get theirs when nobody else wants one.

    `usual`: requests a second that the platform documents. Where `assumed` is false nothing is limited until
    the server names its limit, or answers 429. Runs on trio's clock.

    INVARIANT: the task that holds a lane's lock is the one whose turn is next in that lane.
    """

    def __init__(self, usual: int, *, assumed: bool) -> None:
        self._usual = usual
        self._limit = usual if assumed else None
        self._tokens = usual * BURST if assumed else 0.0
        self._share = 1.0
        self._counted_at = trio.current_time()
        self._paused_until = -math.inf
        self._slowed_at = -math.inf
        self._foreground = trio.Lock()
        self._background = trio.Lock()

    @property
    def rate(self) -> float | None:
        """Tokens a second at present; None when there is no limit."""
        return None if self._limit is None else self._limit * REFILL * self._share

    def headroom(self, kind: Kind) -> Headroom:
        """Tell what is left."""
        if self._limit is None:
            return Headroom(kind, None, None, None, 0.0)
        self._refill()
        return Headroom(kind, self._limit, self.rate, max(0.0, self._tokens), self._pause())

    async def take(self, *, patience: float) -> None:
        """Wait for a token. Checkpoints only where there is a limit; cancelled, it took nothing.

        Raises RateLimited at once when the server asked for a pause that lasts longer than `patience` seconds.
        """
        if self._limit is None:
            return
        background = is_background()
        async with self._background if background else self._foreground:
            begun = trio.current_time()
            while (wait := self._wait(begun, background=background)) > 0:
                if self._pause() > patience:
                    raise RateLimited(f"the store asks for a pause of {self._pause():.0f} s more")
                await trio.sleep(wait)
            self._tokens -= 1

    def learn(self, header: str | None) -> None:
        """Take over what an answer's X-RateLimit-Limit says. Ignores what is none."""
        if header is None or not re.fullmatch(r"\d{1,9}", header.strip(), re.ASCII):
            return
        limit = int(header)
        if limit == self._limit or not 1 <= limit <= LARGEST_LIMIT:
            return
        if self._limit is not None:
            self._refill()
        self._limit = limit
        self._counted_at = max(self._counted_at, trio.current_time())
        self._tokens = min(self._tokens, self._most())

    def slow_down(self, retry_after: float | None) -> None:
        """Heed a 429: all calls of the bucket wait as long as it asks for, then come at half the rate."""
        now = trio.current_time()
        if self._limit is None:
            self._limit = self._usual
        if now - self._slowed_at >= SAME_BURST:
            self._refill()
            self._share = max(SLOWEST, self._share / 2)
            self._slowed_at = now
        self._tokens = min(self._tokens, 0.0)
        if retry_after is not None:
            self._paused_until = max(self._paused_until, now + min(retry_after, LONGEST_PAUSE))
        self._counted_at = max(now, self._paused_until)

    def _wait(self, begun: float, *, background: bool) -> float:
        """Seconds until it is worth looking again; 0 when there is a token to take."""
        if (pause := self._pause()) > 0:
            return pause
        self._refill()
        needed = 1.0
        if background and trio.current_time() - begun < LONGEST_YIELD:
            if self._foreground.locked():
                return 1 / self._rate()
            needed = max(1.0, self._most() * RESERVE)
        missing = needed - self._tokens
        return missing / self._rate() if missing > _TICK else 0.0

    def _pause(self) -> float:
        left = self._paused_until - trio.current_time()
        return left if left > _TICK else 0.0

    def _refill(self) -> None:
        now = trio.current_time()
        elapsed = max(0.0, now - self._counted_at)
        self._tokens = min(self._most(), self._tokens + elapsed * self._rate())
        self._share = min(1.0, self._share + elapsed * RECOVERY)
        self._counted_at = max(self._counted_at, now)

    def _rate(self) -> float:
        return self.rate or math.inf

    def _most(self) -> float:
        # Below 1 nobody would ever get a token.
        return max(1.0, (self._limit or 0) * BURST)


class Limits:
    """The buckets of one API: two for each store. `assumed`: whether the platform's limits hold unasked."""

    def __init__(self, *, assumed: bool) -> None:
        self._assumed = assumed
        self._buckets: dict[tuple[str, Kind], TokenBucket] = {}

    def bucket(self, store: str, kind: Kind) -> TokenBucket:
        """Give the bucket for calls of a kind to a store; "" stands for none of them."""
        found = self._buckets.get((store, kind))
        if found is None:
            found = TokenBucket(PLATFORM_LIMITS[kind], assumed=self._assumed)
            self._buckets[store, kind] = found
        return found

    def headroom(self, store: str) -> list[Headroom]:
        """Tell what the buckets of a store have left; of those that were never asked nothing is known."""
        return [bucket.headroom(kind) for (name, kind), bucket in self._buckets.items() if name == store]
