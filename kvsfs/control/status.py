"""What `kvsfs status` tells of a mount, as plain data: names and numbers, no token and no signed URL."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from typing import Any

from kvsfs.cache.stores import StoresOnDisk
from kvsfs.control.told import MOUNTED
from kvsfs.core.mountable import Mountable, Steerable
from kvsfs.core.unstored import Report, Totals
from kvsfs.fuse.operations import failures, requests
from kvsfs.metrics import Histogram, StoreMeter
from kvsfs.store.apify import ApifyStore, ApifyStoreCollection
from kvsfs.types import StoreInfo


@dataclass(frozen=True, slots=True)
class About:
    """What does not change while a mount runs."""

    source: str
    mount_point: str
    info: StoreInfo | None
    """None where all stores of an account are mounted."""
    cache_folder: str
    read_only: bool
    write_back: float | None
    cache_limit: int
    started: float = field(default_factory=time.time)
    """Seconds since 1970."""


class Status:
    """Tells it of a running mount. `state` is whoever runs it to set."""

    def __init__(
        self, about: About, filesystem: Mountable, store: ApifyStore | ApifyStoreCollection, meter: StoreMeter
    ) -> None:
        self.about = about
        self.state = MOUNTED
        self.drains = True
        """Whether the end of the mount waits for what is pending."""
        self.metrics: list[str] = []
        """Where metrics are served."""
        self._filesystem = filesystem
        self._store = store
        self._meter = meter

    @property
    def steering(self) -> Steerable:
        """What steers the mount."""
        return self._filesystem.steering

    def moved(self, info: StoreInfo) -> None:
        """Note that the mount shows another store from here on."""
        self.about = replace(self.about, info=info)

    def durations(self) -> Mapping[str, Histogram]:
        """Give how long the store's answers took, by operation. No checkpoint."""
        return self._meter.snapshot().durations

    def totals(self) -> Totals:
        """Count what is left to do. No checkpoint. Raises OSError."""
        return self._filesystem.unstored.totals()

    def now(self) -> dict[str, Any]:
        """Tell all. No checkpoint. Raises OSError."""
        about, usage = self.about, self._filesystem.cache_usage()
        return {
            "state": self.state,
            "source": about.source,
            "mount_point": about.mount_point,
            "store": {field: getattr(about.info, field, None) for field in ("id", "name")},
            "read_only": about.read_only,
            "write_back_seconds": about.write_back,
            "metrics": self.metrics,
            "pid": os.getpid(),
            "version": version("kvsfs"),
            "uptime_seconds": round(time.time() - about.started, 3),
            "cache": {
                "folder": about.cache_folder,
                "clean_bytes": usage.clean_bytes,
                "limit_bytes": about.cache_limit,
                "local_only_files": local_only_files(about.cache_folder),
            },
            **unstored(self._filesystem.unstored.report()),
            "opened": asdict(usage.opened),
            "kernel_requests": dict(requests),
            "kernel_errors": dict(failures),
            "store_traffic": self._traffic(),
        }

    def _traffic(self) -> dict[str, Any]:
        traffic = self._meter.snapshot()
        return {
            "answers": self._store.answers,
            "requests": dict(traffic.requests),
            "total_requests": traffic.total_requests,
            "sent_bytes": traffic.sent_bytes,
            "received_bytes": traffic.received_bytes,
            "retries": traffic.retries,
            "rate_limited": traffic.rate_limited,
            "waited_seconds": round(traffic.waited_seconds, 3),
            "rate_limits": {room.kind: asdict(room) for room in self._store.headroom()},
            "latency_seconds": {name: asdict(latency) for name, latency in traffic.latencies.items()},
        }


def unstored(report: Report) -> dict[str, Any]:
    """Give what the store does not have: the part that a mount and a folder that nobody uses have in common."""
    return {
        "left": asdict(report.totals),
        "uploads": [asdict(upload) for upload in report.uploads],
        "removals": [asdict(removal) for removal in report.removals],
        "renames": [asdict(rename) for rename in report.renames],
        "folder_renames": [asdict(rename) for rename in report.folder_renames],
        "open_and_changed": report.open,
    }


def local_only_files(cache_folder: str) -> int:
    """Count the files of a cache folder that no store is to have."""
    folders = (cache_folder, *StoresOnDisk.below(cache_folder))
    return sum(len(files) for path in folders for _, _, files in os.walk(os.path.join(path, "local")))
