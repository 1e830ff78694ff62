"""Stores that are shared: listed, read, and written to where that was given; never renamed or deleted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.serving import running_server

STORES = "/v2/key-value-stores"


@pytest.fixture
def users(tmp_path: Path) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    with (
        running_server(tmp_path, tokens=["joes=joe", "anns=ann"], arguments=["--testing"]) as server,
        httpx.Client(base_url=server.url, headers={"Authorization": "Bearer joes"}) as joe,
        httpx.Client(base_url=server.url, headers={"Authorization": "Bearer anns"}) as ann,
    ):
        yield joe, ann


def made(client: httpx.Client, name: str) -> str:
    return str(client.post(STORES, params={"name": name}).raise_for_status().json()["data"]["id"])


def names(client: httpx.Client, **query: str) -> tuple[list[str], int]:
    data = client.get(STORES, params=query).raise_for_status().json()["data"]
    return [item["name"] for item in data["items"]], data["total"]


def test_shared_stores_are_listed_among_ones_own(users: tuple[httpx.Client, httpx.Client]) -> None:
    joe, ann = users
    for client, name in ((joe, "a"), (ann, "b"), (joe, "c"), (ann, "d")):
        made(client, name)
    for name in ("b", "d"):
        share = {"store": made(ann, name), "user": "joe"}
        ann.post("/testing/shares", json=share).raise_for_status()
    assert names(joe) == (["a", "b", "c", "d"], 4)
    assert names(joe, offset="1", limit="2") == (["b", "c"], 4)
    assert names(joe, desc="1", limit="1") == (["d"], 4)
    assert names(joe, ownership="ownedByMe") == (["a", "c"], 2)
    assert names(joe, ownership="sharedWithMe") == (["b", "d"], 2)
    assert names(ann) == (["b", "d"], 2)


def test_what_a_share_allows(users: tuple[httpx.Client, httpx.Client]) -> None:
    joe, ann = users
    read, write = made(ann, "read"), made(ann, "write")
    ann.post("/testing/shares", json={"store": read, "user": "joe"}).raise_for_status()
    ann.post("/testing/shares", json={"store": write, "user": "joe", "write": True}).raise_for_status()
    for store, allowed in ((read, 403), (write, 201)):
        assert joe.get(f"{STORES}/{store}/keys").status_code == 200
        assert joe.put(f"{STORES}/{store}/records/a", content=b"1").status_code == allowed
        assert joe.put(f"{STORES}/{store}", json={"name": "mine"}).status_code == 403
        assert joe.delete(f"{STORES}/{store}").status_code == 403
    items = {item["name"]: item for item in joe.get(STORES).json()["data"]["items"]}
    assert "urlSigningSecretKey" not in items["read"]
    assert joe.get(f"{STORES}/{made(ann, 'private')}").status_code == 403
