"""Settings: how options, environment and defaults are read."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from decimal import Decimal
from urllib.parse import urlsplit

API_URL = "https://api.apify.com"

_API_URL_SHAPE = re.compile(r"https?://([\w.-]+|\[[0-9a-f:.]+\])(:\d+)?(/[\w./~%-]*)?", re.IGNORECASE)
"""Neither `@` nor `?`: nothing that a password or a token could stand in."""

DURATION = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*(ms|s|m|h)")

SIZE = re.compile(r"(\d+)\s*(B|KiB|MiB|GiB|)")

BYTES = {"": 1, "B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}

SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str) -> float:
    """Read `20ms`, `1.5s`, `5m` or `1h`; a bare `0` needs no unit. Returns seconds. Raises ValueError."""
    match = DURATION.fullmatch(text.strip())
    if match:
        number, unit = match.groups()
        return float(number) * SECONDS[unit]
    if text.strip() == "0":
        return 0.0
    raise ValueError(f"{text!r} is not a duration: write a number and ms, s, m or h, as in 20ms or 1.5s")


def parse_size(text: str) -> int:
    """Read `4096`, `64KiB`, `10MiB` or `5GiB`. Returns bytes. Raises ValueError."""
    match = SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size: write a number and KiB, MiB or GiB, as in 64KiB")
    return int(match[1]) * BYTES[match[2]]


def show_duration(seconds: float) -> str:
    """Write a duration so that `parse_duration` gives exactly it again."""
    for unit in ("h", "m"):
        if seconds and seconds % SECONDS[unit] == 0:
            return f"{seconds / SECONDS[unit]:.0f}{unit}"
    return f"{Decimal(repr(seconds)).normalize():f}s"


def show_size(size: int) -> str:
    """Write a number of bytes so that `parse_size` gives exactly it again."""
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % BYTES[unit] == 0:
            return f"{size // BYTES[unit]}{unit}"
    return str(size)


def check_api_url(url: str) -> None:
    """Raise ValueError for what cannot be an API's address. It does not repeat it: a password may be inside."""
    with contextlib.suppress(ValueError):  # urlsplit's, which quotes the URL
        if _API_URL_SHAPE.fullmatch(url) and urlsplit(url).port != 0:
            return
    raise ValueError(
        "the API's URL must read https://HOST or http://HOST, with :PORT if need be, and without user or password: "
        "see --api-url and APIFY_API_BASE_URL; a token goes into APIFY_TOKEN or --token-file"
    )


def folder_for(variable: str, fallback: str) -> str:
    """Give kvsfs's own folder below an XDG base directory, which `variable` may move."""
    return os.path.join(os.environ.get(variable) or os.path.expanduser(fallback), "kvsfs")


def local_data_folder() -> str:
    """Where the embedded server of `local:` keeps its records."""
    return folder_for("XDG_DATA_HOME", "~/.local/share")


def cache_folder(identity: str) -> str:
    """Give the cache folder of the store that `identity` names: hashed, so that no name can lead out of it."""
    digest = hashlib.sha256(identity.encode()).hexdigest()[:32]
    return os.path.join(folder_for("XDG_CACHE_HOME", "~/.cache"), digest)


def config_files() -> tuple[str, str]:
    """Give the configuration files: the user's, which counts more, and the machine's."""
    return os.path.join(folder_for("XDG_CONFIG_HOME", "~/.config"), "config.toml"), "/etc/kvsfs.toml"


def log_file(mount_point: str) -> str:
    """Where a mount in the background logs to."""
    name = mount_point.strip("/").replace("/", "-") or "root"
    return os.path.join(folder_for("XDG_STATE_HOME", "~/.local/state"), f"{name[:200]}.log")
