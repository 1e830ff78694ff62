"""How far a copy is: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self

from kvsfs.cli.printing import Line

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from kvsfs.crawlee.transfers import Tally


class Progress:
    """Shows a tally on stderr while it grows. A context manager: what is shown goes when it is left."""

    def __init__(self) -> None:
        self._shown = ExitStack()
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._line: Line | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._bar = self._shown.enter_context(_bar())
            self._task = self._bar.add_task("", total=None, records="")
        else:
            self._line = self._shown.enter_context(Line())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shown.close()

    def show(self, tally: Tally) -> None:
        """Show how far it is."""
        done = tally.copied + tally.same + len(tally.failed)
        records = f"{done} of {tally.records} records"
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task,
                total=tally.bytes,
                completed=tally.copied_bytes + tally.same_bytes,
                records=records,
            )
        elif self._line is not None:
            from kvsfs.control.text import size

            self._line.show(f"{records}, {size(tally.copied_bytes)}")


def _bar() -> Bar:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.progress import TransferSpeedColumn as Speed

    columns = (TextColumn("{task.fields[records]}"), BarColumn(), DownloadColumn(), Speed())
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
