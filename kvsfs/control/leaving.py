"""Unmounting from outside the daemon."""

from __future__ import annotations

import os
import shutil
import subprocess

from kvsfs.errors import CommandError, ExitCode
from kvsfs.fuse import mount_table
from kvsfs.fuse.mount_points import resolved
from kvsfs.fuse.presence import Waiter


def leave(mount_point: str) -> None:
    """Unmount, then block until the daemon has uploaded what it can.

    Raises CommandError when nothing of ours is mounted there, when it is in use, when bytes are left, and when
    nobody can tell.
    """
    path = resolved(mount_point)
    owner = mount_table.owner(path)
    if owner is None:
        raise CommandError(
            ExitCode.NOT_MOUNTED, f"no store is mounted on {path}: see `findmnt -t fuse.kvsfs`"
        )
    if os.getuid() not in (0, owner):
        raise CommandError(ExitCode.NO_PERMISSION, f"{path} is another user's mount: ask them, or root")
    waiter = Waiter(path, owner)
    _unmount(path)
    outcome = waiter.wait()
    if not waiter.knows_daemon:
        message = f"{path} is unmounted, but its daemon was not found: it uploads what is left; see its log"
        raise CommandError(ExitCode.NOT_ALL_UPLOADED, message)
    if outcome.left is None:
        message = "the daemon ended without saying whether all was uploaded: see its log"
        raise CommandError(ExitCode.NOT_ALL_UPLOADED, message)
    if outcome.left:
        message = f"not everything reached the store; what is left is kept: {', '.join(outcome.left)}"
        raise CommandError(ExitCode.NOT_ALL_UPLOADED, message)


def _unmount(path: str) -> None:
    command = shutil.which("fusermount3")
    if command is None:
        message = "fusermount3 is missing: install the package fuse3 (apt install fuse3)"
        raise CommandError(ExitCode.NO_FUSERMOUNT, message)
    result = subprocess.run(  # noqa: S603 - no shell, and the path stands behind "--"
        [command, "-u", "--", path], capture_output=True, text=True, check=False
    )
    if result.returncode == 0:
        return
    if "busy" in result.stderr:
        message = (
            f"{path} is in use: leave the folder and close its files (`fuser -vm {path}` lists who has them)"
        )
        raise CommandError(ExitCode.BUSY, message)
    raise CommandError(ExitCode.MOUNT_FAILED, f"unmounting {path} failed: {result.stderr.strip()}")
