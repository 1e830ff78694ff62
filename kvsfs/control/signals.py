"""What signals make a running mount do."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from kvsfs import logs
from kvsfs.control import tasks
from kvsfs.control.status import Status
from kvsfs.control.told import MOUNTED
from kvsfs.credentials import Credential
from kvsfs.errors import CommandError, NotAuthorized, PermissionDenied, StoreError
from kvsfs.fuse.session import Session
from kvsfs.opening import TryToken

log = logging.getLogger(__name__)

TERMINAL = "/dev/tty"
"""The terminal that a process can be typed at, whatever its descriptors are (tty(4)); ENXIO without one."""


async def leave(session: Session, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Leave the tree at the first SIGTERM or SIGINT; a later one changes nothing: open files are served on."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        detached = False
        async for number in signals:
            log.info("%s: leaving", signal.Signals(number).name)
            detached = detached or await session.detach()


async def hang_up(
    status: Status,
    change_token: Callable[[], Awaitable[None]],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Change the token at SIGHUP, also while uploads are waited for: a new one may be what they wait for.

    When the terminal is gone that a mount in the foreground was typed at, it is as a SIGTERM; a drain goes on.
    """
    had_terminal = _has_terminal()
    async with trio.open_nursery() as nursery:
        with trio.open_signal_receiver(signal.SIGHUP) as signals:
            task_status.started()
            async for _ in signals:
                if had_terminal and not _has_terminal():
                    _let_go_of_terminal()
                    if status.state == MOUNTED:
                        signal.raise_signal(signal.SIGTERM)
                else:
                    nursery.start_soon(change_token)  # it may take as long as a request


async def dump(status: Status, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Write what the daemon is doing to the log at SIGUSR1, as often as it comes."""
    with trio.open_signal_receiver(signal.SIGUSR1) as signals:
        task_status.started()
        async for _ in signals:
            try:
                log.info(
                    "SIGUSR1: tasks\n%s\nstatistics\n%s", tasks.tree(), json.dumps(status.now(), indent=2)
                )
            except Exception:
                log.exception("SIGUSR1: not all can be told")


async def verbosity(usual: str, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Log everything from a SIGUSR2 on, and as `usual` from the next one on."""
    with trio.open_signal_receiver(signal.SIGUSR2) as signals:
        task_status.started()
        async for _ in signals:
            log.info("SIGUSR2: the log level is %s from here on", logs.toggle_debug(usual))


async def change_token(status: Status, credential: Credential, try_token: TryToken | None) -> None:
    """Take the token anew from where it comes. One that is worse than the one in use is not taken. Raises nothing."""
    try:
        if try_token is None:
            log.info("SIGHUP: this mount has no token that could change")
            return
        found = await credential.read()
        if found is None:
            log.error("SIGHUP: the mount goes on with the token that it has: no other is found")
        elif found.token == credential.token:
            log.info("SIGHUP: %s has the same token as before", found.place)
        else:
            info = status.about.info
            await _try(partial(try_token, "" if info is None else info.id, found.token))
            credential.replace(found)
            log.info("SIGHUP: the token of %s is used from here on", found.place)
    except (CommandError, NotAuthorized, PermissionDenied) as error:
        log.error("SIGHUP: the mount goes on with the token that it has: %s", error)  # noqa: TRY400 - one line
    except Exception:
        log.exception("SIGHUP: the mount goes on with the token that it has")


async def _try(try_it: Callable[[], Awaitable[None]]) -> None:
    """Raise NotAuthorized or PermissionDenied for a token that is worse; a store out of reach proves nothing."""
    try:
        await try_it()
    except (NotAuthorized, PermissionDenied):
        raise
    except StoreError as error:
        log.warning("SIGHUP: the new token could not be tried: %s", error)


def _let_go_of_terminal() -> None:
    """Have nothing more written to a terminal that is gone: each line would fail, and the exit code be 120."""
    with open(os.devnull, "r+b", buffering=0) as nothing:
        for stream in (1, 2):
            if not _is_writable(stream):
                os.dup2(nothing.fileno(), stream)


def _is_writable(descriptor: int) -> bool:
    try:
        os.write(descriptor, b"")
    except OSError:
        return False
    return True


def _has_terminal() -> bool:
    try:
        os.close(os.open(TERMINAL, os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
