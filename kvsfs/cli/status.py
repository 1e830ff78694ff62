"""`kvsfs status [MOUNT]`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer


def status(
    mount: Annotated[
        str | None,
        typer.Argument(metavar="MOUNT", help="A mount point, or a path in it. [default: all your mounts]"),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON array with an object for each mount, for programs.")
    ] = False,
) -> None:
    """Tell what mounts do: what waits for its upload and why, the cache, requests and limits."""
    from kvsfs.control import overview

    _print(overview.every_mount() if mount is None else overview.one_mount(mount), as_json=as_json)


def _print(told: list[dict[str, Any]], *, as_json: bool) -> None:
    from kvsfs.cli.printing import say
    from kvsfs.control import text

    if as_json:
        say(json.dumps(told, indent=2))
    else:
        say("\n\n".join(map(text.status, told)) or "nothing is mounted, and nothing is left to upload")
