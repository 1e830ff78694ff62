"""`kvsfs status [MOUNT]`."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from functools import partial
from typing import Annotated, Any

import typer

from kvsfs.cli import completing
from kvsfs.errors import CommandError, ExitCode

WATCH_SECONDS = 1.0
"""Between two looks: a daemon answers one in some milliseconds."""


def status(
    mount: Annotated[
        str | None,
        typer.Argument(
            metavar="MOUNT",
            help="A mount point, or a path in it. [default: all your mounts]",
            autocompletion=completing.mounts,
        ),
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
    look = partial(_look, mount)
    if not watch:
        _print(look(), as_json=as_json)
        return
    with contextlib.suppress(KeyboardInterrupt):
        if sys.stdout.isatty():
            from kvsfs.cli.live import watch_on_terminal

            watch_on_terminal(look, WATCH_SECONDS)
        while True:
            _print(look(), as_json=False)
            time.sleep(WATCH_SECONDS)


def _look(mount: str | None) -> list[dict[str, Any]]:
    from kvsfs.control import overview

    return overview.every_mount() if mount is None else overview.one_mount(mount)


def _print(told: list[dict[str, Any]], *, as_json: bool) -> None:
    from kvsfs.cli.printing import say
    from kvsfs.control import text

    if as_json:
        say(json.dumps(told, indent=2))
    else:
        say("\n\n".join(map(text.status, told)) or "nothing is mounted, and nothing is left to upload")
