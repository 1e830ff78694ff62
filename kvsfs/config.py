"""Settings: how options, environment and defaults are read."""

from __future__ import annotations

import re

DURATION = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*(ms|s|m|h)")

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
