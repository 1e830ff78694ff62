"""The token is in no arguments, in no log, in no file, and in no child's environment that does not need it."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import httpx
import pytest

from tests.mount.conftest import Mount
from tests.support.mounting import Sandbox, children_of, mounted_store, wait_until
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse


def arguments_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def everything_written(sandbox: Sandbox) -> bytes:
    """Every file in the sandbox, but for the mounts in it."""
    folders = [path for path in sandbox.folder.iterdir() if path.is_dir() and not path.is_mount()]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return b"".join(path.read_bytes() for path in [*files, *sandbox.folder.glob("*.log")])


@pytest.mark.parametrize("background", [True, False], ids=["background", "foreground"])
def test_the_token_is_nowhere(
    mount: Mount, store: StoreApi, sandbox: Sandbox, token: str, background: bool
) -> None:
    store.put("f", b"x")
    with mount("--log-level", "DEBUG", background=background) as mounted:
        mounted.sh("cat f; echo y > g; getfattr -n user.apify.public_url g; mv g h; rm f; ls -l")
        assert "missing" in mounted.attempt("cat", "missing").stderr
        assert token.encode() not in arguments_of(mounted.pid)
        mounted.umount()
        assert "DEBUG" in mounted.log_text()
    assert token.encode() not in everything_written(sandbox)
    assert b"signature=" not in everything_written(sandbox).replace(b"signature=***", b"")


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_secret_in_what_a_daemon_tells(
    mount: Mount, store: StoreApi, sandbox: Sandbox, token: str, tmp_path: Path, form: str
) -> None:
    """Its log with all that it can say, its tasks, its status, its metrics, and the doctor's findings."""
    path = tmp_path / "token"
    path.touch(mode=0o600)
    path.write_text(token)
    store.put("f", b"x")
    options = ("--token-file", str(path), "--log-level", "DEBUG", "--log-format", form, "--metrics", "0")
    with mount(*options, token=None) as mounted:
        mounted.sh("cat f; echo y > g; mv g h; rm f; ls -l")
        url = mounted.run("getfattr", "--only-values", "-n", "user.apify.public_url", "h")
        signature = url.partition("signature=")[2].partition("&")[0]
        path.write_text("hush-refused")
        if form == "text":
            mounted.expect_log("SIGHUP: the mount goes on")
        os.kill(mounted.pid, signal.SIGHUP)
        wait_until(lambda: "SIGHUP: the mount goes on with the token that it has" in mounted.log_text())
        os.kill(mounted.pid, signal.SIGUSR1)
        wait_until(lambda: "SIGUSR1: tasks" in mounted.log_text())
        assert mounted.server is not None
        wait_until(lambda: "metrics are at " in mounted.log_text())
        (metrics,) = re.findall(r"metrics are at (http://[^\s\"]+)", mounted.log_text())
        told = [
            mounted.log_text(),
            httpx.get(metrics, trust_env=False).text,
            *(sandbox.kvsfs("status", *arguments).stdout for arguments in ((), ("--json",))),
            sandbox.kvsfs("doctor", "--api-url", mounted.server.url, store.id, token=token).stdout,
            sandbox.kvsfs("doctor", "--json", "--api-url", mounted.server.url, url, token=token).stdout,
        ]
    assert len(signature) >= 16
    assert all(told)
    for secret in (token, "hush-refused", signature):
        assert not any(secret in text for text in told)


def test_the_token_of_a_file_is_not_in_ps_either(
    mount: Mount, sandbox: Sandbox, tmp_path: Path, token: str
) -> None:
    path = tmp_path / "token"
    path.touch(mode=0o600)
    path.write_text(token)
    with mount("--token-file", str(path), token=None, background=True) as mounted:
        assert token.encode() not in arguments_of(mounted.pid)
        assert token.encode() not in Path(f"/proc/{mounted.pid}/environ").read_bytes()
    assert token.encode() not in everything_written(sandbox)


def test_a_local_mounts_server_is_told_no_token_of_apify_nor_shows_its_own(
    sandbox: Sandbox, token: str
) -> None:
    with mounted_store(sandbox, "local:demo", token=token) as mounted:
        (child,) = children_of(mounted.pid)
        environment = Path(f"/proc/{child}/environ").read_bytes()
        assert token.encode() not in environment
        (tokens,) = [v for v in environment.split(b"\0") if v.startswith(b"KVSFS_SERVE_TOKENS=")]
        own = tokens.partition(b"=")[2].partition(b"=")[0]
        assert len(own) >= 32
        for pid in (mounted.pid, child):
            assert own not in arguments_of(pid)
        assert own not in everything_written(sandbox)
        mounted.sh("echo x > f")
        wait_until(lambda: (mounted.path / "f").read_bytes() == b"x\n")
    assert own not in everything_written(sandbox)


def test_a_daemon_leaves_no_core_dump(mount: Mount) -> None:
    with mount() as mounted:
        limits = Path(f"/proc/{mounted.pid}/limits").read_text().splitlines()
        (core,) = [line.split() for line in limits if line.startswith("Max core file size")]
        assert core[4:6] == ["0", "0"]
