"""Unmounting from outside the daemon."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess

from kvsfs.control import client
from kvsfs.control.client import OnProgress
from kvsfs.errors import CommandError, ExitCode
from kvsfs.fuse import mount_table
from kvsfs.fuse.mount_points import resolved
from kvsfs.fuse.presence import Outcome, Waiter

MOST_NAMED = 5
"""Of what is left, in one line."""


def leave(mount_point: str, *, wait: bool, on_progress: OnProgress) -> None:
    """Unmount, then block until the daemon has uploaded what it can; without `wait` that is left to the journal.

    Raises CommandError when nothing of ours is mounted there, when it is in use, when bytes are left, and when
    nobody can tell.
    """
    path = resolved(mount_point)
    owner = _owner(path)
    waiter = Waiter(path, owner)
    watch = _watch(path)
    if not wait:
        _say_whether_to_drain(path, drain=False)
    try:
        _unmount(path)
    except CommandError:
        if not wait:
            _say_whether_to_drain(path, drain=True)
        raise
    if watch is not None:
        _follow(watch, on_progress)
    outcome = waiter.wait()
    if not waiter.knows_daemon:
        message = f"{path} is unmounted, but its daemon was not found: it uploads what is left; see its log"
        raise CommandError(ExitCode.NOT_ALL_UPLOADED, message)
    if outcome.left is None:
        message = "the daemon ended without saying whether all was uploaded: see its log"
        raise CommandError(ExitCode.NOT_ALL_UPLOADED, message)
    if outcome.left:
        raise CommandError(ExitCode.NOT_ALL_UPLOADED, _told_left(outcome, wait=wait))


def _owner(path: str) -> int:
    owner = mount_table.owner(path)
    if owner is None:
        raise CommandError(
            ExitCode.NOT_MOUNTED, f"no store is mounted on {path}: see `findmnt -t fuse.kvsfs`"
        )
    if os.getuid() not in (0, owner):
        raise CommandError(ExitCode.NO_PERMISSION, f"{path} is another user's mount: ask them, or root")
    return owner


def _watch(path: str) -> client.Connection | None:
    """Listen to a daemon, before another one may have its place; None when it does not answer."""
    try:
        connection = client.connect(path)
        connection.send("watch")
    except CommandError:
        return None
    return connection


def _follow(watch: client.Connection, on_progress: OnProgress) -> None:
    """Pass on what a daemon tells, until it ends."""
    with watch, contextlib.suppress(CommandError):  # whoever says nothing is waited for all the same
        for message in watch.messages():
            on_progress(message.get("progress", {}))


def _say_whether_to_drain(path: str, *, drain: bool) -> None:
    with client.connect(path) as connection:
        connection.ask("drain", drain=drain)


def _told_left(outcome: Outcome, *, wait: bool) -> str:
    left = outcome.left or []
    named = ", ".join(left[:MOST_NAMED])
    if outcome.count > MOST_NAMED:
        named += f" and {outcome.count - MOST_NAMED} more, see `kvsfs status`"
    if wait:
        return f"not everything reached the store; what is left is kept: {named}"
    return f"left to the journal, for the next mount of this store: {named}"


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
