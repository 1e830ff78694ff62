"""`kvsfs umount MOUNTPOINT`."""

from __future__ import annotations

from typing import Annotated

import typer


def umount(
    mount_point: Annotated[str, typer.Argument(metavar="MOUNTPOINT", help="Where the store is mounted.")],
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
        leave(mount_point, wait=wait, on_progress=lambda progress: line.show(text.uploading(progress)))
