"""What requests of the kernel carry, and what answers to them say, in plain types."""

from __future__ import annotations

from dataclasses import dataclass

NAME_MAX = 256
"""Longest file name in bytes: a key of 256 characters is shown under itself."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What SETATTR is to change; None leaves alone. `mode` is permission bits, times are nanoseconds."""

    size: int | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None


@dataclass(frozen=True, slots=True)
class OpenFile:
    """The answer to an open: whether the kernel's cached pages are still the file's, or not to be used at all."""

    fh: int
    keep_pages: bool
    direct: bool = False
