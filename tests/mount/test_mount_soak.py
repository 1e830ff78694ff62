"""Many processes at work for a while, and thousands of opens: every byte is where it belongs, and nothing leaks."""

from __future__ import annotations

import contextlib
import os
import re
import select
from pathlib import Path

import pytest

from kvsfs.core import names
from kvsfs.types import RecordKey
from tests.mount.conftest import Mount
from tests.support.load import History, working
from tests.support.mounting import Mounted, wait_until
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse

WORKERS = 16
DRAIN_SECONDS = 60.0

WARM_UP = 500
"""Cycles before the first look: by then every cache that has a bound is full."""

LEAK_BYTES = 8 * 1024 * 1024
"""What the daemon may grow by, however many cycles: a fragmented heap, no record of each (50,000 of 160 bytes)."""

MODES = {"default": (), "write-back": ("--write-back", "0.2s")}


def soak(mount: Mount, store: StoreApi, folder: Path, mode: str, seconds: float) -> None:
    history, logs = History(), [folder / f"w{number}" for number in range(WORKERS)]
    with mount(*MODES[mode], within=seconds + 3 * DRAIN_SECONDS) as mounted:
        with contextlib.ExitStack() as stack:
            for log in logs:
                stack.enter_context(working(mounted.path, log, "1", {}))
            select.select([], [], [], seconds)
        for log in logs:
            history.read(log)
        shown = {
            str(path.relative_to(mounted.path)): path.read_bytes()
            for path in mounted.path.rglob("*")
            if path.is_file()
        }
        mounted.umount(within=DRAIN_SECONDS)
    stored = {
        os.fsdecode(names.decode(RecordKey(key))): store.content(key)
        for key in store.sizes()
        if not key.endswith("!2F")
    }
    assert history.faults(shown) == []
    assert history.faults(stored) == []
    assert shown == stored
    assert history.failed == 0
    assert history.acknowledged > 10 * WORKERS


@pytest.mark.parametrize("mode", MODES)
def test_a_soak(mount: Mount, store: StoreApi, tmp_path: Path, mode: str) -> None:
    soak(mount, store, tmp_path, mode, seconds=7)


@pytest.mark.long
@pytest.mark.parametrize("mode", MODES)
def test_a_soak_at_length(mount: Mount, store: StoreApi, tmp_path: Path, mode: str) -> None:
    soak(mount, store, tmp_path, mode, seconds=120)


def descriptors(mounted: Mounted) -> int:
    return len(os.listdir(f"/proc/{mounted.pid}/fd"))


def resident_bytes(mounted: Mounted) -> int:
    status = Path(f"/proc/{mounted.pid}/status").read_text()
    found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def cycle(folder: Path, number: int) -> None:
    """Open and close; now and then write, make and remove a file."""
    path = folder / f"f{number % 20}"
    if number % 10 == 0:
        path.write_bytes(b"%d" % number)
    elif number % 10 == 5:
        temporary = folder / f"{number}.tmp"
        temporary.write_bytes(b"%d" % number)
        temporary.unlink()
    else:
        path.read_bytes()


def open_and_close(mount: Mount, store: StoreApi, cycles: int) -> None:
    for number in range(20):
        store.put(f"f{number}", b"content")
    with mount("--write-back", "0s", "--revalidate", "1h", within=900) as mounted:
        for number in range(WARM_UP):
            cycle(mounted.path, number)
        before, memory = descriptors(mounted), resident_bytes(mounted)
        for number in range(cycles):
            cycle(mounted.path, number)
        wait_until(lambda: descriptors(mounted) <= before)
        assert resident_bytes(mounted) - memory < LEAK_BYTES


def test_opens_leak_neither_descriptors_nor_memory(mount: Mount, store: StoreApi) -> None:
    open_and_close(mount, store, 3000)


@pytest.mark.long
def test_50000_opens_leak_neither_descriptors_nor_memory(mount: Mount, store: StoreApi) -> None:
    open_and_close(mount, store, 50_000)
