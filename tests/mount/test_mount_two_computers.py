"""Two mounts of one store, each with a cache of its own, as on two computers: what one closes, the other opens."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mount.conftest import Mount
from tests.support.mounting import Mounted, failing, wait_until
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse

AT_ONCE = ("--revalidate", "0s", "--listing-ttl", "100ms")
"""Each open asks the store, and names of the other computer show after a moment."""

Two = tuple[Path, Path]


@contextmanager
def two_mounts(mount: Mount, *options: str) -> Iterator[tuple[Mounted, Mounted]]:
    with mount(*options) as one, mount(*options, "--cache-dir", f"{one.path}-cache", name="other") as other:
        yield one, other


@pytest.fixture
def two(mount: Mount) -> Iterator[Two]:
    with two_mounts(mount, *AT_ONCE) as (one, other):
        yield one.path, other.path


def both_ways(two: Two) -> list[Two]:
    return [two, two[::-1]] * 2


def shows(folder: Path, *names: str) -> Callable[[], bool]:
    """Ask whether a folder's listing has these names."""
    return lambda: sorted(os.listdir(folder)) == sorted(names)


def test_what_one_closes_the_other_opens(two: Two, store: StoreApi) -> None:
    store.put("f", b"first")
    for number, (writer, reader) in enumerate(both_ways(two)):
        content = b"round %d\n" % number * 10 ** (number % 4)
        (writer / "f").write_bytes(content)
        assert (reader / "f").read_bytes() == content
        assert (reader / "f").stat().st_size == len(content)


def test_a_change_at_equal_length_is_seen(two: Two, store: StoreApi) -> None:
    store.put("f", b"0" * 10_000)
    for number, (writer, reader) in enumerate(both_ways(two)):
        with (writer / "f").open("r+b") as file:
            file.seek(5000)
            file.write(b"%d" % number)
        with (
            (reader / "f").open("rb") as changed,
            mmap.mmap(changed.fileno(), 0, prot=mmap.PROT_READ) as mapped,
        ):
            assert mapped[:] == b"0" * 5000 + b"%d" % number + b"0" * 4999


def test_appends_from_both_keep_every_line(two: Two, store: StoreApi) -> None:
    store.put("f", b"")
    lines = [b"line %d\n" % number for number in range(10)]
    for number, line in enumerate(lines):
        with (two[number % 2] / "f").open("ab") as file:
            file.write(line)
    assert store.content("f") == b"".join(lines)
    assert (two[0] / "f").read_bytes() == (two[1] / "f").read_bytes() == b"".join(lines)


def test_truncation_is_seen(two: Two, store: StoreApi) -> None:
    store.put("f", b"long content")
    assert (two[1] / "f").read_bytes() == b"long content"
    os.truncate(two[0] / "f", 4)
    assert (two[1] / "f").read_bytes() == b"long"
    (two[1] / "f").write_bytes(b"")
    assert (two[0] / "f").read_bytes() == b""


def test_new_names_show_within_the_listings_time(two: Two) -> None:
    for number, (writer, reader) in enumerate(both_ways(two)):
        name = f"new{number}"
        assert name not in os.listdir(reader)
        (writer / name).write_bytes(b"x" * number)
        wait_until((reader / name).exists)
        assert name in os.listdir(reader)
        assert (reader / name).read_bytes() == b"x" * number


def test_a_new_folder_shows_with_what_is_in_it(two: Two) -> None:
    os.listdir(two[1])
    (two[0] / "folder").mkdir()
    (two[0] / "folder" / "f").write_bytes(b"x")
    wait_until((two[1] / "folder" / "f").exists)
    (two[1] / "folder" / "g").write_bytes(b"y")
    wait_until(shows(two[0] / "folder", "f", "g"))


def test_a_deleted_file_is_gone_at_the_next_open(two: Two, store: StoreApi) -> None:
    store.put("f", b"x")
    for deleter, reader in both_ways(two):
        wait_until((reader / "f").exists)
        wait_until((deleter / "f").exists)
        assert (reader / "f").read_bytes() == b"x"
        (deleter / "f").unlink()
        with failing(errno.ENOENT):
            (reader / "f").read_bytes()
        assert os.listdir(deleter) == []
        wait_until(shows(reader))
        (deleter / "f").write_bytes(b"x")


def test_a_deleted_file_may_be_made_anew_by_the_other(two: Two, store: StoreApi) -> None:
    store.put("f", b"old", "text/x-old")
    assert (two[1] / "f").read_bytes() == b"old"
    (two[0] / "f").unlink()
    (two[1] / "f").write_bytes(b"new")
    assert store.content("f") == b"new"
    wait_until((two[0] / "f").exists)
    assert (two[0] / "f").read_bytes() == b"new"


def test_a_renamed_file_has_one_name_at_the_other(two: Two, store: StoreApi) -> None:
    store.put("before", b"x")
    assert (two[1] / "before").read_bytes() == b"x"
    (two[0] / "before").rename(two[0] / "after")
    with failing(errno.ENOENT):
        (two[1] / "before").read_bytes()
    wait_until(shows(two[1], "after"))
    assert (two[1] / "after").read_bytes() == b"x"


@pytest.mark.parametrize(("before", "after"), [(200_000, 300_000), (300_000, 200_000), (200_000, 200_000)])
def test_an_open_file_is_read_on_as_it_was_opened(two: Two, store: StoreApi, before: int, after: int) -> None:
    old, new = b"A" * before, b"B" * after
    store.put("f", old)
    with (two[1] / "f").open("rb", buffering=0) as reader:
        assert reader.read(4096) == old[:4096]
        (two[0] / "f").write_bytes(new)
        assert (two[1] / "f").read_bytes() == new
        found = b"".join(iter(lambda: reader.read(65536), b""))
        assert found == old[4096:]
    assert (two[1] / "f").read_bytes() == new


def test_the_last_close_wins(two: Two, store: StoreApi) -> None:
    store.put("f", b"first")
    with (two[0] / "f").open("wb") as one, (two[1] / "f").open("wb") as other:
        one.write(b"one")
        other.write(b"the other")
        one.close()
        assert store.content("f") == b"one"
    assert store.content("f") == b"the other"
    assert (two[0] / "f").read_bytes() == b"the other"


def test_by_default_a_change_is_seen_once_the_check_is_old(mount: Mount, store: StoreApi) -> None:
    store.put("f", b"old")
    with two_mounts(mount, "--revalidate", "500ms") as (one, other):
        assert (other.path / "f").read_bytes() == b"old"
        (one.path / "f").write_bytes(b"new")
        assert (other.path / "f").read_bytes() in (b"old", b"new")
        wait_until(lambda: (other.path / "f").read_bytes() == b"new")


@pytest.mark.parametrize("call", ["flock", "lockf"])
def test_locks_hold_within_the_machine(mounted: Mounted, call: str) -> None:
    """Until their process ends, however it does."""
    path = mounted.path / "f"
    path.touch()
    code = (
        f"import fcntl, sys; f = open({str(path)!r}, 'r+'); fcntl.{call}(f, fcntl.LOCK_EX); "
        "print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with path.open("r+b") as file:
            lock = getattr(fcntl, call)
            with failing(errno.EAGAIN, errno.EACCES):
                lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            holder.kill()
            holder.wait()
            lock(file, fcntl.LOCK_EX)
