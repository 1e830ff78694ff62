"""The fixture that all these tests stand on must be able to fail them, and must clean up when they do."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mount.conftest import Mount
from tests.support.mounting import failing, is_mounted
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse


@contextmanager
def caught(words: str, path: Path) -> Iterator[None]:
    with pytest.raises(AssertionError, match=words):
        yield
    assert not is_mounted(path)


def test_a_mount_that_hangs_is_aborted_and_fails(mount: Mount, tmp_path: Path) -> None:
    with caught("aborted after", tmp_path / "sandbox" / "mnt"), mount(within=1.0) as mounted:
        os.kill(mounted.pid, signal.SIGSTOP)
        with failing(errno.ENOTCONN, errno.ECONNABORTED):
            os.stat(mounted.path / "name")


def test_a_warning_that_nobody_announced_fails(mount: Mount, store: StoreApi, tmp_path: Path) -> None:
    with caught("the daemon logged", tmp_path / "sandbox" / "mnt"), mount() as mounted:
        store.delete()
        with failing(errno.ESTALE):
            os.listdir(mounted.path)


def test_an_announced_warning_that_does_not_come_fails(mount: Mount, tmp_path: Path) -> None:
    with caught("did not log", tmp_path / "sandbox" / "mnt"), mount() as mounted:
        mounted.expect_log("readdir: ")


def test_a_daemon_that_dies_fails(mount: Mount, tmp_path: Path) -> None:
    with caught("the daemon ended with -9", tmp_path / "sandbox" / "mnt"), mount() as mounted:
        os.kill(mounted.pid, signal.SIGKILL)


def test_a_test_that_fails_with_files_open_leaves_no_mount(mount: Mount, tmp_path: Path) -> None:
    class Failed(Exception):
        pass

    def fail() -> None:
        with mount() as mounted:
            user = subprocess.Popen(["sleep", "60"], cwd=mounted.path)
            users.append(user)
            raise Failed

    users: list[subprocess.Popen[bytes]] = []
    with pytest.raises(Failed):
        fail()
    assert not is_mounted(tmp_path / "sandbox" / "mnt")
    (user,) = users
    user.kill()
    user.wait()
