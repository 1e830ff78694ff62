"""Stores as people and as programs read them: no signing key, no signed URL."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from kvsfs.cli.printing import say
from kvsfs.types import StoreInfo

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")

WIDE = 10_000
"""Columns, where no terminal has a width: whoever reads a pipe wants names whole."""


def described(info: StoreInfo) -> dict[str, Any]:
    """Give what may be printed of a store, for programs."""
    return {
        "id": info.id,
        "name": info.name,
        "title": info.title,
        "username": info.username,
        "generalAccess": info.general_access,
        "createdAt": info.created_at.isoformat(),
        "modifiedAt": info.modified_at.isoformat(),
        "accessedAt": info.accessed_at.isoformat(),
        "actId": info.actor_id,
        "actRunId": info.run_id,
        "collections": sorted((info.schema or {}).get("collections") or {}),
        "stats": asdict(info.stats),
    }


def print_store(info: StoreInfo) -> None:
    """Print a line for each thing that is known."""
    rows = described(info) | {"stats": None, "size": size_of(info)}
    rows["collections"] = ", ".join(rows["collections"])
    width = max(map(len, rows))
    for name, value in rows.items():
        if value:
            say(f"{name:{width}}  {value}")


def print_stores(infos: Sequence[StoreInfo]) -> None:
    """Print a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("ID", "NAME", "SIZE", "MODIFIED", "TITLE"):
        table.add_column(column, no_wrap=True, justify="right" if column == "SIZE" else "left")
    for info in infos:
        modified = f"{info.modified_at:%Y-%m-%d %H:%M}"
        table.add_row(info.id, info.name or "", size_of(info), modified, info.title or "")
    console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else WIDE)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        say(line.rstrip())


def size_of(info: StoreInfo) -> str:
    """Give what a store's records take, for people."""
    size, unit = float(info.stats.storage_bytes), 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.0f} {_UNITS[unit]}" if unit == 0 else f"{size:.1f} {_UNITS[unit]}"
