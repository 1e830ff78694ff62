"""Counters of the traffic with the store: what a user is billed for and what a slow mount waits for.

A `StoreMeter` is handed to the client by whoever builds it and belongs to one event loop. There is no
global one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


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

    def snapshot(self) -> StoreTraffic:
        """Give the counters as they are now; the result does not change any more."""
        return StoreTraffic(
            requests=MappingProxyType(dict(self._requests)),
            sent_bytes=self._sent_bytes,
            received_bytes=self._received_bytes,
            retries=self._retries,
            rate_limited=self._rate_limited,
        )
