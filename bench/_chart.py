"""bench/results.svg: who took how long, from results.json.

    python bench/_chart.py results.json results.svg

Made anew from the same figures it is the same file, byte for byte.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot as plt

COLOURS = {
    "kvsfs": "#0969da",
    "official client": "#57606a",
    "rclone": "#bf8700",
    "s3fs": "#cf222e",
    "ext4": "#8c959f",
    "curl": "#8c959f",
    "pyfuse3": "#8c959f",
}
SECONDS = "seconds"
ROW_INCHES = 0.16
TEXT_POINTS = 7


def bars(results: dict[str, Any]) -> list[tuple[str, str, float]]:
    """Give row, contestant and median seconds, top down. Rows of counts have none."""
    return [
        (row["what"].replace("`", ""), who, statistics.median(found))
        for row in results["rows"]
        for who, rounds in row["rounds"].items()
        if who in COLOURS
        and (found := [figures[SECONDS] for figures in rounds if SECONDS in figures])
        and not (who == "curl" and row["name"].startswith("cp-in"))  # one round trip is no contestant
    ]


def draw(results: dict[str, Any], target: Path) -> None:
    found = bars(results)
    mpl.rcParams |= {"svg.hashsalt": "kvsfs", "svg.fonttype": "none", "font.size": TEXT_POINTS}
    figure, axes = plt.subplots(figsize=(9, ROW_INCHES * (len(found) + 12)), layout="constrained")
    place, previous = 0.0, ""
    for what, who, seconds in found:
        if what != previous:
            place, previous = place - 1.8, what
            axes.text(0, place + 0.9, what, transform=axes.get_yaxis_transform(), weight="bold", va="center")
        axes.barh(place, seconds, color=COLOURS[who], height=0.8)
        axes.text(seconds * 1.05, place, f"{who}  {seconds:.2f} s", va="center")
        place -= 1
    axes.set_xscale("log")
    axes.set_xlim(
        left=min(seconds for *_, seconds in found) / 2, right=max(seconds for *_, seconds in found) * 4
    )
    axes.set_yticks([])
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.set_xlabel("seconds, logarithmic; shorter is better")
    about = results["about"]
    axes.set_title(
        f"{about['date']}, {about['CPUs']} CPUs, Linux {about['kernel']}, Python {about['Python']}"
    )
    figure.savefig(target, metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
