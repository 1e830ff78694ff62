"""Unmounting from outside the daemon."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

from kvsfs.errors import CommandError, ExitCode
from kvsfs.fuse.mount_points import resolved
from kvsfs.fuse.presence import Waiter

FILE_SYSTEM_TYPE = "fuse.kvsfs"


def leave(mount_point: str) -> None:
    """Unmount, then block until the daemon has uploaded what it can.

    Raises CommandError when nothing of ours is mounted there, when it is in use, when bytes are left, and when
    nobody can tell.
    """
    path = resolved(mount_point)
    owner = _owner(path)
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


def _owner(path: str) -> int | None:
    """Give the user whose store is mounted there; None if the topmost mount is none of ours.

    Asks the kernel's table (proc_pid_mountinfo(5)), never the mount itself.
    """
    owner = None
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            before, _, after = line.partition(" - ")
            if _unescaped(before.split(" ")[4]) == path:
                kind, _, options = after.split(" ", 2)
                found = re.search(r"\buser_id=(\d+)", options)
                owner = int(found[1]) if kind == FILE_SYSTEM_TYPE and found else None
    return owner


def _unescaped(text: str) -> str:
    """Undo the kernel's octal escapes of space, tab, newline and backslash (proc_pid_mountinfo(5))."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
