"""`kvsfs config`: which settings hold, and where each comes from."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from kvsfs import config as places
from kvsfs import settings
from kvsfs.cli import completing
from kvsfs.options import OPTIONS
from kvsfs.store.sources import shown

app = typer.Typer(help="Tell what the settings are.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _only_subcommands() -> None:
    """Keep `show` a word of its own: typer would leave out the name of an only command."""


@app.command("show")
def show(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="A mount that a configuration file names.",
            autocompletion=completing.names,
        ),
    ] = None,
) -> None:
    """Show what `kvsfs mount` would take each option to be, and where that is written."""
    files = settings.of_files(places.config_files())
    named = None if name is None else files.named(name)
    rows = []
    if named is not None:
        rows.append(("source", shown(named.source), named.place))
        if named.mount_point is not None:
            rows.append(("mount-point", named.mount_point, named.place))
    found = settings.resolve(files.layers(os.environ, named))
    rows += [(name, OPTIONS[name].show(said.value), said.place) for name, said in found.items()]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for option, value, place in rows:
        print(f"{option:{widths[0]}}  {value:{widths[1]}}  {place}")
