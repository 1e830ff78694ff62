"""Times, modes and owners: the API has no place for them, and they hold all the same, also over a remount."""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from tests.mount.conftest import Mount
from tests.support.mounting import Mounted, Sandbox, wait_until
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse

TIME_NS = 1_234_567_890_123_456_789
LISTS = ["GET", "LIST", "LIST in!2F", "LIST in!2Fd!2F", "LIST in!2Fd!2Fe!2F"]
"""All that a look at each folder costs: the store's own description, and a list of each folder."""

CONTENT = b"the same again, " * 5000


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder like a user's own: each file and folder with a time, some with a mode."""
    root = tmp_path / "tree"
    for number, name in enumerate(("a.txt", "run.sh", "d/b.json", "d/e/größe.txt")):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"bytes of {name}\n")
        os.utime(path, ns=(TIME_NS, TIME_NS + number))
    (root / "run.sh").chmod(0o751)
    (root / "d/b.json").chmod(0o600)
    for folder in (root / "d/e", root / "d", root):
        os.utime(folder, ns=(TIME_NS, TIME_NS))
    return root


def attributes_below(root: Path) -> dict[str, tuple[int, str, int, int, int]]:
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        size = status.st_size if path.is_file() else 0
        mode = stat.filemode(status.st_mode)
        found[str(path.relative_to(root))] = (status.st_mtime_ns, mode, status.st_uid, status.st_gid, size)
    return found


def puts(requests: list[str]) -> list[str]:
    return [request for request in requests if request.startswith("PUT")]


def test_rsync_sends_nothing_the_second_time(mount: Mount, tree: Path) -> None:
    with mount() as mounted:
        mounted.run("rsync", "-a", f"{tree}/", "in/")
        assert attributes_below(mounted.path / "in") == attributes_below(tree)
    assert len(puts(mounted.named_requests())) == 4
    for _ in range(2):
        with mount() as mounted:
            assert mounted.run("rsync", "-ai", f"{tree}/", "in/") == ""
            assert attributes_below(mounted.path / "in") == attributes_below(tree)
        assert sorted(set(mounted.named_requests())) == LISTS


def test_rsync_sends_what_was_changed_here_and_there(mount: Mount, store: StoreApi, tree: Path) -> None:
    with mount() as mounted:
        mounted.run("rsync", "-a", f"{tree}/", ".")
    (tree / "a.txt").write_text("BYTES OF a.txt\n")  # as many as before
    store.put("run.sh", b"somebody else's, and longer")
    with mount() as mounted:
        mounted.run("rsync", "-a", f"{tree}/", ".")
        assert attributes_below(mounted.path) == attributes_below(tree)
    assert sorted(puts(mounted.named_requests())) == ["PUT a.txt", "PUT run.sh"]
    assert store.content("run.sh") == b"bytes of run.sh\n"


def cp(mounted: Mounted, source: Path) -> None:
    mounted.run("cp", "-p", source, "f")


def touch(mounted: Mounted, source: Path) -> None:
    mounted.run("cp", source, "f")
    mounted.sh("chmod 751 f; touch -d '2009-02-13 23:31:30.123456789 UTC' f")


def chown(mounted: Mounted, source: Path) -> None:
    cp(mounted, source)
    mounted.run("chown", "1234:5678", "f")


@pytest.mark.parametrize("program", [cp, touch, chown])
def test_what_a_program_sets_holds(
    mount: Mount, tmp_path: Path, program: Callable[[Mounted, Path], None]
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"bytes")
    source.chmod(0o751)
    os.utime(source, ns=(TIME_NS, TIME_NS))
    owner = (1234, 5678) if program is chown else (os.getuid(), os.getgid())
    with mount() as mounted:
        program(mounted, source)
        before = (mounted.path / "f").stat()
    assert len(puts(mounted.named_requests())) == 1
    with mount() as mounted:
        after = (mounted.path / "f").stat()
    for status in (before, after):
        assert (status.st_mtime_ns, stat.S_IMODE(status.st_mode)) == (TIME_NS, 0o751)
        assert (status.st_uid, status.st_gid) == owner


def test_a_script_stays_a_program(mount: Mount, store: StoreApi) -> None:
    store.put("hello", b"#!/bin/sh\necho hello\n")
    with mount() as mounted:
        assert mounted.attempt("sh", "-c", "./hello").returncode == 126
        mounted.run("chmod", "+x", "hello")
        assert mounted.run("./hello") == "hello\n"
    assert puts(mounted.named_requests()) == []
    with mount() as mounted:
        assert mounted.run("./hello") == "hello\n"


def test_what_was_set_last_is_kept_though_the_mount_ends_at_once(mount: Mount, store: StoreApi) -> None:
    names = [f"f{number}" for number in range(20)]
    for name in names:
        store.put(name, b"bytes")
    with mount() as mounted:
        mounted.sh("chmod 700 *")
    with mount() as mounted:
        modes = {stat.S_IMODE((mounted.path / name).stat().st_mode) for name in names}
    assert modes == {0o700}


@pytest.mark.parametrize("remounted", [True, False], ids=["between mounts", "under the mount"])
def test_a_change_by_others_shows_when_it_is_opened(mount: Mount, store: StoreApi, remounted: bool) -> None:
    """As many bytes: only the record's headers tell."""
    with contextlib.ExitStack() as stack:
        mounted = stack.enter_context(mount("--revalidate", "0"))
        mounted.sh("echo ours > f; chmod 700 f; touch -d '2009-02-13 23:31:30 UTC' f")
        if remounted:
            mounted.umount()
            mounted = stack.enter_context(mount("--revalidate", "0"))
        store.put("f", b"them\n")
        assert (mounted.path / "f").read_bytes() == b"them\n"
        written = parsedate_to_datetime(store.record("f").headers["Last-Modified"])
        path = mounted.path / "f"
        wait_until(lambda: path.stat().st_mtime == written.timestamp())
        assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_change_by_others_of_another_size_shows_at_once(mount: Mount, store: StoreApi) -> None:
    with mount() as mounted:
        mounted.sh("echo ours > f; chmod 700 f; touch -d '2009-02-13 23:31:30 UTC' f")
    store.put("f", b"somebody else's")
    with mount() as mounted:
        status = (mounted.path / "f").stat()
        assert (status.st_size, stat.S_IMODE(status.st_mode)) == (15, 0o644)
        assert status.st_mtime > 1_300_000_000


def listed(mounted: Mounted) -> dict[str, int]:
    lines = [line.split() for line in mounted.run("ls", "-l").splitlines()[1:]]
    return {line[-1]: int(line[4]) for line in lines}


def test_the_second_listing_of_compressed_records_is_exact(mount: Mount, store: StoreApi) -> None:
    content = gzip.compress(CONTENT)
    for name in ("read", "unread"):
        store.put(name, content, "text/x-log", encoding="gzip")
    with mount() as mounted:
        assert listed(mounted) == {"read": len(content), "unread": len(content)}
        assert mounted.run("wc", "-c", "read") == f"{len(CONTENT)} read\n"
        assert listed(mounted) == {"read": len(CONTENT), "unread": len(content)}
    with mount() as mounted:
        assert listed(mounted) == {"read": len(CONTENT), "unread": len(content)}
        assert mounted.run("getfattr", "-n", "user.mime_type", "--only-values", "read") == "text/x-log"
        assert mounted.named_requests() == ["GET", "LIST"]
        assert (mounted.path / "read").read_bytes() == CONTENT
    store.put("read", content, "text/x-log")  # the same bytes, and no encoding: only its headers tell
    with mount() as mounted:
        assert listed(mounted)["read"] == len(CONTENT)
        assert (mounted.path / "read").read_bytes() == content
        assert listed(mounted)["read"] == len(content)


@pytest.fixture
def cache(sandbox: Sandbox) -> Callable[[], Path]:
    def find() -> Path:
        (found,) = sandbox.folder.glob("cache_home/kvsfs/**/journal.db")
        return found.parent

    return find


def test_without_its_cache_folder_it_mounts_all_the_same(mount: Mount, cache: Callable[[], Path]) -> None:
    with mount() as mounted:
        mounted.sh("echo bytes > f; chmod 700 f")
    shutil.rmtree(cache())
    with mount() as mounted:
        assert (mounted.path / "f").read_bytes() == b"bytes\n"
        assert stat.S_IMODE((mounted.path / "f").stat().st_mode) == 0o644


def test_a_damaged_database_is_begun_anew(mount: Mount, cache: Callable[[], Path]) -> None:
    with mount() as mounted:
        mounted.sh("echo bytes > f; chmod 700 f")
    (cache() / "journal.db").write_bytes(b"no database" * 1000)
    with mount() as mounted:
        mounted.expect_log("was damaged")
        mounted.sh("chmod 711 f")
    with mount() as mounted:
        mounted.expect_log("was damaged")  # that of the mount before: both write into one log
        assert stat.S_IMODE((mounted.path / "f").stat().st_mode) == 0o711
        assert (mounted.path / "f").read_bytes() == b"bytes\n"


@contextlib.contextmanager
def written_to(path: Path) -> Iterator[None]:
    """Wait until what a block has changed is on disk."""
    before = path.stat().st_size
    yield
    wait_until(lambda: path.stat().st_size > before)


def test_after_a_kill_all_but_the_last_moment_is_known(mount: Mount, cache: Callable[[], Path]) -> None:
    with mount() as mounted:
        log = cache() / "journal.db-wal"
        for script in ("echo bytes > f", "chmod 700 f"):
            with written_to(log):
                mounted.sh(script)
        mounted.kill()
        mounted.detach_dead()
    with mount() as mounted:
        assert stat.S_IMODE((mounted.path / "f").stat().st_mode) == 0o700
