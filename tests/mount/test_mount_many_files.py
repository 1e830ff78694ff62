"""Thousands of files open at a time, many readers side by side, and what happens where descriptors run out."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.mount.conftest import Mount
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse

USUAL_LIMIT = 1024
"""Descriptors that a shell leaves to a daemon."""

READERS = 64
RECORD = bytes(range(256)) * 512


def content(number: int) -> bytes:
    return b"content of %d\n" % number


def fill(store: StoreApi, count: int) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: store.put(f"f{number:05}", content(number)), range(count)))


@contextmanager
def soft_limit(descriptors: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(descriptors, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_more_files_are_open_than_a_daemon_may_usually_have(mount: Mount, store: StoreApi) -> None:
    open_at_once(mount, store, USUAL_LIMIT + 200)


@pytest.mark.long
def test_ten_thousand_files_are_open_at_once(mount: Mount, store: StoreApi) -> None:
    open_at_once(mount, store, 10_000)


def open_at_once(mount: Mount, store: StoreApi, count: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count + 200:
        pytest.skip(f"only {hard} descriptors are allowed here")
    fill(store, count)
    with ExitStack() as stack:
        with soft_limit(USUAL_LIMIT):
            mounted = stack.enter_context(mount(within=600))
        with soft_limit(count + 200), ExitStack() as files:
            opened = [
                files.enter_context((mounted.path / f"f{number:05}").open("rb")) for number in range(count)
            ]
            assert all(file.read() == content(number) for number, file in enumerate(opened))


def open_all(files: ExitStack, paths: list[Path]) -> None:
    for path in paths:
        files.enter_context(path.open("rb"))


def test_where_descriptors_run_out_open_fails_and_what_is_open_is_read_on(
    mount: Mount, store: StoreApi
) -> None:
    fill(store, 200)
    with mount() as mounted:
        mounted.expect_log(r"open: .*Too many open files")
        assert len(os.listdir(mounted.path)) == 200
        with ExitStack() as files:
            first = files.enter_context((mounted.path / "f00000").open("rb"))
            in_use = len(os.listdir(f"/proc/{mounted.pid}/fd"))
            before = resource.prlimit(mounted.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(mounted.pid, resource.RLIMIT_NOFILE, (in_use + 90, before[1]))
            with pytest.raises(OSError, match="Too many open files") as failed:
                open_all(files, [mounted.path / f"f{number:05}" for number in range(1, 200)])
            assert failed.value.errno == errno.EMFILE
            assert first.read() == content(0)
        for number in range(200):
            assert (mounted.path / f"f{number:05}").read_bytes() == content(number)


def test_many_readers_side_by_side_get_every_byte(mount: Mount, store: StoreApi) -> None:
    for number in range(READERS):
        store.put(f"r{number:02}", content(number) + RECORD)

    def read(path: Path) -> bytes:
        return path.read_bytes()

    with mount() as mounted, ThreadPoolExecutor(READERS) as threads:
        paths = [mounted.path / f"r{number:02}" for number in range(READERS)]
        found = list(threads.map(read, paths))
        assert found == [content(number) + RECORD for number in range(READERS)]
        mounted.umount()
        gets = [name for name in mounted.named_requests() if name.startswith("GET r")]
        assert sorted(gets) == [f"GET r{number:02}" for number in range(READERS)]
