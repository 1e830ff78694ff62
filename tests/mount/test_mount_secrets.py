"""The token is in no arguments, in no log, in no file, and in no child's environment that does not need it."""

from __future__ import annotations

from pathlib import Path

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
