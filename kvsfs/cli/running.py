"""What commands that ask a store without a mount have in common: their options, and an end in one line."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from kvsfs import config, settings
from kvsfs.errors import CommandError
from kvsfs.options import OPTIONS, MountConfig
from kvsfs.settings import setting

T = TypeVar("T")

ApiUrl = Annotated[str | None, typer.Option(metavar="URL", help="Another API.")]
TokenFile = Annotated[str | None, typer.Option(metavar="FILE", help="File that holds the token.")]


def run(main: Callable[[], Awaitable[T]]) -> T:
    """Run to the end; a CommandError comes out of the nurseries around it as it is."""
    import trio  # 60 ms that the other commands need not wait for

    try:
        return trio.run(main)
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if isinstance(error, CommandError):
            raise error from None
        raise


def source_settings(
    source: str, api_url: str | None, token_file: str | None, *, create: bool = False
) -> MountConfig:
    """Take the API and the token from where `kvsfs mount` takes them."""
    flags = {
        name: setting(OPTIONS[name], (value,), f"--{name}")
        for name, value in (("api-url", api_url), ("token-file", token_file))
        if value is not None
    }
    files = settings.of_files(config.config_files())
    found = settings.config(source, "", [flags, *files.layers(os.environ, None)])
    return MountConfig(
        source, "", api_url=found.api_url, token_file=found.token_file, timeout=found.timeout, create=create
    )
