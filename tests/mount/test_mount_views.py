"""Parts of a store as mounts: a prefix, a collection; and stores made on the way."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path

import httpx
import pytest

from kvsfs.errors import ExitCode
from tests.mount.conftest import Mount
from tests.support.mounting import Sandbox, failing, mounted_store
from tests.support.serving import RunningServer
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse


def test_a_folder_as_the_whole(mount: Mount, store: StoreApi) -> None:
    for key in ("img", "img!2Fa.png", "img!2Fsub!2Fb.png", "imgs", "my!20file"):
        store.put(key, key.encode())
    with mount("--prefix", "img/") as mounted:
        assert mounted.sh("find . -type f | sort").split() == ["./a.png", "./sub/b.png"]
        assert (mounted.path / "sub" / "b.png").read_bytes() == b"img!2Fsub!2Fb.png"
        mounted.sh("echo new > 'c d.png'; mv a.png sub/z; rm sub/b.png; cp 'c d.png' sub/e")
        assert os.getxattr(mounted.path / "sub/z", "user.apify.public_url").count(b"/records/img!2Fsub!2Fz?")
    assert store.keys() == ["img", "img!2Fc!20d.png", "img!2Fsub!2Fe", "img!2Fsub!2Fz", "imgs", "my!20file"]
    assert store.content("img!2Fsub!2Fz") == b"img!2Fa.png"


def test_a_part_of_names(mount: Mount, store: StoreApi) -> None:
    for key in ("page-", "page-1.html", "page-a!2Fb", "pag", "pages"):
        store.put(key, key.encode())
    with mount("--prefix", "page-") as mounted:
        assert mounted.sh("find . -type f | sort").split() == ["./1.html", "./a/b"]
        assert "LIST page-" in mounted.named_requests()
        (mounted.path / "1.html").write_bytes(b"changed")
    assert store.content("page-1.html") == b"changed"


def test_a_name_that_is_too_long_with_the_prefix(mount: Mount, store: StoreApi) -> None:
    with mount("--prefix", "p" * 100) as mounted:
        (mounted.path / ("x" * 156)).write_bytes(b"fits")
        with failing(errno.ENAMETOOLONG):
            (mounted.path / ("x" * 157)).write_bytes(b"")
        with failing(errno.ENAMETOOLONG):
            (mounted.path / ("x" * 156)).rename(mounted.path / ("x" * 157))
    assert store.keys() == ["p" * 100 + "x" * 156]


def test_each_part_has_its_own_cache(mount: Mount, sandbox: Sandbox, store: StoreApi) -> None:
    """Two mounts of one part would be refused; of two parts they are not."""
    store.put("a!2Ff", b"of a")
    store.put("b!2Ff", b"of b")
    with mount("--prefix", "a/") as first, mount("--prefix", "b/", name="second") as second:
        assert first.run("cat", "f") == "of a"
        assert second.run("cat", "f") == "of b"
        ended = sandbox.kvsfs(
            "mount", *_api(first.server), "--prefix", "a/", store.id, str(sandbox.mount_point("third")),
            token=_TOKEN,
        )  # fmt: skip
        assert ended.returncode == ExitCode.CACHE_UNUSABLE


_TOKEN = "apify_api_hush0123456789"  # that of conftest.py


def _api(server: RunningServer | None) -> list[str]:
    assert server is not None
    return ["--api-url", server.url]


SCHEMA = {
    "actorKeyValueStoreSchemaVersion": 1,
    "title": "Results",
    "collections": {
        "images": {"title": "Images", "keyPrefix": "img!2F"},
        "output": {"title": "Output", "key": "OUTPUT"},
    },
}


def test_a_collection(client: httpx.Client, sandbox: Sandbox, server: RunningServer, token: str) -> None:
    answer = client.post("/v2/key-value-stores", json={"schema": SCHEMA}).raise_for_status()
    store = StoreApi(client, answer.json()["data"]["id"])
    for key in ("INPUT", "OUTPUT", "img!2Fa", "img!2Fb"):
        store.put(key, key.encode())

    def lists(store_id: str) -> list[str | None]:
        path = f"/v2/key-value-stores/{store_id}/keys"
        return [request.query.get("collection") for request in server.requests() if request.path == path]

    with mounted_store(
        sandbox, store.id, "--collection", "images", token=token, server=server, store_id=store.id
    ) as mounted:
        mounted.expect_log("record other: the collection images is for img!2F… only")
        assert mounted.sh("find . -type f | sort").split() == ["./img/a", "./img/b"]
        assert set(lists(store.id)) == {"images"}
        assert not (mounted.path / "OUTPUT").exists()
        (mounted.path / "img" / "c").write_bytes(b"new")
        with failing(errno.EINVAL), (mounted.path / "other").open("wb") as file:
            file.write(b"x")
        (mounted.path / "other").unlink()
    assert store.keys() == ["INPUT", "OUTPUT", "img!2Fa", "img!2Fb", "img!2Fc"]
    options = ["--collection", "images", "--prefix", "img/"]
    with mounted_store(sandbox, store.id, *options, token=token, server=server, name="second") as mounted:
        assert sorted(os.listdir(mounted.path)) == ["a", "b", "c"]
    command = ["mount", *_api(server), "--collection", "pages", store.id, str(sandbox.mount_point())]
    ended = sandbox.kvsfs(*command, token=token)
    assert ended.returncode == ExitCode.USAGE
    assert "the store's schema has no such collection; it has images, output" in ended.stderr


def test_a_store_is_made_when_it_is_missing(sandbox: Sandbox, server: RunningServer, token: str) -> None:
    name = f"new-{secrets.token_hex(4)}"
    path = sandbox.mount_point()

    def refused(code: ExitCode, *arguments: str | Path) -> str:
        ended = sandbox.kvsfs("mount", *_api(server), *map(str, arguments), str(path), token=token)
        assert ended.returncode == code, ended.stderr
        return ended.stderr

    refused(ExitCode.NO_SUCH_STORE, name)
    for source in (name, f"~{name}", f"joe/{name}", f"joe/{name}-2"):
        with mounted_store(sandbox, source, "--create", token=token, server=server) as mounted:
            assert os.getxattr(mounted.path, "user.apify.name").decode() == source.split("/")[-1].strip("~")
    refused(ExitCode.OK, name)
    sandbox.kvsfs("umount", str(path))
    assert "as joe you cannot make one for ann" in refused(ExitCode.NO_PERMISSION, "--create", "ann/hers")
    assert "--create needs a name" in refused(ExitCode.NO_SUCH_STORE, "--create", "A" * 17)
    told = refused(ExitCode.USAGE, "--create", "actor:joe/scraper")
    assert "--create makes a store by its name" in told
    assert "--prefix x!2F: " in refused(ExitCode.USAGE, "--prefix", "x!2F", name)
