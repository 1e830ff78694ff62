"""Paths of mount points."""

from __future__ import annotations

import os

MAX_LINKS = 40
"""Links that the kernel itself follows in one path (path_resolution(7))."""


def resolved(path: str) -> str:
    """Give a mount point's path without links, as the kernel's table of mounts has it.

    What is mounted there is never asked, as realpath(3) would by its lstat: a daemon that hangs shall not hang
    whoever wants to unmount it. Raises nothing.
    """
    path = os.path.abspath(path)
    for _ in range(MAX_LINKS):
        path = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        try:
            path = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))
        except OSError:  # EINVAL: no link, and readlink(2) of a mount's root sends it no request
            break
    return path
