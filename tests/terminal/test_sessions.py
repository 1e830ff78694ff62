"""A person at a terminal: progress that is rewritten in place, and Ctrl-C."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pexpect
import pytest

from kvsfs.errors import ExitCode
from tests.support.fault_rules import fault
from tests.support.mounting import (
    KVSFS,
    LEAVING_SECONDS,
    READY_SECONDS,
    Sandbox,
    is_mounted,
    mounted_store,
    wait_until,
)
from tests.support.serving import RunningServer, running_server
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse

TOKEN = "a-token-of-a-person"
BEGUN_ANEW = "\r\x1b[K"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("server")
    with running_server(
        folder / "data", tokens=[f"{TOKEN}=joe"], request_log=folder / "log", arguments=["--testing"]
    ) as running:
        yield running


@pytest.fixture
def store(server: RunningServer) -> Iterator[StoreApi]:
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        yield StoreApi.create(client)


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    return Sandbox(tmp_path / "sandbox")


def typed(sandbox: Sandbox, *arguments: str) -> pexpect.spawn[str]:
    """Run a command of kvsfs at a terminal of its own."""
    command = shlex.join([*KVSFS, *arguments])
    environment = sandbox.environment_with(TOKEN)
    return pexpect.spawn(
        command, env=environment, encoding="utf-8", timeout=READY_SECONDS, preexec_fn=hear_ctrl_c
    )


def hear_ctrl_c() -> None:
    """Undo what a suite that was started in the background inherits: SIGINT is ignored there."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def ended(session: pexpect.spawn[str]) -> int | None:
    """Wait for the command's end; its exit code."""
    session.expect(pexpect.EOF)
    session.close()
    return session.exitstatus


def test_ctrl_c_unmounts_and_uploads(sandbox: Sandbox, store: StoreApi, server: RunningServer) -> None:
    path = sandbox.mount_point()
    session = typed(
        sandbox, "mount", "-f", "--api-url", server.url, "--write-back", "1h", store.id, str(path)
    )
    session.expect_exact(f"{store.id} is mounted on {path}")
    (path / "f").write_bytes(b"some bytes")
    assert store.keys() == []
    session.sendintr()
    assert ended(session) == ExitCode.OK
    assert not is_mounted(path)
    assert store.content("f") == b"some bytes"


def test_a_mount_in_the_background_outlives_its_terminal(
    sandbox: Sandbox, store: StoreApi, server: RunningServer
) -> None:
    path = sandbox.mount_point()
    session = typed(sandbox, "mount", "--api-url", server.url, store.id, str(path))
    session.expect_exact(f"{store.id} is mounted on {path}")
    assert ended(session) == ExitCode.OK  # the terminal is closed: SIGHUP to whoever still has it
    (path / "f").write_bytes(b"some bytes")
    assert store.content("f") == b"some bytes"
    session = typed(sandbox, "umount", str(path))
    assert ended(session) == ExitCode.OK


def test_ctrl_c_while_umount_waits_stops_the_waiting_only(
    sandbox: Sandbox, store: StoreApi, server: RunningServer
) -> None:
    with mounted_store(sandbox, store.id, "--write-back", "1h", token=TOKEN, server=server) as mounted:
        for name in "ab":
            (mounted.path / name).write_bytes(b"some bytes")
        with fault(store, "PUT", "*", kind="stall", seconds=3.0):
            session = typed(sandbox, "umount", str(mounted.path))
            session.expect_exact(f"{BEGUN_ANEW}2 files (20 B) to go")
            session.sendintr()
            assert ended(session) == ExitCode.INTERRUPTED
            assert "Traceback" not in (session.before or "")
            mounted.wait_for_exit(within=LEAVING_SECONDS)
    assert store.keys() == ["a", "b"]


def test_ctrl_c_before_it_is_mounted_mounts_nothing(
    sandbox: Sandbox, store: StoreApi, server: RunningServer
) -> None:
    path = sandbox.mount_point()
    rule = {"method": "GET", "path": "*", "action": {"kind": "stall", "seconds": 5.0}}
    number = store.client.post("/testing/faults", json=rule).raise_for_status().json()["data"]["id"]
    try:
        session = typed(sandbox, "mount", "--api-url", server.url, store.id, str(path))
        wait_until(lambda: len(server_connections(server)) > 0)
        session.sendintr()
        assert ended(session) == ExitCode.INTERRUPTED
        assert "Traceback" not in (session.before or "")
    finally:
        store.client.delete(f"/testing/faults/{number}").raise_for_status()
    assert not is_mounted(path)


def server_connections(server: RunningServer) -> list[str]:
    """Give what is connected to the server's port, but for the test's own client (proc_net_tcp: state 01)."""
    port = f":{int(server.url.rpartition(':')[2]):04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [line[1] for line in lines if line[2].endswith(port) and line[3] == "01"][1:]


def test_a_check_and_a_copy_of_records_show_how_far_they_are(sandbox: Sandbox, tmp_path: Path) -> None:
    data, copy = tmp_path / "data", tmp_path / "copy"
    with running_server(data) as server, httpx.Client(base_url=server.url) as client:
        local = StoreApi.create(client)
        for number in range(3):
            local.put(str(number), b"x")
    with typed(sandbox, "serve", "--check", "--data", str(data)) as session:
        session.expect_exact(f"{BEGUN_ANEW}3 records looked at{BEGUN_ANEW}")
        session.expect_exact("3 records, 0 faults, 0 orphans removed")
        assert ended(session) == ExitCode.OK
    with typed(sandbox, "serve", "--data", str(data), "--copy-to", copy.as_uri()) as session:
        session.expect_exact(f"{BEGUN_ANEW}3 records copied, 3 B{BEGUN_ANEW}")
        session.expect_exact("1 stores, 3 records copied and read back (3 B), 0 there already")
        assert ended(session) == ExitCode.OK
