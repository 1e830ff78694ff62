"""`kvsfs umount`: what it shows while it waits, what it leaves without waiting, and what its exit code tells."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from kvsfs.errors import ExitCode
from tests.mount.test_mount_status import Place, faulty, own_store, place
from tests.support.fault_rules import fault
from tests.support.mounting import COMMAND_SECONDS, KVSFS, Mounted, is_mounted, wait_until

__all__ = ["faulty", "own_store", "place"]  # fixtures

pytestmark = pytest.mark.fuse

PENDING = "printf 12345 > a; printf 12 > b"


def umount_on_a_terminal(place: Place, mounted: Mounted) -> tuple[int, str]:
    """Run it with a terminal as its stderr; its exit code and what that shows."""
    terminal, other_end = os.openpty()
    process = subprocess.Popen(
        [*KVSFS, "umount", str(mounted.path)], env=place.sandbox.environment, stderr=other_end
    )
    os.close(other_end)
    shown = b""
    try:
        while piece := os.read(terminal, 4096):
            shown += piece
    except OSError:  # EIO: the other end is closed
        pass
    finally:
        os.close(terminal)
    return process.wait(COMMAND_SECONDS), shown.decode()


def test_it_shows_what_is_left_on_a_terminal(place: Place) -> None:
    with place.mounted("--write-back", "1h") as mounted:
        mounted.sh(PENDING)
        with fault(place.store, "PUT", "*", kind="stall", seconds=1.0):
            code, shown = umount_on_a_terminal(place, mounted)
        assert code == ExitCode.OK
        assert "\r\x1b[K2 files (7 B) to go" in shown
        assert shown.endswith("\r\x1b[K")  # nothing of it stays
        mounted.wait_for_exit()
    assert place.store.sizes() == {"a": 5, "b": 2}


def test_it_says_nothing_in_a_log_when_all_is_quickly_done(place: Place) -> None:
    with place.mounted("--write-back", "1h") as mounted:
        mounted.sh(PENDING)
        ended = place.kvsfs("umount", mounted.path)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
        mounted.wait_for_exit()
    assert place.store.sizes() == {"a": 5, "b": 2}


def test_what_is_left_is_told_by_its_exit_code(place: Place) -> None:
    with place.mounted() as mounted:
        mounted.expect_log(" (WARNING|ERROR) kvsfs")
        with fault(place.store, "PUT", "*", kind="status", status=413):
            mounted.sh(f"({PENDING}) 2>/dev/null || :")
            ended = place.kvsfs("umount", mounted.path)
        assert ended.returncode == ExitCode.NOT_ALL_UPLOADED
        (line,) = ended.stderr.splitlines()
        assert line.startswith(
            "kvsfs: not everything reached the store; what is left is kept: a (not uploaded: record a: "
        )
        mounted.wait_for_exit(ExitCode.NOT_ALL_UPLOADED)


def test_no_wait_leaves_it_to_the_next_mount(place: Place) -> None:
    with place.mounted("--write-back", "1h") as mounted:
        mounted.sh(f"{PENDING}; mkdir empty")
        ended = place.kvsfs("umount", "--no-wait", mounted.path)
        assert ended.returncode == ExitCode.NOT_ALL_UPLOADED
        (line,) = ended.stderr.splitlines()
        assert line == (
            "kvsfs: left to the journal, for the next mount of this store: "
            "a (not uploaded: no time), b (not uploaded: no time)"
        )
        mounted.wait_for_exit(ExitCode.NOT_ALL_UPLOADED)
        assert place.store.keys() == ["empty!2F"]
        told = place.one()
        assert told["state"] == "not mounted"
        assert told["left"] == {"files": 2, "bytes": 7, "failed": 0, "removals": 0}
    with place.mounted() as mounted:
        mounted.expect_log("2 files of an earlier mount were not uploaded yet")
        assert (mounted.path / "a").read_bytes() == b"12345"
        wait_until(lambda: len(place.store.keys()) == 3)
        ended = place.kvsfs("umount", "--no-wait", mounted.path)  # with nothing left it is as good
        assert (ended.returncode, ended.stderr) == (0, "")
        mounted.wait_for_exit()
    assert place.store.sizes() == {"a": 5, "b": 2, "empty!2F": 0}


def test_no_wait_of_a_mount_in_use_changes_nothing(place: Place) -> None:
    with place.mounted("--write-back", "1h") as mounted:
        mounted.sh(PENDING)
        with (mounted.path / "a").open("rb"):
            assert place.kvsfs("umount", "--no-wait", mounted.path).returncode == ExitCode.BUSY
        assert is_mounted(mounted.path)
        assert place.kvsfs("umount", mounted.path).returncode == 0
        mounted.wait_for_exit()
    assert place.store.sizes() == {"a": 5, "b": 2}


def test_after_umount_8_the_daemon_drains_on_and_status_tells(place: Place) -> None:
    with place.mounted("--write-back", "1h", "--timeout", "30s") as mounted:
        mounted.sh(PENDING)
        with fault(place.store, "PUT", "*", kind="stall", seconds=5.0):
            subprocess.run(["fusermount3", "-u", "--", mounted.path], check=True)
            told = place.one()
            assert (told["state"], told["left"]["files"]) == ("draining", 2)
            assert place.one(mounted.path)["state"] == "draining"
            text = place.kvsfs("status").stdout
            assert f"{place.store.id} is unmounted; process {mounted.pid} uploads what is left" in text
        mounted.wait_for_exit()
    assert place.store.sizes() == {"a": 5, "b": 2}


def test_a_daemon_whose_control_socket_is_gone_is_waited_for(place: Place) -> None:
    with place.mounted("--write-back", "1h") as mounted:
        mounted.sh(PENDING)
        (path,) = (place.sandbox.folder / "runtime_dir" / "kvsfs").glob("*.sock")
        path.unlink()
        assert place.kvsfs("status", mounted.path).returncode == ExitCode.NO_ANSWER
        ended = place.kvsfs("umount", mounted.path)
        assert (ended.returncode, ended.stderr) == (0, "")
        mounted.wait_for_exit()
    assert place.store.sizes() == {"a": 5, "b": 2}


def test_a_dead_mount_of_ours_is_cleared_by_the_next_one(place: Place) -> None:
    with place.mounted() as mounted:
        mounted.sh("printf 1 > a")
        mounted.kill()
        assert is_mounted(mounted.path)  # "Transport endpoint is not connected"
        ended = place.kvsfs("mount", *place.server_options, place.store.id, mounted.path)
        try:
            assert ended.returncode == 0
            assert ended.stderr == f"{mounted.path}: a mount that died there is cleared\n"
            assert (mounted.path / "a").read_bytes() == b"1"
        finally:
            assert place.kvsfs("umount", mounted.path).returncode == 0


def test_sigusr1_tells_tasks_and_statistics(place: Place) -> None:
    with place.mounted() as mounted:
        mounted.sh("printf 1 > a")
        os.kill(mounted.pid, signal.SIGUSR1)
        wait_until(lambda: '"total_requests": ' in mounted.log_text())
        log = mounted.log_text()
        assert "kvsfs/cache/writeback.py" in log  # where the queue of uploads waits
        assert "kvsfs/control/server.py" in log
        assert '"state": "mounted"' in log
        os.kill(mounted.pid, signal.SIGUSR1)
        wait_until(lambda: mounted.log_text().count('"total_requests": ') == 2)
        assert (mounted.path / "a").read_bytes() == b"1"  # and the mount goes on
    assert "a-secret-for-status" not in log
