"""The table that is printed and that README shows, and bench/results.json."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from _rows import KVSFS, SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from _rows import Outcome, Target

VERDICTS = {True: "yes", False: "**no**", None: "-"}

BEGIN, END = "<!-- ./dev bench writes from here -->", "<!-- to here -->"

HEAD = (
    "| work | kvsfs | control | ratio | to reach | reached |",
    "|---|--:|--:|--:|--:|---|",
)


def lines_of(outcome: Outcome) -> Iterator[str]:
    """Give the row's lines of the table, one for each target."""
    what = outcome.row.what
    for target in outcome.row.targets:
        yield f"| {what} | {' | '.join(_cells(outcome, target))} |"
        what = ""


def _cells(outcome: Outcome, target: Target) -> Iterator[str]:
    ratio = outcome.ratio(target)
    ours = outcome.median(KVSFS, target.of)
    if target.control is None:
        yield from ("failed" if ours is None else f"{ours:g} {target.of}", "", "", target.reach)
    else:
        who, figure = target.control
        control = outcome.median(who, figure)
        told = "not here" if control is None else _value(control * target.times, figure)
        yield "failed" if ours is None else _value(ours, target.of) + _suffix(target.of)
        yield f"{told} ({target.control_name})"
        yield "-" if ratio is None else f"{ratio:.2f}"
        yield target.reach
    verdict = VERDICTS[outcome.reached(target)]
    yield verdict if target.binding else f"{verdict} (no bar)"


def _value(value: float, figure: str) -> str:
    return f"{value:.2f} {'ms' if figure.startswith('CPU') else 's'}"


def _suffix(figure: str) -> str:
    return "" if figure == SECONDS else f" ({figure})"


def details_of(outcome: Outcome) -> Iterator[str]:
    """Give each contestant's figures: least, median, most."""
    for who in outcome.row.contestants:
        if who in outcome.faults:
            yield f"    {who}: {outcome.faults[who]}"
        found = outcome.rounds.get(who, [])
        for figure in dict.fromkeys(name for figures in found for name in figures):
            values = outcome.figures(who, figure)
            middle = outcome.median(who, figure)
            yield f"    {who:16} {figure:20} {min(values):9.3f} {middle:9.3f} {max(values):9.3f}  n={len(values)}"


def table(outcomes: Iterable[Outcome], about: Mapping[str, object]) -> str:
    """Give the whole table, and the machine and the day that it is of."""
    versions = about["versions"]
    assert isinstance(versions, dict)
    where = f"{about['CPUs']} CPUs, {about['memory']}, Linux {about['kernel']}, Python {about['Python']}"
    peers = ", ".join(f"{name} {versions[name]}" for name in ("rclone", "s3fs", "apify-client", "curl"))
    rows = (line for outcome in outcomes for line in lines_of(outcome))
    return "\n".join([f"{about['date']}, {where}; {peers}:", "", *HEAD, *rows])


def replace_table(document: Path, text: str) -> None:
    """Put a table between the two marks of a Markdown file. Raises ValueError where they are not."""
    before, begin, rest = document.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{document} has not both of {BEGIN} and {END}")
    document.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def as_json(outcomes: Iterable[Outcome], about: Mapping[str, object]) -> str:
    rows = [
        {
            "name": outcome.row.name,
            "what": outcome.row.what,
            "rounds": outcome.rounds,
            "faults": outcome.faults,
            "targets": [
                {
                    "figure": target.of,
                    "control": target.control_name,
                    "reach": target.reach,
                    "ratio": outcome.ratio(target),
                    "reached": outcome.reached(target),
                    "binding": target.binding,
                }
                for target in outcome.row.targets
            ],
        }
        for outcome in outcomes
    ]
    return json.dumps({"about": about, "rows": rows}, indent=1, ensure_ascii=False) + "\n"
