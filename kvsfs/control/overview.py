"""The mounts of a user: those that run, and what those that ended have left."""

from __future__ import annotations

from typing import Any

from kvsfs.control import client, left
from kvsfs.errors import CommandError, ExitCode
from kvsfs.fuse.mount_points import resolved


def every_mount() -> list[dict[str, Any]]:
    """Tell of all running mounts, and of each cache folder that has something left. Raises CommandError."""
    running = []
    for connection in client.all_connections():
        with connection:
            running.append(connection.ask("status"))
    used = {told["cache"]["folder"] for told in running}
    idle = [left.status(folder) for folder in left.cache_folders() if folder not in used]
    return running + [told for told in idle if told is not None and _has_something(told)]


def one_mount(path: str) -> list[dict[str, Any]]:
    """Tell of the mount that a path is in; or of what the last one at this very place has left. Raises CommandError."""
    try:
        connection = client.connect(client.mount_above(path)[0])
    except CommandError as error:
        if error.exit_code is not ExitCode.NOT_MOUNTED:
            raise
        return _unmounted(path)
    with connection:
        return [connection.ask("status")]


def _unmounted(path: str) -> list[dict[str, Any]]:
    """Tell of a daemon that still drains, else of what the journals have left: an account has one for each store."""
    mount_point = resolved(path)
    try:
        with client.connect(mount_point) as connection:
            return [connection.ask("status")]
    except CommandError as error:
        if error.exit_code is not ExitCode.NOT_MOUNTED:
            raise
    found = [
        told for folder in left.folders_of(path, mount_point) if (told := left.status(folder)) is not None
    ]
    if found:
        return [told for told in found if _has_something(told)] or found[:1]
    message = f"{path} is no mount of kvsfs, and none was mounted there last: see `kvsfs status`"
    raise CommandError(ExitCode.NOT_MOUNTED, message)


def _has_something(told: dict[str, Any]) -> bool:
    return any(told["left"].values())
