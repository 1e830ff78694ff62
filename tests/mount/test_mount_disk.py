"""The disk of the cache folder: full, read-only, damaged. Nothing that was closed is lost."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvsfs.errors import ExitCode
from tests.mount.conftest import Mount
from tests.support.mounting import LEAVING_SECONDS, Mounted, Sandbox, failing, wait_until
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse

DISK_BYTES = 8 * 1024 * 1024
LATER = ("--write-back", "1h")
AT_ONCE = ("--write-back", "0s")


def remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True, timeout=LEAVING_SECONDS)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "kvsfs-test", str(folder)]
    made = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LEAVING_SECONDS)
    if made.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here, which needs root: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, timeout=LEAVING_SECONDS)


def fill(disk: Path) -> Path:
    """Leave no byte free."""
    ballast = disk / "cache" / "ballast"
    descriptor = os.open(ballast, os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(descriptor, bytes(4096))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    finally:
        os.close(descriptor)
    return ballast


def write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        assert os.write(descriptor, content) == len(content)
    finally:
        os.close(descriptor)


def fits(path: Path, content: bytes) -> bool:
    """Write, if there is room."""
    try:
        write(path, content)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False
    return True


def on(disk: Path) -> tuple[str, ...]:
    return ("--cache-dir", str(disk / "cache"))


def dirty(disk: Path) -> dict[str, bytes]:
    paths = (disk / "cache" / "dirty").iterdir()
    return {path.name.partition(".")[2]: path.read_bytes() for path in paths}


def allow_loud(mounted: Mounted) -> None:
    """Allow what need not come: the disk decides which of its writes fails. No traceback, all the same."""
    mounted.allow_log(
        r" (WARNING|ERROR) kvsfs\.\S+: .*(No space|full|[Rr]ead-only|readonly|disk I/O|unable to open)"
    )


@pytest.mark.parametrize("options", [(), LATER], ids=["default", "write-back"])
def test_a_full_disk(mount: Mount, store: StoreApi, disk: Path, options: tuple[str, ...]) -> None:
    closed = os.urandom(1_000_000)
    with mount(*on(disk), *options) as mounted:
        allow_loud(mounted)
        write(mounted.path / "closed", closed)
        ballast = fill(disk)
        with failing(errno.ENOSPC):
            write(mounted.path / "too much", bytes(DISK_BYTES))
        for number in range(200):  # and the journal fills its pages
            fits(mounted.path / f"empty{number}", b"")
        if options:  # else the store has it, its copy went to make room, and there is none to fetch it to
            assert (mounted.path / "closed").read_bytes() == closed
        assert "closed" in os.listdir(mounted.path)
        ballast.unlink()
        assert (mounted.path / "closed").read_bytes() == closed
        write(mounted.path / "after", b"there is room again")
        assert (mounted.path / "after").read_bytes() == b"there is room again"
        mounted.umount()
    assert store.content("closed") == closed
    assert store.content("after") == b"there is room again"
    assert set(store.content("too!20much")) <= {0}  # what there was room for: its close went well
    assert dirty(disk) == {}


def test_a_full_disk_and_a_killed_daemon(mount: Mount, store: StoreApi, disk: Path) -> None:
    contents = {f"f{number}": os.urandom(300_000) for number in range(40)}
    with mount(*on(disk), *LATER) as mounted:
        allow_loud(mounted)
        acknowledged = {n: content for n, content in contents.items() if fits(mounted.path / n, content)}
        assert 10 < len(acknowledged) < len(contents)
        mounted.kill()
        mounted.detach_dead()
    with mount(*on(disk), *AT_ONCE) as mounted:
        allow_loud(mounted)
        mounted.allow_log("an earlier mount")
        for name, content in acknowledged.items():
            assert (mounted.path / name).read_bytes() == content
        mounted.umount()
    stored = {name: store.content(name) for name in store.sizes()}
    assert {name: stored[name] for name in acknowledged} == acknowledged
    assert {content for name, content in stored.items() if name not in acknowledged} <= {b""}
    assert dirty(disk) == {}


def test_reading_lets_older_files_go(mount: Mount, store: StoreApi, disk: Path) -> None:
    contents = {f"f{number}": os.urandom(3_000_000) for number in range(5)}
    for name, content in contents.items():
        store.put(name, content)
    with mount(*on(disk), "--cache-size", "1GiB") as mounted:
        for name, content in contents.items():
            assert (mounted.path / name).read_bytes() == content


def test_a_cache_folder_that_is_removed_under_the_mount(
    mount: Mount, store: StoreApi, tmp_path: Path
) -> None:
    """EIO: that a file cannot be shown is not to look as if it were gone."""
    store.put("old", b"old")
    with mount(*on(tmp_path)) as mounted:
        write(mounted.path / "stored", b"stored")
        shutil.rmtree(tmp_path / "cache")
        mounted.expect_log("open: .*No such file")
        mounted.expect_log("create: .*No such file")
        mounted.expect_log("cache could not be tidied")
        with failing(errno.EIO):
            (mounted.path / "old").read_bytes()
        with failing(errno.EIO):
            write(mounted.path / "new", b"new")
        assert mounted.run("ls") == "old\nstored\n"
    assert {key: store.content(key) for key in store.sizes()} == {"old": b"old", "stored": b"stored"}


def test_a_read_only_cache_folder_is_told_in_one_line(
    sandbox: Sandbox, store: StoreApi, disk: Path, token: str
) -> None:
    remount(disk, "ro")
    point = sandbox.mount_point()
    ended = sandbox.kvsfs(
        "mount", "--api-url", str(store.client.base_url), *on(disk), store.id, str(point), token=token
    )
    assert ended.returncode == ExitCode.CACHE_UNUSABLE
    (line,) = ended.stderr.splitlines()
    assert "Read-only file system" in line
    assert "--cache-dir" in line


def test_what_is_damaged_while_nothing_is_mounted(mount: Mount, store: StoreApi, tmp_path: Path) -> None:
    folder = tmp_path
    store.put("flipped", b"of the store")
    with mount(*on(folder), *LATER) as mounted:
        for name in ("flipped", "cut", "sound"):
            write(mounted.path / name, name.encode() * 1000)
        mounted.kill()
        mounted.detach_dead()
    left = {path.name.partition(".")[2]: path for path in (folder / "cache" / "dirty").iterdir()}
    os.truncate(left["cut"], 100)
    left["flipped"].write_bytes(b"F" + left["flipped"].read_bytes()[1:])
    with mount(*on(folder), *AT_ONCE) as mounted:
        mounted.expect_log("3 files of an earlier mount")
        mounted.expect_log("flipped was closed by an earlier mount, and the disk has damaged it since")
        mounted.expect_log("cut was closed by an earlier mount, and the disk has damaged it since")
        wait_until(lambda: "sound" in store.sizes())
        wait_until(lambda: (mounted.path / "flipped").read_bytes() == b"of the store")
        assert sorted(os.listdir(mounted.path)) == ["flipped", "sound"]
        mounted.umount()
    assert {name: store.content(name) for name in store.sizes()} == {
        "flipped": b"of the store",
        "sound": b"sound" * 1000,
    }
    aside = {path.name.partition(".")[2]: path for path in (folder / "cache" / "not-uploaded").iterdir()}
    assert {name: path.stat().st_size for name, path in aside.items()} == {"flipped": 7000, "cut": 100}
