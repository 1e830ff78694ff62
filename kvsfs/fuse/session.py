"""Mounting, serving and unmounting."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pyfuse3
import trio

from kvsfs.core.mountable import Mountable
from kvsfs.errors import CommandError, ExitCode
from kvsfs.fuse import mount_table
from kvsfs.fuse.invalidation import Invalidation
from kvsfs.fuse.operations import Operations, requests
from kvsfs.fuse.read_ahead import set_read_ahead

log = logging.getLogger(__name__)

MAX_TASKS = 10_000
"""Requests that pyfuse3 handles at a time, a hard cap: above it an unrelated `stat` waits for slow closes. Each is
some thread's or a page's in flight: far more than can wait for one mount. A task that is not needed costs nothing."""

FUSE_DEVICE = "/dev/fuse"
FUSE_CONFIGURATION = "/etc/fuse.conf"


@dataclass(frozen=True, slots=True)
class MountOptions:
    """What the kernel is told. `source` is shown in /proc/mounts, and must not hold a secret."""

    source: str
    read_only: bool = False
    allow_other: bool = False
    noexec: bool = False


def clear_dead_mount(mount_point: str) -> None:
    """Take away what a daemon of ours that was killed has left there. Another user's mount is not touched."""
    try:
        os.stat(mount_point)
    except OSError as error:
        if error.errno != errno.ENOTCONN or mount_table.owner(mount_point) != os.getuid():
            return
    else:
        return
    command = ["fusermount3", "-u", "-z", "--", mount_point]
    if subprocess.run(command, capture_output=True, check=False).returncode == 0:  # noqa: S603 - no shell
        log.warning("%s: a mount that died there is cleared", mount_point)


def check_mount_point(mount_point: str) -> None:
    """Raise CommandError when nothing can be mounted there. Does not touch what is mounted there already."""
    try:
        names = os.listdir(mount_point)
    except FileNotFoundError:
        raise CommandError(
            ExitCode.MOUNT_POINT_MISSING, f"{mount_point} does not exist: make it with mkdir"
        ) from None
    except NotADirectoryError:
        raise CommandError(ExitCode.MOUNT_POINT_NOT_A_FOLDER, f"{mount_point} is not a folder") from None
    except PermissionError:
        message = f"{mount_point} may not be read by you: mount on a folder of yours"
        raise CommandError(ExitCode.MOUNT_POINT_MISSING, message) from None
    except OSError as error:
        message = f"{mount_point}: {error.strerror}; if a mount died there: fusermount3 -u {mount_point}"
        raise CommandError(ExitCode.ALREADY_MOUNTED, message) from None
    if os.path.ismount(mount_point) and not mount_table.is_automount_point(mount_point):
        message = (
            f"something is mounted on {mount_point} already: kvsfs umount {mount_point}, or another folder"
        )
        raise CommandError(ExitCode.ALREADY_MOUNTED, message)
    if names:
        message = (
            f"{mount_point} is not empty: a mount would hide its {len(names)} entries; use an empty folder"
        )
        raise CommandError(ExitCode.MOUNT_POINT_NOT_EMPTY, message)


def check_fuse() -> None:
    """Raise CommandError when this machine cannot mount."""
    check_device()
    check_fusermount()


def check_device(device: str = FUSE_DEVICE) -> None:
    """Raise CommandError when the kernel's FUSE cannot be had."""
    if not os.path.exists(device):
        message = (
            f"{device} is missing: load the kernel module (modprobe fuse), "
            "or give the container the device (--device /dev/fuse --cap-add SYS_ADMIN)"
        )
        raise CommandError(ExitCode.NO_FUSE_DEVICE, message)
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        message = f"cannot open {device} ({error.strerror}): its mode is 0666 on most systems; ask who runs this one"
        raise CommandError(ExitCode.NO_FUSE_DEVICE, message) from None


def check_fusermount(path: str | None = None) -> None:
    """Raise CommandError when the program that mounts for users is on no folder of `path`, by default PATH."""
    if shutil.which("fusermount3", path=path) is None:
        message = "fusermount3 is missing: install the package fuse3 (apt install fuse3)"
        raise CommandError(ExitCode.NO_FUSERMOUNT, message)


def check_allow_other(configuration: str = FUSE_CONFIGURATION, user: int | None = None) -> None:
    """Raise CommandError when `allow_other` is asked for by somebody (by default who runs this) who may not."""
    if (os.getuid() if user is None else user) == 0:
        return
    try:
        with open(configuration, encoding="utf-8") as lines:
            allowed = any(line.strip() == "user_allow_other" for line in lines)
    except OSError:
        allowed = False
    if not allowed:
        message = f"allow_other needs the line user_allow_other in {configuration}: add it as root"
        raise CommandError(ExitCode.MOUNT_FAILED, message)


class Session:
    """One mount of a file system. pyfuse3 keeps its state in globals: one session a process."""

    def __init__(self, filesystem: Mountable, mount_point: str, invalidation: Invalidation) -> None:
        self._filesystem = filesystem
        self._invalidation = invalidation
        self._mount_point = mount_point

    def mount(self, options: MountOptions) -> None:
        """Mount; requests wait until `serve`. Raises CommandError."""
        words = {"default_permissions", "subtype=kvsfs", f"fsname={options.source.replace(',', '_')}"}
        if options.read_only:
            words.add("ro")
        if options.allow_other:
            words.add("allow_other")
        if options.noexec:
            words.add("noexec")
        try:
            pyfuse3.init(Operations(self._filesystem), self._mount_point, words)
        except (RuntimeError, OSError) as error:
            message = f"mounting on {self._mount_point} failed ({error}); FUSE's own reason stands above"
            raise CommandError(ExitCode.MOUNT_FAILED, message) from error

    async def serve(self, answering: Callable[[], Awaitable[None]]) -> None:
        """Answer the kernel until the mount is gone and its last file is closed; call `answering` at the start.

        Cancelled, it stops answering: what is open then gets ENOTCONN, so detach and wait instead.
        """
        async with trio.open_nursery() as nursery:

            async def announce() -> None:
                # In a thread: this very task's loop has to answer the stat.
                status = await trio.to_thread.run_sync(os.stat, self._mount_point, abandon_on_cancel=True)
                self._filesystem.files.device = status.st_dev
                set_read_ahead(status.st_dev)
                await answering()

            nursery.start_soon(announce)
            nursery.start_soon(self._invalidation.run)
            await pyfuse3.main(max_tasks=MAX_TASKS)
            nursery.cancel_scope.cancel()

    async def detach(self) -> bool:
        """Take the mount out of the tree at once (MNT_DETACH); open files go on, and `serve` with them.

        False when it could not be.
        """
        command = ["fusermount3", "-u", "-z", "--", self._mount_point]
        # In a session of its own: Ctrl-C at the terminal is for us alone.
        ended = await trio.run_process(command, check=False, capture_stderr=True, start_new_session=True)
        if ended.returncode != 0:
            log.error("cannot detach: %s", ended.stderr.decode(errors="replace").strip())
        return ended.returncode == 0

    def close(self) -> None:
        """Free the session; unmounts if it is still mounted."""
        log.debug("the kernel asked: %s", dict(requests))
        pyfuse3.close(unmount=True)
