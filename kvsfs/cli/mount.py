"""`kvsfs mount SOURCE MOUNTPOINT`."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any, NoReturn

import typer

from kvsfs import config, logs, settings
from kvsfs.cli import completing
from kvsfs.cli.mount_options import of_flags, of_words, with_options
from kvsfs.errors import CommandError, ExitCode
from kvsfs.fuse.mount_points import resolved
from kvsfs.log_targets import LogFile
from kvsfs.options import MountConfig, arguments
from kvsfs.settings import Layer
from kvsfs.store.sources import is_secret, shown

LONGEST_SOURCE = 8192
"""Bytes: no server takes a longer URL, and a pipe holds it whole."""


@with_options
def mount(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A store's ID, ~name, user/name, run:ID, actor:user/actor, task:user/task, a URL of its keys, "
            "or local:[name]; or a name from a configuration file.",
            autocompletion=completing.sources,
        ),
    ],
    mount_point: Annotated[
        str | None,
        typer.Argument(
            metavar="MOUNTPOINT", help="An empty folder. [default: what the configuration file says]"
        ),
    ] = None,
    foreground: Annotated[
        bool, typer.Option("-f", "--foreground", help="Stay in the foreground, log to the terminal.")
    ] = False,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "-o",
            metavar="OPT[,OPT…]",
            help="Options as mount(8) writes them: ro, allow_other, uid=…",
            autocompletion=completing.option_words,
        ),
    ] = None,
    ready_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
    source_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
    **flags: Any,  # the table's own types
) -> None:
    """Mount a store; goes to the background once the mount answers."""
    if source_fd is not None:
        source = taken(source_fd)
    elif is_secret(source):
        restart_without(source, "kvsfs")
    said = (of_flags(flags), of_words(option or []))
    if ready_fd is None:
        configured = configured_by(source, mount_point, said)
    else:  # the arguments say all: what is around has been asked by whoever started this process
        configured = settings.config(source, mount_point or "", said)
    if ready_fd is None and not foreground:
        mount_in_background(configured)
        _tell_mounted(configured)
    else:
        _log(configured, in_background=ready_fd is not None)
        code = _run(configured, _ready_teller(configured, ready_fd))
        raise typer.Exit(code)


def configured_by(source: str, mount_point: str | None, said: Sequence[Layer]) -> MountConfig:
    """Put together what the command line, the environment and the files say of a mount. Raises CommandError."""
    files = settings.of_files(config.config_files())
    named = files.mounts.get(source)
    layers = [*said, *files.layers(os.environ, named)]
    if named is not None:
        source, mount_point = named.source, mount_point or named.mount_point
    if mount_point is not None:
        return settings.config(source, resolved(mount_point), layers)
    if named is not None:
        raise settings.usage(f"MOUNTPOINT is missing: name one here, or as mount-point below {named.place}")
    hint = settings.suggestion(shown(source), files.mounts)
    raise settings.usage(
        f"MOUNTPOINT is missing, and no mount is named {shown(source)} in the configuration files{hint}"
    )


def _run(configured: MountConfig, ready: Callable[[], None]) -> ExitCode:
    import trio

    from kvsfs import daemon  # `umount` and `--help` need none of its imports

    try:
        return trio.run(daemon.run, configured, ready)
    except BaseExceptionGroup as group:
        error: BaseException = group  # a nursery wraps what leaves it: one group a nursery
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if isinstance(error, CommandError):
            raise error from None
        raise


def mount_in_background(configured: MountConfig) -> None:
    """Start the daemon as a process of its own, and wait until it answers or says why not.

    A new process rather than fork(2): nothing of this one's threads and descriptors goes along. `-P`: a folder
    `kvsfs` where it is typed (a mount point, say) is not the package. Raises CommandError; typer.Exit once the
    daemon has told why.
    """
    from kvsfs import daemon

    daemon.check(configured)
    handed = _handed_over(configured.source) if is_secret(configured.source) else None
    reader, writer = os.pipe()
    child = subprocess.Popen(
        [
            sys.executable,
            "-P",
            "-m",
            "kvsfs",
            "mount",
            "--ready-fd",
            str(writer),
            *([] if handed is None else ["--source-fd", str(handed)]),
            *arguments(replace(configured, source=shown(configured.source))),
        ],
        pass_fds=[writer] if handed is None else [writer, handed],
        stdin=subprocess.DEVNULL,
        cwd="/",  # no folder shall be busy because a mount was once typed in it
    )
    os.close(writer)
    if handed is not None:
        os.close(handed)
    answered = os.read(reader, 1)
    os.close(reader)
    if not answered:
        code = child.wait()
        # The child's own line is on stderr already; a negative code is the signal that ended it.
        raise typer.Exit(code if code > 0 else ExitCode.UNEXPECTED)
    child.returncode = 0  # not ours to wait for any more


def restart_without(source: str, module: str) -> NoReturn:
    """Begin anew, as the same process, with the source out of its arguments: everybody can read those.

    `module` finds it again with `taken`, by an argument `--source-fd` behind the first one.
    """
    descriptor = _handed_over(source)
    os.set_inheritable(descriptor, True)
    first, *words = [shown(word) if word == source else word for word in sys.argv[1:]]
    arguments = [first, "--source-fd", str(descriptor), *words]
    os.execv(sys.executable, [sys.executable, "-P", "-m", module, *arguments])  # noqa: S606 - our own interpreter, our own words


def _handed_over(source: str) -> int:
    """Give a descriptor that a source can be read from, once."""
    reader, writer = os.pipe()
    with open(writer, "wb") as pipe:
        pipe.write(source.encode()[:LONGEST_SOURCE])
    return reader


def taken(descriptor: int) -> str:
    """Read a source that was handed over."""
    with open(descriptor, "rb") as pipe:
        return pipe.read().decode(errors="replace")


def _ready_teller(configured: MountConfig, ready_fd: int | None) -> Callable[[], None]:
    if ready_fd is None:
        return lambda: _tell_mounted(configured)
    log = _own_log(configured)

    def tell() -> None:
        log.take_over(1, 2)  # lets go of the terminal
        if configured.log in (None, logs.STDERR):
            logging.getLogger().handlers[:] = [log]
        # Not before: systemd's automounter lets only its own process group past the mount point (autofs(5), oz mode).
        os.setsid()
        os.write(ready_fd, b"\n")
        os.close(ready_fd)

    return tell


def _tell_mounted(configured: MountConfig) -> None:
    try:
        print(f"{shown(configured.source)} is mounted on {configured.mount_point}", flush=True)
    except OSError:  # nobody listens, or a full disk: it is mounted all the same
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _log(configured: MountConfig, *, in_background: bool) -> None:
    target = configured.log
    if in_background and target is None:
        target = logs.STDERR  # until the mount answers
    logs.set_up(configured.log_level, target, configured.log_format)


def _own_log(configured: MountConfig) -> LogFile:
    """Open the daemon's own log before anything is mounted: afterwards nobody would read why it cannot be.

    With --log elsewhere it takes what is written to stderr by others: libfuse, a crash of the interpreter.
    """
    path = config.log_file(configured.mount_point)
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    except OSError as error:
        message = f"cannot write the log {path}: {error.strerror}; set XDG_STATE_HOME to a folder of yours"
        raise CommandError(ExitCode.MOUNT_FAILED, message) from error
    return logs.file_handler(path, configured.log_format)
