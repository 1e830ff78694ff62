"""Runs `kvsfs serve` as users do: in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

READY_SECONDS = 20
"""It takes 0.3 s; on a machine that is busy with everything else, much longer."""

STOP_SECONDS = 20
"""Above the server's own grace (run.GRACE_SECONDS)."""

READY_LINE = "kvsfs serve: listening on "


@dataclass(frozen=True)
class LoggedRequest:
    """One line of the request log."""

    method: str
    path: str
    """Without the query."""
    query: Mapping[str, str]
    status: int | None
    ms: float


@dataclass
class RunningServer:
    """A server that answers."""

    url: str
    process: subprocess.Popen[str]
    request_log_path: Path | None

    @property
    def pid(self) -> int:
        return self.process.pid

    def requests(self) -> list[LoggedRequest]:
        """Every request that was answered so far, in order."""
        if self.request_log_path is None:
            raise ValueError("start the server with request_log=PATH to count requests")
        if not self.request_log_path.exists():
            return []
        return [_logged(line) for line in self.request_log_path.read_text().splitlines()]

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait(STOP_SECONDS)

    def stop(self) -> int:
        """Ask it to stop; gives its exit status. May be called twice."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise


def _logged(line: str) -> LoggedRequest:
    fields = json.loads(line)
    path, _, query = fields["path"].partition("?")
    return LoggedRequest(fields["method"], path, dict(parse_qsl(query)), fields["status"], fields["ms"])


def serve_command(*arguments: str) -> list[str]:
    """Give the command line of `kvsfs serve` with arguments."""
    return [sys.executable, "-m", "kvsfs", "serve", *arguments]


@contextlib.contextmanager
def running_server(
    data_dir: Path,
    *,
    tokens: Sequence[str] = (),
    latency: str | None = None,
    port: int = 0,
    request_log: Path | None = None,
    arguments: Sequence[str] = (),
) -> Iterator[RunningServer]:
    """Start a server on `data_dir`, wait until it answers, and end it whatever happens.

    `tokens` are TOKEN or TOKEN=USERNAME; `latency` as the option takes it; `port` 0 means any free one.
    """
    command = serve_command("--data", str(data_dir), "--port", str(port), "--exit-with-parent", *arguments)
    if latency is not None:
        command += ["--latency", latency]
    if request_log is not None:
        command += ["--request-log", str(request_log)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "KVSFS_SERVE_TOKENS": ",".join(tokens)},
    )
    server = RunningServer("", process, request_log)
    try:
        server.url = _wait_until_ready(process)
        yield server
    finally:
        try:
            server.stop()
        finally:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            process.stdout.close()


class Home:
    """Where a server that goes away comes back: its port, its records, its requests."""

    def __init__(self, folder: Path, token: str) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._token = token
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]

    def serving(self, *arguments: str) -> contextlib.AbstractContextManager[RunningServer]:
        return running_server(
            self._folder / "data",
            tokens=[f"{self._token}=joe"],
            port=self._port,
            request_log=self._folder / "log",
            arguments=arguments,
        )


def _wait_until_ready(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    deadline = time.monotonic() + READY_SECONDS
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        ready = selector.select(deadline - time.monotonic())
    line = process.stdout.readline() if ready else ""
    if not line.startswith(READY_LINE):
        raise RuntimeError(f"kvsfs serve did not start: exit status {process.poll()}, it printed {line!r}")
    return line.removeprefix(READY_LINE).strip()
