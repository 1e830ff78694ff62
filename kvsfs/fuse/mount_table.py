"""The kernel's table of mounts (proc_pid_mountinfo(5)). Reading it asks no mount, so none can hang who reads it."""

from __future__ import annotations

import os
import re

FILE_SYSTEM_TYPE = "fuse.kvsfs"


AUTOMOUNT_TYPE = "autofs"


def is_automount_point(path: str) -> bool:
    """Tell whether nothing but an automounter's own mount is on a resolved path."""
    return _topmost().get(path, ("", ""))[0] == AUTOMOUNT_TYPE


def owner(path: str) -> int | None:
    """Give the user whose store is mounted on a resolved path; None if the topmost mount is none of ours."""
    return _owners().get(path)


def ours() -> list[str]:
    """Give where stores are mounted, whoever's they are."""
    return [path for path, user in _owners().items() if user is not None]


def above(path: str) -> str | None:
    """Give the mount point of ours that an absolute path is in, or is; None if it is in none."""
    owners = _owners()
    while owners.get(path, None) is None:
        path, name = os.path.split(path)
        if not name:
            return None
    return path


def _owners() -> dict[str, int | None]:
    """Give what is mounted where, as far as the topmost mounts are concerned: its user, or None if it is not ours."""
    owners: dict[str, int | None] = {}
    for path, (kind, options) in _topmost().items():
        user = re.search(r"\buser_id=(\d+)", options)
        owners[path] = int(user[1]) if user and kind == FILE_SYSTEM_TYPE else None
    return owners


def _topmost() -> dict[str, tuple[str, str]]:
    """Give the type and the options of the topmost mounts, by their paths."""
    mounts = {}
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            before, _, after = line.partition(" - ")
            kind, _, options = after.split(" ", 2)
            mounts[_unescaped(before.split(" ")[4])] = (kind, options)
    return mounts


def _unescaped(text: str) -> str:
    """Undo the kernel's octal escapes of space, tab, newline and backslash."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
