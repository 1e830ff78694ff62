"""`kvsfs retry`, `discard`, `save-as`, `flush` and `refresh`: what a user decides about unstored bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from kvsfs.cli import completing
from kvsfs.errors import ExitCode

Paths = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PATH",
        help="Files and folders in a mount, or the mount.",
        autocompletion=completing.mounts,
    ),
]


def retry(
    paths: Paths = None,
    mount: Annotated[
        str | None, typer.Option("--all", metavar="MOUNT", help="All that a mount has left.")
    ] = None,
) -> None:
    """Try again now what the store did not take, and wait for it."""
    _try([*(paths or []), *([] if mount is None else [mount])], failed_too=True)


def flush(paths: Paths = None) -> None:
    """Upload now what waits, and wait for it. Without a PATH: of all your mounts."""
    from kvsfs.control.steering import all_mounts

    _try(paths or all_mounts(), failed_too=False)


def _try(paths: list[str], *, failed_too: bool) -> None:
    from kvsfs.cli.printing import Line, say
    from kvsfs.control import steering, text

    if not paths:
        raise steering.usage("name a PATH, or --all MOUNT")
    tried, left = 0, []
    line = Line()

    def show(progress: Mapping[str, Any]) -> None:
        line.show(text.uploading(progress))

    for path in paths:
        with line:
            result = steering.try_now(path, failed_too=failed_too, on_progress=show)
        tried += result["tried"]
        left += result["left"]
    for pending in left:
        say(text.not_done(pending), error=True)
    if left:
        raise typer.Exit(ExitCode.NOT_ALL_UPLOADED)
    say(f"{text.many(tried, 'file')} stored" if tried else "nothing was pending")


def discard(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A file or folder in a mount.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Let go of what the store did not take: its own version is shown again."""
    from kvsfs.cli.printing import say
    from kvsfs.control import steering, text

    pending = steering.pending(path)
    for found in pending:
        say(text.discarded(found))
    if not yes and not _agreed(len(pending)):
        say("nothing was discarded", error=True)
        raise typer.Exit(ExitCode.UNEXPECTED)
    steering.discard(path, [found["path"] for found in pending])


def _agreed(count: int) -> bool:
    try:
        return bool(
            typer.confirm(f"Discard {'this' if count == 1 else f'these {count}'}? There is no way back")
        )
    except typer.Abort:  # the end of stdin is no yes
        return False


def save_as(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A file in a mount.")],
    target: Annotated[str, typer.Argument(metavar="DEST", help="A new file outside.")],
) -> None:
    """Copy the bytes that the store did not take to a file outside."""
    from kvsfs.cli.printing import say
    from kvsfs.control import steering, text

    say(f"{text.size(steering.save_as(path, target))} of {path} are in {target}")


def refresh(
    path: Annotated[
        str | None,
        typer.Argument(metavar="PATH", help="A file or folder in a mount. [default: all your mounts]"),
    ] = None,
) -> None:
    """Trust nothing that a mount knows of the store: the next access asks it."""
    from kvsfs.control.steering import all_mounts
    from kvsfs.control.steering import refresh as refresh_one

    for place in all_mounts() if path is None else [path]:
        refresh_one(place)
