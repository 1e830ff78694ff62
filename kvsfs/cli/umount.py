"""`kvsfs umount MOUNTPOINT`."""

from __future__ import annotations

from typing import Annotated

import typer

from kvsfs.cli import completing


def umount(
    mount_point: Annotated[
        str,
        typer.Argument(
            metavar="MOUNTPOINT",
            help="Where the store is mounted, or a mount's name in a configuration file.",
            autocompletion=completing.mounts_and_names,
        ),
    ],
    wait: Annotated[
        bool,
        typer.Option("--wait/--no-wait", help="Upload what is pending, or leave it to the next mount."),
    ] = True,
) -> None:
    """Unmount a store, wait for its uploads, and tell what is left."""
    from kvsfs.cli.printing import Line
    from kvsfs.control import text
    from kvsfs.control.leaving import leave

    with Line() as line:
        leave(
            _place(mount_point),
            wait=wait,
            on_progress=lambda progress: line.show(text.uploading(progress)),
        )


def _place(word: str) -> str:
    """Give the mount point that a word means. Raises CommandError.

    The files are read only where the word is no mount point: a fault in them shall hold nobody in a mount.
    """
    from kvsfs import config, settings
    from kvsfs.fuse import mount_table
    from kvsfs.fuse.mount_points import resolved

    if "/" in word or mount_table.owner(resolved(word)) is not None:
        return word
    named = settings.of_files(config.config_files()).mounts.get(word)
    if named is None:
        return word
    if named.mount_point is None:
        raise settings.usage(f"{named.place} has no mount-point: name the folder that it is mounted on")
    return named.mount_point
