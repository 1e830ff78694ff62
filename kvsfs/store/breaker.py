"""A circuit breaker: when the API is gone, calls fail at once instead of each finding out by itself.

Closed, it lets every call pass. It opens when calls have failed for good, their retries used up, and nothing
was answered meanwhile. Open, it lets one attempt pass at a time as a probe, further and further apart; any
answer closes it.

A probe is a normal call, and nobody waits for its end: the next one goes when its time has come. So there is
no state in which a probe that was cancelled, or hangs, keeps the others from finding the store again.
"""

from __future__ import annotations

import logging
import random

import trio

from kvsfs.errors import StoreUnreachable

log = logging.getLogger(__name__)

SILENT_SUBJECTS = 3
"""So many different records or stores must have failed: one that is slow to answer says nothing of the rest."""

FAILED_CONNECTS = 2
"""A connection that cannot be had says something of the API whatever it was for. One may be a lost packet."""

FIRST_PROBE = 0.5
"""Seconds until the first probe. The time doubles from there."""

LAST_PROBE = 5.0
"""Seconds between probes at the most: what someone waits who sees that the network is back."""


class Breaker:
    """Knows whether the API answers. No method checkpoints. Runs on trio's clock."""

    def __init__(self) -> None:
        self._answered_at: float | None = None
        self._has_answered = False
        self._asked: set[str] = set()
        self._failed: set[str] = set()
        self._failed_connects = 0
        self._probes = 0
        self._next_probe: float | None = None
        """None while closed."""

    @property
    def is_open(self) -> bool:
        """Whether calls fail at once."""
        return self._next_probe is not None

    def check(self, subject: str) -> None:
        """Let an attempt about `subject` pass. Raises StoreUnreachable when the breaker is open and no probe is due."""
        now = trio.current_time()
        if self._answered_at is None:
            self._answered_at = now
        if self._next_probe is None:
            return
        if now < self._next_probe:
            raise StoreUnreachable(
                f"{subject}: the store has not answered for {now - self._answered_at:.0f} s; "
                f"trying again in {self._next_probe - now:.1f} s"
            )
        self._schedule_probe()

    def asked(self, subject: str) -> None:
        """Note that a request about `subject` is going out."""
        self._asked.add(subject)

    def could_not_connect(self) -> None:
        """Note that an attempt got no connection."""
        self._failed_connects += 1

    def answered(self) -> None:
        """Note an answer that is not the API's failure: a refusal counts, too. Closes the breaker."""
        if self.is_open:
            log.info("the store answers again")
        self._answered_at, self._has_answered = trio.current_time(), True
        self._asked.clear()
        self._failed.clear()
        self._failed_connects = self._probes = 0
        self._next_probe = None

    def gave_up(self, subject: str) -> None:
        """Note that a call about `subject` failed for good. May open the breaker.

        One that has never been sent since the last answer counts for nothing: it waited for its turn.
        """
        if self.is_open or subject not in self._asked:
            return
        self._failed.add(subject)
        if len(self._failed) >= SILENT_SUBJECTS or self._failed_connects >= FAILED_CONNECTS:
            if self._has_answered:  # else the command that has just begun says it
                log.info("the store does not answer: calls fail at once until it does")
            self._schedule_probe()

    def _schedule_probe(self) -> None:
        longest = min(LAST_PROBE, FIRST_PROBE * 2.0 ** min(self._probes, 10))
        self._probes += 1
        # Between half and all of it: clients that lost the store together do not come back together.
        self._next_probe = trio.current_time() + longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
