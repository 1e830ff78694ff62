"""What is on the disk before a close is acknowledged, by the daemon's system calls: a power failure cannot
be tried."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kvsfs.core.tuning import GRACE
from tests.mount.conftest import Mount
from tests.support.mounting import LEAVING_SECONDS, Mounted, wait_until

pytestmark = pytest.mark.fuse


@contextmanager
def traced(mounted: Mounted, log: Path) -> Iterator[Callable[[], list[str]]]:
    """Note what the daemon syncs, and give it in its order: blob, dirty, log."""
    if shutil.which("strace") is None:
        pytest.fail("strace is missing: ./dev setup installs it")
    command = ["strace", "-f", "-y", "-qq", "-e", "trace=fsync,fdatasync", "-o", str(log)]
    tracer = subprocess.Popen([*command, "-p", str(mounted.pid)], stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: _is_traced(mounted.pid) or tracer.poll() is not None)
        if tracer.poll() is not None:
            assert tracer.stderr is not None
            pytest.skip(f"no process can be traced here: {tracer.stderr.read().strip()}")
        yield lambda: [_name(path) for path in _synced(log)]
    finally:
        tracer.terminate()
        tracer.wait(LEAVING_SECONDS)
        assert tracer.stderr is not None
        tracer.stderr.close()


def _is_traced(pid: int) -> bool:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return all("\nTracerPid:\t0\n" not in (thread / "status").read_text() for thread in threads)


def _synced(log: Path) -> list[str]:
    """Give the paths in the order in which their syncs ended, also those that other threads interrupted."""
    begun: dict[str, str] = {}
    ended = []
    for line in log.read_text().splitlines():
        thread, _, call = line.partition(" ")
        if (path := re.search(r"sync\(\d+<([^>]*)>", call)) is not None:
            begun[thread] = path[1]
        if call.endswith("= 0"):
            ended.append(begun[thread])
    return ended


def _name(path: str) -> str:
    folder, name = os.path.split(path)
    return "blob" if os.path.basename(folder) == "dirty" else name


ACKNOWLEDGED = ["blob", "dirty", "journal.db-wal"]
"""The bytes, the name of the file that has them, and the row that knows it."""


def test_a_close_with_write_back(mount: Mount, tmp_path: Path) -> None:
    with (
        mount("--cache-dir", str(tmp_path / "cache"), "--write-back", "1h") as mounted,
        traced(mounted, tmp_path / "trace") as synced,
    ):
        (mounted.path / "f").write_bytes(b"bytes")
        assert sorted(synced()) == ACKNOWLEDGED
        with (mounted.path / "f").open("ab") as file:
            file.write(b"more")
            file.flush()
            os.fsync(file.fileno())
            assert sorted(synced()) == sorted(2 * ACKNOWLEDGED)


def test_a_temporary_files_close_and_its_rename(mount: Mount, tmp_path: Path) -> None:
    with (
        mount("--cache-dir", str(tmp_path / "cache"), "--rename-grace", f"{30 * GRACE:g}s") as mounted,
        traced(mounted, tmp_path / "trace") as synced,
    ):
        (mounted.path / "f.tmp").write_bytes(b"bytes")
        assert sorted(synced()) == ACKNOWLEDGED
        (mounted.path / "f.tmp").rename(mounted.path / "f~")
        assert "journal.db-wal" in synced()[len(ACKNOWLEDGED) :]


def test_a_close_that_the_store_confirms_waits_for_no_disk(mount: Mount, tmp_path: Path) -> None:
    with (
        mount("--cache-dir", str(tmp_path / "cache")) as mounted,
        traced(mounted, tmp_path / "trace") as synced,
    ):
        (mounted.path / "f").write_bytes(b"bytes")
        assert synced() == []
