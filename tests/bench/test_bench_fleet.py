"""The simulation of a fleet, in small: it answers what the limits themselves say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "bench" / "fleet.py"


def test_one_mount_is_never_refused_and_four_share_the_limit() -> None:
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), "--files", "600", "--mounts", "1,4"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    rows = [
        [float(cell.replace(",", "")) for cell in line.split("|")[1:-1]]
        for line in ended.stdout.splitlines()[2:]
    ]
    (one, *_), (four, *_) = rows[0][:1], rows[1][:1]
    assert (one, four) == (1, 4)
    _, seconds, per_second, requests, refused, failed = rows[0]
    assert (requests, refused, failed) == (600, 0, 0)
    assert seconds >= 600 / 200
    assert 170 <= per_second <= 200
    _, _, per_second, requests, refused, failed = rows[1]
    assert failed == 0
    assert requests == 600 + refused
    assert per_second <= 220  # a burst at the first second's edge
