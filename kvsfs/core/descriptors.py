"""Whether a process still holds a file open to write: what tells the last close from the others.

The kernel sends FLUSH for every descriptor that closes, not for the last one: `echo y > f` in a shell gives two,
a subprocess that inherits a descriptor one more, in the middle of a write. /proc tells which it was.

`stat` of `/proc/PID/fd/N` would ask our own mount, which is busy asking: a deadlock. `fdinfo` gives the inode's
number (Linux 5.14 and later) and the mount without any request to us.
"""

from __future__ import annotations

import os
import re

_TGID = re.compile(rb"^Tgid:\s*(\d+)", re.MULTILINE)

_SMALL = 4096
"""Bytes of a file in /proc/PID that are read: `status` has the group in its first lines, and fdinfo of a file some
hundred in all, one line more for each lock on it."""


def thread_group(pid: int) -> int | None:
    """Give the process that the thread `pid` belongs to; None when it is gone or /proc cannot be read."""
    try:
        found = _TGID.search(_read(f"/proc/{pid}/status"))
    except OSError:
        return None
    return int(found[1]) if found else None


def holds_open_to_write(process: int, inode: int, device: int) -> bool:
    """Tell whether the process has a descriptor to write that inode of the file system `device` (st_dev) by.

    False as well when it cannot be known: the caller then treats the close as the last one, which costs at
    most an upload too many. No checkpoint: 14 to 122 µs for usual processes.
    """
    folder = f"/proc/{process}/fdinfo"
    try:
        names = os.listdir(folder)
    except OSError:
        return False
    return any(
        mount is not None and _device_of(process, mount) == device
        for mount in (_mount_of(f"{folder}/{name}", inode) for name in names)
    )


def _mount_of(fdinfo: str, inode: int) -> bytes | None:
    """Give the mount ID of a descriptor if it is one to write an inode with that number by."""
    try:
        text = _read(fdinfo)
    except OSError:
        return None
    if b"ino:\t%d\n" % inode not in text:  # most are of other files
        return None
    fields = dict(line.split(b":", 1) for line in text.splitlines() if b":" in line)
    if fields.get(b"ino", b"").strip() != b"%d" % inode:
        return None
    if int(fields.get(b"flags", b"2"), 8) & os.O_ACCMODE == os.O_RDONLY:
        return None
    return fields.get(b"mnt_id", b"").strip()


def _read(path: str) -> bytes:
    """Read a small file of /proc: half the time that a file object takes."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _SMALL)
    finally:
        os.close(descriptor)


def _device_of(process: int, mount: bytes) -> int | None:
    """Give the device of a mount in the process's mount namespace (proc_pid_mountinfo(5), third field)."""
    try:
        with open(f"/proc/{process}/mountinfo", "rb") as lines:
            for line in lines:
                mount_id, _, device, *_ = line.split()
                if mount_id == mount:
                    major, minor = device.split(b":")
                    return os.makedev(int(major), int(minor))
    except (OSError, ValueError):
        pass
    return None
