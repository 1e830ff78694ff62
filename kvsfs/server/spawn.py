"""The embedded server as a child process, for a mount of `local:`."""

from __future__ import annotations

import logging
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from kvsfs.errors import CommandError, ExitCode

log = logging.getLogger(__name__)

_OPTIONS = ["--port", "0", "--exit-with-parent"]

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
        [sys.executable, "-P", "-m", "kvsfs", "serve", *_OPTIONS, "--data", data_folder],
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,  # never ours: it would hold a terminal or pipe open that we have let go of
        env={**_without_token(), "KVSFS_SERVE_TOKENS": f"{token}=local"},
        start_new_session=True,
    )
    words = _Words()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(words.log, process)
            try:
                url = await _read_url(process, words)
                nursery.start_soon(_tell_of_its_end, process)
                yield LocalServer(url, token)
            finally:
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True):
                    await _end(process)
    finally:
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                await trio.aclose_forcefully(pipe)


class _Words:
    """What the child says on stderr: logged, and the last line kept to tell why it did not start."""

    def __init__(self) -> None:
        self.last = "it gave no reason"
        self.level = logging.DEBUG
        """Before it listens its last line is the caller's error; from then on it is news."""
        self.ended = trio.Event()

    async def log(self, process: trio.Process) -> None:
        assert process.stderr is not None
        rest = b""
        async for received in process.stderr:
            *lines, rest = (rest + received).split(b"\n")
            for line in lines:
                self.last = line.decode(errors="replace").removeprefix("kvsfs: ")
                log.log(self.level, "the embedded server says: %s", self.last)
        self.ended.set()


def _without_token() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "APIFY_TOKEN"}


async def _read_url(process: trio.Process, words: _Words) -> str:
    assert process.stdout is not None
    line = b""
    with trio.move_on_after(START_SECONDS) as scope:
        while not line.endswith(b"\n") and (received := await process.stdout.receive_some()):
            line += received
        if not line:
            await words.ended.wait()
    _, _, url = line.decode().strip().rpartition(" ")
    if not url.startswith("http"):
        reason = f"not within {START_SECONDS:g} s" if scope.cancelled_caught else words.last
        raise CommandError(ExitCode.UNREACHABLE, f"the embedded server did not start: {reason}")
    words.level = logging.WARNING
    return url


async def _tell_of_its_end(process: trio.Process) -> None:
    code = await process.wait()
    log.error("the embedded server ended (%d): unmount, and mount again", code)


async def _end(process: trio.Process) -> None:
    process.terminate()
    with trio.move_on_after(STOP_SECONDS):
        await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()
