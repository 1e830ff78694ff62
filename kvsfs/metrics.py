"""Counters of the traffic with the store: what a user is billed for and what a slow mount waits for.

A `StoreMeter` is handed to the client by whoever builds it and belongs to one event loop. There is no
global one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType

REMEMBERED = 512
"""Requests of an operation whose latencies are kept: enough for a 99th percentile that means something now."""


BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds, the upper bounds of a histogram: from a server next door to the time-out of a request."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds from a request's start to its answer's headers: of half, of 95 and of 99 in a hundred no more."""

    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, seconds: Collection[float]) -> Latency:
        """Take the percentiles, each a latency that was seen. ValueError for none."""
        ordered = sorted(seconds)
        if not ordered:
            raise ValueError("no latencies")
        return cls(*(ordered[min(len(ordered) - 1, len(ordered) * part // 100)] for part in (50, 95, 99)))


@dataclass(slots=True)
class Histogram:
    """How long all requests of an operation took, since the mount began: what monitoring makes its rates of."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    """Of each of `BUCKETS`, and above them; none is counted twice."""
    total_seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total_seconds += seconds


@dataclass(frozen=True, slots=True)
class StoreTraffic:
    """What went over the wire until one moment."""

    requests: Mapping[str, int]
    """HTTP requests sent, by operation (`get_record`); a retry and a redirect are requests of their own."""
    sent_bytes: int
    """Bytes of request bodies, as sent: compressed where they were compressed."""
    received_bytes: int
    """Bytes of answers' bodies, as received."""
    retries: int
    rate_limited: int
    """Answers 429."""
    waited_seconds: float
    """What calls waited for their turn, all of them together, so that there be no 429: 0 where there is room."""
    latencies: Mapping[str, Latency]
    """By operation, of the last requests that were answered."""
    durations: Mapping[str, Histogram]
    """By operation, of all requests that were answered."""

    @property
    def total_requests(self) -> int:
        """All requests, whatever the operation."""
        return sum(self.requests.values())


class StoreMeter:
    """Counts up; `snapshot` tells."""

    def __init__(self) -> None:
        self._requests: Counter[str] = Counter()
        self._sent_bytes = 0
        self._received_bytes = 0
        self._retries = 0
        self._rate_limited = 0
        self._waited_seconds = 0.0
        self._latencies: defaultdict[str, deque[float]] = defaultdict(partial(deque, maxlen=REMEMBERED))
        self._durations: defaultdict[str, Histogram] = defaultdict(Histogram)

    def count_request(self, operation: str) -> None:
        """Count one request of `operation`."""
        self._requests[operation] += 1

    def count_sent(self, size: int) -> None:
        """Count bytes of a request's body."""
        self._sent_bytes += size

    def count_received(self, size: int) -> None:
        """Count bytes of an answer's body."""
        self._received_bytes += size

    def count_retry(self) -> None:
        """Count a request that repeats a failed one."""
        self._retries += 1

    def count_rate_limited(self) -> None:
        """Count an answer 429."""
        self._rate_limited += 1

    def count_wait(self, seconds: float) -> None:
        """Count what a call waited for its turn."""
        self._waited_seconds += seconds

    def observe(self, operation: str, seconds: float) -> None:
        """Remember how long an answer to `operation` took."""
        self._latencies[operation].append(seconds)
        self._durations[operation].add(seconds)

    def snapshot(self) -> StoreTraffic:
        """Give the counters as they are now; the result does not change any more."""
        return StoreTraffic(
            requests=MappingProxyType(dict(self._requests)),
            sent_bytes=self._sent_bytes,
            received_bytes=self._received_bytes,
            retries=self._retries,
            rate_limited=self._rate_limited,
            waited_seconds=self._waited_seconds,
            latencies=MappingProxyType({name: Latency.of(kept) for name, kept in self._latencies.items()}),
            durations=MappingProxyType(deepcopy(dict(self._durations))),
        )
