"""Where and with what it was measured."""

from __future__ import annotations

import datetime as dt
import os
import platform
import re
import subprocess
from importlib.metadata import version
from shutil import which

import _mounts

COMMANDS = {"rclone": ["rclone", "version"], "s3fs": ["s3fs", "--version"], "curl": ["curl", "--version"]}
PACKAGES = ("apify-client", "pyfuse3", "trio", "httpx")


def about() -> dict[str, object]:
    return {
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "CPUs": os.cpu_count(),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": platform.release(),
        "Python": platform.python_version(),
        "versions": {
            **{name: _version(command) for name, command in COMMANDS.items()},
            **{name: version(name) for name in PACKAGES},
        },
        "settings": {
            "rclone": " ".join(_mounts.RCLONE),
            "s3fs": " ".join(_mounts.S3FS),
            "kvsfs": " ".join(_mounts.KVSFS),
        },
    }


def _version(command: list[str]) -> str:
    if which(command[0]) is None:
        return "not here"
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+[.\d]*", ended.stdout)
    return found[0] if found else "unknown"
