"""Each message that docs/TROUBLESHOOTING.md quotes is one that the code can write, to the letter."""

from __future__ import annotations

import ast
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/TROUBLESHOOTING.md").read_text()
ROW = re.compile(r"^\| `([^`]+)` \| (?!errno)(?:(E\w+) \| )?", re.MULTILINE)
HOLE = "…"


def quoted() -> Iterator[tuple[str, str | None]]:
    """Give each message, and its errno where it is the C library's."""
    for message, number in ROW.findall(TEXT):
        yield message, number or None


def templates() -> Iterator[str]:
    """Give what the code writes, with `…` for what it fills in."""
    for path in (ROOT / "kvsfs").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = (str(v.value) if isinstance(v, ast.Constant) else HOLE for v in node.values)
                yield "".join(parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield re.sub(r"%(?:\.\d)?[sdrgf]", HOLE, node.value)


MESSAGES = list(quoted())
WRITTEN = "\n".join(text.replace("`", "") for text in templates())


@pytest.mark.parametrize("message", [message for message, number in MESSAGES if number is None])
def test_the_code_writes_it(message: str) -> None:
    assert message.strip(HOLE + " ") in WRITTEN


@pytest.mark.parametrize(("message", "number"), [row for row in MESSAGES if row[1] is not None])
def test_the_system_says_it(message: str, number: str) -> None:
    assert os.strerror(getattr(errno, number)) == message


def test_both_tables_are_read() -> None:
    assert sum(number is None for _, number in MESSAGES) > 35
    assert sum(number is not None for _, number in MESSAGES) > 10
