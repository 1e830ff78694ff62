"""Who may do what: tokens, owners, general access, signatures."""

from __future__ import annotations

import time

import httpx
import pytest

from kvsfs.signatures import sign_record, sign_storage
from tests.server.conftest import TOKENS


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["type"]


FORBIDDEN = (403, "insufficient-permissions")


@pytest.fixture
def secret(joe: httpx.Client, store: str) -> str:
    joe.put(f"{store}/records/a", content=b"1")
    joe.put(f"{store}/records/b", content=b"2")
    return str(joe.get(store).json()["data"]["urlSigningSecretKey"])


def test_tokens(nobody: httpx.Client, store: str) -> None:
    assert refusal(nobody.get("/v2/users/me")) == (401, "token-not-provided")
    assert refusal(nobody.put(f"{store}/records/a", content=b"")) == (401, "token-not-provided")
    wrong = {"Authorization": "Bearer wrong"}
    assert refusal(nobody.get(store, headers=wrong)) == (401, "invalid-token")
    assert nobody.get("/v2/users/me", params={"token": TOKENS["ann"]}).json()["data"]["username"] == "ann"
    assert nobody.get(store, params={"token": TOKENS["joe"]}).status_code == 200


@pytest.mark.usefixtures("secret")
@pytest.mark.parametrize("who", ["ann", "nobody"])
def test_a_store_is_its_owners(request: pytest.FixtureRequest, store: str, who: str) -> None:
    other: httpx.Client = request.getfixturevalue(who)
    for path in (store, f"{store}/keys", f"{store}/records/a"):
        assert refusal(other.get(path)) == FORBIDDEN
    assert other.head(f"{store}/records/a").status_code == 403


def test_nobody_else_writes_whatever_is_public(joe: httpx.Client, ann: httpx.Client, store: str) -> None:
    joe.put(store, json={"generalAccess": "ANYONE_WITH_NAME_CAN_READ"})
    assert refusal(ann.put(f"{store}/records/a", content=b"")) == FORBIDDEN
    assert refusal(ann.delete(f"{store}/records/a")) == FORBIDDEN
    assert refusal(ann.put(store, json={"title": "mine"})) == FORBIDDEN
    assert refusal(ann.delete(store)) == FORBIDDEN


@pytest.mark.usefixtures("secret")
@pytest.mark.parametrize(
    ("access", "by_id", "by_name"),
    [
        ("FOLLOW_USER_SETTING", 403, 403),
        ("RESTRICTED", 403, 403),
        ("ANYONE_WITH_ID_CAN_READ", 200, 403),
        ("ANYONE_WITH_NAME_CAN_READ", 200, 200),
    ],
)
def test_general_access(
    joe: httpx.Client,
    ann: httpx.Client,
    nobody: httpx.Client,
    store: str,
    access: str,
    by_id: int,
    by_name: int,
) -> None:
    name = f"public-{time.monotonic_ns()}"
    joe.put(store, json={"name": name, "generalAccess": access})
    named = f"/v2/key-value-stores/joe~{name}"
    for client in (ann, nobody):
        for suffix in ("", "/keys", "/records/a"):
            assert client.get(store + suffix).status_code == by_id
            assert client.get(named + suffix).status_code == by_name


def test_readers_of_a_public_store_get_nothing_that_signs(
    joe: httpx.Client, nobody: httpx.Client, store: str, secret: str
) -> None:
    joe.put(store, json={"generalAccess": "ANYONE_WITH_ID_CAN_READ"})
    for path in (store, f"{store}/keys"):
        text = nobody.get(path).text
        assert secret not in text
        assert "signature" not in text


def test_a_records_signature_opens_that_record(nobody: httpx.Client, store: str, secret: str) -> None:
    signature = {"signature": sign_record(secret, "a")}
    assert nobody.get(f"{store}/records/a", params=signature).content == b"1"
    assert nobody.head(f"{store}/records/a", params=signature).status_code == 200
    assert refusal(nobody.get(f"{store}/records/b", params=signature)) == FORBIDDEN
    assert refusal(nobody.get(f"{store}/keys", params=signature)) == FORBIDDEN
    assert refusal(nobody.get(store, params=signature)) == FORBIDDEN
    assert refusal(nobody.put(f"{store}/records/a", params=signature)) == (401, "token-not-provided")
    assert refusal(nobody.get(f"{store}/records/a", params={"signature": "x"})) == FORBIDDEN


def test_a_storages_signature_opens_its_keys_for_its_time(
    nobody: httpx.Client, store: str, secret: str
) -> None:
    store_id = store.rpartition("/")[2]
    now = int(time.time() * 1000)

    def keys(signature: str) -> httpx.Response:
        return nobody.get(f"{store}/keys", params={"signature": signature})

    assert keys(sign_storage(secret, store_id, None)).json()["data"]["count"] == 2
    assert keys(sign_storage(secret, store_id, now + 60_000)).status_code == 200
    assert refusal(keys(sign_storage(secret, store_id, now - 1))) == FORBIDDEN
    assert refusal(keys(sign_storage(secret, "another", None))) == FORBIDDEN
    assert refusal(keys(sign_storage("another", store_id, None))) == FORBIDDEN


def test_public_urls_work_without_a_token(
    joe: httpx.Client, nobody: httpx.Client, store: str, secret: str
) -> None:
    assert secret
    page = nobody.get(joe.get(store).json()["data"]["keysPublicUrl"]).json()["data"]
    assert [nobody.get(item["recordPublicUrl"]).content for item in page["items"]] == [b"1", b"2"]
