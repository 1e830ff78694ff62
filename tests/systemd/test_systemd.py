"""The units of systemd/, under a systemd that is booted for them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from kvsfs.errors import ExitCode
from tests.support.fault_rules import fault
from tests.support.mounting import COMMAND_SECONDS, wait_until
from tests.support.serving import RunningServer, running_server
from tests.support.store_api import StoreApi
from tests.support.systemd import ROOT, UNITS, Machine, booted, why_none

pytestmark = [pytest.mark.fuse, pytest.mark.skipif(why_none() is not None, reason=str(why_none()))]

TOKEN = "a-token-for-units"

QUICKER = "[Service]\nWatchdogSec=2s\nTimeoutStopSec=2s\nTimeoutAbortSec=2s\nRestartSec=100ms\n"
"""A drop-in: nobody waits a minute for a test."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("server")
    with running_server(folder / "data", tokens=[f"{TOKEN}=joe"], arguments=["--testing"]) as running:
        yield running


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Iterator[Machine]:
    with booted(tmp_path_factory.mktemp("machine"), shared) as running:
        yield running


@pytest.fixture
def store(server: RunningServer) -> Iterator[StoreApi]:
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        yield StoreApi.create(client)


Configure = Callable[..., Path]


@pytest.fixture
def configure(machine: Machine, server: RunningServer, store: StoreApi, shared: Path) -> Iterator[Configure]:
    """Name the test's store `work` in the machine's configuration; gives where it is mounted."""

    def write(*settings: str, source: str = store.id, drop_in: str = "") -> Path:
        path = shared / store.id
        path.mkdir(exist_ok=True)
        lines = [f'source = "{source}"', f'mount-point = "{path}"', f'api-url = "{server.url}"', *settings]
        machine.write("/etc/kvsfs.toml", "\n".join(["[mounts.work]", *lines, ""]))
        machine.write("/etc/credstore/kvsfs.work", f"{TOKEN}\n", 0o600)
        machine.write("/etc/systemd/system/kvsfs@.service.d/test.conf", drop_in)
        machine.run("systemctl", "daemon-reload")
        return path

    yield write
    machine.run("systemctl", "stop", "kvsfs@work", check=False)
    machine.run("systemctl", "reset-failed", check=False)


def mounted(machine: Machine, path: Path) -> bool:
    return any(
        line.split(" ")[1:3] == [str(path), "fuse.kvsfs"]
        for line in Path(f"/proc/{machine.pid}/mounts").read_text().splitlines()
    )


def test_a_mount_from_start_to_stop(machine: Machine, store: StoreApi, configure: Configure) -> None:
    path = configure('write-back = "1h"')
    machine.run("systemctl", "start", "kvsfs@work")
    assert mounted(machine, path)  # start returned, so the mount answers
    assert (
        machine.property("kvsfs@work", "StatusText")
        == f"{store.id} is mounted on {path}; left to upload: nothing"
    )
    machine.run("sh", "-ec", f"echo later > {path}/f; cat {path}/f")
    wait_until(lambda: machine.property("kvsfs@work", "StatusText").endswith("left to upload: 1 file (6 B)"))
    pid = machine.property("kvsfs@work", "MainPID")
    for secret in ("cmdline", "environ"):
        assert TOKEN not in machine.run("cat", f"/proc/{pid}/{secret}")
    assert "NOTIFY_SOCKET=" in machine.run("cat", f"/proc/{pid}/environ")  # as it was at the start
    machine.run("systemctl", "reload", "kvsfs@work")
    assert (machine.property("kvsfs@work", "ActiveState"), machine.property("kvsfs@work", "MainPID")) == (
        "active",
        pid,
    )
    assert store.keys() == []
    machine.run("systemctl", "stop", "kvsfs@work")
    assert not mounted(machine, path)
    assert machine.property("kvsfs@work", "Result") == "success"
    assert store.content("f") == b"later\n"
    assert TOKEN not in machine.journal()


def test_a_drain_asks_for_the_time_that_it_takes(
    machine: Machine, store: StoreApi, configure: Configure
) -> None:
    """Three times as long as TimeoutStopSec."""
    path = configure('write-back = "1h"', drop_in=QUICKER)
    machine.run("systemctl", "start", "kvsfs@work")
    machine.run("sh", "-ec", f"echo later > {path}/f")
    with fault(store, "PUT", "*", kind="stall", seconds=6.0):
        machine.run("systemctl", "stop", "kvsfs@work")
    assert machine.property("kvsfs@work", "Result") == "success"
    assert store.content("f") == b"later\n"


def test_what_the_drain_leaves_is_seen(machine: Machine, store: StoreApi, configure: Configure) -> None:
    path = configure('write-back = "1h"', 'drain-timeout = "1s"', drop_in=QUICKER)
    machine.run("systemctl", "start", "kvsfs@work")
    machine.run("sh", "-ec", f"echo later > {path}/f")
    with fault(store, "PUT", "*", kind="stall", seconds=30.0):
        machine.run("systemctl", "stop", "kvsfs@work")
    assert machine.property("kvsfs@work", "ExecMainStatus") == str(int(ExitCode.NOT_ALL_UPLOADED))
    assert machine.property("kvsfs@work", "ActiveState") == "failed"
    machine.run("systemctl", "start", "kvsfs@work")
    wait_until(lambda: store.keys() == ["f"])


def test_a_daemon_that_hangs_is_replaced(machine: Machine, store: StoreApi, configure: Configure) -> None:
    path = configure(drop_in=QUICKER)
    machine.run("systemctl", "start", "kvsfs@work")
    pid = machine.property("kvsfs@work", "MainPID")
    machine.run("kill", "-STOP", pid)
    wait_until(lambda: machine.property("kvsfs@work", "NRestarts") == "1", within=COMMAND_SECONDS)
    wait_until(lambda: machine.property("kvsfs@work", "ActiveState") == "active", within=COMMAND_SECONDS)
    assert machine.property("kvsfs@work", "MainPID") != pid
    machine.run("sh", "-ec", f"echo again > {path}/f")
    assert store.content("f") == b"again\n"


def test_what_is_wrong_for_good_is_not_tried_again(machine: Machine, configure: Configure) -> None:
    configure(source="no-such-store", drop_in=QUICKER)
    assert "control process exited" in machine.attempt("systemctl", "start", "kvsfs@work").stderr
    assert machine.property("kvsfs@work", "ExecMainStatus") == str(int(ExitCode.NO_SUCH_STORE))
    assert (machine.property("kvsfs@work", "ActiveState"), machine.property("kvsfs@work", "NRestarts")) == (
        "failed",
        "0",
    )
    assert "there is no store no-such-store" in machine.journal()


@pytest.mark.parametrize("automatic", [True, False], ids=["automount", "mount"])
def test_the_examples_mount(
    machine: Machine, store: StoreApi, server: RunningServer, shared: Path, automatic: bool
) -> None:
    path = shared / f"example-{automatic}"
    path.mkdir()
    machine.write("/etc/kvsfs.token", TOKEN, 0o600)
    name = machine.run("systemd-escape", "-p", str(path)).strip()
    for example in (UNITS / "example").iterdir():
        text = example.read_text().replace("/mnt/store", str(path)).replace("my-name/my-store", store.id)
        text = text.replace("_netdev,", f"_netdev,api_url={server.url},write_back=1h,")
        machine.write(f"/etc/systemd/system/{name}{example.suffix}", text)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", f"{name}.{'automount' if automatic else 'mount'}")
    assert mounted(machine, path) == (not automatic)
    machine.run("sh", "-ec", f"echo later > {path}/f")
    assert mounted(machine, path)
    machine.run("systemctl", "stop", f"{name}.mount", f"{name}.automount")
    assert not mounted(machine, path)
    wait_until(lambda: store.keys() == ["f"])  # umount(8) cannot wait; the daemon goes on


def test_a_line_of_fstab_becomes_a_unit(
    machine: Machine, store: StoreApi, server: RunningServer, shared: Path
) -> None:
    path = shared / "fstab"
    path.mkdir()
    machine.write("/etc/kvsfs.token", TOKEN, 0o600)
    options = (
        f"_netdev,nofail,noauto,x-systemd.mount-timeout=1min,api_url={server.url},token_file=/etc/kvsfs.token"
    )
    machine.write("/etc/fstab", f"{store.id} {path} kvsfs {options} 0 0\n")
    machine.run("systemctl", "daemon-reload")
    name = machine.run("systemd-escape", "-p", "--suffix=mount", str(path)).strip()
    assert machine.property(name, "FragmentPath") == f"/run/systemd/generator/{name}"
    machine.run("systemctl", "start", name)
    machine.run("sh", "-ec", f"echo 1 > {path}/f")
    assert store.keys() == ["f"]
    machine.run("systemctl", "stop", name)


def test_a_server(machine: Machine) -> None:
    # Our Python and this clone may stand in a home or in /tmp, which the unit hides.
    ours = f"{ROOT} {sys.prefix} {sys.base_prefix}"
    machine.write(
        "/etc/systemd/system/kvsfs-serve.service.d/test.conf",
        f"[Service]\nProtectHome=no\nBindReadOnlyPaths={ours}\n",
    )
    machine.run("systemctl", "daemon-reload")
    url = "http://127.0.0.1:8765/v2/key-value-stores"
    try:
        machine.run("systemctl", "start", "kvsfs-serve")
        assert machine.property("kvsfs-serve", "StatusText") == "listening on http://127.0.0.1:8765"
        made = httpx.post(url, params={"name": "mine"}).raise_for_status().json()["data"]["id"]
        httpx.put(f"{url}/{made}/records/f", content=b"x").raise_for_status()
        machine.run("systemctl", "restart", "kvsfs-serve")
        assert httpx.get(f"{url}/{made}/records/f").content == b"x"
        found = machine.run("stat", "-c", "%a", "/var/lib/private/kvsfs-serve")
        assert found == "700\n"
    finally:
        machine.run("systemctl", "stop", "kvsfs-serve")
    assert machine.property("kvsfs-serve", "Result") == "success"


@pytest.mark.parametrize(
    ("unit", "most"),
    [("kvsfs-serve.service", 15), ("kvsfs@.service", 55)],  # tenths; 96 is a unit that says nothing
)
def test_hardening(unit: str, most: int) -> None:
    command = [
        "systemd-analyze",
        "security",
        "--offline=yes",
        f"--threshold={most}",
        str(UNITS / "system" / unit),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    assert ended.returncode == 0, "\n".join(ended.stdout.splitlines()[-2:])


def test_the_units_are_well_formed(machine: Machine) -> None:
    folder = "/etc/systemd/system"
    examples = f"{folder}/mnt-store"
    for example in (UNITS / "example").iterdir():
        machine.write(f"{examples}{example.suffix}", example.read_text())
    units = [
        f"{folder}/kvsfs@.service",
        f"{folder}/kvsfs-serve.service",
        f"{examples}.mount",
        f"{examples}.automount",
    ]
    ended = machine.attempt("systemd-analyze", "verify", "--man=no", *units)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    machine.write("/etc/systemd/user/kvsfs@.service", (UNITS / "user/kvsfs@.service").read_text())
    user = [
        "env",
        "XDG_RUNTIME_DIR=/run",
        "systemd-analyze",
        "--user",
        "verify",
        "--man=no",
        "kvsfs@work.service",
    ]
    ended = machine.attempt(*user, "/etc/systemd/user/kvsfs@.service")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.parametrize("unit", ["system/kvsfs@.service", "user/kvsfs@.service"])
def test_codes_that_are_not_tried_again_are_ours(unit: str) -> None:
    (codes,) = re.findall(r"^RestartPreventExitStatus=(.*)$", (UNITS / unit).read_text(), re.MULTILINE)
    assert {int(code) for code in codes.split()} == {
        code
        for code in ExitCode
        if code <= ExitCode.NOT_ALL_UPLOADED
        and code
        not in (
            ExitCode.OK,
            ExitCode.UNEXPECTED,
            ExitCode.UNREACHABLE,  # may be reached later
            ExitCode.NOT_CONFIRMED,  # of other commands
            ExitCode.NOT_MOUNTED,
            ExitCode.BUSY,
            ExitCode.MOUNT_FAILED,  # says too little to tell
        )
    }
