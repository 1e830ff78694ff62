"""`kvsfs warm`: records in the cache before anybody reads them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import typer

Show = Callable[[Mapping[str, Any]], None]


def warm(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH", help="Files and folders in a mount, or the mount.")
    ],
) -> None:
    """Have files, and all below folders, in the cache before somebody reads them."""
    from kvsfs.cli.printing import say
    from kvsfs.control import steering, text

    for path in paths:
        with _progress(path) as show:
            found = steering.warm(path, show)
        say(f"{path}: {text.many(found['files'], 'file')} ({text.size(found['bytes'])}) in the cache")


@contextmanager
def _progress(path: str) -> Iterator[Show]:
    """Show a bar on a terminal, a line now and then elsewhere."""
    if sys.stderr.isatty():
        with _bar(path) as show:
            yield show
        return
    from kvsfs.cli.printing import Line
    from kvsfs.control import text

    with Line() as line:
        yield lambda progress: line.show(text.warming(progress))


@contextmanager
def _bar(path: str) -> Iterator[Show]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        "{task.description}",
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        "{task.fields[files]}",
    )
    texts = [TextColumn(column) if isinstance(column, str) else column for column in columns]
    with Progress(*texts, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(path), total=None, files="")

        def show(progress: Mapping[str, Any]) -> None:
            files = f"{progress['files']:,} of {progress['all_files']:,} files"
            bar.update(task, completed=progress["bytes"], total=progress["all_bytes"] or None, files=files)

        yield show
