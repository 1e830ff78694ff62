"""The daemon's end of the control socket.

Whoever connects harms nobody: requests are short and come in time, few are answered at once, answers that nobody
takes are dropped, and no error leaves here.
"""

from __future__ import annotations

import array
import contextlib
import errno
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import trio

from kvsfs.control import wire
from kvsfs.errors import CommandError, ExitCode, FileError, KvsfsError, StoreError
from kvsfs.logs import redact

log = logging.getLogger(__name__)

REQUEST_SECONDS = 5.0
"""For the request's line to arrive: a command sends it at once."""

ANSWER_SECONDS = 10.0
"""For a line of the answer to be taken. A socket buffer takes most of them at once."""

MOST_CONNECTIONS = 32
"""At a time: more than a person has terminals."""

_CREDENTIALS = struct.Struct("3i")
"""pid, uid and gid of a peer (unix(7), SO_PEERCRED)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command gives. `fd` is handed over, and closed here."""

    result: Mapping[str, Any]
    fd: int | None = None


Tell = Callable[[Mapping[str, Any]], Awaitable[None]]
"""Sends a line of progress; raises trio.BrokenResourceError when nobody listens any more."""

Command = Callable[[wire.Arguments, Tell], Awaitable[Answer]]


class ControlServer:
    """Listens beside a mount. Only its user, and root, are answered."""

    def __init__(self, folder: str, mount_point: str, commands: Mapping[str, Command]) -> None:
        """`folder`: where the daemon has its files, 0700."""
        self._folder = folder
        self._name = wire.socket_name(mount_point)
        self._commands = commands
        self._connections = 0

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer until cancelled. Without a socket (a folder that takes none) the mount goes on, uncontrolled."""
        try:
            listener = self._listen()
        except OSError as error:
            log.warning("no control socket in %s (%s): kvsfs status will not work", self._folder, error)
            task_status.started()
            return
        inode = os.stat(os.path.join(self._folder, self._name)).st_ino
        task_status.started()
        try:
            await trio.serve_listeners(self._serve, [trio.SocketListener(listener)])
        except Exception:
            log.exception("the control socket is gone: kvsfs status will not work")
        finally:
            listener.close()
            self._remove(inode)

    def _listen(self) -> trio.socket.SocketType:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path = os.path.join(self._folder, self._name)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)  # a daemon that still drains answers those that have it open
            with wire.address(self._folder, self._name) as address:
                listener.bind(address)
            os.chmod(path, 0o600)
            listener.listen(MOST_CONNECTIONS)
        except BaseException:
            listener.close()
            raise
        return trio.socket.from_stdlib_socket(listener)

    def _remove(self, inode: int) -> None:
        path = os.path.join(self._folder, self._name)
        with contextlib.suppress(OSError):
            if os.stat(path).st_ino == inode:  # else a newer daemon's
                os.unlink(path)

    async def _serve(self, stream: trio.SocketStream) -> None:
        """Answer one connection; raises nothing."""
        self._connections += 1
        try:
            async with stream:
                if self._connections <= MOST_CONNECTIONS and _peer_uid(stream.socket) in (0, os.getuid()):
                    await self._converse(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError, OSError) as error:
            log.debug("a control connection ended: %s", error)
        except Exception:
            log.exception("a control connection failed")
        finally:
            self._connections -= 1

    async def _converse(self, stream: trio.SocketStream) -> None:
        try:
            message = wire.decode(await _read_line(stream))
            command, arguments = message["command"], message.get("arguments", {})
            run = self._commands[command]
            if not isinstance(arguments, dict):
                raise TypeError("arguments")  # noqa: TRY301
        except (ValueError, KeyError, TypeError, RecursionError):
            await _send(stream, {"error": "not a request that this version of kvsfs knows", "exit_code": 2})
            return

        async def tell(progress: Mapping[str, Any]) -> None:
            await _send(stream, {"progress": progress})

        answer = await _answer_of(run, arguments, tell)
        if isinstance(answer, Answer):
            await _send(stream, {"result": answer.result}, answer.fd)
        else:
            await _send(stream, {"error": redact(str(answer)), "exit_code": answer.exit_code})


async def _answer_of(run: Command, arguments: wire.Arguments, tell: Tell) -> Answer | CommandError:
    try:
        return await run(arguments, tell)
    except CommandError as error:
        return error
    except (KvsfsError, OSError) as error:
        if isinstance(error, trio.BrokenResourceError):
            raise
        return CommandError(_exit_code(error), str(error))


def _exit_code(error: KvsfsError | OSError) -> ExitCode:
    if isinstance(error, StoreError):
        return ExitCode.UNREACHABLE
    if isinstance(error, FileError):
        return ExitCode.BUSY if error.errno == errno.EBUSY else ExitCode.NOTHING_PENDING
    return ExitCode.UNEXPECTED


def _peer_uid(peer: trio.socket.SocketType) -> int:
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(credentials)
    return int(uid)


async def _read_line(stream: trio.SocketStream) -> bytes:
    """Read the request. Raises ValueError for one that is too long or broken off, TooSlowError."""
    line = bytearray()
    with trio.fail_after(REQUEST_SECONDS):
        while not line.endswith(b"\n"):
            piece = await stream.receive_some(wire.LONGEST_REQUEST)
            line += piece
            if not piece or len(line) > wire.LONGEST_REQUEST:
                raise ValueError("no line")
    return bytes(line)


async def _send(stream: trio.SocketStream, message: Mapping[str, Any], fd: int | None = None) -> None:
    line = wire.encode(message)
    with trio.fail_after(ANSWER_SECONDS):
        if fd is not None:
            try:
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))
                sent = await stream.socket.sendmsg([line], [rights])
            finally:
                os.close(fd)
            line = line[sent:]
        await stream.send_all(line)
