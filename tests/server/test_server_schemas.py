"""Collections of a store's schema: listing them, and what a PUT into them must be."""

from __future__ import annotations

import gzip
from typing import Any

import httpx
import pytest

STORES = "/v2/key-value-stores"

SCHEMA: dict[str, Any] = {
    "actorKeyValueStoreSchemaVersion": 1,
    "title": "Things",
    "collections": {
        "images": {"title": "Images", "keyPrefix": "img-", "contentTypes": ["image/png", "image/jpeg"]},
        "people": {
            "keyPrefix": "person-",
            "contentTypes": ["application/json"],
            "jsonSchema": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"$ref": "#/definitions/name"},
                    "next": {"$ref": "#/definitions/gone"},
                },
                "definitions": {"name": {"type": "string"}},
            },
        },
        "output": {"key": "OUTPUT", "jsonSchema": {"type": "object"}},
    },
}


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["type"]


INVALID = (400, "schema-validation-error")


@pytest.fixture
def things(joe: httpx.Client) -> str:
    """The path of a new store with SCHEMA."""
    answer = joe.post(STORES, json={"schema": SCHEMA})
    assert answer.json()["data"]["schema"] == SCHEMA
    return f"{STORES}/{answer.json()['data']['id']}"


def put(client: httpx.Client, path: str, content: bytes, content_type: str, **headers: str) -> httpx.Response:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.put(path, content=content, headers={"Content-Type": content_type, **sent})


def test_content_types_are_enforced(joe: httpx.Client, things: str) -> None:
    assert put(joe, f"{things}/records/img-1", b"", "image/PNG; q=1").status_code == 201
    refused = put(joe, f"{things}/records/img-2", b"", "image/gif")
    assert refusal(refused) == INVALID
    assert "images takes image/jpeg, image/png, not image/gif" in refused.json()["error"]["message"]
    assert joe.head(f"{things}/records/img-2").status_code == 404
    assert put(joe, f"{things}/records/other", b"", "image/gif").status_code == 201


def test_json_schemas_are_enforced(joe: httpx.Client, things: str) -> None:
    path = f"{things}/records/person-1"
    kind = "application/json; charset=utf-8"
    good = b'{ "name": "Ada" }'
    assert put(joe, path, good, kind).status_code == 201
    assert joe.get(path).content == good
    for bad, problem in (
        (b'{"name": 1}', "$.name: 1 is not of type 'string'"),
        (b"{}", "'name' is a required property"),
        (b"[", "this is none"),
        (b"[" * 100_000, "this is none"),
        (b'{"name": NaN}', "this is none"),
        (b'"\\ud800"', "is not of type 'object'"),
        (b'{"name": "a", "next": 1}', "gone"),
    ):
        refused = put(joe, path, bad, kind)
        assert refusal(refused) == INVALID
        assert problem in refused.json()["error"]["message"]
    assert joe.get(path).content == good
    assert refusal(put(joe, f"{things}/records/OUTPUT", b"{}", "text/plain")) == INVALID
    assert put(joe, f"{things}/records/OUTPUT2", b"[]", "text/plain").status_code == 201


def test_an_encoded_value_is_checked_as_what_it_decodes_to(joe: httpx.Client, things: str) -> None:
    path, kind = f"{things}/records/OUTPUT", "application/json"
    assert put(joe, path, gzip.compress(b"{}"), kind, Content_Encoding="gzip").status_code == 201
    assert joe.get(path).json() == {}
    assert refusal(put(joe, path, gzip.compress(b"[]"), kind, Content_Encoding="gzip")) == INVALID
    assert refusal(put(joe, path, b"no gzip", kind, Content_Encoding="gzip")) == INVALID
    bomb = gzip.compress(bytes(64 * 1024 * 1024))
    assert refusal(put(joe, path, bomb, kind, Content_Encoding="gzip")) == (413, "record-too-large")


def test_keys_of_a_collection(joe: httpx.Client, things: str) -> None:
    for key in ("a", "img-1", "img-10", "img-2", "z"):
        put(joe, f"{things}/records/{key}", b"", "image/png")
    for key in ("OUTPUT", "OUTPUT2"):
        put(joe, f"{things}/records/{key}", b"{}", "application/json")

    def keys(**params: str) -> list[str]:
        return [item["key"] for item in joe.get(f"{things}/keys", params=params).json()["data"]["items"]]

    assert keys(collection="images") == ["img-1", "img-10", "img-2"]
    assert keys(collection="images", prefix="img-1") == ["img-1", "img-10"]
    assert keys(collection="images", prefix="i") == ["img-1", "img-10", "img-2"]
    assert keys(collection="images", prefix="z") == []
    assert keys(collection="images", exclusiveStartKey="img-1", limit="1") == ["img-10"]
    assert keys(collection="output") == ["OUTPUT"]
    assert keys(collection="output", prefix="OUT") == ["OUTPUT"]
    assert keys(collection="output", prefix="x") == []
    assert keys(collection="output", exclusiveStartKey="OUTPUT") == []
    assert keys(collection="people") == []


def test_the_archive_of_a_collection(joe: httpx.Client, things: str) -> None:
    import io  # noqa: PLC0415
    import zipfile  # noqa: PLC0415

    for key in ("a", "img-1", "img-2"):
        put(joe, f"{things}/records/{key}", b"", "image/png")

    def names(**params: str) -> list[str]:
        content = joe.get(f"{things}/records", params=params).content
        return zipfile.ZipFile(io.BytesIO(content)).namelist()

    assert names(collection="images") == ["img-1", "img-2"]
    assert names(collection="images", prefix="img-2") == ["img-2"]
    assert names(collection="output", prefix="x") == []


def test_an_unknown_collection_is_refused(joe: httpx.Client, things: str, store: str) -> None:
    for path in (things, store):
        for suffix in ("keys", "records"):
            answer = joe.get(f"{path}/{suffix}", params={"collection": "none"})
            assert refusal(answer) == (400, "invalid-collection")


@pytest.mark.parametrize(
    ("collections", "problem"),
    [
        ([], "collections"),
        ({"a": 1}, "object"),
        ({"a": {}}, "either key or keyPrefix"),
        ({"a": {"key": "k", "keyPrefix": "p"}}, "either key or keyPrefix"),
        ({"a": {"key": "k", "contentTypes": "image/png"}}, "contentTypes"),
        ({"a": {"key": "k", "jsonSchema": {"type": "nothing"}}}, "draft 07"),
        ({"a": {"key": "k", "jsonSchema": {"pattern": "("}}}, "draft 07"),
        ({"a": {"key": "k", "jsonSchema": {"$ref": "http://127.0.0.1:1/x"}}}, "another document"),
    ],
)
def test_senseless_schemas_are_refused(joe: httpx.Client, collections: object, problem: str) -> None:
    answer = joe.post(STORES, json={"schema": {"collections": collections}})
    assert refusal(answer) == (400, "store-schema-invalid")
    assert problem in answer.json()["error"]["message"]


def test_the_body_of_a_store_call_may_be_compressed(joe: httpx.Client, store: str) -> None:
    body = gzip.compress(b'{"title": "compressed"}')
    answer = joe.put(store, content=body, headers={"Content-Encoding": "gzip"})
    assert answer.json()["data"]["title"] == "compressed"
    assert refusal(joe.put(store, content=b"x", headers={"Content-Encoding": "bla"}))[0] == 415
    assert refusal(joe.put(store, content=b"x", headers={"Content-Encoding": "br"})) == (400, "invalid-input")
    bomb = gzip.compress(bytes(8 * 1024 * 1024))
    answer = joe.put(store, content=bomb, headers={"Content-Encoding": "gzip"})
    assert refusal(answer) == (413, "request-too-large")
