"""`kvsfs umount MOUNTPOINT`."""

from __future__ import annotations

from typing import Annotated

import typer


def umount(
    mount_point: Annotated[str, typer.Argument(metavar="MOUNTPOINT", help="Where the store is mounted.")],
) -> None:
    """Unmount a store, wait for its uploads, and tell what is left."""
    from kvsfs.control.leaving import leave

    leave(mount_point)
