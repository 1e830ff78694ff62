"""How long a fleet of mounts takes under the rate limits: the mount's own buckets and retries, on a mock clock.

    python bench/fleet.py [--files 2000] [--mounts 1,4,16,64]

Each mount reads its share of the files of one store, one request each, 32 at a time; the platform answers 429 past 200
requests in a second, whoever sends them, as it counts a store. Each mount has a bucket of its own
(`kvsfs.store.limit`): alone none is refused, together they learn of one another by refusals. Simulated seconds.
"""

from __future__ import annotations

import argparse
import random
from collections import deque
from dataclasses import dataclass

import trio
from trio.testing import MockClock

from kvsfs.errors import RateLimited, StoreError
from kvsfs.store.limit import PLATFORM_LIMITS, Limits
from kvsfs.store.retry import Deadlines, Transient, retrying

ROUND_TRIP = 0.05
"""Seconds of one request."""

AT_ONCE = 32
"""Requests of one mount that are under way."""

TOTAL = Deadlines(total=30.0)


class Platform:
    """One store's limit: at most so many requests answered in any second."""

    def __init__(self) -> None:
        self._answered: deque[float] = deque()
        self.requests = 0
        self.refused = 0

    async def ask(self) -> bool:
        """Answer after a round trip; False is a 429."""
        self.requests += 1
        now = trio.current_time()
        while self._answered and self._answered[0] <= now - 1:
            self._answered.popleft()
        accepted = len(self._answered) < PLATFORM_LIMITS["record"]
        if accepted:
            self._answered.append(now)
        else:
            self.refused += 1
        await trio.sleep(ROUND_TRIP)
        return accepted


@dataclass(frozen=True)
class Outcome:
    mounts: int
    seconds: float
    requests: int
    refused: int
    failed: int
    """Reads that ran into the mount's deadline."""


class Mount:
    """What one mount sends."""

    def __init__(self, platform: Platform, reads: int) -> None:
        self._platform = platform
        self._left = reads
        self.failed = 0

    async def read_all(self) -> None:
        self._bucket = Limits(assumed=True).bucket("store", "record")
        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(self._read)

    async def _read(self) -> None:
        while self._left:
            self._left -= 1
            try:
                await retrying(
                    self._attempt, deadlines=TOTAL, subject="a record", on_retry=_nothing, on_give_up=_nothing
                )
            except StoreError:
                self.failed += 1

    async def _attempt(self) -> None:
        await self._bucket.take(patience=TOTAL.total)
        if not await self._platform.ask():
            self._bucket.slow_down(None)
            raise Transient(RateLimited("too many requests"))


def _nothing() -> None:
    pass


def simulate(mounts: int, files: int) -> Outcome:
    """Let so many mounts read `files` records together. Deterministic."""
    random.seed(mounts)

    async def run() -> Outcome:
        platform = Platform()
        fleet = [Mount(platform, files * (n + 1) // mounts - files * n // mounts) for n in range(mounts)]
        begun = trio.current_time()
        async with trio.open_nursery() as nursery:
            for mount in fleet:
                nursery.start_soon(mount.read_all)
        seconds = trio.current_time() - begun
        failed = sum(mount.failed for mount in fleet)
        return Outcome(mounts, seconds, platform.requests, platform.refused, failed)

    return trio.run(run, clock=MockClock(autojump_threshold=0))


def table(outcomes: list[Outcome], files: int) -> str:
    rows = ["| mounts | seconds | files/s | requests | refused (429) | failed |", "|--:|--:|--:|--:|--:|--:|"]
    rows += [
        f"| {o.mounts} | {o.seconds:.1f} | {files / o.seconds:.0f} | {o.requests:,} | {o.refused:,} | {o.failed:,} |"
        for o in outcomes
    ]
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--mounts", default="1,2,4,16,64")
    given = parser.parse_args()
    outcomes = [simulate(int(mounts), given.files) for mounts in given.mounts.split(",")]
    print(table(outcomes, given.files))


if __name__ == "__main__":
    main()
