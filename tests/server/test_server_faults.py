"""Fault rules: which request is struck, in pure form and on the wire."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from kvsfs.server.testing.faults import Reset, Rule, Rules, Status, parse_rule
from tests.server.test_server_process import connected, new_store
from tests.support.serving import RunningServer, running_server

CONTENT = bytes(range(256)) * 400


def test_a_rule_strikes_after_skipping_and_so_often() -> None:
    rules = Rules()
    first = rules.add(Rule(Status(503), method="GET", path="/v2/*/records/a*", skip=1, count=2))
    rules.add(Rule(Reset(), path="*/keys"))

    def struck(method: str, path: str) -> object:
        return rules.action(method, path)

    assert struck("PUT", "/v2/key-value-stores/s/records/a") is None
    assert struck("GET", "/v2/key-value-stores/s/records/b") is None
    expected = [None, Status(503), Status(503), None, None]
    assert [struck("GET", "/v2/key-value-stores/s/records/ab") for _ in expected] == expected
    assert struck("DELETE", "/v2/key-value-stores/s/keys") == Reset()
    assert [rule.seen for rule in rules.by_id.values()] == [5, 1]
    assert first in rules.by_id


def test_the_first_rule_that_strikes_has_the_request() -> None:
    rules = Rules()
    rules.add(Rule(Status(503), count=1))
    rules.add(Rule(Status(429)))
    assert [rules.action("GET", "/") for _ in range(2)] == [Status(503), Status(429)]


def test_rules_are_read_from_json() -> None:
    content = {
        "method": "PUT",
        "path": "*x",
        "skip": 2,
        "count": 1,
        "action": {"kind": "reset", "received": 0},
    }
    assert parse_rule(content) == Rule(Reset(received=0), "PUT", "*x", 2, 1)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"action": "reset"},
        {"action": {"kind": "explode"}},
        {"action": {"kind": "reset", "before": 1}},
        {"action": {"kind": "length"}},
        {"action": {"kind": "reset"}, "skip": -1},
        {"action": {"kind": "reset"}, "count": "2"},
        {"action": {"kind": "reset"}, "often": 2},
        {"action": {"kind": "status", "status": 100}},
        {"action": {"kind": "status", "status": "503"}},
    ],
)
def test_senseless_rules_are_refused(content: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_rule(content)


@pytest.fixture(scope="module")
def testing_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("faults"), arguments=["--testing"]) as server:
        yield server


@pytest.fixture
def client(testing_server: RunningServer) -> Iterator[httpx.Client]:
    with connected(testing_server) as made:
        made.delete("/testing/faults")
        yield made


@pytest.fixture
def path(client: httpx.Client) -> str:
    """A record with CONTENT."""
    record = f"{new_store(client)}/records/a"
    assert client.put(record, content=CONTENT).status_code == 201
    return record


def fault(client: httpx.Client, method: str = "GET", **action: object) -> None:
    """Strike the next record request."""
    rule = {"method": method, "path": "*/records/*", "count": 1, "action": action}
    assert client.post("/testing/faults", json=rule).status_code == 201


def test_status_with_headers(client: httpx.Client, path: str) -> None:
    fault(client, "PUT", kind="status", status=429, headers={"Retry-After": "7"})
    answer = client.put(path, content=b"x" * 1_000_000)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
    assert answer.json()["error"]["type"] == "testing-error"
    assert client.get(path).content == CONTENT


def test_rules_are_listed_and_lifted(client: httpx.Client, path: str) -> None:
    fault(client, kind="status", status=503)
    rule = client.get("/testing/faults").json()["data"]["items"][0]
    assert (rule["seen"], rule["count"], rule["action"]["status"]) == (0, 1, 503)
    assert client.delete(f"/testing/faults/{rule['id']}").status_code == 204
    assert client.get(path).status_code == 200
    assert client.get("/testing/faults").json()["data"]["items"] == []
    refused = client.post("/testing/faults", json={"action": {}})
    assert (refused.status_code, refused.json()["error"]["type"]) == (400, "invalid-input")


def received_raw(client: httpx.Client, path: str) -> tuple[bytes, bool]:
    """Give what arrives on a socket, and whether a RST ended it."""
    url = client.base_url
    with socket.create_connection((url.host, url.port or 80), timeout=20) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {url.host}\r\n\r\n".encode())
        received = b""
        try:
            while piece := connection.recv(1 << 20):
                received += piece
        except ConnectionResetError:
            return received, True
        return received, False


@pytest.mark.parametrize("after", [0, 1, 1000, len(CONTENT) - 1])
def test_truncated_answers_end_early_with_the_right_length(
    client: httpx.Client, path: str, after: int
) -> None:
    fault(client, kind="truncate", after=after)
    received, was_reset = received_raw(client, path)
    head, _, body = received.partition(b"\r\n\r\n")
    assert not was_reset
    assert body == CONTENT[:after]
    if after:
        assert f"content-length: {len(CONTENT)}".encode() in head.splitlines()
    assert client.get(path).content == CONTENT


@pytest.mark.parametrize("after", [0, 1000])
def test_a_reset_after_some_bytes(client: httpx.Client, path: str, after: int) -> None:
    fault(client, kind="reset", after=after)
    received, was_reset = received_raw(client, path)
    assert was_reset
    assert received.partition(b"\r\n\r\n")[2] in (CONTENT[:after], b"")  # a RST may take bytes with it
    assert client.get(path).content == CONTENT


def test_a_reset_in_place_of_the_answer_comes_after_the_deed(client: httpx.Client, path: str) -> None:
    fault(client, "PUT", kind="reset")
    with pytest.raises(httpx.TransportError):
        client.put(path, content=b"new")
    assert client.get(path).content == b"new"


@pytest.mark.parametrize("received", [0, 500_000, 10_000_000])
def test_a_reset_of_an_upload_leaves_the_old_record(client: httpx.Client, path: str, received: int) -> None:
    fault(client, "PUT", kind="reset", received=received)
    with pytest.raises(httpx.TransportError):
        client.put(path, content=b"n" * 4_000_000)
    assert client.get(path).content == CONTENT


@pytest.mark.parametrize("by", [-10, -len(CONTENT), 10])
def test_a_wrong_length(client: httpx.Client, path: str, by: int) -> None:
    fault(client, kind="length", by=by)
    received, was_reset = received_raw(client, path)
    head, _, body = received.partition(b"\r\n\r\n")
    assert f"content-length: {len(CONTENT) + by}".encode() in head.splitlines()
    assert (body, was_reset) == (CONTENT, False)
    fault(client, "HEAD", kind="length", by=by)
    assert client.head(path).headers["content-length"] == str(len(CONTENT) + by)
    assert client.get(path).content == CONTENT


def test_garbage_is_no_http_and_nothing_is_done(client: httpx.Client, path: str) -> None:
    fault(client, "PUT", kind="garbage")
    with pytest.raises(httpx.RemoteProtocolError):
        client.put(path, content=b"new")
    assert client.get(path).content == CONTENT


def test_a_stall_lasts_until_the_client_goes(client: httpx.Client, path: str) -> None:
    fault(client, "DELETE", kind="stall")
    with pytest.raises(httpx.ReadTimeout):
        client.delete(path, timeout=0.3)
    assert client.get(path).content == CONTENT  # it was never done


def test_a_stall_may_pass(client: httpx.Client, path: str) -> None:
    fault(client, kind="stall", seconds=0.2)
    with pytest.raises(httpx.ReadTimeout):
        client.get(path, timeout=0.05)
    fault(client, kind="stall", seconds=0.05, after=1000)
    assert client.get(path).content == CONTENT


def test_a_stall_amid_the_body(client: httpx.Client, path: str) -> None:
    fault(client, kind="stall", after=1000)
    with client.stream("GET", path, timeout=0.3) as answer:
        pieces = answer.iter_raw()
        assert next(pieces) == CONTENT[:1000]
        with pytest.raises(httpx.ReadTimeout):
            next(pieces)


def test_the_request_log_is_read_and_counted(client: httpx.Client, path: str) -> None:
    client.delete("/testing/requests")
    client.get(path)
    client.get(f"{path}x", params={"signature": "hush"})
    logged = client.get("/testing/requests").json()["data"]
    assert [(r["method"], r["path"], r["status"]) for r in logged["items"]] == [
        ("GET", path, 200),
        ("GET", f"{path}x", 404),
    ]
    assert logged["count"] == 2
    assert client.get("/testing/requests", params={"since": 1}).json()["data"]["count"] == 1


def test_the_control_endpoint_needs_a_token_where_everything_does(tmp_path: Path) -> None:
    with running_server(tmp_path, tokens=["one=joe"], arguments=["--testing"]) as server:
        with connected(server) as nobody:
            assert nobody.get("/testing/requests").status_code == 401
            assert nobody.post("/testing/faults", json={}).status_code == 401
        with connected(server, "one") as joe:
            assert joe.get("/testing/requests").status_code == 200


def test_without_the_switch_there_is_no_control_endpoint(tmp_path: Path) -> None:
    with running_server(tmp_path) as server, connected(server) as client:
        for path in ("/testing/faults", "/testing/requests"):
            assert client.get(path).status_code == 404
