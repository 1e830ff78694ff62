"""Printing, whatever bytes a file's name holds and whatever the locale lacks."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

PLAIN_SECONDS = 5.0
"""Between two lines of progress in a log; what ends sooner says nothing."""

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
    """Progress on stderr: a line that is rewritten on a terminal; elsewhere one every `PLAIN_SECONDS`, if it is new.

    A context manager: what is shown goes when it is left.
    """

    def __init__(self) -> None:
        self._on_terminal = sys.stderr.isatty()
        self._shown = ""
        self._told_at = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown and self._on_terminal:
            print(_ERASED, end="", file=sys.stderr, flush=True)

    def show(self, text: str) -> None:
        """Show a text, in the place of the last one."""
        now = time.monotonic()
        if text == self._shown or not (self._on_terminal or now - self._told_at >= PLAIN_SECONDS):
            return
        self._shown, self._told_at = text, now
        if self._on_terminal:
            print(f"{_ERASED}{text}", end="", file=sys.stderr, flush=True)
        elif text:
            say(text, error=True)
