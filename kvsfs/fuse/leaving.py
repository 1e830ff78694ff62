"""Unmounting from outside the daemon."""

from __future__ import annotations

import re
import shutil
import subprocess

from kvsfs.errors import CommandError, ExitCode
from kvsfs.fuse.mount_points import resolved
from kvsfs.fuse.presence import Waiter

FILE_SYSTEM_TYPE = "fuse.kvsfs"


def leave(mount_point: str) -> str | None:
    """Unmount, then block until the daemon has uploaded what it can; what is left to say, if anything.

    Raises CommandError when nothing of ours is mounted there, when it is in use, and when bytes are left.
    """
    path = resolved(mount_point)
    if not _is_ours(path):
        raise CommandError(
            ExitCode.NOT_MOUNTED, f"no store is mounted on {path}: see `findmnt -t fuse.kvsfs`"
        )
    waiter = Waiter(path)
    _unmount(path)
    outcome = waiter.wait()
    if not waiter.knows_daemon:
        return f"{path} is unmounted; its daemon is another user's and ends by itself when all is uploaded"
    if outcome.left is None:
        message = "the daemon ended without saying whether all was uploaded: see its log"
        raise CommandError(ExitCode.NOT_ALL_UPLOADED, message)
    if outcome.left:
        message = (
            f"{len(outcome.left)} files could not be uploaded, their bytes are kept: {' '.join(outcome.left)}"
        )
        raise CommandError(ExitCode.NOT_ALL_UPLOADED, message)
    return None


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


def _is_ours(path: str) -> bool:
    """Tell whether the topmost mount there is one of ours; asks the kernel's table, never the mount itself."""
    types = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            before, _, after = line.partition(" - ")
            if _unescaped(before.split(" ")[4]) == path:
                types.append(after.split(" ")[0])
    return bool(types) and types[-1] == FILE_SYSTEM_TYPE


def _unescaped(text: str) -> str:
    """Undo the kernel's octal escapes of space, tab, newline and backslash (proc_pid_mountinfo(5))."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
