"""`kvsfs status [MOUNT]`."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from typing import Annotated, Any

import typer

from kvsfs.errors import CommandError, ExitCode

WATCH_SECONDS = 1.0
"""Between two looks: a daemon answers one in some milliseconds."""

_CLEARED = "\x1b[H\x1b[2J"
"""Begins the screen anew (ECMA-48, CUP and ED)."""


def status(
    mount: Annotated[
        str | None,
        typer.Argument(metavar="MOUNT", help="A mount point, or a path in it. [default: all your mounts]"),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON array with an object for each mount, for programs.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show it anew every second, until Ctrl-C.")
    ] = False,
) -> None:
    """Tell what mounts do: what waits for its upload and why, the cache, requests and limits."""
    if watch and as_json:
        raise CommandError(
            ExitCode.USAGE, "--watch is for people: with --json ask again when you want to know"
        )
    with contextlib.suppress(KeyboardInterrupt) if watch else contextlib.nullcontext():
        _tell(mount, as_json=as_json)
        while watch:
            time.sleep(WATCH_SECONDS)
            _tell(mount, as_json=False, clear=True)


def _tell(mount: str | None, *, as_json: bool, clear: bool = False) -> None:
    from kvsfs.control import overview

    told = overview.every_mount() if mount is None else overview.one_mount(mount)
    if clear and sys.stdout.isatty():
        print(_CLEARED, end="")
    _print(told, as_json=as_json)


def _print(told: list[dict[str, Any]], *, as_json: bool) -> None:
    from kvsfs.cli.printing import say
    from kvsfs.control import text

    if as_json:
        say(json.dumps(told, indent=2))
    else:
        say("\n\n".join(map(text.status, told)) or "nothing is mounted, and nothing is left to upload")
