"""Stores and their keys, over HTTP."""

from __future__ import annotations

import re
import secrets
from typing import Any

import httpx
import pytest

STORES = "/v2/key-value-stores"


def new_name() -> str:
    return f"test-{secrets.token_hex(6)}"


def described(client: httpx.Client, path: str) -> dict[str, Any]:
    answer = client.get(path)
    assert answer.status_code == 200
    content: dict[str, Any] = answer.json()["data"]
    return content


def error_type(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["type"])


def test_a_named_store_is_made_once(joe: httpx.Client) -> None:
    name = new_name()
    first, second = (joe.post(STORES, params={"name": name}) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()
    assert first.headers["location"].endswith(f"{STORES}/{first.json()['data']['id']}")


def test_unnamed_stores_have_ids_like_apifys(joe: httpx.Client) -> None:
    ids = {joe.post(STORES).json()["data"]["id"] for _ in range(5)}
    assert len(ids) == 5
    assert all(re.fullmatch("[a-zA-Z0-9]{17}", store_id) for store_id in ids)


def test_a_store_is_found_by_id_and_by_name(joe: httpx.Client, ann: httpx.Client) -> None:
    name = new_name()
    made = joe.post(STORES, params={"name": name}).json()["data"]
    for reference in (made["id"], f"joe~{name}", f"~{name}"):
        assert described(joe, f"{STORES}/{reference}")["id"] == made["id"]
    answer = ann.get(f"{STORES}/~{name}")
    assert (answer.status_code, error_type(answer)) == (404, "record-or-token-not-found")
    assert ann.post(STORES, params={"name": name}).json()["data"]["id"] != made["id"]


def test_update_changes_what_is_given(joe: httpx.Client, store: str) -> None:
    before = described(joe, store)
    name = new_name()
    changed = joe.put(store, json={"name": name, "title": "Öl", "generalAccess": "RESTRICTED"}).json()["data"]
    assert (changed["name"], changed["title"], changed["generalAccess"]) == (name, "Öl", "RESTRICTED")
    assert changed["modifiedAt"] >= before["modifiedAt"]
    assert joe.put(store, json={"title": None}).json()["data"]["name"] == name
    assert joe.put(store, json={"name": None}).json()["data"]["name"] is None
    assert described(joe, store)["title"] is None


def test_a_name_that_is_taken_is_refused(joe: httpx.Client, store: str) -> None:
    name = new_name()
    joe.post(STORES, params={"name": name})
    answer = joe.put(store, json={"name": name, "title": "x"})
    assert (answer.status_code, error_type(answer)) == (400, "name-not-unique")
    assert described(joe, store)["title"] is None  # all or nothing


@pytest.mark.parametrize("name", ["", "-a", "a-", "a b", "ä", "a" * 64, "a~b", "a/b"])
def test_bad_names_are_refused(joe: httpx.Client, name: str) -> None:
    answer = joe.post(STORES, params={"name": name})
    assert (answer.status_code, error_type(answer)) == (400, "invalid-input")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"[" * 100_000,
        b'{"generalAccess": "ALL"}',
        b'{"name": 1}',
        b"",
        b'{"title": "\\ud800"}',
        b'{"x": NaN}',
        b'{"x": 1e999}',
    ],
)
def test_bad_updates_are_refused(joe: httpx.Client, store: str, body: bytes) -> None:
    answer = joe.put(store, content=body)
    assert (answer.status_code, error_type(answer)) == (400, "invalid-input")


def test_a_deleted_store_is_gone_with_its_records(joe: httpx.Client, store: str) -> None:
    joe.put(f"{store}/records/a", content=b"1")
    assert joe.delete(store).status_code == 204
    for path in (store, f"{store}/keys", f"{store}/records/a"):
        answer = joe.get(path)
        assert (answer.status_code, error_type(answer)) == (404, "record-or-token-not-found")
    assert joe.put(f"{store}/records/a", content=b"1").status_code == 404
    assert joe.delete(store).status_code == 404


def test_stores_are_listed_by_creation(ann: httpx.Client) -> None:
    names = [new_name() for _ in range(3)]
    made = [ann.post(STORES, params={"name": name}).json()["data"]["id"] for name in names]
    unnamed = ann.post(STORES).json()["data"]["id"]
    page = ann.get(STORES).json()["data"]
    listed = [item["id"] for item in page["items"]]
    assert [store_id for store_id in listed if store_id in made] == made
    assert unnamed not in listed
    assert page["total"] == page["count"] == len(listed)
    assert [item["id"] for item in ann.get(STORES, params={"desc": "1"}).json()["data"]["items"]] == listed[
        ::-1
    ]
    assert unnamed in {i["id"] for i in ann.get(STORES, params={"unnamed": "true"}).json()["data"]["items"]}
    second = ann.get(STORES, params={"offset": 1, "limit": 1}).json()["data"]
    assert [item["id"] for item in second["items"]] == listed[1:2]
    assert second["total"] == len(listed)
    assert ann.get(STORES, params={"ownership": "sharedWithMe"}).json()["data"]["items"] == []


def test_keys_come_in_utf8_order_page_after_page(joe: httpx.Client, store: str) -> None:
    keys = ["a", "A", "_", "-", "!", "'", "(", ")", ".", "..", "0", "a.b", "a-b", "Z", "z" * 256, "ab", "a0"]
    for number, key in enumerate(keys):
        escaped = key.replace(".", "%2E")  # clients resolve "." and ".." in a path
        assert joe.put(f"{store}/records/{escaped}", content=b"x" * number).status_code == 201
    found: list[dict[str, Any]] = []
    start: str | None = None
    for _ in range(len(keys)):
        params = {"limit": "4"} if start is None else {"limit": "4", "exclusiveStartKey": start}
        page = joe.get(f"{store}/keys", params=params).json()["data"]
        assert (page["limit"], page["count"], page["exclusiveStartKey"]) == (4, len(page["items"]), start)
        found += page["items"]
        start = page["nextExclusiveStartKey"]
        assert page["isTruncated"] == (start is not None)
        if start is None:
            break
    assert [item["key"] for item in found] == sorted(keys, key=str.encode)
    assert {item["key"]: item["size"] for item in found} == {key: number for number, key in enumerate(keys)}


def test_a_start_key_need_not_exist_and_prefix_narrows(joe: httpx.Client, store: str) -> None:
    for key in ("a", "b", "ba", "bb", "c"):
        joe.put(f"{store}/records/{key}", content=b"")

    def keys(**params: str) -> list[str]:
        return [item["key"] for item in joe.get(f"{store}/keys", params=params).json()["data"]["items"]]

    assert keys(exclusiveStartKey="aa") == ["b", "ba", "bb", "c"]
    assert keys(exclusiveStartKey="é/ \N{GRINNING FACE}") == []
    assert keys(prefix="b") == ["b", "ba", "bb"]
    assert keys(prefix="b", exclusiveStartKey="b") == ["ba", "bb"]
    assert keys(prefix="b", exclusiveStartKey="c") == []
    assert keys(prefix="%") == []


@pytest.mark.parametrize("limit", ["-1", "x", "1.5", "1_0", "9" * 30])
def test_senseless_limits_are_refused(joe: httpx.Client, store: str, limit: str) -> None:
    answer = joe.get(f"{store}/keys", params={"limit": limit})
    assert (answer.status_code, error_type(answer)) == (400, "invalid-input")


def test_a_limit_above_the_maximum_gives_the_maximum(joe: httpx.Client, store: str) -> None:
    assert joe.get(f"{store}/keys", params={"limit": "5000"}).json()["data"]["limit"] == 1000
    assert joe.get(f"{store}/keys", params={"limit": "0"}).json()["data"]["limit"] == 1000


def test_a_limit_of_zero_is_none_as_both_official_clients_mean_it(joe: httpx.Client, store: str) -> None:
    assert joe.get(f"{store}/keys", params={"limit": "0"}).json()["data"]["limit"] == 1000
    assert joe.get(STORES, params={"limit": "0"}).json()["data"]["limit"] == 1000


def test_statistics_and_times_tell_the_truth(joe: httpx.Client, store: str) -> None:
    before = described(joe, store)
    for content in (b"12345", b"123"):
        joe.put(f"{store}/records/a", content=content)
    joe.put(f"{store}/records/b", content=b"12")
    written = described(joe, store)
    joe.get(f"{store}/records/a")
    joe.head(f"{store}/records/a")
    joe.get(f"{store}/keys")
    read = described(joe, store)
    joe.delete(f"{store}/records/b")
    after = described(joe, store)
    assert written["stats"] == {
        "readCount": 0,
        "writeCount": 3,
        "deleteCount": 0,
        "listCount": 0,
        "storageBytes": 5,
    }
    assert read["stats"] == written["stats"] | {"readCount": 2, "listCount": 1}
    assert after["stats"] == read["stats"] | {"deleteCount": 1, "storageBytes": 3}
    assert before["createdAt"] < written["modifiedAt"] == read["modifiedAt"] <= after["modifiedAt"]
    assert written["accessedAt"] <= read["accessedAt"] <= after["accessedAt"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", after["modifiedAt"])


def test_unknown_paths_and_methods_have_the_apis_shape(joe: httpx.Client, store: str) -> None:
    answer = joe.get("/v2/nowhere")
    assert (answer.status_code, error_type(answer)) == (404, "page-not-found")
    answer = joe.patch(store)
    assert (answer.status_code, error_type(answer)) == (405, "method-not-allowed")
    assert set(answer.headers["allow"].split(", ")) >= {"GET", "PUT", "DELETE"}


def test_users_me_names_the_owner_of_the_token(joe: httpx.Client, ann: httpx.Client, store: str) -> None:
    me = described(joe, "/v2/users/me")
    assert me["username"] == "joe"
    assert described(joe, store)["userId"] == me["id"] != described(ann, "/v2/users/me")["id"]
