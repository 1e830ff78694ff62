"""Extended attributes, as getfattr(1), setfattr(1) and the programs that copy them see them."""

from __future__ import annotations

import errno
import os
import re
import secrets
from pathlib import Path

import httpx
import pytest

from tests.mount.conftest import Mount
from tests.support.mounting import Mounted, Sandbox, failing, mounted_store
from tests.support.serving import RunningServer, running_server
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse

MIME_TYPE = "user.mime_type"


def attribute(mounted: Mounted, name: str, path: str) -> str:
    return mounted.run("getfattr", "--absolute-names", "-n", name, "--only-values", path)


def test_getfattr_shows_the_content_type_and_nothing_else(mount: Mount, store: StoreApi) -> None:
    store.put("f", b"<p>", "text/html; charset=utf-8")
    store.put("folder!2Fg", b"x")
    with mount() as mounted:
        expected = '# file: f\nuser.mime_type="text/html; charset=utf-8"\n\n'
        assert mounted.run("getfattr", "-d", "-m", "-", "f") == expected
        assert os.listxattr(mounted.path / "folder") == []
        assert os.listxattr(mounted.path) == []


def test_the_content_type_of_an_unread_record_costs_one_head(mount: Mount, store: StoreApi) -> None:
    store.put("f", b"<p>", "text/html")
    with mount() as mounted:
        mounted.run("ls")
        with mounted.counting() as requests:
            assert attribute(mounted, MIME_TYPE, "f") == "text/html"
            assert attribute(mounted, MIME_TYPE, "f") == "text/html"
        assert requests == ["HEAD f"]


def test_setfattr_on_a_closed_file_costs_one_put(mount: Mount, store: StoreApi) -> None:
    store.put("f", b"a,b\n1,2\n")
    with mount() as mounted:
        mounted.run("cat", "f")
        with mounted.counting() as requests:
            mounted.run("setfattr", "-n", MIME_TYPE, "-v", "text/csv", "f")
        assert requests == ["PUT f"]
        assert store.content_type("f") == "text/csv"
        assert store.content("f") == b"a,b\n1,2\n"
        with mounted.counting() as requests:
            mounted.run("setfattr", "-n", MIME_TYPE, "-v", "text/csv", "f")
        assert requests == []
        assert attribute(mounted, MIME_TYPE, "f") == "text/csv"


def test_setfattr_on_an_unread_record_keeps_its_bytes(mount: Mount, store: StoreApi) -> None:
    store.put("f", b"a,b\n1,2\n")
    with mount() as mounted:
        mounted.run("setfattr", "-n", MIME_TYPE, "-v", "text/csv", "f")
    assert store.content_type("f") == "text/csv"
    assert store.content("f") == b"a,b\n1,2\n"


def test_setfattr_before_close_costs_nothing_more(mounted: Mounted, store: StoreApi) -> None:
    with (mounted.path / "f").open("wb", buffering=0) as file:
        file.write(b"{}")
        os.setxattr(mounted.path / "f", MIME_TYPE, b"application/x-special")
        assert store.keys() == []
    mounted.umount()
    assert [r for r in mounted.named_requests() if r.startswith("PUT")] == ["PUT f"]
    assert store.content_type("f") == "application/x-special"


@pytest.mark.parametrize(
    "script",
    [
        "echo changed > f",
        "echo changed >> f",
        "sed -i s/old/changed/ f",
        "vim -es -u NONE -i NONE -c '%s/old/changed/' -c wq f",
        "printf changed > g; mv g f",
        "printf changed > ../g; rsync -a ../g f",
        "printf changed > ../g; cp ../g f",
        "truncate -s 1 f",
    ],
)
def test_an_overwrite_keeps_the_type(mount: Mount, store: StoreApi, script: str) -> None:
    store.put("f", b"old\n", "text/x-special; charset=utf-8")
    with mount() as mounted:
        mounted.sh(script)
    assert store.content("f") != b"old\n"
    assert store.content_type("f") == "text/x-special; charset=utf-8"


def test_a_type_that_was_set_goes_with_the_file(mounted: Mounted, store: StoreApi) -> None:
    mounted.sh("echo x > a; setfattr -n user.mime_type -v text/x-mine a; mv a b; cp -a b c")
    assert store.content_type("b") == "text/x-mine"
    assert store.content_type("c") == "text/x-mine"


def test_cp_a_and_rsync_x_carry_the_type_out_and_in(mount: Mount, store: StoreApi) -> None:
    store.put("f", b"x", "text/x-special")
    with mount() as mounted:
        outside = mounted.sandbox.folder / "outside"
        outside.write_bytes(b"")
        try:
            os.setxattr(outside, MIME_TYPE, b"x/y")
        except OSError:
            pytest.skip("the test's own folder has no extended attributes")
        mounted.sh("cp -a f ../copied; rsync -aX f ../synced")
        for name in ("copied", "synced"):
            copy = mounted.sandbox.folder / name
            assert os.listxattr(copy) == [MIME_TYPE]
            assert os.getxattr(copy, MIME_TYPE) == b"text/x-special"
        mounted.sh("cp -a ../copied in-by-cp; rsync -aX ../synced in-by-rsync")
    assert store.content_type("in-by-cp") == "text/x-special"
    assert store.content_type("in-by-rsync") == "text/x-special"


def test_the_public_url_reads_the_record_without_a_token(
    mount: Mount, store: StoreApi, server: RunningServer
) -> None:
    store.put("my!20file!7E", b"shared bytes")
    with mount() as mounted:
        url = attribute(mounted, "user.apify.public_url", "my file~")
        assert url.startswith(f"{server.url}/v2/key-value-stores/{store.id}/records/")
        answer = httpx.get(url)
        assert (answer.status_code, answer.content) == (200, b"shared bytes")
        assert httpx.get(url.partition("?")[0]).status_code in (401, 403)
        assert mounted.run("curl", "-sf", url) == "shared bytes"
        assert attribute(mounted, "user.apify.key", "my file~") == "my!20file!7E"


def test_the_keys_url_lists_the_store_without_a_token(mount: Mount, store: StoreApi) -> None:
    store.put("f", b"x")
    with mount() as mounted:
        answer = httpx.get(attribute(mounted, "user.apify.keys_public_url", "."))
        assert [item["key"] for item in answer.json()["data"]["items"]] == ["f"]


def test_no_signed_url_gets_into_the_log(mount: Mount, store: StoreApi) -> None:
    store.put("f", b"x")
    with mount() as mounted:
        url = attribute(mounted, "user.apify.public_url", "f")
        signature = re.search(r"signature=([^&]+)", url)
        assert signature is not None
        mounted.run("cat", "f")
        mounted.umount()
        assert signature[1] not in mounted.log_text()


def test_the_stores_own_attributes(mount: Mount, store: StoreApi) -> None:
    with mount() as mounted:
        assert attribute(mounted, "user.apify.id", ".") == store.id
        mounted.run("setfattr", "-n", "user.apify.title", "-v", "A title", ".")
        mounted.run("setfattr", "-n", "user.apify.general_access", "-v", "RESTRICTED", ".")
        assert attribute(mounted, "user.apify.title", ".") == "A title"
    info = store.client.get(f"/v2/key-value-stores/{store.id}").json()["data"]
    assert (info["title"], info["generalAccess"]) == ("A title", "RESTRICTED")


def test_a_store_gets_another_name_unless_that_is_none_or_taken(mount: Mount, store: StoreApi) -> None:
    taken, free = (f"store-{secrets.token_hex(4)}" for _ in range(2))
    StoreApi.create(store.client, taken)
    with mount() as mounted:
        os.setxattr(mounted.path, "user.apify.name", free.encode())
        assert attribute(mounted, "user.apify.name", ".") == free
        for name, expected in ((taken, errno.EEXIST), ("no name", errno.EINVAL), ("x" * 64, errno.EINVAL)):
            with failing(expected):
                os.setxattr(mounted.path, "user.apify.name", name.encode())
        with failing(errno.EINVAL):
            os.setxattr(mounted.path, "user.apify.general_access", b"EVERYBODY")
        with failing(errno.EPERM):
            os.setxattr(mounted.path, "user.apify.created_at", b"2024-01-01")
        assert attribute(mounted, "user.apify.name", ".") == free
        mounted.expect_log(f"cannot be called {taken}")
        mounted.expect_log("'no name' is no store's name")
        mounted.expect_log("'x{64}' is no store's name")
        mounted.expect_log("'EVERYBODY' is no general access of a store: it is one of .*RESTRICTED")


def test_a_store_of_somebody_else_keeps_its_attributes(tmp_path: Path, sandbox: Sandbox) -> None:
    """`EACCES`: that the store can be read does not make it one's own."""
    with running_server(
        tmp_path / "data", tokens=["joes=joe", "anns=ann"], request_log=tmp_path / "log"
    ) as server:
        with httpx.Client(base_url=server.url, headers={"Authorization": "Bearer joes"}) as client:
            store = StoreApi.create(client, "public")
            path = f"/v2/key-value-stores/{store.id}"
            client.put(path, json={"generalAccess": "ANYONE_WITH_NAME_CAN_READ"}).raise_for_status()
        with mounted_store(sandbox, "joe/public", token="anns", server=server) as mounted:
            for name in ("name", "title", "general_access"):
                with failing(errno.EACCES):
                    os.setxattr(mounted.path, f"user.apify.{name}", b"RESTRICTED")
            assert attribute(mounted, "user.apify.name", ".") == "public"
            mounted.expect_log("setxattr: .*nsufficient permissions")


def test_the_state_of_a_file(mounted: Mounted) -> None:
    path = mounted.path / "f"
    with path.open("wb", buffering=0) as file:
        file.write(b"x")
        assert os.getxattr(path, "user.kvsfs.state") == b"dirty"
    assert os.getxattr(path, "user.kvsfs.state") == b"clean"


def test_what_is_refused(mount: Mount, store: StoreApi) -> None:
    store.put("f", b"x", "text/x-special")
    store.put("folder!2Fg", b"x")
    with mount() as mounted:
        file, folder = mounted.path / "f", mounted.path / "folder"
        for path, name in ((file, "user.none"), (folder, MIME_TYPE), (mounted.path, "user.apify.none")):
            with failing(errno.ENODATA):
                os.getxattr(path, name)
        with failing(errno.EOPNOTSUPP):
            os.getxattr(file, "trusted.overlay")
        for path, name in ((file, "user.own"), (file, "security.selinux"), (folder, MIME_TYPE)):
            with failing(errno.EOPNOTSUPP):
                os.setxattr(path, name, b"x")
        for name in ("user.apify.key", "user.apify.public_url", "user.kvsfs.state"):
            with failing(errno.EPERM):
                os.setxattr(file, name, b"x")
        with failing(errno.EPERM):
            os.setxattr(mounted.path, "user.apify.id", b"x")
        with failing(errno.EPERM):
            os.removexattr(file, MIME_TYPE)
        with failing(errno.ENODATA):
            os.removexattr(file, "user.none")
        for value in (b"", b"no type", b"a/b\r\nX: y", b"\xff/\xff"):
            with failing(errno.EINVAL):
                os.setxattr(file, MIME_TYPE, value)
    assert store.content_type("f") == "text/x-special"
