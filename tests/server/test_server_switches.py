"""The other switches behind --testing: rates, pages, validators, redirects."""

from __future__ import annotations

import gzip
import re
import time
from pathlib import Path

import httpx
import pytest

from kvsfs.errors import ExitCode
from kvsfs.server.testing.rates import Buckets, Rates
from tests.server.test_server_process import STORES, connected, failing, new_store
from tests.support.serving import running_server


@pytest.mark.parametrize(
    "switch",
    [["--rate-limit", "5"], ["--page-limit", "5"], ["--no-validators"], ["--redirect-above", "1KiB"]],
)
def test_switches_are_refused_without_testing(tmp_path: Path, switch: list[str]) -> None:
    ended = failing("--data", str(tmp_path), "--port", "0", *switch)
    assert ended.returncode == ExitCode.USAGE
    assert re.fullmatch(r"kvsfs: .*add --testing\n", ended.stderr)


@pytest.mark.parametrize("text", ["0", "x", "1,2,3", ""])
def test_senseless_rates(tmp_path: Path, text: str) -> None:
    ended = failing("--data", str(tmp_path), "--port", "0", "--testing", "--rate-limit", text)
    assert ended.returncode == ExitCode.USAGE


def test_rates_are_read() -> None:
    assert (Rates.parse("60,200"), Rates.parse("7")) == (Rates(60, 200), Rates(7, 7))


def test_a_bucket_gives_a_seconds_worth_at_once_and_then_what_trickles_in() -> None:
    now = 100.0
    buckets = Buckets(lambda: now)
    assert [buckets.take("a", 4) for _ in range(5)] == [0, 0, 0, 0, 0.25]
    assert buckets.take("b", 4) == 0
    now += 0.25
    assert [buckets.take("a", 4) for _ in range(2)] == [0, 0.25]
    now += 100
    assert [buckets.take("a", 4) for _ in range(5)] == [0, 0, 0, 0, 0.25]


def test_the_rate_limit_is_the_stores_own_and_the_records_apart(tmp_path: Path) -> None:
    arguments = ["--testing", "--rate-limit", "2,5"]
    with running_server(tmp_path, arguments=arguments) as server, connected(server) as client:
        store, other = new_store(client, "one"), new_store(client, "two")
        records = [client.get(f"{store}/records/a") for _ in range(30)]
        refused = [answer for answer in records if answer.status_code == 429]
        assert 20 <= len(refused) <= 25
        assert {answer.headers["x-ratelimit-limit"] for answer in records} == {"5"}
        assert {answer.headers["retry-after"] for answer in refused} == {"1"}
        assert {answer.json()["error"]["type"] for answer in refused} == {"rate-limit-exceeded"}
        for path in (f"{store}/keys", f"{other}/records/a", other):
            answer = client.get(path)
            assert answer.status_code != 429
            assert answer.headers["x-ratelimit-limit"] == ("5" if "records" in path else "2")
        keys = [client.get(f"{store}/keys").status_code for _ in range(10)]
        assert keys.count(429) >= 7


def test_the_page_limit(tmp_path: Path) -> None:
    arguments = ["--testing", "--page-limit", "2"]
    with running_server(tmp_path, arguments=arguments) as server, connected(server) as client:
        store = new_store(client)
        for key in "abcde":
            client.put(f"{store}/records/{key}", content=b"")
        pages = [["a", "b"], ["c", "d"], ["e"]]
        start = None
        for expected in pages:
            params = {"limit": "1000"} if start is None else {"limit": "1000", "exclusiveStartKey": start}
            page = client.get(f"{store}/keys", params=params).json()["data"]
            assert [item["key"] for item in page["items"]] == expected
            assert page["limit"] == 2
            start = page["nextExclusiveStartKey"]
        assert start is None


def test_without_validators_no_version_has_a_name(tmp_path: Path) -> None:
    with (
        running_server(tmp_path, arguments=["--testing", "--no-validators"]) as server,
        connected(server) as client,
    ):
        path = f"{new_store(client)}/records/a"
        answers = [client.put(path, content=b"0123456789"), client.get(path), client.head(path)]
        for condition in ({"If-None-Match": "*"}, {"If-Modified-Since": "Mon, 23 Nov 2099 01:39:19 GMT"}):
            answers.append(client.get(path, headers=condition))
            assert answers[-1].status_code == 200
        ranged = client.get(path, headers={"Range": "bytes=1-2"})
        assert (ranged.status_code, ranged.content) == (206, b"12")
        whole = client.get(path, headers={"Range": "bytes=1-2", "If-Range": '"x"'})
        assert (whole.status_code, whole.content) == (200, b"0123456789")
        for answer in [*answers, ranged, whole]:
            assert not {"etag", "last-modified"} & set(answer.headers)


def test_large_records_are_redirected_to_a_signed_url(tmp_path: Path) -> None:
    arguments = ["--testing", "--redirect-above", "1KiB"]
    content = bytes(range(256)) * 1000
    with (
        running_server(tmp_path, tokens=["one=joe"], arguments=arguments) as server,
        connected(server, "one") as joe,
        httpx.Client(timeout=30) as nobody,
    ):
        store = new_store(joe)
        joe.put(f"{store}/records/small", content=content[:1024])
        joe.put(f"{store}/records/large", content=content, headers={"Content-Type": "image/png"})
        assert joe.get(f"{store}/records/small").status_code == 200
        assert joe.head(f"{store}/records/large").status_code == 200
        answer = joe.get(f"{store}/records/large")
        location = answer.headers["location"]
        assert (answer.status_code, answer.content) == (302, b"")
        assert httpx.URL(location).port != httpx.URL(server.url).port

        got = nobody.get(location)
        assert (got.status_code, got.content, got.headers["content-type"]) == (200, content, "image/png")
        ranged = nobody.get(location, headers={"Range": "bytes=5-9"})
        assert (ranged.status_code, ranged.content) == (206, content[5:10])
        assert nobody.get(location, headers={"Range": "bytes=999999-"}).status_code == 416
        assert nobody.get(location, headers={"Authorization": "Bearer one"}).status_code == 400
        assert joe.get(f"{store}/records/large", follow_redirects=True).content == content
        for forged in (
            location.replace("large", "small"),
            re.sub(r"Expires=\d+", f"Expires={int(time.time() * 1000) + 10**9}", location),
            re.sub(r"Expires=\d+", "Expires=", location),
            location.partition("?")[0],
        ):
            assert nobody.get(forged).status_code == 403
        assert nobody.put(location, content=b"").status_code == 405
        joe.delete(f"{store}/records/large")
        assert nobody.get(location).status_code == 404


def test_an_encoded_record_is_redirected_only_to_whom_it_can_be_given_as_stored(tmp_path: Path) -> None:
    arguments = ["--testing", "--redirect-above", "100"]
    content = bytes(1_000_000)
    with running_server(tmp_path, arguments=arguments) as server, connected(server) as client:
        path = f"{new_store(client)}/records/a"
        encoded = gzip.compress(content)
        client.put(path, content=encoded, headers={"Content-Encoding": "gzip"})
        plain = client.get(path, headers={"Accept-Encoding": "identity"})
        assert (plain.status_code, plain.content) == (200, content)
        answer = client.get(path, headers={"Accept-Encoding": "gzip"})
        assert answer.status_code == 302
        with client.stream(
            "GET", answer.headers["location"], headers={"Accept-Encoding": "identity"}
        ) as stored:
            assert b"".join(stored.iter_raw()) == encoded
            assert stored.headers["content-encoding"] == "gzip"


def test_control_and_objects_are_not_in_the_way_of_the_api(tmp_path: Path) -> None:
    with running_server(tmp_path, arguments=["--testing"]) as server, connected(server) as client:
        assert client.post(STORES).status_code == 201
        assert client.get("/testing/nothing").status_code == 404
