"""A command's end of the control socket. Blocking: a command does one thing at a time."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from kvsfs.control import wire
from kvsfs.errors import CommandError, ExitCode
from kvsfs.fuse import mount_table
from kvsfs.fuse.mount_points import resolved
from kvsfs.fuse.presence import folders_of

SILENCE_SECONDS = 30.0
"""Without a word from the daemon. One that waits for the network tells its progress every second."""

_PIECE = 256 * 1024

OnProgress = Callable[[Mapping[str, Any]], None]


class Connection:
    """One request to a daemon. A context manager: leaving it closes the connection."""

    def __init__(self, folder: str, name: str) -> None:
        """Raise OSError where no daemon listens."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._buffer = bytearray()
        self.fds: list[int] = []
        """Descriptors that came with the answer: the caller's to close."""
        try:
            self._socket.settimeout(SILENCE_SECONDS)
            with wire.address(folder, name) as address:
                self._socket.connect(address)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def ask(self, command: str, on_progress: OnProgress | None = None, **arguments: Any) -> dict[str, Any]:
        """Have a command done; its result. Raises CommandError: the daemon's own, or that it does not answer."""
        self.send(command, **arguments)
        for message in self.messages():
            if "progress" in message:
                if on_progress is not None:
                    on_progress(message["progress"])
            elif "error" in message:
                raise CommandError(_exit_code(message.get("exit_code")), str(message["error"]))
            else:
                return dict(message.get("result", {}))
        raise CommandError(ExitCode.NO_ANSWER, "the mount's daemon ended amid its answer: see its log")

    def send(self, command: str, **arguments: Any) -> None:
        """Send the request. Raises CommandError."""
        with _explained():
            self._socket.sendall(wire.encode({"command": command, "arguments": arguments}))

    def messages(self) -> Iterator[dict[str, Any]]:
        """Give what the daemon sends, until it closes the connection. Raises CommandError."""
        while True:
            line, newline, rest = self._buffer.partition(b"\n")
            if newline:
                self._buffer = rest
                with _explained():
                    message = wire.decode(bytes(line))
                yield message
                continue
            with _explained():
                piece, fds, _, _ = socket.recv_fds(self._socket, _PIECE, 1)
            self.fds += fds
            self._buffer += piece
            if not piece or len(self._buffer) > wire.LONGEST_ANSWER:
                return


def connect(mount_point: str) -> Connection:
    """Connect to the daemon of a mount point, also while it drains after its unmount. Raises CommandError."""
    path = resolved(mount_point)
    owner = mount_table.owner(path)
    for folder in folders_of(os.getuid() if owner is None else owner):
        with contextlib.suppress(OSError):
            return Connection(folder, wire.socket_name(path))
    if owner is None:
        raise CommandError(ExitCode.NOT_MOUNTED, f"no running mount of kvsfs at {path}: see `kvsfs status`")
    raise CommandError(ExitCode.NO_ANSWER, f"the daemon of {path} does not answer: is it yours, and running?")


def connect_above(path: str) -> tuple[Connection, str]:
    """Connect to the daemon of the mount that a path is in; the path below the mount. Raises CommandError."""
    mount_point, below = mount_above(path)
    return connect(mount_point), below


def mount_above(path: str) -> tuple[str, str]:
    """Give the mount point that a path is in, or is, and the path below it. Raises CommandError.

    The path as it stands comes first: its links are only followed when it leads nowhere, for that asks the mount.
    """
    for candidate in (os.path.abspath, resolved):
        absolute = candidate(path)
        mount_point = mount_table.above(absolute)
        if mount_point is not None:
            return mount_point, os.path.relpath(absolute, mount_point).removeprefix(".").lstrip("/")
    raise CommandError(ExitCode.NOT_MOUNTED, f"{path} is in no mount of kvsfs: see `kvsfs status`")


def all_connections() -> Iterator[Connection]:
    """Connect to each of the user's daemons."""
    for folder in folders_of(os.getuid()):
        for name in wire.socket_names(folder):
            with contextlib.suppress(OSError):  # a killed daemon's
                yield Connection(folder, name)


def _exit_code(number: Any) -> ExitCode:
    try:
        return ExitCode(number)
    except ValueError:
        return ExitCode.UNEXPECTED


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        message = f"the mount's daemon has said nothing for {SILENCE_SECONDS:g} s: see its log"
        raise CommandError(ExitCode.NO_ANSWER, message) from None
    except (OSError, ValueError) as error:
        raise CommandError(ExitCode.NO_ANSWER, f"the mount's daemon does not answer: {error}") from None
