"""Mounts side by side: kvsfs, rclone, s3fs, the official client and plain tools do the same work in one run.

Figures of one machine, on one day, tell little: a ratio to a control of the same run does. Contestants take turns,
the median of the rounds' ratios counts. All servers stand on this machine and delay each request alike.

Without arguments all rows, three times; --quick smaller ones and fewer, in some two minutes. A full run writes
bench/results.json and bench/results.svg, which README shows. bench/README.md says what each row does.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import _copying_in
import _copying_out
import _large_record
import _listing
import _machine
import _report
import _requests
from _rows import Outcome, Row, run
from _scene import FULL, QUICK, TINY, Scene, Sizes
from _stores import Servers

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).resolve().parent
SIZES = {"full": FULL, "quick": QUICK, "tiny": TINY}


def rows(sizes: Sizes) -> list[Row]:
    return [
        *_copying_out.rows(),
        *_copying_in.rows(sizes.files),
        *_listing.rows(sizes.keys),
        *_large_record.rows(sizes.large),
        *_requests.rows(),
    ]


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", dest="sizes", action="store_const", const="quick", help="two minutes")
    sizes.add_argument("--tiny", dest="sizes", action="store_const", const="tiny", help="does it run at all?")
    parser.set_defaults(sizes="full")
    parser.add_argument("--only", metavar="ROW,…", help="these rows; `list` names them all")
    parser.add_argument("--without", metavar="WHO,…", default="", help="leave out contestants: rclone,s3fs")
    parser.add_argument("--rounds", type=int, metavar="N")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="where results go; a full run's default: bench/"
    )
    return parser.parse_args(words)


def chosen(asked: argparse.Namespace, sizes: Sizes) -> list[Row]:
    known = rows(sizes)
    if asked.only is None:
        return [row for row in known if asked.sizes != "quick" or not row.slow]
    names = asked.only.split(",")
    if unknown := set(names) - {row.name for row in known}:
        sys.exit(
            f"there is no row {', '.join(sorted(unknown))}; there are {', '.join(row.name for row in known)}"
        )
    return [row for row in known if row.name in names]


def measured(asked: argparse.Namespace, sizes: Sizes) -> list[Outcome]:
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="kvsfs-bench-") as folder, Servers(Path(folder)) as servers:
        scene = Scene(Path(folder), sizes, servers, without=asked.without.split(","))
        for row in chosen(asked, sizes):
            outcome = run(row, scene, sizes.rounds)
            print("\n".join([*_report.lines_of(outcome), *_report.details_of(outcome)]), flush=True)
            outcomes.append(outcome)
    return outcomes


def _draw(output: Path) -> None:
    """Draw the chart, in a process of its own: the figures are safe by now."""
    if importlib.util.find_spec("matplotlib") is None:
        print("no chart is drawn: pip install -e '.[bench]'")
        return
    files = [str(output / name) for name in ("results.json", "results.svg")]
    command = [sys.executable, str(HERE / "_chart.py"), *files]
    subprocess.run(command, check=True)


def main() -> int:
    asked = arguments()
    sizes = SIZES[asked.sizes]
    sizes = replace(sizes, rounds=asked.rounds or sizes.rounds)
    about = _machine.about()
    print(*(f"{name}: {value}" for name, value in about.items()), sep="\n")
    print(*_report.HEAD, sep="\n")
    outcomes = measured(asked, sizes)
    output = asked.output or (HERE if asked.sizes == "full" and asked.only is None else None)
    if output is not None:
        (output / "results.json").write_text(_report.as_json(outcomes, about))
        _draw(output)
    if output is not None and output.resolve() == HERE:
        _report.replace_table(HERE.parent / "README.md", _report.table(outcomes, about))
    missed = [
        target for outcome in outcomes for target in outcome.row.targets if outcome.reached(target) is False
    ]
    return 1 if any(target.binding for target in missed) else 0


if __name__ == "__main__":
    sys.exit(main())
