"""Where a mount does otherwise than a folder on a disk."""

from __future__ import annotations

import fcntl
import mmap
import os

import pytest

from tests.mount.conftest import Mount
from tests.support.mounting import Mounted
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse


@pytest.mark.parametrize("call", ["flock", "lockf"])
def test_another_mount_sees_no_lock(mount: Mount, store: StoreApi, call: str) -> None:
    store.put("f", b"x")
    lock = getattr(fcntl, call)
    with (
        mount() as one,
        mount("--cache-dir", f"{one.path}-cache", name="other") as other,
        (one.path / "f").open("r+b") as mine,
        (other.path / "f").open("r+b") as theirs,
    ):
        lock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_reading_leaves_the_time_of_access_as_it_is(mount: Mount, store: StoreApi) -> None:
    store.put("f", b"x")
    with mount() as mounted:
        os.utime(mounted.path / "f", ns=(1, 2))
        assert (mounted.path / "f").read_bytes() == b"x"
        found = (mounted.path / "f").stat()
        assert (found.st_atime_ns, found.st_mtime_ns) == (1, 2)


def test_a_sync_of_the_whole_mount_uploads_nothing(mounted: Mounted, store: StoreApi) -> None:
    with (mounted.path / "f").open("wb", buffering=0) as file:
        file.write(b"x")
        mounted.run("sync", "--file-system", ".")
        assert store.keys() == []
        mounted.run("sync", "f")
        assert store.content("f") == b"x"


def test_a_folder_has_one_link(mounted: Mounted) -> None:
    mounted.sh("mkdir -p a/b a/c")
    assert (mounted.path / "a").stat().st_nlink == 1
    assert mounted.run("find", ".", "-type", "d") == ".\n./a\n./a/b\n./a/c\n"


def test_direct_io_reads_and_writes_the_same_bytes(mounted: Mounted, store: StoreApi) -> None:
    descriptor = os.open(mounted.path / "f", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    try:
        with mmap.mmap(-1, 4096) as page:  # aligned, as O_DIRECT asks for
            page[:] = b"x" * 4096
            assert os.pwritev(descriptor, [page], 4096) == 4096
            page[:] = bytes(4096)
            assert os.preadv(descriptor, [page], 4096) == 4096
            assert page[:] == b"x" * 4096
    finally:
        os.close(descriptor)
    assert store.content("f") == bytes(4096) + b"x" * 4096


def test_two_mounts_may_both_create_one_file_exclusively(mount: Mount, store: StoreApi) -> None:
    with mount() as one, mount("--cache-dir", f"{one.path}-cache", name="other") as other:
        assert os.listdir(one.path) == os.listdir(other.path) == []
        for mounted, content in ((one, b"one"), (other, b"other")):
            with (mounted.path / "f").open("xb") as file:
                file.write(content)
            assert store.content("f") == content
