"""The store goes away under a mount: deleted, killed, out of reach. Errors, in time, and nothing lost."""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import httpx
import pytest

from kvsfs.errors import ExitCode
from kvsfs.store.breaker import LAST_PROBE
from tests.mount.conftest import Mount
from tests.support.mounting import Sandbox, failing, mounted_store
from tests.support.serving import Home, RunningServer
from tests.support.store_api import StoreApi

T = TypeVar("T")

pytestmark = pytest.mark.fuse

TIMEOUT = 2.0
"""Seconds, instead of the 30 that the store's client gives itself."""

IN_TIME = TIMEOUT + 4.0
"""Seconds until an error is told: the machine may be slow."""

UNREACHABLE = (errno.EIO, errno.ETIMEDOUT)


def write(path: Path, content: bytes) -> None:
    """Write and close: the error may come with either, and belongs to both."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        os.write(descriptor, content)
    finally:
        os.close(descriptor)


def kept(sandbox: Sandbox) -> dict[str, bytes]:
    """What no store took, by key."""
    paths = sandbox.folder.glob("cache_home/kvsfs/*/not-uploaded/*")
    return {path.name.partition(".")[2]: path.read_bytes() for path in paths}


def once_it_answers(read: Callable[[], T]) -> T:
    """Read from a store that is back: until the mount's next probe, the error may still come."""
    deadline = time.monotonic() + LAST_PROBE + 1
    while True:
        try:
            return read()
        except OSError as error:
            if error.errno not in UNREACHABLE or time.monotonic() > deadline:
                raise
            select.select([], [], [], 0.02)


@pytest.fixture
def home(tmp_path: Path, token: str) -> Home:
    return Home(tmp_path / "server", token)


@contextmanager
def client_of(server: RunningServer, token: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {token}"}) as client:
        yield client


def test_the_store_deleted_under_the_mount(mount: Mount, sandbox: Sandbox, store: StoreApi) -> None:
    """ESTALE: the mounted thing itself is gone. Of a single known file only its absence can be told."""
    store.put("unread", b"x")
    with mount() as mounted:
        assert mounted.run("ls") == "unread\n"
        store.delete()
        mounted.expect_log(r"flush: record new: .*404")
        with failing(errno.ESTALE):
            write(mounted.path / "new", b"y")
        with failing(errno.ENOENT):
            (mounted.path / "unread").read_bytes()
        mounted.expect_log(r"left for the next mount of this store: new \(not uploaded: .*404")
        mounted.umount(ExitCode.NOT_ALL_UPLOADED)
    (folder,) = (sandbox.folder / "cache_home" / "kvsfs").iterdir()
    assert [path.read_bytes() for path in (folder / "dirty").iterdir()] == [b"y"]


def test_ls_of_a_deleted_store(mount: Mount, store: StoreApi) -> None:
    with mount() as mounted:
        store.delete()
        mounted.expect_log(r"readdir: store .*: .*404")
        with failing(errno.ESTALE):
            os.listdir(mounted.path)
        assert "Stale file handle" in mounted.attempt("ls").stderr


def test_the_server_killed_under_the_mount_and_back_again(home: Home, sandbox: Sandbox, token: str) -> None:
    with home.serving() as server, client_of(server, token) as client:
        store = StoreApi.create(client)
        for key in ("changed", "folder!2Fbelow", "read", "unread"):
            store.put(key, key.encode())
        options = ("--timeout", f"{TIMEOUT}s")
        with mounted_store(sandbox, store.id, *options, token=token, server=server) as mounted:
            assert mounted.run("ls") == "changed\nfolder\nread\nunread\n"
            assert (mounted.path / "read").read_bytes() == b"read"
            server.kill()

            for pattern in ("flush", "open", "unlink", "rename", "readdir"):
                mounted.expect_log(f"{pattern}: .*(the API|the store has not answered)")
            with failing(*UNREACHABLE, within=IN_TIME):
                write(mounted.path / "new", b"written while it was away")
            with failing(*UNREACHABLE, within=IN_TIME):
                (mounted.path / "unread").read_bytes()
            with failing(*UNREACHABLE, within=IN_TIME):
                (mounted.path / "unread").unlink()
            with failing(*UNREACHABLE, within=IN_TIME):
                (mounted.path / "unread").rename(mounted.path / "renamed")
            with failing(*UNREACHABLE, within=IN_TIME):
                os.listdir(mounted.path / "folder")
            # What is known needs no store: names, sizes, what was just written.
            assert mounted.run("ls", within=IN_TIME) == "changed\nfolder\nnew\nread\nunread\n"
            assert os.statvfs(mounted.path).f_namemax == 256
            assert (mounted.path / "new").read_bytes() == b"written while it was away"

            with home.serving():
                assert once_it_answers((mounted.path / "unread").read_bytes) == b"unread"
                assert os.listdir(mounted.path / "folder") == ["below"]
                write(mounted.path / "changed", b"after it came back")
                (mounted.path / "read").unlink()
                mounted.umount()
                with client_of(server, token) as again:
                    records = StoreApi(again, store.id)
                    contents = {key: records.content(key) for key in records.keys()}  # noqa: SIM118
    assert contents == {
        "changed": b"after it came back",
        "folder!2Fbelow": b"folder!2Fbelow",
        "new": b"written while it was away",
        "unread": b"unread",
    }
    assert kept(sandbox) == {}


def test_a_reader_whose_server_is_killed_gets_an_error_in_time(
    home: Home, sandbox: Sandbox, token: str
) -> None:
    content = os.urandom(100 * 1024**2)  # more than is fetched ahead of a reader
    with home.serving() as server, client_of(server, token) as client:
        store = StoreApi.create(client)
        store.put("f", content)
        options = ("--timeout", f"{TIMEOUT}s")
        with (
            mounted_store(sandbox, store.id, *options, token=token, server=server) as mounted,
            (mounted.path / "f").open("rb", buffering=0) as file,
        ):
            assert file.read(1000) == content[:1000]
            server.kill()
            mounted.expect_log("read: ")
            with failing(*UNREACHABLE, within=IN_TIME):
                os.pread(file.fileno(), 1000, len(content) - 1000)
            with home.serving():
                tail = once_it_answers(lambda: os.pread(file.fileno(), 1000, len(content) - 1000))
                assert tail == content[-1000:]
                assert file.read(1_000_000) == content[1000:1_001_000]


def test_a_server_that_hangs_is_given_up_in_time(home: Home, sandbox: Sandbox, token: str) -> None:
    with home.serving() as server, client_of(server, token) as client:
        store = StoreApi.create(client)
        options = ("--timeout", f"{TIMEOUT}s")
        with mounted_store(sandbox, store.id, *options, token=token, server=server) as mounted:
            mounted.run("ls")
            os.kill(server.pid, signal.SIGSTOP)
            try:
                mounted.expect_log("flush: .*")
                with failing(errno.ETIMEDOUT, within=IN_TIME):
                    write(mounted.path / "new", b"bytes")
            finally:
                os.kill(server.pid, signal.SIGCONT)
            mounted.umount()
        assert store.content("new") == b"bytes"


def test_a_store_out_of_reach_costs_one_time_out_and_not_one_for_each_file(
    home: Home, sandbox: Sandbox, token: str
) -> None:
    files = 30
    with home.serving() as server, client_of(server, token) as client:
        store = StoreApi.create(client)
        for number in range(files):
            store.put(f"f{number}", b"content")
        options = ("--timeout", f"{TIMEOUT}s", "--revalidate", "0s")
        with mounted_store(sandbox, store.id, *options, token=token, server=server) as mounted:
            listed = mounted.run("ls")
            assert (mounted.path / "f0").read_bytes() == b"content"
            mounted.expect_log("open: .*(in time|stopped answering|no answer within)")
            mounted.expect_log("open: .*the store has not answered for .* s; trying again in .* s")
            mounted.expect_log("showing the copy of f0 that is here: ")
            os.kill(server.pid, signal.SIGSTOP)
            try:
                with ThreadPoolExecutor(3) as pool:
                    first = list(pool.map(partial(errno_of_reading, mounted.path), range(1, 4)))
                begun = time.monotonic()
                rest = [errno_of_reading(mounted.path, number) for number in range(4, files)]
                # A probe may be among them, and take a time-out. Without the breaker each would.
                assert time.monotonic() - begun < 3 * TIMEOUT
                assert set(first) | set(rest) <= set(UNREACHABLE)
                assert mounted.run("ls", within=IN_TIME) == listed
                assert mounted.run("df", "--output=itotal", ".", within=IN_TIME)
                assert mounted.run("stat", "-c", "%s", "f1", within=IN_TIME) == "7\n"
                assert (mounted.path / "f0").read_bytes() == b"content"
            finally:
                os.kill(server.pid, signal.SIGCONT)
            for number in range(1, files):
                assert once_it_answers((mounted.path / f"f{number}").read_bytes) == b"content"


def errno_of_reading(folder: Path, number: int) -> int | None:
    try:
        (folder / f"f{number}").read_bytes()
    except OSError as error:
        return error.errno
    return None


def test_what_no_store_takes_is_kept_and_told(home: Home, sandbox: Sandbox, token: str) -> None:
    with home.serving() as server, client_of(server, token) as client:
        store = StoreApi.create(client)
        options = ("--timeout", f"{TIMEOUT}s")
        with mounted_store(sandbox, store.id, *options, token=token, server=server) as mounted:
            mounted.run("ls")
            server.kill()
            mounted.expect_log("flush: ")
            mounted.expect_log(r"left for the next mount of this store: new \(not uploaded: ")
            with failing(*UNREACHABLE, within=IN_TIME):
                write(mounted.path / "new", b"bytes")
            ended = sandbox.kvsfs("umount", str(mounted.path))
            assert ended.returncode == ExitCode.NOT_ALL_UPLOADED
            (line,) = ended.stderr.splitlines()
            assert "new (not uploaded: " in line
            mounted.wait_for_exit(ExitCode.NOT_ALL_UPLOADED)
        with (
            home.serving() as again,
            client_of(again, token) as other,
            mounted_store(sandbox, store.id, *options, token=token, server=again) as mounted,
        ):
            for pattern in (
                "flush: ",
                "left for the next mount of this store",
                "1 files of an earlier mount",
            ):
                mounted.expect_log(pattern)
            assert (mounted.path / "new").read_bytes() == b"bytes"
            mounted.umount()
            assert StoreApi(other, store.id).content("new") == b"bytes"
    assert kept(sandbox) == {}
