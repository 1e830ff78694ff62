"""Makes the table in docs/OPTIONS.md anew; with --check it only tells whether that changes anything."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from kvsfs.options import FLAG, OPTIONS, Option

DOCUMENT = Path(__file__).with_name("OPTIONS.md")
TABLE = re.compile(r"^\| option \|.*?\n(?!\|)", re.MULTILINE | re.DOTALL)


def row(option: Option) -> str:
    """Give an option's line."""
    metavar = "" if option.kind is FLAG else f" {option.kind.metavar}"
    cells = [f"`--{option.name}{metavar}`", option.shown_default, option.about]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def main() -> int:
    """Rewrite or check the document; the exit code."""
    table = "| option | default | meaning |\n|---|---|---|\n" + "".join(map(row, OPTIONS.values()))
    before = DOCUMENT.read_text()
    after, tables = TABLE.subn(lambda _: table, before)
    if tables != 1:
        raise SystemExit(f"{DOCUMENT} has {tables} tables of options")
    if "--check" not in sys.argv:
        DOCUMENT.write_text(after)
    elif before != after:
        print(f"{DOCUMENT} is not what kvsfs/options.py says: ./dev docs")
    return int("--check" in sys.argv and before != after)


if __name__ == "__main__":
    sys.exit(main())
