"""`kvsfs recover [SOURCE]`."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import Annotated

import typer


def recover(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="SOURCE", help="A store as it was mounted, or where. [default: all that is kept]"
        ),
    ] = None,
    cache_dir: Annotated[
        str | None, typer.Option(metavar="DIR", help="A mount's cache folder, where --cache-dir was used.")
    ] = None,
    save_to: Annotated[
        str | None, typer.Option(metavar="DIR", help="Copy all of it there, under its own file names.")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove what was copied.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array, for programs.")] = False,
) -> None:
    """List, or copy out, what was never closed when a mount ended: it is kept, and never uploaded."""
    from kvsfs.cli.printing import say
    from kvsfs.control import recovery, text
    from kvsfs.errors import CommandError, ExitCode

    if remove and save_to is None:
        raise CommandError(
            ExitCode.USAGE, "--remove only removes what was copied: name a folder with --save-to"
        )
    found = [one for folder in recovery.folders(source, cache_dir) for one in recovery.find(folder)]
    if as_json:
        say(json.dumps([asdict(one) for one in found], indent=2))
    for one in found:
        written = datetime.fromtimestamp(one.written_at).astimezone().isoformat(" ", "seconds")
        told = f"{one.path}{'…' if one.cut else ''}  {text.size(one.size)}, written {written}"
        if save_to is not None:
            told += f", saved as {recovery.save(one, save_to)}"
        if remove:
            recovery.remove(one)
        if not as_json:
            say(told)
    if not found and not as_json:
        say("nothing is kept that was never closed")
