"""The picture and the table of docs/DESIGN.md: who imports whom, asked of the code itself."""

from __future__ import annotations

import importlib
import tomllib
from collections.abc import Mapping
from pathlib import Path

import grimp

PACKAGE = "kvsfs"
ROOT = Path(__file__).parents[1]

Imports = Mapping[str, frozenset[str]]
"""Of each room, the rooms that it imports itself."""


def picture() -> str:
    """Give the graph in Mermaid's language, without what follows from the rest: it would be 80 arrows."""
    arrows = [
        f"    {importer} --> {imported}"
        for importer, direct in sorted(without_detours(imports()).items())
        for imported in sorted(direct)
    ]
    return "\n".join(["```mermaid", "flowchart TD", *arrows, "```", ""])


def layers() -> str:
    """Give a table of the rooms, uppermost first, each with the first line of its own documentation."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    rows = [
        f"| `{room}` | {purpose(room)} |\n"
        for layer in contracts[0]["layers"]
        for room in map(str.strip, layer.split("|"))
    ]
    return "| room | what it is |\n|---|---|\n" + "".join(rows)


def purpose(room: str) -> str:
    """Give the first line of a room's documentation."""
    if room == "__main__":  # to import it would run it
        return "`python -m kvsfs`."
    documentation = importlib.import_module(f"{PACKAGE}.{room}").__doc__ or ""
    return documentation.partition("\n")[0].replace("|", r"\|")


def imports() -> Imports:
    """Ask the code: a package counts as one room."""
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    rooms = sorted(graph.find_children(PACKAGE))
    for room in rooms:
        if graph.find_children(room):
            graph.squash_module(room)
    return {
        room.removeprefix(f"{PACKAGE}."): frozenset(
            imported.removeprefix(f"{PACKAGE}.")
            for imported in graph.find_modules_directly_imported_by(room)
            if imported not in (PACKAGE, room)
        )
        for room in rooms
    }


def without_detours(graph: Imports) -> Imports:
    """Leave out each arrow that a longer way replaces: who is above whom stays the same."""
    return {
        room: frozenset(
            imported
            for imported in direct
            if not any(imported in reached(graph, other) for other in direct - {imported})
        )
        for room, direct in graph.items()
    }


def reached(graph: Imports, start: str) -> frozenset[str]:
    """Give all that a room stands on, however far below. Imports go down only, so it ends."""
    return graph[start].union(*(reached(graph, room) for room in graph[start]))
