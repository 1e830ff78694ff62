"""Printing, whatever bytes a file's name holds and whatever the locale lacks."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

_ERASED = "\r\x1b[K"
"""Begins the line anew (ECMA-48, EL)."""


def say(text: str, *, error: bool = False) -> None:
    """Print a line; what the locale cannot show becomes an escape."""
    stream = sys.stderr if error else sys.stdout
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:  # a test's stdout has none
        reconfigure(errors="backslashreplace")
    print(text, file=stream, flush=True)


class Line:
    """Progress on stderr: a line that is rewritten on a terminal; elsewhere a line only when it says something new.

    A context manager: what is shown goes when it is left.
    """

    def __init__(self) -> None:
        self._on_terminal = sys.stderr.isatty()
        self._shown = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown and self._on_terminal:
            print(_ERASED, end="", file=sys.stderr, flush=True)

    def show(self, text: str) -> None:
        """Show a text, in the place of the last one."""
        if text == self._shown:
            return
        self._shown = text
        if self._on_terminal:
            print(f"{_ERASED}{text}", end="", file=sys.stderr, flush=True)
        elif text:
            say(text, error=True)
