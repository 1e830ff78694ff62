"""A mount's status as metrics for Prometheus: its names, its units, and no secret in any label.

https://prometheus.io/docs/practices/naming/: base units, `_total` for what only counts up.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from kvsfs.control.status import Status
from kvsfs.control.told import MOUNTED, Told
from kvsfs.metrics import BUCKETS, Histogram

_COUNTERS = (
    ("kvsfs_store_sent_bytes", "Bytes of request bodies, as sent.", "sent_bytes"),
    ("kvsfs_store_received_bytes", "Bytes of answers' bodies, as received.", "received_bytes"),
    ("kvsfs_store_retries", "Requests that repeat a failed one.", "retries"),
    ("kvsfs_store_rate_limited", "Answers 429.", "rate_limited"),
    ("kvsfs_store_wait_seconds", "What calls waited for their turn below the rate limits.", "waited_seconds"),
)
"""Name, help, and the field of a status's `store_traffic`."""

_LIMITS = (
    ("kvsfs_store_rate_limit", "Requests a second that the store allows.", "limit"),
    ("kvsfs_store_rate_available", "Requests that may go out at once.", "available"),
    (
        "kvsfs_store_rate_pause_seconds",
        "For how much longer the store has asked to be left alone.",
        "pause",
    ),
)


class StatusCollector(Collector):
    """Asks a mount's status each time that it is asked: nothing is counted twice over."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """Give all metrics. Raises OSError."""
        told = self._status.now()
        yield from _mount(told)
        yield from _files(told)
        yield from _kernel(told)
        yield from _store(told["store_traffic"])
        yield _durations(self._status.durations())


class Exposition:
    """Writes the metrics of a mount and of its process, in the format that the asker prefers."""

    def __init__(self, status: Status) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(StatusCollector(status))
        ProcessCollector(registry=self._registry)

    def write(self, accept: str) -> tuple[str, bytes]:
        """Give the content type and the content for an Accept header. No checkpoint. Raises OSError."""
        encode, content_type = choose_encoder(accept)
        return content_type, encode(self._registry)


def _mount(told: Told) -> Iterator[Metric]:
    store = told["store"]
    mode = "read-only" if told["read_only"] else "read-write"
    if told["write_back_seconds"] is not None:
        mode = "write-back"
    about = {
        "version": told["version"],
        "source": told["source"],
        "mount_point": told["mount_point"],
        "store": store["name"] or store["id"] or told["source"],
        "mode": mode,
    }
    yield InfoMetricFamily("kvsfs_mount", "What is mounted where.", {k: _text(v) for k, v in about.items()})
    started = time.time() - told["uptime_seconds"]
    yield GaugeMetricFamily("kvsfs_mount_start_time_seconds", "Since 1970, when the mount began.", started)
    mounted = told["state"] == MOUNTED
    yield GaugeMetricFamily("kvsfs_mounted", "1 while it is in the tree, 0 while it still uploads.", mounted)


def _files(told: Told) -> Iterator[Metric]:
    left, cache = told["left"], told["cache"]
    closed = [upload["closed_at"] for upload in told["uploads"] if not upload["failed"]]
    oldest = max(0.0, time.time() - min(closed)) if closed else 0.0
    for name, about, value in (
        ("kvsfs_pending_files", "Files to be uploaded or stored under a new name.", left["files"]),
        ("kvsfs_pending_bytes", "Bytes of these.", left["bytes"]),
        ("kvsfs_pending_removals", "Removals that the store has not done.", left["removals"]),
        ("kvsfs_pending_oldest_seconds", "Since the close of the file that waits longest.", oldest),
        ("kvsfs_failed_files", "Files that the store has refused for good.", left["failed"]),
        ("kvsfs_open_changed_files", "Files being written.", told["open_and_changed"]),
        ("kvsfs_cache_clean_bytes", "Bytes in the cache that the store has, too.", cache["clean_bytes"]),
        ("kvsfs_cache_limit_bytes", "What these may take.", cache["limit_bytes"]),
        ("kvsfs_local_only_files", "Files that no store is to have.", cache["local_only_files"]),
    ):
        yield GaugeMetricFamily(name, about, value)
    yield _counter("kvsfs_opened_files", "Opened files, by where their bytes were.", "bytes", told["opened"])


def _kernel(told: Told) -> Iterator[Metric]:
    yield _counter("kvsfs_kernel_requests", "Requests of the kernel.", "request", told["kernel_requests"])
    yield _counter("kvsfs_kernel_errors", "Requests answered with an error.", "errno", told["kernel_errors"])


def _store(traffic: Told) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "kvsfs_store_up", "Whether the store answered when last asked.", traffic["answers"]
    )
    yield _counter("kvsfs_store_requests", "HTTP requests sent.", "operation", traffic["requests"])
    for name, about, fieldname in _COUNTERS:
        yield CounterMetricFamily(name, about, traffic[fieldname])
    for name, about, fieldname in _LIMITS:
        gauge = GaugeMetricFamily(name, about, labels=["kind"])
        for kind, room in traffic["rate_limits"].items():
            if room[fieldname] is not None:
                gauge.add_metric([kind], room[fieldname])
        yield gauge


def _counter(name: str, about: str, label: str, counts: Mapping[str, Any]) -> Metric:
    family = CounterMetricFamily(name, about, labels=[label])
    for key, count in counts.items():
        family.add_metric([key], count)
    return family


def _durations(durations: Mapping[str, Histogram]) -> Metric:
    about = "From an HTTP request to its answer's headers."
    family = HistogramMetricFamily("kvsfs_store_request_duration_seconds", about, labels=["operation"])
    for operation, histogram in durations.items():
        buckets, below = [], 0
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), histogram.counts, strict=True):
            below += count
            buckets.append((bound, below))
        family.add_metric([operation], buckets, histogram.total_seconds)
    return family


def _text(value: str) -> str:
    """Make a label's value of what may hold a file name's bytes: labels are UTF-8."""
    return value.encode(errors="backslashreplace").decode()
