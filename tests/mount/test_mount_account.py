"""`account:` on real mounts: users who share, thousands of stores, mkdir, rmdir and mv, what is never lost."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from kvsfs.errors import ExitCode
from kvsfs.server.database import prepare
from tests.support.mounting import Mounted, Sandbox, failing, mounted_store, wait_until
from tests.support.serving import RunningServer, running_server
from tests.support.store_api import STORES, StoreApi

pytestmark = pytest.mark.fuse

JOE, ANN = "joes-token-0123456789", "anns-token-0123456789"
MANY = 5_000
WAITING = ("--write-back", "1h")

Mount = Callable[..., AbstractContextManager[Mounted]]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    tokens = [f"{JOE}=joe", f"{ANN}=ann"]
    log = tmp_path / "requests"
    with running_server(
        tmp_path / "data", tokens=tokens, request_log=log, arguments=["--testing"]
    ) as running:
        yield running


@pytest.fixture
def joe(server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {JOE}"}) as made:
        yield made


@pytest.fixture
def ann(server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {ANN}"}) as made:
        yield made


@pytest.fixture
def mount(sandbox: Sandbox, server: RunningServer) -> Mount:
    def mounted(*options: str, **more: Any) -> AbstractContextManager[Mounted]:
        return mounted_store(sandbox, "account:", *options, token=JOE, server=server, **more)

    return mounted


def asked(mounted: Mounted) -> list[str]:
    """Give all requests of the mount and of others, as `METHOD path`, from `/key-value-stores` on."""
    assert mounted.server is not None
    requests = mounted.server.requests()[mounted.requests_before :]
    return [f"{r.method} {r.path.removeprefix(STORES)}" for r in requests]


def info(store: StoreApi) -> dict[str, Any]:
    found: dict[str, Any] = store.client.get(f"{STORES}/{store.id}").raise_for_status().json()["data"]
    return found


def test_everyday_programs_over_stores(mount: Mount, joe: httpx.Client) -> None:
    pages, archive = StoreApi.create(joe, "pages"), StoreApi.create(joe, "archive")
    pages.put("OUTPUT", b"{}", "application/x-special")
    pages.put("img!2Fa.png", b"png", "image/png")
    with mount() as mounted:
        assert mounted.run("ls", "-A").split() == [".unnamed", "archive", "pages"]
        mounted.run("mv", "pages/OUTPUT", "archive/")
        mounted.run("mv", "pages/img", "archive/")
        assert archive.keys() == ["OUTPUT", "img!2Fa.png"]
        assert archive.content_type("OUTPUT") == "application/x-special"
        assert pages.keys() == []
        mounted.sh("mkdir new && cp -a archive/. new/ && diff -r archive new")
        mounted.run("rmdir", "pages")
        mounted.run("mv", "new", "renamed")
        found = mounted.run("find", "renamed", "-type", "f").split()
        assert sorted(found) == ["renamed/OUTPUT", "renamed/img/a.png"]
        mounted.run("rm", "-r", "archive")
        assert mounted.run("ls").split() == ["renamed"]
    for store in (pages, archive):
        assert joe.get(f"{STORES}/{store.id}").status_code == 404
    assert StoreApi(joe, "~renamed").keys() == ["OUTPUT", "img!2Fa.png"]


def test_what_mkdir_rmdir_and_mv_refuse(mount: Mount, joe: httpx.Client, ann: httpx.Client) -> None:
    full, theirs = StoreApi.create(joe, "full"), StoreApi.create(ann, "theirs")
    ann.post("/testing/shares", json={"store": theirs.id, "user": "joe", "write": True}).raise_for_status()
    with mount() as mounted:
        top = mounted.path
        assert sorted(os.listdir(top)) == [".unnamed", "ann~theirs", "full"]
        for name, number in (
            ("x" * 64, errno.EINVAL),
            ("no name", errno.EINVAL),
            ("full", errno.EEXIST),
            ("ann~new", errno.EACCES),
            (".unnamed/new", errno.EPERM),
        ):
            with failing(number):
                (top / name).mkdir()
        (top / ("x" * 63)).mkdir()
        full.put("since", b"1")  # which no listing here has shown
        with failing(errno.ENOTEMPTY):
            (top / "full").rmdir()
        assert full.keys() == ["since"]
        for change in (
            lambda: (top / "ann~theirs").rename(top / "mine"),
            (top / "ann~theirs").rmdir,
            lambda: os.setxattr(top / "ann~theirs", "user.apify.name", b"mine"),
        ):
            with failing(errno.EACCES):
                change()
        for new, number in (("x" * 63, errno.EEXIST), ("no_name", errno.EINVAL), ("x" * 64, errno.EINVAL)):
            with failing(number):
                (top / "full").rename(top / new)
        with failing(errno.EXDEV):
            (top / "full/since").rename(top / "ann~theirs/since")
        with failing(errno.EPERM):
            (top / "file").write_bytes(b"")
        assert info(theirs)["name"] == "theirs"
        for reason in (
            "'x{64}' is no store's name",
            "'no name' is no store's name",
            "ann~new would be another user's store",
            "a store in .unnamed gets its ID from the API",
            "ann~theirs is another user's store: only its owner can rename or delete it",
            "setxattr: .*nsufficient permissions",
            "'no_name' is no store's name",
            "'file': no file can be made beside stores",
        ):
            mounted.expect_log(reason)


def test_two_users_who_share(mount: Mount, joe: httpx.Client, ann: httpx.Client, sandbox: Sandbox) -> None:
    read, write, public = (StoreApi.create(ann, name) for name in ("read", "write", "public"))
    for store, may_write in ((read, False), (write, True)):
        share = {"store": store.id, "user": "joe", "write": may_write}
        ann.post("/testing/shares", json=share).raise_for_status()
        store.put("a", b"anns")
    access = {"generalAccess": "ANYONE_WITH_NAME_CAN_READ"}
    ann.put(f"{STORES}/{public.id}", json=access).raise_for_status()
    public.put("a", b"everyones")
    StoreApi.create(ann, "private")
    StoreApi.create(joe, "write")
    with mount() as mounted:
        assert mounted.run("ls").split() == ["ann~read", "ann~write", "write"]
        assert mounted.run("cat", "ann~read/a", "ann~write/a", "ann~public/a") == "annsannseveryones"
        mounted.sh("echo joes > ann~write/a")
        assert write.content("a") == b"joes\n"
        with failing(errno.EACCES):
            (mounted.path / "ann~read" / "a").write_bytes(b"joes")
        with failing(errno.EACCES):
            os.listdir(mounted.path / "ann~private")
        with failing(errno.ENOENT):
            os.listdir(mounted.path / "ann~none")
        assert sandbox.kvsfs("discard", "--yes", str(mounted.path / "ann~read/a")).returncode == 0
        assert read.content("a") == b"anns"
        mounted.allow_log("nsufficient permissions")


def test_five_thousand_stores(sandbox: Sandbox, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    prepare(str(data / "index.sqlite3"))
    connection = sqlite3.connect(data / "index.sqlite3")
    connection.executemany(
        "INSERT INTO stores (id, username, name, general_access, signing_key, created_at, modified_at, accessed_at)"
        " VALUES (?, 'joe', ?, 'RESTRICTED', 'key', ?, ?, ?)",
        [
            (f"store{n:012d}", f"store-{n}" if n < MANY - 7 else None, 1_700_000_000_000 + n, 1, 2)
            for n in range(MANY)
        ],
    )
    connection.commit()
    connection.close()
    log = tmp_path / "requests"
    with (
        running_server(data, tokens=[f"{JOE}=joe"], request_log=log) as server,
        mounted_store(sandbox, "account:", token=JOE, server=server) as mounted,
    ):
        mounted.sh("cd store-77 && ls")
        assert [request.partition("?")[0] for request in asked(mounted)] == [
            "GET /v2/users/me",
            "GET /~store-77",
            f"GET /store{77:012d}/keys",
        ]
        before = len(asked(mounted))
        assert len(mounted.run("ls").split()) == MANY - 7
        assert len(mounted.run("ls", "-l").splitlines()) == MANY - 7 + 1
        assert asked(mounted)[before:] == ["GET "] * 5  # a list each thousand, and nothing else
        for number in range(100, 180):
            mounted.sh(f"echo {number} > store-{number}/a")
        assert len(list((mounted.path / ".unnamed").iterdir())) == 7
        inside = {request.split("/")[1] for request in asked(mounted)[before:] if "/store0" in request}
        assert inside == {f"store{number:012d}" for number in range(100, 180)}
        open_databases = [
            link for link in Path(f"/proc/{mounted.pid}/fd").iterdir() if str(link.readlink()).endswith(".db")
        ]
        assert len(open_databases) <= 64 + 1
        assert (mounted.path / "store-100/a").read_bytes() == b"100\n"
        status = os.stat(mounted.path / "store-5")
        assert status.st_ctime_ns == (1_700_000_000_000 + 5) * 1_000_000


def test_what_others_delete_and_rename_disappears(mount: Mount, joe: httpx.Client) -> None:
    gone, renamed = StoreApi.create(joe, "gone"), StoreApi.create(joe, "old")
    renamed.put("a", b"1")
    with mount("--listing-ttl", "0s") as mounted:
        mounted.run("ls")
        with (mounted.path / "old/a").open("rb") as file:
            gone.delete()
            joe.put(f"{STORES}/{renamed.id}", json={"name": "new"}).raise_for_status()
            wait_until(lambda: mounted.run("ls").split() == ["new"])
            assert file.read() == b"1"
        wait_until(lambda: not (mounted.path / "gone").exists())
        wait_until(lambda: not (mounted.path / "old").exists())
        assert (mounted.path / "new/a").read_bytes() == b"1"


def test_what_is_written_to_a_store_that_is_gone_is_kept(
    mount: Mount, joe: httpx.Client, sandbox: Sandbox
) -> None:
    store = StoreApi.create(joe, "gone")
    with mount() as mounted:
        file = (mounted.path / "gone/a").open("wb", buffering=0)
        file.write(b"not lost")
        store.delete()
        with failing(errno.ESTALE):
            file.close()
        mounted.run("ls")
        kept = sandbox.folder / "kept"
        saved = sandbox.kvsfs("save-as", str(mounted.path / "gone/a"), str(kept))
        assert saved.returncode == 0, saved.stderr
        assert kept.read_bytes() == b"not lost"
        mounted.expect_log("is not uploaded yet|flush: ")
        mounted.allow_log("left for the next mount|ESTALE|there is none|write|close|not uploaded")
        mounted.umount(ExitCode.NOT_ALL_UPLOADED)
    told = json.loads(sandbox.kvsfs("status", "--json", str(mounted.path)).stdout)
    assert [upload["path"] for one in told for upload in one["uploads"]] == ["a"]
    assert [one["source"] for one in told] == ["joe/gone"]


def test_after_a_kill_the_next_mount_uploads_what_waits_in_any_store(
    mount: Mount, joe: httpx.Client, sandbox: Sandbox
) -> None:
    one, two, idle = (StoreApi.create(joe, name) for name in ("one", "two", "idle"))
    with mount(*WAITING) as mounted:
        mounted.sh("echo 1 > one/a; echo 2 > two/b; ls idle")
        told = json.loads(sandbox.kvsfs("status", "--json", str(mounted.path)).stdout)[0]
        assert sorted(upload["path"] for upload in told["uploads"]) == ["one/a", "two/b"]
        mounted.kill()
        mounted.detach_dead()
        assert (one.keys(), two.keys()) == ([], [])
        left = json.loads(sandbox.kvsfs("status", "--json", str(mounted.path)).stdout)
        assert sorted(upload["path"] for each in left for upload in each["uploads"]) == ["a", "b"]
    with mount() as mounted:
        wait_until(lambda: (one.keys(), two.keys()) == (["a"], ["b"]))
        mounted.expect_log("1 files of an earlier mount were not uploaded yet")
    assert one.content("a") == b"1\n"
    assert idle.keys() == []
    assert sandbox.kvsfs("status").stdout == "nothing is mounted, and nothing is left to upload\n"


def test_what_nobody_closed_is_recovered_by_the_accounts_name(
    mount: Mount, joe: httpx.Client, sandbox: Sandbox
) -> None:
    StoreApi.create(joe, "pages")
    with mount() as mounted:
        with (mounted.path / "pages/a").open("wb", buffering=0) as file:
            file.write(b"not closed")
            mounted.kill()
            with contextlib.suppress(OSError):
                file.close()
        mounted.detach_dead()
    for source in ("account:", "joe/pages", str(mounted.path)):
        target = sandbox.folder / source.replace("/", "-")
        ended = sandbox.kvsfs("recover", source, "--save-to", str(target))
        assert ended.returncode == 0, ended.stderr
        assert (target / "a").read_bytes() == b"not closed"


def test_umount_waits_for_the_uploads_of_all_stores(
    mount: Mount, joe: httpx.Client, sandbox: Sandbox
) -> None:
    stores = [StoreApi.create(joe, f"store-{number}") for number in range(5)]
    with mount(*WAITING) as mounted:
        for number in range(5):
            mounted.sh(f"echo {number} > store-{number}/a")
        assert [store.keys() for store in stores] == [[]] * 5
        ended = sandbox.kvsfs("umount", str(mounted.path))
        assert ended.returncode == 0, ended.stderr
        mounted.wait_for_exit()
    assert [store.content("a") for store in stores] == [b"0\n", b"1\n", b"2\n", b"3\n", b"4\n"]


def test_flush_retry_and_discard_by_path(mount: Mount, joe: httpx.Client, sandbox: Sandbox) -> None:
    one, two = StoreApi.create(joe, "one"), StoreApi.create(joe, "two")
    with mount(*WAITING) as mounted:
        mounted.sh("echo 1 > one/a; echo 2 > two/b")
        assert sandbox.kvsfs("flush", str(mounted.path / "one")).returncode == 0
        assert (one.keys(), two.keys()) == (["a"], [])
        assert sandbox.kvsfs("discard", "--yes", str(mounted.path / "two/b")).returncode == 0
        two.put("c", b"3")
        assert sandbox.kvsfs("refresh", str(mounted.path)).returncode == 0
        wait_until(lambda: mounted.run("ls", "two") == "c\n")


@pytest.mark.parametrize(
    ("source", "options", "code", "message"),
    [
        ("account:", ("--prefix", "a/"), ExitCode.USAGE, "are for one store"),
        ("account:", ("--create",), ExitCode.USAGE, "are for one store"),
        ("account:joe", (), ExitCode.INVALID_SOURCE, "account: \\(all your stores\\)"),
    ],
)
def test_what_an_account_is_not_mounted_with(
    sandbox: Sandbox,
    server: RunningServer,
    source: str,
    options: tuple[str, ...],
    code: ExitCode,
    message: str,
) -> None:
    path = sandbox.mount_point()
    ended = sandbox.kvsfs("mount", "--api-url", server.url, *options, source, str(path), token=JOE)
    assert ended.returncode == code
    assert re.search(message, ended.stderr)


def test_an_account_needs_a_token(sandbox: Sandbox, server: RunningServer) -> None:
    ended = sandbox.kvsfs("mount", "--api-url", server.url, "account:", str(sandbox.mount_point()))
    assert ended.returncode == ExitCode.NO_TOKEN
    assert "account: needs a token" in ended.stderr
