"""The official Python client, blocking and async, against `kvsfs serve`: it cannot tell it from Apify."""

from __future__ import annotations

import asyncio
import gzip
import io
import math
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from apify_client import ApifyClient, ApifyClientAsync
from apify_client.errors import (
    ApifyApiError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    UnauthorizedError,
)

from tests.clients.conftest import CROWD, TOKENS, CrowdedStore, Habits
from tests.support.apify_clients import Driven, Driver
from tests.support.serving import RunningServer, running_server

JSON = "application/json; charset=utf-8"
TEXT = "text/plain; charset=utf-8"
BINARY = "application/octet-stream"

LONG_TEXT = "".join(f"line {number} of a text that compresses\n" for number in range(3000))
"""110 KB: the client compresses from 1 KiB on."""

# Long enough for the client to compress the body that makes the store.
SCHEMA = {
    "actorKeyValueStoreSchemaVersion": 1,
    "title": "pages " * 1000,
    "collections": {"pages": {"title": "Pages", "keyPrefix": "page-", "contentTypes": ["text/html"]}},
}

NOISE = random.Random(3).randbytes(100_000)
"""Bytes that no encoding makes shorter."""


@dataclass(frozen=True)
class Python:
    """One of the two clients, and where it goes."""

    server: RunningServer
    driver: Driver
    kind: type[ApifyClient | ApifyClientAsync]

    def client(self, token: str | None = TOKENS["joe"], **options: Any) -> Driven:
        # A retry would hide a fault.
        options = {"api_url": self.server.url, "api_public_url": self.server.url, "max_retries": 0, **options}
        return self.driver.drive(self.kind(token, **options))

    def new_store(self, **options: Any) -> Driven:
        """Make an unnamed store."""
        client = self.client(**options)
        return driven(client.key_value_store(client.key_value_stores().get_or_create().id))


def driven(value: object) -> Driven:
    assert isinstance(value, Driven)
    return value


@pytest.fixture(scope="module", params=[ApifyClient, ApifyClientAsync])
def python(request: pytest.FixtureRequest, server: RunningServer) -> Iterator[Python]:
    if request.param is ApifyClient:
        yield Python(server, Driver(), request.param)
        return
    with asyncio.Runner() as runner:
        yield Python(server, Driver(runner), request.param)


@pytest.fixture
def store(python: Python) -> Driven:
    return python.new_store()


@pytest.fixture(scope="module")
def anyone() -> Iterator[httpx.Client]:
    """Who holds a URL and nothing else."""
    with httpx.Client(timeout=30, follow_redirects=True) as client:
        yield client


def stored_as(store: Driven, key: str) -> tuple[str | None, bytes]:
    """Give a record's encoding and bytes as they are stored."""
    headers = {"Authorization": f"Bearer {TOKENS['joe']}", "Accept-Encoding": "gzip, br, deflate"}
    url = store.get_record_public_url(key)
    with httpx.stream("GET", url, headers=headers, follow_redirects=True) as answer:
        return answer.headers.get("content-encoding"), b"".join(answer.iter_raw())


def refused(error: type[ApifyApiError], call: Any, *args: Any, **kwargs: Any) -> tuple[int, str | None]:
    with pytest.raises(error) as caught:
        call(*args, **kwargs)
    return caught.value.status_code, caught.value.type


def test_every_method_of_a_store(python: Python, anyone: httpx.Client) -> None:
    store = python.new_store()
    assert store.update(title="walked", general_access="RESTRICTED").title == "walked"
    assert store.get().general_access == "RESTRICTED"
    assert store.set_record("a", {"x": [1, None, "\u017e"]}) is None
    assert store.get_record("a") == {"key": "a", "value": {"x": [1, None, "\u017e"]}, "content_type": JSON}
    assert store.get_record_as_bytes("a")["value"] == '{"x": [1, null, "\u017e"]}'.encode()
    with store.stream_record("a") as record:
        assert record["content_type"] == JSON
        assert python.driver.streamed_bytes(record["value"]) == '{"x": [1, null, "\u017e"]}'.encode()
    assert store.record_exists("a") is True
    page = store.list_keys()
    assert ([item.key for item in page.items], page.items[0].size, page.is_truncated) == (["a"], 22, False)
    assert [item.key for item in store.iterate_keys()] == ["a"]
    assert anyone.get(store.get_record_public_url("a")).json() == {"x": [1, None, "\u017e"]}
    assert anyone.get(store.create_keys_public_url()).json()["data"]["count"] == 1
    assert store.delete_record("a") is None
    assert store.record_exists("a") is False
    assert store.delete() is None
    assert store.get() is None
    assert store.called == store.methods


def test_every_method_of_the_collection(python: Python) -> None:
    stores = python.client(TOKENS["ann"]).key_value_stores()
    prefix = f"walk-{python.kind.__name__}"
    known = len(list(stores.iterate(unnamed=True)))
    made = [stores.get_or_create(name=f"{prefix}-{number}") for number in range(4)]
    made.append(stores.get_or_create(name=f"{prefix}-with-schema", schema=SCHEMA))
    unnamed = stores.get_or_create()
    assert made[4].schema_ == SCHEMA
    assert [one.username for one in made] == ["ann"] * 5
    assert stores.get_or_create(name=f"{prefix}-0").id == made[0].id
    assert stores.get_or_create().id != unnamed.id

    def ids(page: Any) -> list[str]:
        return [one.id for one in page.items]

    expected = [one.id for one in made]
    named = stores.list(offset=0)
    assert ids(named)[-5:] == expected
    assert named.count == named.total == len(named.items)
    assert ids(stores.list(desc=True, limit=3)) == expected[:1:-1]
    assert ids(stores.list(offset=named.total - 2)) == expected[3:]
    assert ids(stores.list(unnamed=True))[-2] == unnamed.id
    assert ids(stores.list(ownership="ownedByMe"))[-5:] == expected
    assert ids(stores.list(ownership="sharedWithMe")) == []
    assert [one.id for one in stores.iterate(desc=True, limit=5)] == expected[::-1]
    assert [one.id for one in stores.iterate(chunk_size=2)][-5:] == expected
    assert len(list(stores.iterate(unnamed=True))) == known + 7
    assert stores.called == stores.methods


@pytest.mark.parametrize(
    ("value", "content_type", "told"),
    [
        ({"a": {"b": [1, 2.5, True, None]}}, None, JSON),
        (["\u017elu\u0165ou\u010dk\u00fd", "\U0001f40e"], None, JSON),
        ("p\u0159\u00edli\u0161", None, TEXT),
        ("<a/>", "application/xml", "application/xml"),
        ("<p>small</p>", "text/html; charset=utf-8", "text/html; charset=utf-8"),
        (b"\0\xff" * 30, None, BINARY),
        (b"", None, BINARY),
        ({"long": LONG_TEXT}, None, JSON),
        (LONG_TEXT, None, TEXT),
        (NOISE, None, BINARY),
        (NOISE, "image/png", "image/png"),
    ],
    ids=[
        "object",
        "list",
        "text",
        "xml",
        "html",
        "bytes",
        "empty",
        "LONG object",
        "LONG text",
        "LONG",
        "PNG",
    ],
)
@pytest.mark.parametrize("compression", ["gzip", "brotli"])
def test_values_come_back(
    python: Python, value: Any, content_type: str | None, told: str, compression: str
) -> None:
    store = python.new_store(compression=compression)
    store.set_record("!key-'(1)_.x", value, content_type=content_type)
    assert store.get_record("!key-'(1)_.x") == {"key": "!key-'(1)_.x", "value": value, "content_type": told}


@pytest.mark.parametrize(("compression", "encoding"), [("gzip", "gzip"), ("brotli", "br")])
def test_what_the_client_compresses_is_stored_compressed(
    python: Python, compression: str, encoding: str
) -> None:
    store = python.new_store(compression=compression)
    store.set_record("long", LONG_TEXT)
    told, stored = stored_as(store, "long")
    assert told == encoding
    assert len(stored) < len(LONG_TEXT) / 4
    assert store.list_keys().items[0].size == len(stored)
    assert store.get_record_as_bytes("long")["value"] == LONG_TEXT.encode()
    with store.stream_record("long") as record:
        assert python.driver.streamed_bytes(record["value"]) == LONG_TEXT.encode()
    url = store.get_record_public_url("long")
    plain = httpx.get(url, headers={"Accept-Encoding": "identity"}, follow_redirects=True)
    assert plain.content == LONG_TEXT.encode()
    assert "content-encoding" not in plain.headers


@pytest.mark.parametrize(
    ("encoding", "sent"),
    [
        ("gzip", gzip.compress(LONG_TEXT.encode(), mtime=0)),
        ("deflate", zlib.compress(LONG_TEXT.encode())),
        ("identity", LONG_TEXT.encode()),
    ],
)
def test_values_that_were_compressed_before(store: Driven, encoding: str, sent: bytes) -> None:
    store.set_record("long", sent, content_type=TEXT, content_encoding=encoding)
    expected = None if encoding == "identity" else encoding
    assert stored_as(store, "long") == (expected, sent)
    assert store.get_record("long")["value"] == LONG_TEXT


@pytest.mark.filterwarnings("ignore:Streaming a request body is experimental")
def test_streams_go_up_as_they_are(python: Python, store: Driven, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(NOISE * 5)
    with (tmp_path / "file").open("rb") as file:
        store.set_record("file", file, content_type="video/mp4")
    store.set_record("buffer", io.BytesIO(NOISE))
    store.set_record("pieces", (NOISE[start : start + 1000] for start in range(0, len(NOISE), 1000)))
    assert store.get_record("file") == {"key": "file", "value": NOISE * 5, "content_type": "video/mp4"}
    assert store.get_record("buffer") == {"key": "buffer", "value": NOISE, "content_type": BINARY}
    assert store.get_record("pieces")["value"] == NOISE
    assert {item.key: item.size for item in store.list_keys().items} == {
        "buffer": len(NOISE),
        "file": 5 * len(NOISE),
        "pieces": len(NOISE),
    }
    with store.stream_record("file") as record:
        assert python.driver.streamed_bytes(record["value"]) == NOISE * 5


def test_2500_keys(python: Python, habits: Habits, crowded: CrowdedStore) -> None:
    store = python.client().key_value_store(crowded.store_id)
    lists = len(lists_of(python, crowded))
    items = list(store.iterate_keys())
    assert [item.key for item in items] == CROWD
    assert {item.size for item in items} == {len(CROWD[0])}
    assert len(lists_of(python, crowded)) - lists == math.ceil(len(CROWD) / habits.page_limit)
    assert [item.key for item in store.iterate_keys(limit=1500, chunk_size=700)] == CROWD[:1500]
    assert [item.key for item in store.iterate_keys(prefix="key-12")] == CROWD[1200:1300]
    assert [item.key for item in store.iterate_keys(exclusive_start_key="key-2398-not-there")] == CROWD[2399:]
    page = store.list_keys(exclusive_start_key=CROWD[99], limit=10, prefix="key-0")
    assert [item.key for item in page.items] == CROWD[100:110]
    assert (page.count, page.limit, page.exclusive_start_key) == (10, 10, CROWD[99])
    assert (page.is_truncated, page.next_exclusive_start_key) == (True, CROWD[109])


def lists_of(python: Python, crowded: CrowdedStore) -> list[object]:
    return [request for request in python.server.requests() if request.path == crowded.keys_path]


def test_collections_of_a_schema(python: Python, anyone: httpx.Client) -> None:
    client = python.client()
    store = driven(client.key_value_store(client.key_value_stores().get_or_create(schema=SCHEMA).id))
    store.set_record("page-1", "<p>1</p>", content_type="text/html")
    store.set_record("other", {"any": "thing"})
    assert [item.key for item in store.list_keys(collection="pages").items] == ["page-1"]
    assert [item.key for item in store.iterate_keys(collection="pages")] == ["page-1"]
    page = anyone.get(store.create_keys_public_url(collection="pages")).json()["data"]
    assert [item["key"] for item in page["items"]] == ["page-1"]
    status, _ = refused(InvalidRequestError, store.set_record, "page-2", {"no": "page"})
    assert (status, store.record_exists("page-2")) == (400, False)
    assert refused(InvalidRequestError, store.list_keys, collection="x") == (400, "invalid-collection")


def test_public_urls_need_no_token(store: Driven, anyone: httpx.Client) -> None:
    for key in ("a", "b'(!)", "c"):
        store.set_record(key, key)
    assert anyone.get(store.get_record_public_url("b'(!)")).text == "b'(!)"
    url = store.create_keys_public_url(limit=1, prefix="b", expires_in=timedelta(minutes=1))
    page = anyone.get(url).json()["data"]
    assert [item["key"] for item in page["items"]] == ["b'(!)"]
    assert anyone.get(page["items"][0]["recordPublicUrl"]).text == "b'(!)"
    told = store.get()
    assert anyone.get(str(told.keys_public_url)).json()["data"]["count"] == 3
    assert anyone.get(url.partition("?")[0]).status_code == 403


def test_expired_urls_are_refused(store: Driven, anyone: httpx.Client) -> None:
    for seconds, status in ((60, 200), (-1, 403)):
        url = store.create_keys_public_url(expires_in=timedelta(seconds=seconds))
        assert anyone.get(url).status_code == status


def test_signatures_open_for_others_what_they_were_made_for(python: Python, store: Driven) -> None:
    def signature(url: str) -> str:
        return parse_qs(urlsplit(url).query)["signature"][0]

    store.set_record("a", {"x": 1})
    for token in (None, TOKENS["ann"]):
        other = python.client(token).key_value_store(store.get().id)
        record = signature(store.get_record_public_url("a"))
        assert other.get_record("a", signature=record)["value"] == {"x": 1}
        assert other.get_record_as_bytes("a", signature=record)["value"] == b'{"x": 1}'
        with other.stream_record("a", signature=record) as streamed:
            assert python.driver.streamed_bytes(streamed["value"]) == b'{"x": 1}'
        keys = signature(store.create_keys_public_url())
        assert [item.key for item in other.list_keys(signature=keys).items] == ["a"]
        assert [item.key for item in other.iterate_keys(signature=keys)] == ["a"]
        assert refused(ForbiddenError, other.get_record, "b", signature=record) == (
            403,
            "insufficient-permissions",
        )


def test_what_is_not_there_is_none(python: Python, store: Driven) -> None:
    assert store.get_record("a") is None
    assert store.get_record_as_bytes("a") is None
    with store.stream_record("a") as record:
        assert record is None
    assert store.record_exists("a") is False
    assert store.delete_record("a") is None
    absent = python.client().key_value_store("a" * 17)
    assert absent.get() is None
    assert absent.get_record("a") is None
    assert absent.record_exists("a") is False
    assert absent.delete() is None
    assert python.client().key_value_store("nobody/nothing").get() is None
    missing = (404, "record-or-token-not-found")
    assert refused(NotFoundError, absent.list_keys) == missing
    assert refused(NotFoundError, absent.set_record, "a", "b") == missing
    assert refused(NotFoundError, absent.update, title="x") == missing


@pytest.mark.parametrize(
    ("token", "error", "reason"),
    [
        (None, ForbiddenError, (403, "insufficient-permissions")),
        ("wrong", UnauthorizedError, (401, "invalid-token")),
        (TOKENS["ann"], ForbiddenError, (403, "insufficient-permissions")),
    ],
    ids=["no token", "wrong token", "another's token"],
)
def test_strangers_are_refused(
    python: Python,
    store: Driven,
    token: str | None,
    error: type[ApifyApiError],
    reason: tuple[int, str],
) -> None:
    stranger = python.client(token).key_value_store(store.get().id)
    for read in (stranger.get, stranger.list_keys):
        assert refused(error, read) == reason
    assert refused(error, stranger.get_record, "a") == reason
    status, _ = refused(error, stranger.record_exists, "a")  # an answer to HEAD has no body to tell the type
    assert status == reason[0]
    error, reason = (error, reason) if token else (UnauthorizedError, (401, "token-not-provided"))
    assert refused(error, stranger.set_record, "a", 1) == reason
    assert refused(error, stranger.delete_record, "a") == reason
    assert refused(error, stranger.update, title="x") == reason
    assert refused(error, stranger.delete) == reason


def test_stores_have_names_too(python: Python) -> None:
    name = f"named-{python.kind.__name__}"
    client = python.client()
    client.key_value_stores().get_or_create(name=name)
    client.key_value_store(f"joe/{name}").set_record("a", "b")
    assert client.key_value_store(f"~{name}").get_record("a")["value"] == "b"
    assert client.key_value_store(f"joe~{name}").update(name=f"{name}-2").name == f"{name}-2"
    assert client.key_value_store(f"joe/{name}").get() is None
    assert client.key_value_store(f"joe/{name}-2").get_record("a")["value"] == "b"
    assert refused(InvalidRequestError, client.key_value_stores().get_or_create, name="-no-") == (
        400,
        "invalid-input",
    )


def test_everyone_reads_a_public_store(python: Python, store: Driven) -> None:
    store.set_record("a", "b")
    store.update(general_access="ANYONE_WITH_ID_CAN_READ")
    reader = python.client(None).key_value_store(store.get().id)
    assert reader.get_record("a")["value"] == "b"
    assert reader.record_exists("a") is True
    assert [item.key for item in reader.list_keys().items] == ["a"]
    assert reader.get().url_signing_secret_key is None
    assert "signature" not in reader.get_record_public_url("a")
    assert refused(UnauthorizedError, reader.set_record, "a", "c") == (401, "token-not-provided")


def told_of_run(python: Python, path: str, **how: str) -> dict[str, Any]:
    """Tell the server of a run, as the platform would make one."""
    headers = {"Authorization": f"Bearer {TOKENS['joe']}"}
    answer = httpx.post(f"{python.server.url}/v2/{path}/runs", params=how, headers=headers, json={"in": how})
    assert answer.status_code == 201
    run: dict[str, Any] = answer.json()["data"]
    return run


def test_the_store_of_a_run(python: Python) -> None:
    run = told_of_run(python, f"actors/joe~one-{python.kind.__name__}")
    store = driven(python.client().run(run["id"]).key_value_store())
    assert store.get().id == run["defaultKeyValueStoreId"]
    assert store.get_record("INPUT")["value"] == {"in": {}}
    store.set_record("OUTPUT", {"long": LONG_TEXT})
    assert store.get_record("OUTPUT")["value"] == {"long": LONG_TEXT}
    assert store.get_record_as_bytes("INPUT")["value"] == b'{"in":{}}'
    with store.stream_record("INPUT") as record:
        assert python.driver.streamed_bytes(record["value"]) == b'{"in":{}}'
    assert store.record_exists("OUTPUT") is True
    assert [item.key for item in store.list_keys().items] == ["INPUT", "OUTPUT"]
    assert [item.key for item in store.iterate_keys(prefix="O")] == ["OUTPUT"]
    by_id = python.client().key_value_store(run["defaultKeyValueStoreId"])
    assert by_id.get_record("OUTPUT")["value"] == {"long": LONG_TEXT}
    stranger = python.client(TOKENS["ann"]).run(run["id"]).key_value_store()
    for read in (lambda: stranger.get_record("OUTPUT"), stranger.list_keys):
        assert refused(ForbiddenError, read) == (403, "insufficient-permissions")
    store.delete_record("OUTPUT")
    assert by_id.record_exists("OUTPUT") is False
    assert store.update(title="of a run").title == "of a run"
    store.delete()
    assert by_id.get() is None


def test_the_client_itself_tells_of_a_run(python: Python) -> None:
    client = python.client()
    actor = driven(client.actor(f"joe/started-{python.kind.__name__}"))
    run = actor.start(run_input={"a": 1})
    assert (run.status, run.meta.origin) == ("SUCCEEDED", "API")
    assert client.run(run.id).get().id == actor.last_run().get().id == run.id
    assert client.key_value_store(run.default_key_value_store_id).get_record("INPUT")["value"] == {"a": 1}
    assert client.run("a" * 17).get() is None


@pytest.mark.parametrize("kind", ["actor", "task"])
def test_the_store_of_the_last_run(python: Python, kind: str) -> None:
    name = f"{kind}-{python.kind.__name__}"
    path = f"actors/joe~{name}" if kind == "actor" else f"actor-tasks/joe~{name}"
    client = python.client()
    resource = driven(client.actor(f"joe/{name}") if kind == "actor" else client.task(f"joe/{name}"))
    ids = {
        (status, origin): told_of_run(python, path, status=status, origin=origin)["defaultKeyValueStoreId"]
        for status, origin in (("SUCCEEDED", "API"), ("SUCCEEDED", "WEB"), ("FAILED", "SCHEDULER"))
    }

    def last(**wanted: str) -> Driven:
        return driven(resource.last_run(**wanted).key_value_store())

    assert last().get().id == ids["FAILED", "SCHEDULER"]
    assert last(status="SUCCEEDED").get().id == ids["SUCCEEDED", "WEB"]
    assert last(status="SUCCEEDED", origin="API").get().id == ids["SUCCEEDED", "API"]
    last(origin="WEB").set_record("OUTPUT", "web")
    assert client.key_value_store(ids["SUCCEEDED", "WEB"]).get_record("OUTPUT")["value"] == "web"
    assert last(origin="WEB").get_record("INPUT")["value"] == {"in": {"status": "SUCCEEDED", "origin": "WEB"}}
    assert [item.key for item in last(status="SUCCEEDED").iterate_keys()] == ["INPUT", "OUTPUT"]
    # A client of the last run has no ID of its own, so "there is none" is an error and not None.
    missing = (404, "record-or-token-not-found")
    assert refused(NotFoundError, last(status="ABORTED").get) == missing
    assert last(status="ABORTED").get_record("INPUT") is None


def test_who_asks(python: Python) -> None:
    assert python.client().user().get().username == "joe"
    assert python.client(TOKENS["ann"]).user("joe").get().username == "joe"
    assert python.client().user("nobody").get() is None


@pytest.mark.parametrize("key", ["a b", "a/b", "\u017e", "a~b", "a#b", "a%b", "a?b", "x" * 257])
def test_keys_that_cannot_be(store: Driven, key: str) -> None:
    assert refused(InvalidRequestError, store.set_record, key, 1) == (400, "invalid-record-key")


def test_html_is_stored_as_it_is_or_not_at_all(store: Driven) -> None:
    """The client compresses HTML like any text, the specification has an error for that: it wins."""
    html = "text/html; charset=utf-8"
    assert refused(InvalidRequestError, store.set_record, "page", LONG_TEXT, content_type=html) == (
        400,
        "content-encoding-forbidden-for-html",
    )
    store.set_record("page", LONG_TEXT, content_type=html, content_encoding="identity")
    assert store.get_record("page") == {"key": "page", "value": LONG_TEXT, "content_type": html}


def test_a_client_that_is_told_to_wait_waits(tmp_path: Path) -> None:
    keys = [f"key-{number:02}" for number in range(30)]
    arguments = ("--testing", "--rate-limit", "60,10")
    with running_server(
        tmp_path / "data", tokens=["t=joe"], request_log=tmp_path / "log", arguments=arguments
    ) as server:
        client = ApifyClient("t", api_url=server.url)  # with its own retries
        store = client.key_value_store(client.key_value_stores().get_or_create().id)
        for key in keys:
            store.set_record(key, key)
        assert [item.key for item in store.iterate_keys()] == keys
        statuses = [request.status for request in server.requests() if request.method == "PUT"]
    assert statuses.count(201) == len(keys)
    assert set(statuses) == {201, 429}
