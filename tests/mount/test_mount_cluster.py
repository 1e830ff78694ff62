"""A cluster: servers over one bucket, mounts of each with caches of their own, processes on all of them."""

from __future__ import annotations

import contextlib
import errno
import select
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.mount.conftest import TOKEN
from tests.support.buckets import S3
from tests.support.load import History, working
from tests.support.mounting import Mounted, Sandbox, mounted_store, wait_until
from tests.support.serving import Home, RunningServer, running_server
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse

AT_ONCE = ("--revalidate", "0s", "--listing-ttl", "100ms")

CONTENDED = "contended"

MOVED_ON = (errno.ENOENT, errno.ESTALE)
"""What a name may answer that others write at the same time: it was looked up as it was, and is another file now."""


@dataclass
class Cluster:
    """Servers over one place in a bucket, and one store of theirs."""

    s3: S3
    place: str
    servers: list[RunningServer]
    stores: list[StoreApi]
    """The same store, as each server shows it."""

    def content(self, number: int) -> dict[str, bytes]:
        """Give every file, as one server has them."""
        store = self.stores[number]
        return {
            key.replace("!2F", "/"): store.content(key) for key in store.sizes() if not key.endswith("!2F")
        }


@pytest.fixture
def cluster(s3: S3, tmp_path: Path) -> Iterator[Cluster]:
    with contextlib.ExitStack() as stack:
        place = s3.place()
        servers = [
            stack.enter_context(
                running_server(
                    tmp_path / "unused",
                    tokens=[f"{TOKEN}=joe"],
                    request_log=tmp_path / f"requests-{number}",
                    arguments=s3.arguments(place),
                )
            )
            for number in range(2)
        ]
        clients = [
            stack.enter_context(
                httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30)
            )
            for server in servers
        ]
        made = StoreApi.create(clients[0])
        yield Cluster(s3, place, servers, [StoreApi(client, made.id) for client in clients])


@contextlib.contextmanager
def moved_on(*more: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (*MOVED_ON, *more):
            raise


@contextlib.contextmanager
def contending(folder: Path, number: int, torn: list[bytes]) -> Iterator[None]:
    """Write and read, as long as the block runs, a file that everybody writes: each value is one byte, repeated."""
    ended = threading.Event()

    def contend() -> None:
        path, round_ = folder / CONTENDED, 0
        while not ended.is_set():
            round_ += 1
            with moved_on():
                path.write_bytes(bytes([number]) * (1 + round_ * 7919 % 50_000))
            found = b"x"
            with moved_on(errno.EIO):  # it was replaced amid reading, and says so
                found = path.read_bytes()
            if len(set(found)) != 1:
                torn.append(found)

    thread = threading.Thread(target=contend)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def run_cluster(cluster: Cluster, folder: Path, *, mounts: int, processes: int, seconds: float) -> None:
    history, torn = History(), list[bytes]()
    logs = [folder / f"w{number}" for number in range(processes)]
    with contextlib.ExitStack() as stack:
        mounted: list[Mounted] = [
            stack.enter_context(
                mounted_store(
                    Sandbox(folder / f"machine-{number}"),
                    cluster.stores[0].id,
                    *AT_ONCE,
                    token=TOKEN,
                    server=cluster.servers[number % len(cluster.servers)],
                    within=seconds + 300,
                )
            )
            for number in range(mounts)
        ]
        for mount in mounted:
            mount.allow_log(f"{CONTENDED}( was changed|: the API's answer broke off)")
        with contextlib.ExitStack() as load:
            for number, log in enumerate(logs):
                load.enter_context(working(mounted[number % mounts].path, log, "1", {}))
            for number, mount in enumerate(mounted):
                load.enter_context(contending(mount.path, number, torn))
            select.select([], [], [], seconds)
        for log in logs:
            history.read(log)
        for mount in mounted[1:]:
            wait_until(partial(same_names, mounted[0].path, mount.path))
        shown = [files_of(mount.path) for mount in mounted]
        for mount in mounted:
            mount.umount(within=120)
    stored = [cluster.content(number) for number in range(len(cluster.servers))]
    assert stored[0] == stored[1]
    assert all(found == stored[0] for found in shown)
    assert torn == []
    assert len(set(stored[0].pop(CONTENDED))) == 1
    assert history.faults(stored[0]) == []
    assert history.failed == 0
    assert history.acknowledged > 5 * processes


def same_names(one: Path, other: Path) -> bool:
    return names_of(one) == names_of(other)


def names_of(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*")}


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_cluster_of_three_mounts_loses_nothing(cluster: Cluster, tmp_path: Path) -> None:
    run_cluster(cluster, tmp_path, mounts=3, processes=6, seconds=3)


@pytest.mark.long
def test_a_cluster_of_eight_mounts_loses_nothing(cluster: Cluster, tmp_path: Path) -> None:
    run_cluster(cluster, tmp_path, mounts=8, processes=32, seconds=60)


def test_programs_on_a_mount_of_a_bucket(cluster: Cluster, tmp_path: Path) -> None:
    """Copied in by one server, what the other shows; rsync sends nothing twice."""
    source = tmp_path / "source"
    (source / "folder").mkdir(parents=True)
    for number in range(20):
        (source / "folder" / f"f{number}").write_bytes(bytes([number]) * number * 1000)
    store = cluster.stores[0].id
    with mounted_store(
        Sandbox(tmp_path / "machine"), store, token=TOKEN, server=cluster.servers[0]
    ) as mounted:
        mounted.sh(
            f"cp -r {source}/folder copied; rsync -a {source}/folder .; mv copied/f3 renamed; rm copied/f4"
        )
        with mounted.counting() as requests:
            mounted.sh(f"rsync -a {source}/folder .")
        assert not [request for request in requests if not request.startswith("LIST")]
    expected = {f"folder/f{number}": bytes([number]) * number * 1000 for number in range(20)}
    expected |= {
        f"copied/f{number}": bytes([number]) * number * 1000 for number in range(20) if number not in (3, 4)
    }
    expected["renamed"] = bytes([3]) * 3000
    assert cluster.content(1) == expected


def test_another_server_takes_over_where_one_was_killed(s3: S3, tmp_path: Path) -> None:
    """Behind one address, amid the work of a mount: nothing but the bucket knows what was there."""
    home, place = Home(tmp_path / "home", TOKEN), s3.place()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(home.serving(*s3.arguments(place)))
        headers = {"Authorization": f"Bearer {TOKEN}"}
        client = stack.enter_context(httpx.Client(base_url=server.url, headers=headers, timeout=30))
        store = StoreApi.create(client)
        mounted = stack.enter_context(
            mounted_store(Sandbox(tmp_path / "machine"), store.id, token=TOKEN, server=server)
        )
        (mounted.path / "before").write_bytes(b"written before")
        mounted.allow_log("")
        server.kill()
        stack.enter_context(home.serving(*s3.arguments(place)))
        (mounted.path / "after").write_bytes(b"written after")
        assert (mounted.path / "before").read_bytes() == b"written before"
        assert store.sizes() == {"after": 13, "before": 14}
