"""The embedded server as a child process, for a mount of `local:`."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from kvsfs.errors import CommandError, ExitCode

START_SECONDS = 30.0
"""A cold start takes under a second; a disk under heavy load many times that."""

STOP_SECONDS = 10.0
"""What a server that is asked to end may take for the answers under way."""


@dataclass(frozen=True, slots=True)
class LocalServer:
    """Where the child listens, and the token that it lets in."""

    url: str
    token: str = field(repr=False)


@asynccontextmanager
async def local_server(data_folder: str) -> AsyncIterator[LocalServer]:
    """Run `kvsfs serve` on a free port of loopback for as long as the context lasts.

    The child has a token of its own, handed over in its environment, and a session of its own, so that Ctrl-C
    at the terminal reaches only us: we end it after the last upload. It ends by itself when we die. Raises
    CommandError when it does not come up.
    """
    token = secrets.token_urlsafe(32)
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "kvsfs", "serve", "--data", data_folder, "--port", "0", "--exit-with-parent"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**_without_token(), "KVSFS_SERVE_TOKENS": f"{token}=local"},
        start_new_session=True,
    )
    try:
        yield LocalServer(await _read_url(process), token)
    finally:
        with trio.CancelScope(shield=True):
            await _stop(process)


def _without_token() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "APIFY_TOKEN"}


async def _read_url(process: trio.Process) -> str:
    assert process.stdout is not None
    line = b""
    with trio.move_on_after(START_SECONDS):
        while not line.endswith(b"\n"):
            received = await process.stdout.receive_some()
            if not received:
                break
            line += received
    _, _, url = line.decode().strip().rpartition(" ")
    if not url.startswith("http"):
        raise CommandError(ExitCode.UNREACHABLE, "the embedded server did not start: its own words are above")
    return url


async def _stop(process: trio.Process) -> None:
    process.terminate()
    with trio.move_on_after(STOP_SECONDS):
        await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            await pipe.aclose()
