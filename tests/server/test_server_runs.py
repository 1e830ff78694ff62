"""Stores reached by a run, and the users behind a token."""

from __future__ import annotations

import secrets
from typing import Any

import httpx
import pytest

from kvsfs.signatures import sign_record


def new_run(client: httpx.Client, path: str, **params: str) -> dict[str, Any]:
    answer = client.post(path, params=params)
    assert answer.status_code == 201
    run: dict[str, Any] = answer.json()["data"]
    return run


def error_type(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["type"]


@pytest.fixture
def actor() -> str:
    return f"joe~actor-{secrets.token_hex(6)}"


NOT_FOUND = (404, "record-or-token-not-found")


def test_a_runs_store_is_reached_in_every_way(joe: httpx.Client, actor: str) -> None:
    run = new_run(joe, f"/v2/actors/{actor}/runs")
    name = actor.partition("~")[2]
    for base in (
        f"/v2/actor-runs/{run['id']}",
        f"/v2/actors/{actor}/runs/last",
        f"/v2/acts/{actor}/runs/last",
        f"/v2/actors/~{name}/runs/last",
        f"/v2/actors/{run['actId']}/runs/last",
    ):
        store = f"{base}/key-value-store"
        described = joe.get(store).json()["data"]
        assert described["id"] == run["defaultKeyValueStoreId"]
        assert (described["actId"], described["actRunId"]) == (run["actId"], run["id"])
        assert joe.put(f"{store}/records/a", content=b"1").status_code == 201
        assert joe.post(f"{store}/records/b", content=b"2").status_code == 201
        assert joe.get(f"{store}/records/a").content == b"1"
        assert joe.head(f"{store}/records/a").status_code == 200
        assert [item["key"] for item in joe.get(f"{store}/keys").json()["data"]["items"]] == ["a", "b"]
        assert joe.get(f"{store}/records").headers["content-type"] == "application/zip"
        assert joe.put(store, json={"title": base}).json()["data"]["title"] == base
        assert joe.delete(f"{store}/records/b").status_code == 204
    assert joe.delete(f"/v2/actor-runs/{run['id']}/key-value-store").status_code == 204
    assert error_type(joe.get(f"/v2/actor-runs/{run['id']}/key-value-store")) == NOT_FOUND


def test_the_last_run_is_filtered_by_status_and_origin(joe: httpx.Client, actor: str) -> None:
    first = new_run(joe, f"/v2/actors/{actor}/runs", status="SUCCEEDED", origin="SCHEDULER")
    second = new_run(joe, f"/v2/actors/{actor}/runs", status="FAILED", origin="WEB")
    third = new_run(joe, f"/v2/acts/{actor}/runs", status="SUCCEEDED", origin="WEB")

    def last(**params: str) -> httpx.Response:
        return joe.get(f"/v2/actors/{actor}/runs/last/key-value-store", params=params)

    expected = [
        ({}, third),
        ({"status": "SUCCEEDED"}, third),
        ({"status": "FAILED"}, second),
        ({"origin": "SCHEDULER"}, first),
        ({"status": "SUCCEEDED", "origin": "SCHEDULER"}, first),
    ]
    for params, run in expected:
        assert last(**params).json()["data"]["id"] == run["defaultKeyValueStoreId"]
    assert error_type(last(status="ABORTED")) == NOT_FOUND
    assert error_type(last(origin="NOWHERE")) == (400, "invalid-input")
    assert joe.get(f"/v2/actors/{actor}/runs/last", params={"origin": "SCHEDULER"}).json()["data"] == first


def test_a_tasks_last_run(joe: httpx.Client, actor: str) -> None:
    run = new_run(joe, f"/v2/actor-tasks/{actor}/runs", status="RUNNING", origin="API")
    assert (run["status"], run["finishedAt"]) == ("RUNNING", None)
    store = f"/v2/actor-tasks/{actor}/runs/last/key-value-store"
    assert joe.get(store).json()["data"]["id"] == run["defaultKeyValueStoreId"]
    assert error_type(joe.get(f"/v2/actors/{actor}/runs/last/key-value-store")) == NOT_FOUND


def test_the_input_is_a_record_of_the_runs_store(joe: httpx.Client, actor: str) -> None:
    answer = joe.post(f"/v2/actors/{actor}/runs", json={"startUrls": []})
    record = joe.get(f"/v2/actor-runs/{answer.json()['data']['id']}/key-value-store/records/INPUT")
    assert (record.json(), record.headers["content-type"]) == ({"startUrls": []}, "application/json")


def test_everyone_has_a_last_run_of_their_own(joe: httpx.Client, ann: httpx.Client, actor: str) -> None:
    joes = new_run(joe, f"/v2/actors/{actor}/runs")
    store = f"/v2/actors/{actor}/runs/last/key-value-store"
    assert error_type(ann.get(store)) == NOT_FOUND
    anns = new_run(ann, f"/v2/actors/{actor}/runs")
    assert ann.get(store).json()["data"]["id"] == anns["defaultKeyValueStoreId"]
    assert joe.get(store).json()["data"]["id"] == joes["defaultKeyValueStoreId"]
    for path in (f"/v2/actor-runs/{joes['id']}", "/v2/actor-runs/none"):
        assert error_type(ann.get(path)) == NOT_FOUND
    refused = ann.get(f"/v2/actor-runs/{joes['id']}/key-value-store")
    assert error_type(refused) == (403, "insufficient-permissions")


def test_a_signature_opens_the_last_runs_record(joe: httpx.Client, nobody: httpx.Client, actor: str) -> None:
    new_run(joe, f"/v2/actors/{actor}/runs")
    store = f"/v2/actors/{actor}/runs/last/key-value-store"
    joe.put(f"{store}/records/a", content=b"1")
    secret = joe.get(store).json()["data"]["urlSigningSecretKey"]
    path = f"{store}/records/a"
    assert nobody.get(path, params={"signature": sign_record(secret, "a")}).content == b"1"
    assert nobody.get(path).status_code == 403


@pytest.mark.parametrize("params", [{"status": "DONE"}, {"origin": "MOON"}])
def test_senseless_runs_are_refused(joe: httpx.Client, actor: str, params: dict[str, str]) -> None:
    assert error_type(joe.post(f"/v2/actors/{actor}/runs", params=params)) == (400, "invalid-input")


def test_runs_need_a_token(nobody: httpx.Client, actor: str) -> None:
    assert error_type(nobody.post(f"/v2/actors/{actor}/runs")) == (401, "token-not-provided")


def test_users_are_known_by_id_and_name(joe: httpx.Client, ann: httpx.Client, nobody: httpx.Client) -> None:
    me = ann.get("/v2/users/me").json()["data"]
    for client in (joe, nobody):
        for reference in ("ann", me["id"]):
            user = client.get(f"/v2/users/{reference}").json()["data"]
            assert (user["username"], user["id"]) == ("ann", me["id"])
    assert error_type(joe.get("/v2/users/eve")) == (404, "record-not-found")
