"""Processes to measure and a client to measure them with: shared by the benchmarks of the embedded server."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

READY_SECONDS = 30
STOP_SECONDS = 20

Request = tuple[str, str, bytes]
"""Method, path, body."""


@dataclass(frozen=True)
class Running:
    port: int
    pid: int

    def peak_rss(self) -> int:
        """The most memory that it ever had, in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        match = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert match is not None
        return int(match.group(1)) * 1024


@contextlib.contextmanager
def kvsfs_serve(folder: Path, *options: str) -> Iterator[Running]:
    command = [sys.executable, "-m", "kvsfs", "serve", "--port", "0", "--data", str(folder), *options]
    with _process([*command, "--exit-with-parent"]) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield Running(int(line.rpartition(":")[2]), process.pid)


@contextlib.contextmanager
def control(folder: Path) -> Iterator[Running]:
    """Run the bare Starlette application of `_control.py`."""
    folder.mkdir(parents=True)
    with script("_control.py", str(folder)) as running:
        yield running


@contextlib.contextmanager
def script(name: str, *arguments: str) -> Iterator[Running]:
    """Run a server that stands beside this file, on a free port: its first argument."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    path = str(Path(__file__).with_name(name))
    with _process([sys.executable, path, str(port), *arguments]) as process:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                assert process.poll() is None, f"{name} ended"
                assert time.monotonic() < deadline, f"{name} did not start"
                time.sleep(0.05)
        yield Running(port, process.pid)


@contextlib.contextmanager
def _process(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(STOP_SECONDS)


def rate(port: int, request: Callable[[int, int], Request], *, in_flight: int, seconds: float) -> float:
    """Requests a second, with so many connections. `request` is told the connection and its turn."""
    return asyncio.run(_rate(port, request, in_flight, seconds))


async def _rate(port: int, request: Callable[[int, int], Request], in_flight: int, seconds: float) -> float:
    started = time.perf_counter()
    deadline = started + seconds
    turns = [0] * in_flight

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < deadline:
            method, path, body = request(number, turns[number])
            head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer[9:10] == b"2", answer
            length = re.search(rb"(?i)content-length: (\d+)", answer)
            if length is not None:
                await reader.readexactly(int(length[1]))
            turns[number] += 1
        writer.close()

    await asyncio.gather(*map(client, range(in_flight)))
    return sum(turns) / (time.perf_counter() - started)
