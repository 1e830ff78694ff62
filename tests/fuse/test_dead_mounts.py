"""Whose dead mounts are cleared. That one of ours is, tests/mount/test_mount_umount.py shows with a real one."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from kvsfs.errors import CommandError, ExitCode
from kvsfs.fuse import mount_table, session


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What would have been run."""
    run: list[object] = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: run.append(command))
    return run


def dead(_path: str) -> os.stat_result:
    raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))


def test_another_users_dead_mount_is_not_touched(
    monkeypatch: pytest.MonkeyPatch, commands: list[object]
) -> None:
    monkeypatch.setattr(os, "stat", dead)
    monkeypatch.setattr(os, "listdir", dead)
    for owner in (os.getuid() + 1, None):  # None: of another program
        monkeypatch.setattr(mount_table, "owner", lambda _path, owner=owner: owner)
        session.clear_dead_mount("/mnt")
        with pytest.raises(CommandError, match="fusermount3 -u /mnt") as caught:
            session.check_mount_point("/mnt")
        assert caught.value.exit_code is ExitCode.ALREADY_MOUNTED
    assert commands == []


def test_what_is_not_dead_is_not_touched(tmp_path: Path, commands: list[object]) -> None:
    session.clear_dead_mount(str(tmp_path))
    session.clear_dead_mount(str(tmp_path / "missing"))
    assert commands == []
