"""`--poll`: what another client changes shows by itself, and never half."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from threading import Event, Thread

import pytest

from tests.mount.conftest import Mount
from tests.support.mounting import Mounted, wait_until
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse

OPTIONS = ("--poll", "100ms", "--revalidate", "1h", "--listing-ttl", "1h")
"""Without polling nothing would show for an hour."""

PAGE = os.sysconf("SC_PAGE_SIZE")
OLD = b"old\n" * (64 * PAGE // 4)
NEW = b"new\n" * (64 * PAGE // 4)


@pytest.fixture
def polled(mount: Mount, store: StoreApi) -> Iterator[Mounted]:
    for key in ("cached", "other", "looked-at"):
        store.put(key, OLD)
    with mount(*OPTIONS) as mounted:
        assert mounted.run("ls").split() == ["cached", "looked-at", "other"]
        assert mounted.run("cat", "cached").encode() == OLD
        yield mounted


def until_noticed(mounted: Mounted, store: StoreApi) -> None:
    """Wait until what was changed before this call has been noticed: a later change shows."""
    probe = mounted.path / "probe"
    store.put("probe", b"x")
    wait_until(probe.exists)
    store.delete_record("probe")
    wait_until(lambda: not probe.exists())


def test_a_deletion_shows_in_ls_and_stat(polled: Mounted, store: StoreApi) -> None:
    for key in ("cached", "looked-at"):
        assert (polled.path / key).stat().st_size == len(OLD)
        store.delete_record(key)
    wait_until(lambda: os.listdir(polled.path) == ["other"])
    for key in ("cached", "looked-at"):
        assert "No such file" in polled.attempt("stat", key).stderr
        assert "No such file" in polled.attempt("cat", key).stderr


def test_a_deleted_folder_shows(polled: Mounted, store: StoreApi) -> None:
    for key in ("d!2Fone", "d!2Fe!2Ftwo"):
        store.put(key, b"x")
    wait_until(lambda: "d" in os.listdir(polled.path))
    assert polled.run("find", "d", "-type", "f").split() == ["d/e/two", "d/one"]
    for key in ("d!2Fone", "d!2Fe!2Ftwo"):
        store.delete_record(key)
    wait_until(lambda: not (polled.path / "d").exists())
    assert "d" not in polled.run("ls").split()


@pytest.mark.parametrize("key", ["cached", "other"])
@pytest.mark.parametrize("content", [NEW, b"short", NEW + NEW], ids=["same size", "shorter", "longer"])
def test_an_overwrite_shows(polled: Mounted, store: StoreApi, key: str, content: bytes) -> None:
    store.put(key, content)
    until_noticed(polled, store)
    assert (polled.path / key).stat().st_size == len(content)
    assert polled.run("cat", key).encode() == content


def test_a_store_at_rest_costs_one_request_a_round(mount: Mount, store: StoreApi) -> None:
    store.put("f", b"text")
    with mount(*OPTIONS) as mounted:
        mounted.sh("ls; cat f; echo ours > g; rm f")
        requests = mounted.named_requests
        rounds = len(requests()) + 10
        wait_until(lambda: len(requests()) > rounds)
        assert requests()[-6:] == ["GET"] * 6
        # One listing too many is possible: a round that asked between a write and its answer.
        assert requests().count("LIST") <= 3


@pytest.mark.parametrize("key", ["cached", "other"])
@pytest.mark.parametrize(
    "content", [NEW, NEW + NEW, b"short", None], ids=["same size", "longer", "shorter", "deleted"]
)
def test_an_open_file_keeps_the_version_that_it_opened(
    polled: Mounted, store: StoreApi, key: str, content: bytes | None
) -> None:
    path = polled.path / key
    with path.open("rb", buffering=0) as file, path.open("rb") as kept:
        mapped = mmap.mmap(kept.fileno(), 0, access=mmap.ACCESS_READ)
        assert file.read(10 * PAGE) == OLD[: 10 * PAGE]
        assert mapped[: 3 * PAGE] == OLD[: 3 * PAGE]
        if content is None:
            store.delete_record(key)
        else:
            store.put(key, content)
        until_noticed(polled, store)
        if content is not None:
            assert polled.run("cat", key).encode() == content
        assert os.pread(file.fileno(), len(OLD), 0) == OLD
        assert file.read(len(OLD)) == OLD[10 * PAGE :]
        assert mapped[:] == OLD
        mapped.close()
    if content is None:
        wait_until(lambda: key not in os.listdir(polled.path))
    else:
        assert path.read_bytes() == content


def test_readers_of_files_that_others_overwrite_see_whole_versions(polled: Mounted, store: StoreApi) -> None:
    """Each version is many pages of one line: two lines in one answer would be two versions."""
    lines = [f"{number:07d}\n".encode() * (16 * PAGE // 8) for number in range(40)]
    keys = [f"page-{number}" for number in range(8)]
    for key in keys:
        store.put(key, lines[0])
    wait_until(lambda: set(keys) <= set(os.listdir(polled.path)))
    done = Event()

    def overwrite() -> None:
        for line in lines[1:]:
            for key in keys:
                store.put(key, line)
        done.set()

    writer = Thread(target=overwrite)
    writer.start()
    seen: set[str] = set()
    while not done.is_set():
        found = polled.sh("for f in page-*; do echo $f $(sort -u $f); done; grep -rc . . > ../counts")
        for line in found.splitlines():
            _, *versions = line.split()
            assert len(versions) == 1, found
            seen.add(versions[0])
        counts = (polled.path.parent / "counts").read_text().splitlines()
        assert {count.rsplit(":", 1)[1] for count in counts if "page-" in count} == {str(16 * PAGE // 8)}
    writer.join()
    assert len(seen) > 2
    until_noticed(polled, store)
    for key in keys:
        assert (polled.path / key).read_bytes() == lines[-1]


CHURN = """
for i in $(seq 40); do
    echo $i > mine-$1; mv mine-$1 moved-$1; cat theirs-* > /dev/null 2>&1 || true; ls -l > /dev/null
    mkdir d-$1; echo x > d-$1/f; rm -r d-$1; rm moved-$1
done
"""


def test_names_come_and_go_here_and_there_at_the_same_time(polled: Mounted, store: StoreApi) -> None:
    """The kernel forgets names in a folder while requests for it wait: that must never be for each other."""
    done = Event()

    def churn() -> None:
        number = 0
        while not done.is_set():
            for key in ("theirs-1", "theirs-2", "d-1!2Ftheirs"):
                store.put(key, b"x" * number)
            for key in ("theirs-1", "d-1!2Ftheirs"):
                store.delete_record(key)
            number += 1

    other = Thread(target=churn)
    other.start()
    try:
        here = [Thread(target=polled.attempt, args=("sh", "-c", CHURN, "sh", str(n))) for n in (1, 2, 3)]
        for thread in here:
            thread.start()
        for thread in here:
            thread.join()
    finally:
        done.set()
        other.join()
    until_noticed(polled, store)
    polled.attempt("sh", "-c", "rm -rf d-* mine-* moved-*")
    until_noticed(polled, store)
    assert sorted(os.listdir(polled.path)) == ["cached", "looked-at", "other", "theirs-2"]
    assert store.keys() == ["cached", "looked-at", "other", "theirs-2"]
