"""The commands that change what a mount does with what the store does not have, from their own process."""

from __future__ import annotations

import os
from typing import Any

from kvsfs.control import client
from kvsfs.control.client import OnProgress
from kvsfs.errors import CommandError, ExitCode
from kvsfs.fuse.mount_points import resolved

_COPY_BYTES = 1024 * 1024


def usage(message: str) -> CommandError:
    """Make the error for a command that was typed wrong."""
    return CommandError(ExitCode.USAGE, message)


def all_mounts() -> list[str]:
    """Give the mount points of the user's running mounts."""
    found = []
    for connection in client.all_connections():
        with connection:
            found.append(str(connection.ask("status")["mount_point"]))
    return found


def try_now(path: str, *, failed_too: bool, on_progress: OnProgress) -> dict[str, Any]:
    """Have what is pending at or below a path tried; `tried` and what is `left`. Raises CommandError."""
    connection, below = client.connect_above(path)
    with connection:
        return connection.ask("try", on_progress, path=below, failed_too=failed_too)


def pending(path: str) -> list[dict[str, Any]]:
    """Give what is pending at or below a path. Raises CommandError where nothing is."""
    connection, below = client.connect_above(path)
    with connection:
        found = connection.ask("pending", path=below)["pending"]
    if not found:
        raise CommandError(ExitCode.NOTHING_PENDING, f"{path}: nothing is pending there")
    return list(found)


def discard(path: str, agreed: list[str]) -> None:
    """Let go of what is pending at or below a path, as far as that was agreed to. Raises CommandError."""
    connection, below = client.connect_above(path)
    with connection:
        connection.ask("discard", path=below, agreed=agreed)


def refresh(path: str) -> None:
    """Have nothing believed that a mount knows at and below a path. Raises CommandError."""
    connection, below = client.connect_above(path)
    with connection:
        connection.ask("refresh", path=below)


def warm(path: str, on_progress: OnProgress) -> dict[str, Any]:
    """Have what is at and below a path in its mount's cache; what is there then. Raises CommandError."""
    connection, below = client.connect_above(path)
    with connection:
        return connection.ask("warm", on_progress, path=below)


def save_as(path: str, target: str) -> int:
    """Copy a file's unstored bytes to a new file; their number. Raises CommandError.

    The mount's cache file is read by a descriptor that the daemon hands over: the mount has no part in it.
    """
    connection, below = client.connect_above(path)
    with connection:
        size = int(connection.ask("bytes", path=below)["size"])
        (source,) = connection.fds
    try:
        before = os.fstat(source).st_mtime_ns
        _require_outside(path, target)
        _copy(source, target, size)
        if os.fstat(source).st_mtime_ns != before:
            message = f"{path} was written meanwhile: {target} may hold parts of two versions; try again"
            raise CommandError(ExitCode.UNEXPECTED, message)
    finally:
        os.close(source)
    return size


def _require_outside(path: str, target: str) -> None:
    mount_point, _ = client.mount_above(path)
    if f"{resolved(target)}/".startswith(f"{mount_point}/"):
        raise usage(f"{target} is in the same mount: name a place outside")


def _copy(source: int, target: str, size: int) -> None:
    try:
        made = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise usage(f"cannot make {target}: {error.strerror}") from None
    try:
        place = 0
        while place < size:
            piece = os.pread(source, min(_COPY_BYTES, size - place), place)
            if not piece:
                raise CommandError(
                    ExitCode.UNEXPECTED, f"{target}: the bytes end early, at {place} of {size}"
                )
            view = memoryview(piece)
            while view:
                view = view[os.write(made, view) :]
            place += len(piece)
        os.fsync(made)
    except OSError as error:
        os.unlink(target)
        raise CommandError(ExitCode.UNEXPECTED, f"cannot write {target}: {error.strerror}") from None
    finally:
        os.close(made)
