"""`kvsfs mount SOURCE MOUNTPOINT`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Annotated

import trio
import typer

from kvsfs import config, logs
from kvsfs.cli.mount_options import Words, parse_words, seconds
from kvsfs.config import MountConfig
from kvsfs.errors import CommandError, ExitCode
from kvsfs.fuse.mount_points import resolved


def mount(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A store's ID, ~name, user/name, or local:[name].")
    ],
    mount_point: Annotated[str, typer.Argument(metavar="MOUNTPOINT", help="An empty folder.")],
    foreground: Annotated[
        bool, typer.Option("-f", "--foreground", help="Stay in the foreground, log to the terminal.")
    ] = False,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "-o", metavar="OPT[,OPT…]", help="Options as mount(8) writes them: ro, allow_other, uid=…"
        ),
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Allow no change.")] = False,
    cache_dir: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Folder of the cache files. [default: below ~/.cache/kvsfs]"),
    ] = None,
    api_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Another API. [default: APIFY_API_BASE_URL or https://api.apify.com]"
        ),
    ] = None,
    token_file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="File that holds the token. [default: APIFY_TOKEN, ~/.apify/auth.json]"
        ),
    ] = None,
    timeout: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="What a request to the store may take, with its retries; large uploads get more. [default: 30s]",
        ),
    ] = None,
    log_level: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = "INFO",
    ready_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Mount a store; goes to the background once the mount answers."""
    words = parse_words(option or [])
    settings = MountConfig(
        source=source,
        mount_point=resolved(mount_point),
        api_url=api_url or words.text("api-url") or config.api_url_from_environment(),
        token_file=_absolute(token_file or words.text("token-file")),
        cache_dir=_absolute(cache_dir or words.text("cache-dir")),
        read_only=read_only or words.flag("ro"),
        allow_other=words.flag("allow-other"),
        uid=words.number("uid"),
        gid=words.number("gid"),
        file_mode=words.mode("file-mode", 0o644),
        dir_mode=words.mode("dir-mode", 0o755),
        timeout=seconds("--timeout", timeout) or words.duration("timeout"),
    )
    level = _level(log_level)
    if ready_fd is None and not foreground:
        _mount_in_background(settings, ["--log-level", level, *_arguments(settings, words)])
    else:
        logs.set_up(level)
        code = _run(settings, _ready_teller(settings, ready_fd))
        raise typer.Exit(code)


def _run(settings: MountConfig, ready: Callable[[], None]) -> ExitCode:
    from kvsfs import daemon  # `umount` and `--help` need none of its imports

    try:
        return trio.run(daemon.run, settings, ready)
    except BaseExceptionGroup as group:
        error: BaseException = group  # a nursery wraps what leaves it: one group a nursery
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if isinstance(error, CommandError):
            raise error from None
        raise


def _mount_in_background(settings: MountConfig, arguments: list[str]) -> None:
    """Start the daemon as a process of its own, and wait until it answers or says why not.

    A new process rather than fork(2): nothing of this one's threads and descriptors goes along. `-P`: a folder
    `kvsfs` where it is typed (a mount point, say) is not the package.
    """
    from kvsfs import daemon

    daemon.check(settings)
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
            *arguments,
        ],
        pass_fds=[writer],
        stdin=subprocess.DEVNULL,
        cwd="/",  # no folder shall be busy because a mount was once typed in it
        start_new_session=True,
    )
    os.close(writer)
    answered = os.read(reader, 1)
    os.close(reader)
    if not answered:
        code = child.wait()
        # The child's own line is on stderr already; a negative code is the signal that ended it.
        raise typer.Exit(code if code > 0 else ExitCode.UNEXPECTED)
    child.returncode = 0  # not ours to wait for any more
    _tell_mounted(settings)


def _arguments(settings: MountConfig, words: Words) -> list[str]:
    arguments = ["--api-url", settings.api_url]
    for flag, value in (("--token-file", settings.token_file), ("--cache-dir", settings.cache_dir)):
        if value is not None:
            arguments += [flag, value]
    if settings.read_only:
        arguments.append("--read-only")
    if settings.timeout is not None:
        arguments += ["--timeout", f"{settings.timeout:f}s"]
    if words.given:
        arguments += ["-o", ",".join(words.given)]
    return [*arguments, "--", settings.source, settings.mount_point]


def _ready_teller(settings: MountConfig, ready_fd: int | None) -> Callable[[], None]:
    if ready_fd is None:
        return lambda: _tell_mounted(settings)
    log_fd = _open_log(config.log_file(settings.mount_point))

    def tell() -> None:
        for fd in (1, 2):  # lets go of the terminal
            os.dup2(log_fd, fd)
        os.close(log_fd)
        os.write(ready_fd, b"\n")
        os.close(ready_fd)

    return tell


def _tell_mounted(settings: MountConfig) -> None:
    try:
        print(f"{settings.source} is mounted on {settings.mount_point}", flush=True)
    except OSError:  # nobody listens, or a full disk: it is mounted all the same
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_log(path: str) -> int:
    """Open the log before anything is mounted: afterwards nobody would read why it cannot be."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        message = f"cannot write the log {path}: {error.strerror}; set XDG_STATE_HOME to a folder of yours"
        raise CommandError(ExitCode.MOUNT_FAILED, message) from error


def _absolute(path: str | None) -> str | None:
    return None if path is None else os.path.abspath(os.path.expanduser(path))


def _level(name: str) -> str:
    if name.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise CommandError(ExitCode.USAGE, f"--log-level {name}: use DEBUG, INFO, WARNING or ERROR")
    return name.upper()
