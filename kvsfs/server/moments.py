"""Times as the server keeps them: milliseconds since 1970, UTC, which is what the API shows."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_ms(moment: datetime) -> int:
    """Milliseconds since 1970."""
    return (moment - EPOCH) // timedelta(milliseconds=1)


def from_ms(milliseconds: int) -> datetime:
    """Inverse of `to_ms`."""
    return EPOCH + timedelta(milliseconds=milliseconds)


def now_ms() -> int:
    """Milliseconds since 1970, now."""
    return time.time_ns() // 1_000_000
