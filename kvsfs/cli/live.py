"""`kvsfs status --watch` on a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from kvsfs.control import text
from kvsfs.control.told import MOUNTED

Told = Mapping[str, Any]


def watch_on_terminal(look: Callable[[], list[dict[str, Any]]], seconds: float) -> None:
    """Show all that `look` gives, and what happens meanwhile, on a screen of its own, until Ctrl-C or `look` raises."""
    earlier: dict[str, Told] = {}
    with Live(console=Console(), screen=True, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            told = look()
            live.update(_screen(told, earlier), refresh=True)
            earlier = {_identity(status): status for status in told}
            time.sleep(seconds)


def _screen(told: list[dict[str, Any]], earlier: Mapping[str, Told]) -> RenderableType:
    if not told:
        return Text("nothing is mounted, and nothing is left to upload")
    return Group(*(_mount(status, earlier.get(_identity(status))) for status in told))


def _mount(status: Told, earlier: Told | None) -> Panel:
    table = Table.grid(padding=(0, 2))
    table.add_column(width=9, style="bold")
    table.add_column(overflow="fold")
    if earlier is not None and status["state"] == earlier["state"] == MOUNTED:
        table.add_row("now", Text(text.pace(earlier, status)))
    for name, line in text.rows(status):
        table.add_row(name, Text(line, style="" if name else "dim"))
    return Panel(table, title=Text(text.heading(status)), title_align="left", border_style=_colour(status))


def _colour(status: Told) -> str:
    if status["left"]["failed"]:
        return "red"
    return "green" if status["state"] == MOUNTED else "yellow"


def _identity(status: Told) -> str:
    """Tell two mounts apart, and a mount from the one before it."""
    return f"{status.get('pid')} {status['mount_point']}"
