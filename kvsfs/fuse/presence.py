"""How a daemon tells `kvsfs umount` that it is still at work, and what it could not upload.

Each daemon holds a lock on a file of its own for as long as it lives: whoever waits for the lock waits for the
daemon, however it ends, and no process number can be mistaken. Before it ends it writes its outcome there.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pwd
from dataclasses import dataclass

from kvsfs.config import folder_for
from kvsfs.errors import CommandError, ExitCode

MOST_LEFT = 100
"""Of what is left, told by name: it is read from the file in one piece."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a daemon ended: what is left, `MOST_LEFT` of it at most; None when it did not say."""

    left: list[str] | None
    count: int = 0
    """How much is left."""


class Presence:
    """The lock of one running daemon. Made once it is mounted; gone with the process."""

    def __init__(self, mount_point: str) -> None:
        """Raise CommandError where no such file can be made."""
        folder = self.folder = folder_for("XDG_RUNTIME_DIR", "~/.local/state")
        self._path = os.path.join(folder, name_for(mount_point))
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            os.chmod(folder, 0o700)
            # A daemon that still drains may hold the file of this mount point: leave that one to it.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            message = f"cannot use {folder}: {error.strerror}; set XDG_RUNTIME_DIR to a folder of yours"
            raise CommandError(ExitCode.MOUNT_FAILED, message) from error
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def end(self, left: list[str]) -> None:
        """Write the outcome and let waiters go on."""
        outcome = {"left": left[:MOST_LEFT], "count": len(left)}
        os.pwrite(self._fd, json.dumps(outcome).encode(), 0)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(self._path), os.fstat(self._fd)):  # else a newer daemon's
                os.unlink(self._path)
        os.close(self._fd)


class Waiter:
    """Waits for the daemon of a mount point. Made before unmounting: afterwards another may have its place.

    `owner` is the user who mounted: root may wait for anybody's daemon, and cron has another environment than a
    desktop session.
    """

    def __init__(self, mount_point: str, owner: int) -> None:
        self._fd: int | None = None
        for folder in folders_of(owner):
            try:
                self._fd = os.open(os.path.join(folder, name_for(mount_point)), os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue
            break

    @property
    def knows_daemon(self) -> bool:
        """Whether there is anything to wait for."""
        return self._fd is not None

    def wait(self) -> Outcome:
        """Block until the daemon has ended."""
        if self._fd is None:
            return Outcome(None)
        fcntl.flock(self._fd, fcntl.LOCK_SH)
        text = os.pread(self._fd, 1 << 20, 0)
        os.close(self._fd)
        try:
            outcome = json.loads(text)
            return Outcome(outcome["left"], outcome["count"])
        except (ValueError, KeyError):
            return Outcome(None)


def folders_of(owner: int) -> list[str]:
    """Give the places where a user's daemons have their files, as their environment may have been."""
    folders = [
        folder_for("XDG_RUNTIME_DIR", "~/.local/state"),
        os.path.expanduser("~/.local/state/kvsfs"),
        f"/run/user/{owner}/kvsfs",
    ]
    with contextlib.suppress(KeyError):
        folders.append(os.path.join(pwd.getpwuid(owner).pw_dir, ".local/state/kvsfs"))
    return list(dict.fromkeys(folders))


def name_for(mount_point: str) -> str:
    """Give the name of what belongs to the daemon of a mount point, whatever characters that has."""
    digest = hashlib.sha256(os.path.realpath(os.path.dirname(mount_point)).encode())
    digest.update(b"/" + os.path.basename(mount_point).encode())
    return f"mount-{digest.hexdigest()[:32]}"
