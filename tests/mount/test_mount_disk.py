"""The disk below the cache folder is full, or the folder is gone: an error of who writes, not of the mount."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import Mount
from tests.support.mounting import LEAVING_SECONDS, failing
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse

MIB = 1024**2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Eight MiB."""
    if os.getuid() != 0:
        pytest.skip("mounting a tmpfs is for root")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], timeout=LEAVING_SECONDS, check=True)


def test_a_full_disk_fails_the_write_and_not_the_mount(
    mount: Mount, store: StoreApi, small_disk: Path
) -> None:
    with mount("--cache-dir", str(small_disk / "cache")) as mounted:
        (mounted.path / "before").write_bytes(b"b" * MIB)
        mounted.expect_log("write: .*No space left")
        with (mounted.path / "large").open("wb", buffering=0) as file, failing(errno.ENOSPC):
            for _ in range(20):
                file.write(b"x" * MIB)
        written = (mounted.path / "large").stat().st_size
        assert 4 * MIB <= written < 8 * MIB
        assert (mounted.path / "before").read_bytes() == b"b" * MIB
        (mounted.path / "large").unlink()
        (mounted.path / "after").write_bytes(b"a" * 2 * MIB)
    assert store.sizes() == {"before": MIB, "after": 2 * MIB}


def test_reading_lets_older_files_go(mount: Mount, store: StoreApi, small_disk: Path) -> None:
    contents = {f"f{number}": os.urandom(3 * MIB) for number in range(5)}
    for name, content in contents.items():
        store.put(name, content)
    with mount("--cache-dir", str(small_disk / "cache"), "--cache-size", "1GiB") as mounted:
        for name, content in contents.items():
            assert (mounted.path / name).read_bytes() == content


def test_a_cache_folder_that_is_removed_under_the_mount(
    mount: Mount, store: StoreApi, tmp_path: Path
) -> None:
    """EIO: that a file cannot be shown is not to look as if it were gone."""
    store.put("old", b"old")
    with mount("--cache-dir", str(tmp_path / "cache")) as mounted:
        (mounted.path / "stored").write_bytes(b"stored")
        shutil.rmtree(tmp_path / "cache")
        mounted.expect_log("open: .*No such file")
        mounted.expect_log("create: .*No such file")
        mounted.expect_log("cache could not be tidied")
        with failing(errno.EIO):
            (mounted.path / "old").read_bytes()
        with failing(errno.EIO):
            (mounted.path / "new").write_bytes(b"new")
        assert mounted.run("ls") == "old\nstored\n"
    assert {key: store.content(key) for key in store.sizes()} == {"old": b"old", "stored": b"stored"}
