"""What is told of the traffic with the store."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvsfs.metrics import REMEMBERED, Latency, StoreMeter


@given(st.lists(st.floats(0, 100), min_size=1))
def test_percentiles_were_seen_and_are_in_order(seconds: list[float]) -> None:
    latency = Latency.of(seconds)
    assert {latency.p50, latency.p95, latency.p99} <= set(seconds)
    assert latency.p50 <= latency.p95 <= latency.p99 <= max(seconds)


def test_percentiles() -> None:
    assert Latency.of(range(100)) == Latency(50, 95, 99)
    assert Latency.of([3.0]) == Latency(3, 3, 3)
    with pytest.raises(ValueError, match="no latencies"):
        Latency.of([])


def test_only_the_last_latencies_count_and_a_snapshot_does_not_change() -> None:
    meter = StoreMeter()
    for _ in range(REMEMBERED):
        meter.observe("get_record", 9.0)
    before = meter.snapshot()
    for _ in range(REMEMBERED):
        meter.observe("get_record", 0.1)
    meter.count_wait(0.5)
    assert before.latencies == {"get_record": Latency(9, 9, 9)}
    assert meter.snapshot().latencies == {"get_record": Latency(0.1, 0.1, 0.1)}
    assert (before.waited_seconds, meter.snapshot().waited_seconds) == (0, 0.5)
