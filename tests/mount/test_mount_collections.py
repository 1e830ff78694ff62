"""`--layout collections` on a real mount: folders by the server's filters, and its schemas at close."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import httpx
import pytest

from kvsfs.errors import ExitCode
from tests.support.mounting import Mounted, Sandbox, failing, mounted_store
from tests.support.serving import RunningServer
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse

SCHEMA = {
    "actorKeyValueStoreSchemaVersion": 1,
    "title": "Results",
    "collections": {
        "images": {"title": "Images", "keyPrefix": "img-", "contentTypes": ["image/png"]},
        "output": {
            "title": "Output",
            "key": "OUTPUT",
            "contentTypes": ["application/json"],
            "jsonSchema": {"type": "object", "properties": {"pages": {"type": "integer"}}},
        },
    },
}

PNG = b"\x89PNG\r\n\x1a\n"
"""Enough of one for its type to be told by its bytes."""

ByCollection = Callable[..., AbstractContextManager[Mounted]]


def made(client: httpx.Client, schema: dict[str, Any] | None) -> StoreApi:
    answer = client.post("/v2/key-value-stores", json={"schema": schema}).raise_for_status()
    return StoreApi(client, answer.json()["data"]["id"])


@pytest.fixture
def store(client: httpx.Client) -> StoreApi:
    return made(client, SCHEMA)


@pytest.fixture
def by_collection(sandbox: Sandbox, server: RunningServer, store: StoreApi, token: str) -> ByCollection:
    return partial(
        mounted_store,
        sandbox,
        store.id,
        "--layout",
        "collections",
        token=token,
        server=server,
        store_id=store.id,
    )


def test_each_collection_is_a_folder(
    by_collection: ByCollection, store: StoreApi, server: RunningServer
) -> None:
    store.put("img-1", PNG, content_type="image/png")
    store.put("img-2", PNG + b"2", content_type="image/png")
    store.put("OUTPUT", b"{}", content_type="application/json")
    store.put("INPUT", b"{}")
    store.put("a!2Fb", b"b")
    longest = "img-".ljust(256, "x")
    store.put(longest, PNG + b"x", content_type="image/png")
    with by_collection() as mounted:
        assert mounted.sh("find . -type f | sort").split() == [
            "./.other/INPUT",
            "./.other/a/b",
            "./images/img-1",
            "./images/img-2",
            f"./images/{longest}",
            "./output/OUTPUT",
        ]
        path = f"/v2/key-value-stores/{store.id}/keys"
        asked = [r.query for r in server.requests() if r.path == path]
        assert sorted((q.get("collection", ""), q.get("prefix", "")) for q in asked) == [
            ("", ""),
            ("", "a!2F"),
            ("images", ""),
            ("output", ""),
        ]
        before = len(server.requests())
        mounted.sh("ls -lR > /dev/null; cat images/img-1")
        assert [r.method for r in server.requests()[before:]] == ["GET"]
        mounted.sh("cp images/img-1 images/img-3; mv images/img-2 .other/pic; mv .other/pic images/img-4")
        assert (mounted.path / "images/img-4").read_bytes() == PNG + b"2"
        assert os.getxattr(mounted.path / "images/img-4", "user.apify.key") == b"img-4"
        assert (mounted.path / "images" / longest).read_bytes() == PNG + b"x"
    assert store.keys() == ["INPUT", "OUTPUT", "a!2Fb", "img-1", "img-3", "img-4", longest]


def test_a_record_that_breaks_its_collection_is_refused_at_close(
    by_collection: ByCollection, store: StoreApi
) -> None:
    with by_collection() as mounted:
        for told in (
            "Collection images takes image/png, not text/plain.",
            "The value breaks the schema of collection output: .*'many' is not of type 'integer'",
            "record notes.txt: images is for img-…, this key belongs into .other",
        ):
            mounted.expect_log(told)
        for path, content in (
            ("images/img-1.txt", b"text"),
            ("output/OUTPUT", json.dumps({"pages": "many"}).encode()),
        ):
            file = (mounted.path / path).open("wb")
            file.write(content)
            with failing(errno.EINVAL):
                file.close()
            state = os.getxattr(mounted.path / path, "user.kvsfs.state").decode()
            assert state.startswith("failed: ")
            assert "ollection" in state
            assert (mounted.path / path).read_bytes() == content
        with failing(errno.EINVAL):
            (mounted.path / "images" / "notes.txt").touch()
        assert store.keys() == []
        (mounted.path / "output" / "OUTPUT").write_bytes(b'{"pages": 3}')
        (mounted.path / "images" / "img-1.txt").unlink()
    assert store.keys() == ["OUTPUT"]


def test_programs_save_in_a_collection(by_collection: ByCollection, store: StoreApi) -> None:
    store.put("OUTPUT", b'{"pages": 1}', content_type="application/json")
    with by_collection() as mounted:
        mounted.sh("sed -i s/1/2/ output/OUTPUT")
        (mounted.path / ".." / "OUTPUT").resolve().write_bytes(b'{"pages": 5}')
        mounted.sh("rsync ../OUTPUT output/")
        mounted.sh("mkdir .other/dir; rmdir .other/dir; rm output/OUTPUT; rmdir images 2>/dev/null || true")
        mounted.expect_log("the folder belongs to a collection")
        assert sorted(os.listdir(mounted.path)) == [".other", "images", "output"]
    assert store.keys() == []


@pytest.mark.parametrize(
    ("schema", "arguments", "told"),
    [
        (None, [], "the store has no schema"),
        ({"collections": {"a/b": {"key": "A"}}}, [], "collection 'a/b' has an ID"),
        (SCHEMA, ["--prefix", "img/"], "leave out --prefix and --collection"),
        (SCHEMA, ["--collection", "images"], "leave out --prefix and --collection"),
    ],
)
def test_what_makes_no_folders(
    client: httpx.Client,
    sandbox: Sandbox,
    server: RunningServer,
    token: str,
    schema: dict[str, Any] | None,
    arguments: list[str],
    told: str,
) -> None:
    store = made(client, schema)
    code = ExitCode.USAGE if arguments else ExitCode.SCHEMA_UNUSABLE
    options = ["--api-url", server.url, "--layout", "collections", *arguments]
    ended = sandbox.kvsfs("mount", *options, store.id, str(sandbox.mount_point()), token=token)
    assert (ended.returncode, told in ended.stderr) == (code, True), ended.stderr
    assert len(ended.stderr.splitlines()) == 1
