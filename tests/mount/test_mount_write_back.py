"""`--write-back`, `--on-conflict` and `--max-dirty-age` on real mounts: what is in the store when."""

from __future__ import annotations

import errno
import os

import pytest

from tests.mount.conftest import Mount
from tests.support.mounting import Sandbox, failing, wait_until
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse

NOT_IN_THIS_TEST = "10m"


def test_nothing_is_asked_before_the_end_and_each_name_once(mount: Mount, store: StoreApi) -> None:
    with mount("--write-back", NOT_IN_THIS_TEST) as mounted:
        mounted.run("ls")
        before = len(mounted.requests())
        mounted.sh("echo one > f; echo two > f; sync f; mv f g; echo x > gone; rm gone; cat g")
        assert len(mounted.requests()) == before
        mounted.umount()
        assert mounted.named_requests()[before:] == ["PUT g"]
    assert store.content("g") == b"two\n"


def test_after_the_delay_it_is_in_the_store(mount: Mount, store: StoreApi) -> None:
    with mount("--write-back", "100ms") as mounted:
        mounted.sh("echo hello > f")
        wait_until(lambda: store.keys() == ["f"])
        wait_until(lambda: os.getxattr(mounted.path / "f", "user.kvsfs.state") == b"clean")
    assert store.content("f") == b"hello\n"


def test_after_a_kill_the_next_mount_uploads_what_was_closed_and_only_that(
    mount: Mount, sandbox: Sandbox, store: StoreApi
) -> None:
    with mount("--write-back", NOT_IN_THIS_TEST) as mounted:
        mounted.sh("mkdir d; echo one > d/f; echo two > g; mv g h; echo three > i; rm i")
        with failing(errno.ENOTCONN), (mounted.path / "open").open("wb", buffering=0) as file:
            file.write(b"never closed")
            assert store.keys() == []
            mounted.kill()
        mounted.detach_dead()
    with mount(name="again") as mounted:
        mounted.expect_log("1 files that were never closed are in")
        mounted.expect_log("2 files of an earlier mount were not uploaded yet")
        assert mounted.sh("cat d/f h; ls") == "one\ntwo\nd\nh\n"
    assert {key: store.content(key) for key in store.sizes()} == {"d!2Ff": b"one\n", "h": b"two\n"}
    (aside,) = sandbox.folder.glob("cache_home/kvsfs/*/not-uploaded/*")
    assert aside.read_bytes() == b"never closed"


def test_keep_both(mount: Mount, store: StoreApi) -> None:
    store.put("f", b"first")
    with mount("--on-conflict", "keep-both") as mounted:
        with (mounted.path / "f").open("r+b") as file:
            file.write(b"ours!")
            store.put("f", b"theirs")
            mounted.expect_log(
                "f was written by somebody else meanwhile: their version stays, ours is f.conflict-"
            )
        one, other = sorted(os.listdir(mounted.path))
        assert (mounted.path / one).read_bytes() == b"theirs"
        assert (mounted.path / other).read_bytes() == b"ours!"
    assert {key: store.content(key) for key in store.sizes()} == {"f": b"theirs", other: b"ours!"}


def test_a_log_that_stays_open_is_uploaded(mount: Mount, store: StoreApi) -> None:
    with mount("--max-dirty-age", "200ms") as mounted, (mounted.path / "log").open("ab", buffering=0) as file:
        file.write(b"one\n")
        wait_until(lambda: store.keys() == ["log"])
        file.write(b"two\n")
    assert store.content("log") == b"one\ntwo\n"
