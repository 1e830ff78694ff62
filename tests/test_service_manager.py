"""What a service manager is told: sd_notify(3) as a datagram, to a socket of the test's own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvsfs.service_manager import STATUS_SECONDS, ServiceManager
from tests.support.mounting import KVSFS, LEAVING_SECONDS, READY_SECONDS, Sandbox, children_of, mounted_store

ABSTRACT = f"@kvsfs-test-{os.getpid()}"


@contextlib.contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind("\0" + address[1:] if address.startswith("@") else address)
        made.settimeout(READY_SECONDS)
        yield made


def told(listener: socket.socket) -> list[str]:
    return listener.recv(4096).decode().split("\n")


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_words_and_a_line(tmp_path: Path, kind: str) -> None:
    address = ABSTRACT if kind == "abstract" else str(tmp_path / "socket")
    environment = {"NOTIFY_SOCKET": address}
    with listening(address) as listener:
        manager = ServiceManager(environment)
        manager.tell(READY=1, WATCHDOG=1, status="it is\nREADY=0 🙂")
        assert told(listener) == ["READY=1", "WATCHDOG=1", "STATUS=it is READY=0 🙂"]
    assert environment == {}  # no child speaks for us
    manager.tell(READY=1)  # nobody listens any more: nothing happens


def test_nobody_is_told_without_a_socket() -> None:
    manager = ServiceManager({})
    assert not manager.listens
    manager.tell(READY=1)


@pytest.mark.parametrize(
    ("environment", "interval"),
    [
        ({}, STATUS_SECONDS),
        ({"WATCHDOG_USEC": "2000000"}, 1.0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}, 1.0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"}, STATUS_SECONDS),
        ({"WATCHDOG_USEC": "3600000000"}, STATUS_SECONDS),
        ({"WATCHDOG_USEC": "soon"}, STATUS_SECONDS),
        ({"WATCHDOG_USEC": "0"}, STATUS_SECONDS),
    ],
)
def test_it_is_told_twice_in_its_watchdogs_time(environment: dict[str, str], interval: float) -> None:
    assert ServiceManager(environment).interval == interval
    assert environment == {}


@pytest.mark.fuse
def test_a_mount_tells_that_it_answers_and_lives_and_leaves(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path / "sandbox")
    address = str(tmp_path / "socket")
    sandbox.environment |= {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000"}
    with listening(address) as listener, mounted_store(sandbox, "local:demo") as mounted:
        first = told(listener)
        while "READY=1" not in first:
            assert "WATCHDOG=1" in first
            first = told(listener)
        (status,) = told(listener)[1:]
        assert status == f"STATUS=local:demo is mounted on {mounted.path}; left to upload: nothing"
        (server,) = children_of(mounted.pid)
        assert b"NOTIFY_SOCKET" not in Path(f"/proc/{server}/environ").read_bytes()
        os.kill(mounted.pid, signal.SIGSTOP)  # nothing pings for a daemon that does not run
        listener.settimeout(0.5)
        with pytest.raises(TimeoutError):
            list(iter(lambda: told(listener), None))
        os.kill(mounted.pid, signal.SIGCONT)
        listener.settimeout(READY_SECONDS)
        assert "WATCHDOG=1" in told(listener)
        mounted.umount()


def test_a_server_tells_that_it_answers_and_lives_and_leaves(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path / "sandbox")
    address = str(tmp_path / "socket")
    sandbox.environment |= {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000"}
    with listening(address) as listener:
        server = subprocess.Popen(
            [*KVSFS, "serve", "--port", "0"], env=sandbox.environment, stdout=subprocess.PIPE
        )
        try:
            ready, status = told(listener)
            assert ready == "READY=1"
            assert status.startswith("STATUS=listening on http://127.0.0.1:")
            assert told(listener) == ["WATCHDOG=1"]
            server.terminate()
            while told(listener) != ["STOPPING=1"]:
                pass
            assert server.wait(LEAVING_SECONDS) in (0, -signal.SIGTERM)
        finally:
            server.kill()
            server.communicate()
