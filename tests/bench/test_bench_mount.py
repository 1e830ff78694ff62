"""The benchmark of mounts, at sizes that tell nothing about speed: it runs, and what it counts is right."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FILES = 8.0
"""What --tiny copies."""

ROWS = "cp-out,cp-in,rsync-again,read-cached,requests"

SECONDS = 120.0
"""Five mounts, two servers; ten seconds where nothing else runs."""


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("results")
    command = [sys.executable, "bench/mount.py", "--tiny", "--only", ROWS, "--output", str(folder)]
    # Debian's packages are installed by `./dev bench`, not for the tests.
    ended = subprocess.run(
        [*command, "--without", "rclone,s3fs"],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert ended.stderr == ""
    results = json.loads((folder / "results.json").read_text())
    assert str(folder) not in Path("/proc/mounts").read_text()
    return {row["name"]: row for row in results["rows"]}


def requests(row: dict[str, Any], who: str) -> dict[str, float]:
    (figures,) = row["rounds"][who]
    return {name: count for name, count in figures.items() if name in ("GETs", "HEADs", "PUTs", "LISTs")}


@pytest.mark.fuse
def test_everybody_did_the_work(rows: dict[str, Any]) -> None:
    assert list(rows) == ROWS.split(",")
    assert {name: row["faults"] for name, row in rows.items() if row["faults"]} == {}


@pytest.mark.fuse
def test_requests_are_counted_by_contestant(rows: dict[str, Any]) -> None:
    both = {"GETs": FILES, "LISTs": 1.0}
    assert requests(rows["cp-out"], "kvsfs") == both
    assert requests(rows["cp-out"], "official client") == both
    assert requests(rows["cp-in"], "kvsfs")["PUTs"] == FILES
    assert requests(rows["rsync-again"], "kvsfs") == {"PUTs": 0.0, "LISTs": 1.0}


@pytest.mark.fuse
def test_actions_keep_their_budgets(rows: dict[str, Any]) -> None:
    (beside,) = rows["requests"]["rounds"]["kvsfs"]
    assert len(beside) > 10
    assert {action: count for action, count in beside.items() if count} == {}


@pytest.mark.fuse
def test_requests_are_delayed_as_curl_sees_it(rows: dict[str, Any]) -> None:
    (figures,) = rows["cp-in"]["rounds"]["curl"]
    assert figures["seconds"] >= 0.02
