"""`kvsfs retry`, `discard`, `save-as`, `flush` and `refresh` on real mounts of a store that refuses things."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from kvsfs.errors import ExitCode
from tests.mount.test_mount_status import Place, faulty, own_store, place, write
from tests.support.fault_rules import fault
from tests.support.mounting import Mounted, failing

__all__ = ["faulty", "own_store", "place"]  # fixtures

pytestmark = pytest.mark.fuse


def refuse(place: Place, mounted: Mounted, name: str, content: bytes) -> None:
    """Write a file that the store does not take, for good."""
    mounted.expect_log(rf"flush: record {name}: .*413")
    with fault(place.store, "PUT", name, kind="status", status=413), failing(errno.EFBIG):
        write(mounted.path / name, content)


def test_retry(place: Place) -> None:
    with place.mounted() as mounted:
        refuse(place, mounted, "a", b"ours")
        with fault(place.store, "PUT", "a", kind="status", status=400):
            ended = place.kvsfs("retry", mounted.path / "a")
            assert ended.returncode == ExitCode.NOT_ALL_UPLOADED
            *_, line = ended.stderr.splitlines()
            assert line.startswith("a: record a: ")
            assert "400" in line
        ended = place.kvsfs("retry", "--all", mounted.path)
        assert (ended.returncode, ended.stdout) == (0, "1 file stored\n")
        assert place.store.content("a") == b"ours"
        ended = place.kvsfs("retry", mounted.path / "a")
        assert (ended.returncode, ended.stdout) == (0, "nothing was pending\n")
        assert place.kvsfs("retry").returncode == ExitCode.USAGE
        assert place.kvsfs("retry", place.sandbox.folder / "x").returncode == ExitCode.NOT_MOUNTED


def test_flush(place: Place) -> None:
    with place.mounted("--write-back", "1h") as mounted:
        mounted.sh("mkdir d; printf 12345 > d/a; printf 12 > b; printf 1 > c")
        assert place.store.keys() == []
        ended = place.kvsfs("flush", mounted.path / "d", mounted.path / "b")
        assert (ended.returncode, ended.stdout) == (0, "2 files stored\n")
        assert place.store.keys() == ["b", "d!2Fa"]
        assert "c" not in place.store.keys()  # noqa: SIM118
        ended = place.kvsfs("flush")  # of all mounts
        assert (ended.returncode, ended.stdout) == (0, "1 file stored\n")
        assert place.store.content("c") == b"1"
        mounted.sh("printf 2 > c")
        with fault(place.store, "PUT", "c", kind="status", status=503):
            ended = place.kvsfs("flush", mounted.path)
            assert ended.returncode == ExitCode.NOT_ALL_UPLOADED
            assert ended.stderr.splitlines()[-1].startswith("c: ")
            mounted.expect_log("c is not uploaded yet")
    assert place.store.content("c") == b"2"


def test_discard(place: Place) -> None:
    place.store.put("a", b"the store's own")
    with place.mounted() as mounted:
        assert (mounted.path / "a").read_bytes() == b"the store's own"
        refuse(place, mounted, "a", b"ours")
        refuse(place, mounted, "new", b"ours")
        ended = place.kvsfs("discard", mounted.path / "a")  # nobody says yes
        assert ended.returncode == ExitCode.UNEXPECTED
        assert "a (4 B): its bytes go, and the store's version is shown again" in ended.stdout
        assert (mounted.path / "a").read_bytes() == b"ours"
        ended = place.kvsfs("discard", "--yes", mounted.path / "a")
        assert (ended.returncode, ended.stderr) == (0, "")
        assert (mounted.path / "a").read_bytes() == b"the store's own"
        assert os.path.getsize(mounted.path / "a") == 15
        assert os.getxattr(mounted.path / "a", "user.kvsfs.state") == b"clean"
        ended = place.kvsfs("discard", "--yes", mounted.path)
        assert ended.stdout.startswith("new (4 B): its bytes go, and the file with them")
        assert mounted.run("ls") == "a\n"
        ended = place.kvsfs("discard", "--yes", mounted.path / "a")
        assert ended.returncode == ExitCode.NOTHING_PENDING
        assert place.one(mounted.path)["left"] == {"files": 0, "bytes": 0, "failed": 0, "removals": 0}
    assert place.store.content("a") == b"the store's own"
    assert place.store.keys() == ["a"]


def test_discard_of_an_open_file(place: Place) -> None:
    with place.mounted() as mounted:
        refuse(place, mounted, "a", b"ours")
        with (mounted.path / "a").open("rb"):
            ended = place.kvsfs("discard", "--yes", mounted.path / "a")
        assert ended.returncode == ExitCode.BUSY
        assert ended.stderr == "kvsfs: a is open: close it first\n"
        assert place.kvsfs("retry", mounted.path / "a").returncode == 0


def test_save_as(place: Place, tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    with place.mounted() as mounted:
        refuse(place, mounted, "a", content)
        target = tmp_path / "saved"
        ended = place.kvsfs("save-as", mounted.path / "a", target)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout == f"2.9 MiB of {mounted.path}/a are in {target}\n"
        assert target.read_bytes() == content
        for wrong in (target, mounted.path / "b"):  # never overwritten; and not into the mount itself
            assert place.kvsfs("save-as", mounted.path / "a", wrong).returncode == ExitCode.USAGE
        assert place.kvsfs("retry", mounted.path / "a").returncode == 0
        ended = place.kvsfs("save-as", mounted.path / "a", tmp_path / "other")
        assert ended.returncode == ExitCode.NOTHING_PENDING
        assert not (tmp_path / "other").exists()


def test_refresh(place: Place) -> None:
    place.store.put("a", b"one")
    with place.mounted("--revalidate", "1h", "--listing-ttl", "1h") as mounted:
        assert mounted.run("ls") == "a\n"
        assert (mounted.path / "a").read_bytes() == b"one"
        place.store.put("a", b"other")
        place.store.put("b", b"new")
        assert mounted.run("ls") == "a\n"
        assert (mounted.path / "a").read_bytes() == b"one"
        ended = place.kvsfs("refresh", mounted.path)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
        assert mounted.run("ls") == "a\nb\n"
        assert (mounted.path / "a").read_bytes() == b"other"
        place.store.put("a", b"the third")
        assert place.kvsfs("refresh", mounted.path / "a").returncode == 0
        assert (mounted.path / "a").read_bytes() == b"the third"
        ended = place.kvsfs("refresh", mounted.path / "missing")
        assert ended.returncode == ExitCode.NOTHING_PENDING
