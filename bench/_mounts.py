"""Mounts to measure: kvsfs and what it is compared with, each on the settings that suit the work best.

Each is a process in the foreground with a home and a cache of its own, and is unmounted and ended whatever
happens. Mounted on the same `home` again, it finds its cache; on a new one it is cold.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from _stores import Store

READY_SECONDS = 30
LEAVING_SECONDS = 300
"""s3fs and rclone may upload until then."""

READ_AHEAD_KIB = 1024
"""What kvsfs sets for itself where it may; the control gets the same. The kernel's default is 128."""

KVSFS = ["kvsfs", "mount", "-f"]

RCLONE = [
    *(
        "rclone",
        "mount",
        "--config=",
        "--s3-provider=Other",
        "--s3-access-key-id=a",
        "--s3-secret-access-key=b",
    ),
    "--s3-no-check-bucket",  # each of these four saves a request
    "--s3-no-head",
    "--s3-no-head-object",
    "--no-checksum",
    "--vfs-cache-mode=full",
    "--dir-cache-time=1h",
    "--attr-timeout=1s",
    "--transfers=64",
]

S3FS = [
    *("s3fs", "-f", "-o", "use_path_request_style,enable_noobj_cache,notsup_compat_dir,listobjectsv2"),
    *("-o", "multireq_max=64,parallel_count=64,max_stat_cache_size=200000,check_cache_dir_exist"),
]


@dataclass(frozen=True)
class Mount:
    path: Path
    pid: int
    home: Path

    def cpu_seconds(self) -> float:
        """What the daemon has used of the CPU so far, with its threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def kvsfs(store: Store, home: Path, *options: str) -> Iterator[Mount]:
    command = [sys.executable, "-m", *KVSFS, "--api-url", store.url, *options, "--", store.name]
    with _mounted(command, home, APIFY_TOKEN=store.token) as mount:
        yield mount


@contextlib.contextmanager
def rclone(store: Store, home: Path, *options: str) -> Iterator[Mount]:
    command = [*RCLONE, f"--s3-endpoint={store.url}", f"--cache-dir={home / 'cache'}", *options]
    with _mounted([*command, f":s3:{store.name}"], home) as mount:
        yield mount


@contextlib.contextmanager
def s3fs(store: Store, home: Path, *options: str) -> Iterator[Mount]:
    words = ["-o", f"url={store.url}", "-o", f"use_cache={home / 'cache'}"]
    keys = {"AWSACCESSKEYID": "a", "AWSSECRETACCESSKEY": "b"}
    with _mounted([*S3FS, *words, *options, store.name], home, **keys) as mount:
        yield mount


@contextlib.contextmanager
def passthrough(file: Path, home: Path) -> Iterator[Mount]:
    """The control of cached reads: `file` as `large`, by the least that pyfuse3 can do."""
    script = Path(__file__).with_name("_passthrough.py")
    with _mounted([sys.executable, str(script), str(file)], home) as mount:
        minor = os.stat(mount.path).st_dev
        setting = Path(f"/sys/class/bdi/{os.major(minor)}:{os.minor(minor)}/read_ahead_kb")
        if os.access(setting, os.W_OK):
            setting.write_text(str(READ_AHEAD_KIB))
        yield mount


@contextlib.contextmanager
def _mounted(command: Sequence[str], home: Path, **environment: str) -> Iterator[Mount]:
    path = home / "mnt"
    for folder in (path, home / "cache"):
        folder.mkdir(parents=True, exist_ok=True)
    with (home / "log").open("a") as log:
        process = subprocess.Popen(
            [*command, str(path)],
            env=_environment(home) | environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        _wait_until_mounted(path, process, home / "log")
        yield Mount(path, process.pid, home)
        _detach(path)
        process.wait(LEAVING_SECONDS)
    finally:
        _detach(path, "-z")
        process.kill()
        process.wait()


def _environment(home: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C.UTF-8"}


def _wait_until_mounted(path: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not os.path.ismount(path):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args!r} did not mount:\n{log.read_text()[-2000:]}")
        time.sleep(0.01)


def _detach(path: Path, *options: str) -> None:
    if os.path.ismount(path):
        subprocess.run(
            ["fusermount3", "-u", *options, "--", str(path)], check=not options, capture_output=True
        )
