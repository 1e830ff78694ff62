"""The commands: each parses, prints and exits; none holds logic."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Annotated, NoReturn

import typer

from kvsfs.cli import (
    check,
    config,
    crawlee,
    doctor,
    mount,
    recover,
    serve,
    status,
    steer,
    stores,
    umount,
    url,
    warm,
)
from kvsfs.errors import CommandError, ExitCode

_STDERR = 2

_EXIT_CODES = "\n".join(["\b", "Exit codes:", *(f"  {code.value:3}  {code.meaning}" for code in ExitCode)])
"""\\b: click leaves the lines as they are."""

app = typer.Typer(
    name="kvsfs",
    help="Mount an Apify key-value store as a folder.",
    epilog=_EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode=None,  # "[name]" and "[default: …]" would be taken for markup and vanish
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _tell_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version  # no other command shall wait for it

        print(f"kvsfs {version('kvsfs')}")
        raise typer.Exit


@app.callback()
def _kvsfs(
    version: Annotated[
        bool, typer.Option("--version", help="Tell the version.", callback=_tell_version, is_eager=True)
    ] = False,
) -> None:
    """Mount an Apify key-value store as a folder."""


app.command("mount")(mount.mount)
app.command("umount")(umount.umount)
app.command("status")(status.status)
app.command("retry")(steer.retry)
app.command("discard")(steer.discard)
app.command("save-as")(steer.save_as)
app.command("flush")(steer.flush)
app.command("refresh")(steer.refresh)
app.command("warm")(warm.warm)
app.command("recover")(recover.recover)
app.command("check")(check.check)
app.command("doctor")(doctor.doctor)
app.command("url")(url.url)
app.command("import")(crawlee.import_)
app.command("export")(crawlee.export)
app.add_typer(stores.app, name="stores")
app.command("serve")(serve.serve)
app.add_typer(config.app, name="config")


def main() -> NoReturn:
    """Run the command of sys.argv, and end the process with its exit code."""
    fill_standard_descriptors()
    code: int | str | None = 0
    try:
        app()
    except CommandError as error:
        print(f"kvsfs: {error}", file=sys.stderr)
        code = error.exit_code
    except SystemExit as ended:  # how typer ends a command
        code = ended.code
    end_with_its_threads(code)
    sys.exit(code)


def end_with_its_threads(code: int | str | None) -> None:
    """End at once where obstore was at work. Returns where it was not.

    Its threads ask for the interpreter while that ends, which then aborts the process: 7 of 50 commands ended by
    SIGABRT when all was done (obstore 0.12, Python 3.11).
    """
    if sys.modules.get("obstore") is not None and not isinstance(code, str):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)


def fill_standard_descriptors() -> None:
    """Open what of stdin, stdout and stderr is closed: a pipe or a mount of ours must not get their numbers."""
    with contextlib.suppress(FileNotFoundError):  # without /dev/null, which each command tells in its own way
        while (fd := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
            pass
        os.close(fd)
