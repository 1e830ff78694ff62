"""The token of a running mount changes: at SIGHUP, and when the API refuses the one in use."""

from __future__ import annotations

import errno
import os
import pty
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from kvsfs.errors import ExitCode
from tests.support.mounting import (
    KVSFS,
    LEAVING_SECONDS,
    Mounted,
    Sandbox,
    failing,
    is_mounted,
    mounted_store,
    processes_naming,
    wait_until,
)
from tests.support.serving import Home, RunningServer, running_server
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse

FIRST, SECOND, STRANGER = "hush-the-first", "hush-the-second", "hush-a-stranger"


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("tokens")
    tokens = [f"{FIRST}=joe", f"{SECOND}=joe", f"{STRANGER}=eve"]
    with running_server(folder / "data", tokens=tokens, request_log=folder / "log") as server:
        yield server


@pytest.fixture
def own_store(own_server: RunningServer) -> Iterator[StoreApi]:
    with httpx.Client(base_url=own_server.url, headers={"Authorization": f"Bearer {FIRST}"}) as client:
        yield StoreApi.create(client)


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.touch(mode=0o600)
    path.write_text(FIRST)
    return path


@pytest.fixture
def mounted(
    sandbox: Sandbox, own_server: RunningServer, own_store: StoreApi, token_file: Path
) -> Iterator[Mounted]:
    options = ("--token-file", str(token_file), "--revalidate", "0")
    with mounted_store(sandbox, own_store.id, *options, server=own_server) as found:
        yield found
    for secret in (FIRST, SECOND, STRANGER):
        assert secret not in found.log_text()


def hang_up(mounted: Mounted, told: str) -> None:
    os.kill(mounted.pid, signal.SIGHUP)
    wait_until(lambda: re.search(told, mounted.log_text()))


def test_sighup_takes_the_token_from_where_it_came(mounted: Mounted, token_file: Path) -> None:
    hang_up(mounted, "SIGHUP: .*/token has the same token as before")
    token_file.write_text(SECOND)
    hang_up(mounted, "SIGHUP: the token of .*/token is used from here on")
    (mounted.path / "f").write_bytes(b"with the second")
    assert is_mounted(mounted.path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda path: path.unlink(), "cannot read the token file .*: No such file or directory"),
        (lambda path: path.write_text(""), "the token file .* is empty"),
        (lambda path: path.chmod(0o644), "can be read by others: chmod 600"),
        (lambda path: path.write_text("unknown"), r"\(401; check the token\)"),
        (lambda path: path.write_text(STRANGER), "(this token does not see it|403)"),
        (lambda path: path.write_text("two\nlines"), "the token holds characters that no token has"),
    ],
    ids=["gone", "empty", "open", "unknown", "a-strangers", "garbage"],
)
def test_a_token_that_is_worse_is_not_taken(
    mounted: Mounted, token_file: Path, own_store: StoreApi, change: object, told: str
) -> None:
    assert callable(change)
    change(token_file)
    expected = f"ERROR .*SIGHUP: the mount goes on with the token that it has: .*{told}"
    mounted.expect_log(expected)
    hang_up(mounted, expected)
    (mounted.path / "f").write_bytes(b"with the first")
    assert own_store.content("f") == b"with the first"


def test_a_token_that_is_refused_is_read_anew(sandbox: Sandbox, tmp_path: Path, token_file: Path) -> None:
    """The server comes back and knows another token; nobody sends a signal."""
    first, second = Home(tmp_path / "server", FIRST), None
    with first.serving() as server:
        port = int(server.url.rpartition(":")[2])
        with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {FIRST}"}) as client:
            store = StoreApi.create(client)
        options = ("--token-file", str(token_file), "--timeout", "5s")
        with mounted_store(sandbox, store.id, *options, server=server) as mounted:
            mounted.sh("ls")
            server.stop()
            with running_server(tmp_path / "server" / "data", tokens=[f"{SECOND}=joe"], port=port) as second:
                mounted.expect_log("401; check the token")
                with failing(errno.EACCES):
                    (mounted.path / "refused").write_bytes(b"x")
                token_file.write_text(SECOND)
                wait_until(lambda: _writes(mounted.path / "f"))
                assert "the API refused the token; " in mounted.log_text()
                ended = sandbox.kvsfs("retry", "--all", str(mounted.path))
                assert ended.returncode == 0, ended.stderr
                headers = {"Authorization": f"Bearer {SECOND}"}
                with httpx.Client(base_url=second.url, headers=headers) as client:
                    assert StoreApi(client, store.id).content("refused") == b"x"
                mounted.umount()
            assert SECOND not in mounted.log_text()


def _writes(path: Path) -> bool:
    try:
        path.write_bytes(b"y")
    except PermissionError:
        return False
    return True


def test_a_mount_without_a_token_says_so(sandbox: Sandbox) -> None:
    with mounted_store(sandbox, "local:") as mounted:
        hang_up(mounted, "SIGHUP: this mount has no token that could change")
        assert is_mounted(mounted.path)


def test_the_end_of_its_terminal_ends_a_mount_in_the_foreground(
    sandbox: Sandbox, own_server: RunningServer, own_store: StoreApi
) -> None:
    path = sandbox.mount_point()
    child, terminal = pty.fork()
    if child == 0:
        command = [*KVSFS, "mount", "-f", "--api-url", own_server.url, own_store.id, str(path)]
        os.execve(command[0], command, sandbox.environment_with(FIRST))
    try:
        wait_until(lambda: is_mounted(path))
        wait_until(lambda: (path / "f").write_bytes(b"before") and True)
        os.kill(child, signal.SIGHUP)  # the terminal is there: this is for the token
        shown = b""
        while b"APIFY_TOKEN has the same token as before" not in shown:
            shown += os.read(terminal, 4096)
        assert is_mounted(path)
    finally:
        os.close(terminal)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == ExitCode.OK
    assert not is_mounted(path)
    assert processes_naming(str(path)) == []
    assert own_store.content("f") == b"before"


def test_the_units_credential_is_used(
    sandbox: Sandbox, own_server: RunningServer, own_store: StoreApi
) -> None:
    folder = sandbox.folder / "credentials"
    folder.mkdir(mode=0o700)
    (folder / "apify-token").write_text(FIRST)
    sandbox.environment["CREDENTIALS_DIRECTORY"] = str(folder)
    with mounted_store(sandbox, own_store.id, server=own_server) as mounted:
        (mounted.path / "f").write_bytes(b"x")
        (folder / "apify-token").write_text(SECOND)
        hang_up(mounted, "SIGHUP: the token of systemd's credential apify-token is used")
    assert own_store.content("f") == b"x"


KEYRING = """
from keyring.backend import KeyringBackend

class Desktop(KeyringBackend):
    priority = 1
    def get_password(self, service, username):
        return "TOKEN" if (service, username) == ("com.apify.cli", "token") else None
    def set_password(self, service, username, password):
        raise NotImplementedError
"""


def test_the_apify_clis_keyring_is_used(
    sandbox: Sandbox, own_server: RunningServer, own_store: StoreApi
) -> None:
    (sandbox.folder / "a_desktop.py").write_text(KEYRING.replace("TOKEN", FIRST))
    sandbox.environment |= {
        "PYTHONPATH": str(sandbox.folder),
        "PYTHON_KEYRING_BACKEND": "a_desktop.Desktop",
    }
    with mounted_store(sandbox, own_store.id, server=own_server) as mounted:
        (mounted.path / "f").write_bytes(b"x")
    assert own_store.content("f") == b"x"
    ended = subprocess.run(
        [*KVSFS, "stores", "info", own_store.id, "--api-url", own_server.url],
        env=sandbox.environment,
        capture_output=True,
        text=True,
        timeout=LEAVING_SECONDS,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert own_store.id in ended.stdout
