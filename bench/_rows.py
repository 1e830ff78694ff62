"""A row of the table: who does the same work side by side, and what kvsfs is to reach against whom."""

from __future__ import annotations

import contextlib
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from _scene import Scene

Figures = dict[str, float]
"""What one run of one contestant gave: seconds by what was waited for, requests by method, milliseconds of CPU."""

KVSFS, CLIENT, RCLONE, S3FS, EXT4 = "kvsfs", "official client", "rclone", "s3fs", "ext4"
CURL, PASSTHROUGH = "curl", "pyfuse3"

SECONDS = "seconds"
RETURNED = "command returned"


@dataclass(frozen=True)
class Contestant:
    run: Callable[[Scene], Figures]
    every_round: bool = True
    """False: it takes minutes, and runs in the first round only."""


@dataclass(frozen=True)
class Target:
    """What a figure of kvsfs is to be, as a ratio to a control's figure of the same round, or as it is."""

    of: str
    """A figure of kvsfs."""
    bound: float
    control: tuple[str, str] | None = None
    """Who, and which figure of theirs; None: `of` itself is bounded."""
    speed: bool = False
    """The bound is one from below, of the inverse: as fast as so much of the control."""
    times: float = 1.0
    """The control's figure counts that often: 1,000 round trips."""
    told: str = ""
    """How the control is called, if not by its name and figure."""
    binding: bool = True

    @property
    def control_name(self) -> str:
        if self.control is None:
            return ""
        who, figure = self.control
        return self.told or (who if figure == SECONDS else f"{who}, {figure}")

    @property
    def reach(self) -> str:
        if self.control is None:
            return f"{self.of} ≤ {self.bound:g}"
        return f"{'≥' if self.speed else '≤'} {self.bound:g}"


@dataclass(frozen=True)
class Row:
    name: str
    """Short: what `--only` takes."""
    what: str
    """What is done, as a user would say it."""
    contestants: Mapping[str, Contestant]
    targets: Sequence[Target] = ()
    slow: bool = False
    """Left out by --quick."""


@dataclass
class Outcome:
    row: Row
    rounds: dict[str, list[Figures]] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    """Who could not do the work, and why."""

    def figures(self, who: str, figure: str) -> list[float]:
        return [figures[figure] for figures in self.rounds.get(who, []) if figure in figures]

    def median(self, who: str, figure: str) -> float | None:
        found = self.figures(who, figure)
        return statistics.median(found) if found else None

    def ratio(self, target: Target) -> float | None:
        """Give the median of the rounds' ratios; None where somebody is missing."""
        ours = self.figures(KVSFS, target.of)
        if target.control is None:
            return max(ours) if ours else None  # a count is to hold in each round
        theirs = [figure * target.times for figure in self.figures(*target.control)]
        pairs = list(zip(ours, theirs, strict=False))
        ratios = [their / our if target.speed else our / their for our, their in pairs if our and their]
        return statistics.median(ratios) if ratios else None

    def reached(self, target: Target) -> bool | None:
        """Tell whether it is as it should be; None where nobody can tell."""
        if KVSFS in self.faults:
            return False
        ratio = self.ratio(target)
        if ratio is None:
            return None
        return ratio >= target.bound if target.speed else ratio <= target.bound


def run(row: Row, scene: Scene, rounds: int) -> Outcome:
    """Let all contestants do the work, in turns, so that what else the machine does strikes all."""
    outcome = Outcome(row)
    for number in range(rounds):
        for who, contestant in row.contestants.items():
            if who in outcome.faults or not scene.has(who) or (number and not contestant.every_round):
                continue
            try:
                with contextlib.closing(scene.fresh()):
                    outcome.rounds.setdefault(who, []).append(contestant.run(scene))
            except Exception as error:  # noqa: BLE001 - a peer that fails leaves a gap, not the end of the run
                outcome.faults[who] = " ".join(f"{type(error).__name__}: {error}".split())
    return outcome
