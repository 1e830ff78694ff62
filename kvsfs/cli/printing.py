"""Printing, whatever bytes a file's name holds and whatever the locale lacks."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """Print a line; what the locale cannot show becomes an escape."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:  # a test's stdout has none
        reconfigure(errors="backslashreplace")
    print(text)
