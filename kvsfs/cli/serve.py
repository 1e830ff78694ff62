"""`kvsfs serve`: run the embedded store."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from kvsfs.config import parse_duration
from kvsfs.errors import CommandError, ExitCode

TOKENS_VARIABLE = "KVSFS_SERVE_TOKENS"
"""Tokens for those who do not want to show them in `ps`: as --token, with commas between."""

DEFAULT_PORT = 8765


def serve(
    data: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Where records are kept.", show_default="~/.local/share/kvsfs"),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")
    ] = DEFAULT_PORT,
    token: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TOKEN[=USERNAME]",
            help=f"Let in who has this token. Repeatable. {TOKENS_VARIABLE} (with commas) hides it from ps.",
        ),
    ] = None,
    latency: Annotated[str, typer.Option(metavar="TIME", help="Delay every answer, as in 20ms.")] = "0",
    request_log: Annotated[
        str | None, typer.Option(metavar="FILE", help="Append a JSON line for each request.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Write each request to stderr.")] = False,
    exit_with_parent: Annotated[
        bool, typer.Option("--exit-with-parent", help="Stop when stdin ends.", hidden=True)
    ] = False,
) -> None:
    """Run an Apify-compatible key-value store on this machine."""
    # Here, not above: the other commands shall not wait for a server's imports.
    from kvsfs.server.run import Options, run

    options = Options(
        folder=data or _default_folder(),
        host=host,
        port=port,
        tokens=[*(token or []), *_tokens_from_environment()],
        latency=_seconds(latency),
        request_log=request_log,
        verbose=verbose,
        exit_with_parent=exit_with_parent,
    )
    run(options, lambda url: print(f"kvsfs serve: listening on {url}", flush=True))


def _default_folder() -> str:
    base = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.join(base, "kvsfs")


def _tokens_from_environment() -> list[str]:
    """Take the tokens out of the environment, so that no child of ours inherits them."""
    return [token for token in os.environ.pop(TOKENS_VARIABLE, "").split(",") if token]


def _seconds(latency: str) -> float:
    try:
        return parse_duration(latency)
    except ValueError as error:
        raise CommandError(ExitCode.USAGE, f"--latency: {error}") from error
