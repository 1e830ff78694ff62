"""`local:`: a store on this machine, with no account and no network."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from kvsfs.errors import ExitCode
from tests.support.mounting import Sandbox, children_of, is_mounted, mounted_store, wait_until
from tests.support.trees import make_tree, snapshot

pytestmark = pytest.mark.fuse


def runs(pid: int) -> bool:
    """Tell whether a process is there and no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_files_survive_a_remount(sandbox: Sandbox, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    make_tree(tree)
    with mounted_store(sandbox, "local:demo", background=True) as mounted:
        mounted.run("cp", "-r", f"{tree}/.", ".")
        mounted.run("setfattr", "-n", "user.mime_type", "-v", "text/x-mine", "awkward/tilde~")
    with mounted_store(sandbox, "local:demo", name="elsewhere") as mounted:
        assert snapshot(mounted.path) == snapshot(tree)
        mime = ("getfattr", "-n", "user.mime_type", "--only-values", "awkward/tilde~")
        assert mounted.run(*mime) == "text/x-mine"
    assert (sandbox.folder / "data_home" / "kvsfs").is_dir()


def test_stores_by_name_are_stores_of_their_own(sandbox: Sandbox) -> None:
    with (
        mounted_store(sandbox, "local:", name="default") as unnamed,
        mounted_store(sandbox, "local:other", name="other") as other,
    ):
        (unnamed.path / "f").write_bytes(b"in the default store")
        assert os.listdir(other.path) == []
        (other.path / "f").write_bytes(b"in the other")
    with mounted_store(sandbox, "local:default") as mounted:
        assert (mounted.path / "f").read_bytes() == b"in the default store"


def test_the_server_ends_with_the_daemon(sandbox: Sandbox) -> None:
    with mounted_store(sandbox, "local:demo") as mounted:
        (child,) = children_of(mounted.pid)
        assert b"serve" in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        mounted.umount()
        assert not runs(child)


def test_the_server_ends_when_the_daemon_is_killed(sandbox: Sandbox) -> None:
    with mounted_store(sandbox, "local:demo") as mounted:
        (mounted.path / "f").write_bytes(b"stored")
        (child,) = children_of(mounted.pid)
        mounted.kill()
        wait_until(lambda: not runs(child))
        mounted.detach_dead()
    with mounted_store(sandbox, "local:demo") as mounted:
        assert (mounted.path / "f").read_bytes() == b"stored"


def test_ctrl_c_at_the_terminal_loses_nothing(sandbox: Sandbox) -> None:
    with mounted_store(sandbox, "local:demo") as mounted:
        with (mounted.path / "f").open("wb", buffering=0) as file:
            file.write(b"written before ")
            os.kill(mounted.pid, signal.SIGINT)
            wait_until(lambda: not is_mounted(mounted.path))
            file.write(b"and after")
        mounted.wait_for_exit(ExitCode.OK)
    with mounted_store(sandbox, "local:demo") as mounted:
        assert (mounted.path / "f").read_bytes() == b"written before and after"


def test_nothing_of_the_api_is_asked(sandbox: Sandbox) -> None:
    unreachable = ("--api-url", "http://127.0.0.1:1")
    with mounted_store(sandbox, "local:demo", *unreachable) as mounted:
        mounted.sh("echo x > f; cat f")


def test_a_data_folder_that_cannot_be_used(sandbox: Sandbox) -> None:
    (sandbox.folder / "data_home").write_bytes(b"")
    for flags in ([], ["-f"]):
        path = sandbox.mount_point()
        ended = sandbox.kvsfs("mount", *flags, "local:demo", str(path))
        assert ended.returncode != ExitCode.OK
        assert "Traceback" not in ended.stderr
        (line,) = ended.stderr.splitlines()
        assert str(sandbox.folder / "data_home") in line
        assert not is_mounted(path)
