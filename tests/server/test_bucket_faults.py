"""An object store that fails: clients are told to come again, within bounds, and never get a wrong answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import obstore
import pytest

from kvsfs.server.bucket.objects import PART_BYTES
from tests.support.buckets import BUCKET, OPTIONS, S3
from tests.support.faulty_s3 import FaultyS3, Request, Rule, asked, faulty_s3
from tests.support.serving import RunningServer, running_server

STORES = "/v2/key-value-stores"

CONTENT = b"what was stored before"

LARGE = bytes(range(256)) * 4096
"""1 MiB: above what is read with its headers."""

BOUND_SECONDS = 25.0
"""Below what a mount waits for an answer; the server's own time-outs here are a second, with three tries more."""


@pytest.fixture(scope="module")
def proxy(s3: S3) -> Iterator[FaultyS3]:
    with faulty_s3(s3.url) as running:
        yield running


@pytest.fixture(scope="module")
def place(s3: S3) -> str:
    return s3.place()


@pytest.fixture(scope="module")
def server(proxy: FaultyS3, place: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    options = {**OPTIONS, "endpoint": proxy.url, "timeout": "1s"}
    arguments = ["--records", place, *(f"--records-option={key}={value}" for key, value in options.items())]
    with running_server(tmp_path_factory.mktemp("unused"), arguments=arguments) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as made:
        yield made


@pytest.fixture
def store(client: httpx.Client, proxy: FaultyS3) -> str:
    """A store's path, with records `small` and `large`."""
    assert proxy.rules == []
    path = f"{STORES}/{client.post(STORES).json()['data']['id']}"
    assert client.put(f"{path}/records/small", content=CONTENT).status_code == 201
    assert client.put(f"{path}/records/large", content=LARGE).status_code == 201
    return path


Ask = Callable[[], httpx.Response]


def about_records(client: httpx.Client, store: str) -> list[Ask]:
    return [
        lambda: client.get(f"{store}/records/small"),
        lambda: client.head(f"{store}/records/small"),
        lambda: client.get(f"{store}/records/large"),
        lambda: client.get(f"{store}/records/large", headers={"Range": "bytes=5-9"}),
        lambda: client.get(f"{store}/keys"),
        lambda: client.get(f"{store}/keys", params={"prefix": "sm"}),
        lambda: client.put(f"{store}/records/new", content=b"new"),
        lambda: client.put(f"{store}/records/new", content=LARGE),
        lambda: client.delete(f"{store}/records/small"),
    ]


def about_stores(client: httpx.Client, store: str) -> list[Ask]:
    return [
        lambda: client.get(store),
        lambda: client.get(STORES),
        lambda: client.post(STORES, params={"name": "another"}),
        lambda: client.put(store, json={"title": "another"}),
        lambda: client.delete(store),
        lambda: client.get(f"{STORES}/~another"),
    ]


def side_by_side(calls: list[Ask]) -> list[httpx.Response]:
    """Make them all at once, within the bound: time-outs and pauses are waited for together."""
    begun = time.monotonic()
    with ThreadPoolExecutor(len(calls)) as threads:
        answers = [future.result() for future in [threads.submit(call) for call in calls]]
    assert time.monotonic() - begun < BOUND_SECONDS
    return answers


def assert_told_to_come_again(answer: httpx.Response) -> None:
    assert answer.status_code == 503, (answer.request.method, answer.request.url, answer.content)
    assert int(answer.headers["retry-after"]) > 0
    assert answer.request.method == "HEAD" or answer.json()["error"]["type"] == "internal-server-error"
    assert BUCKET.encode() not in answer.content


def assert_all_is_as_it_was(client: httpx.Client, store: str) -> None:
    assert client.get(f"{store}/records/small").content == CONTENT
    assert client.get(f"{store}/records/large").content == LARGE
    items = client.get(f"{store}/keys").json()["data"]["items"]
    assert [(item["key"], item["size"]) for item in items] == [
        ("large", len(LARGE)),
        ("small", len(CONTENT)),
    ]
    assert client.get(f"{store}/records/new").status_code == 404


def test_a_few_faults_are_healed(client: httpx.Client, store: str, proxy: FaultyS3) -> None:
    for method in ("GET", "PUT", "POST"):  # POST: a deletion is a list of one
        with proxy.failing(Rule(asked(method), count=2, status=503, code="SlowDown")) as rule:
            assert client.get(f"{store}/records/small").content == CONTENT
            assert len(client.get(f"{store}/keys").json()["data"]["items"]) == 2
            assert client.put(f"{store}/records/new", content=b"new").status_code == 201
            assert client.get(f"{store}/records/new").content == b"new"
            assert client.delete(f"{store}/records/new").status_code == 204
            assert rule.struck == 2
    assert_all_is_as_it_was(client, store)


@pytest.mark.parametrize(
    ("status", "code"),
    [(503, "SlowDown"), (500, "InternalError"), (403, "AccessDenied"), (404, "NoSuchBucket"), (400, "Odd")],
)
def test_an_error_is_never_taken_for_an_answer(
    client: httpx.Client, store: str, proxy: FaultyS3, status: int, code: str
) -> None:
    calls = about_records(client, store)
    with proxy.failing(Rule(asked("*", "records|delete"), status=status, code=code)):
        answers = side_by_side(calls)
    with proxy.failing(Rule(asked("*"), status=status, code=code)):
        answers += side_by_side(about_stores(client, store))
    for answer in answers:
        assert_told_to_come_again(answer)
    assert_all_is_as_it_was(client, store)


def test_a_bucket_that_is_gone_is_not_an_empty_one(s3: S3, tmp_path: Path) -> None:
    """In truth, not by the proxy: what a HEAD says of it is what it says of a missing record."""
    own = f"{BUCKET}-gone"
    s3.make_bucket(own)
    with (
        running_server(tmp_path, arguments=s3.arguments(f"s3://{own}/x")) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        path = f"{STORES}/{client.post(STORES).json()['data']['id']}"
        assert client.put(f"{path}/records/a", content=CONTENT).status_code == 201
        s3.remove_bucket(own)
        calls: list[Ask] = [
            lambda: client.head(f"{path}/records/a"),
            lambda: client.get(f"{path}/records/a"),
            lambda: client.get(f"{path}/keys"),
            lambda: client.put(f"{path}/records/a", content=b"x"),
            lambda: client.delete(f"{path}/records/a"),
            lambda: client.get(path),
        ]
        for ask in calls:
            assert_told_to_come_again(ask())


def test_one_that_hangs_is_given_up_within_a_bound(client: httpx.Client, store: str, proxy: FaultyS3) -> None:
    with proxy.failing(Rule(asked("*", "records|delete"), hang=True)) as rule:
        for answer in side_by_side(about_records(client, store)):
            assert_told_to_come_again(answer)
        assert rule.struck > 0
    assert_all_is_as_it_was(client, store)


def test_a_body_that_breaks_off_comes_whole_or_is_cut(
    client: httpx.Client, store: str, proxy: FaultyS3
) -> None:
    with proxy.failing(Rule(asked("GET", "/records/"), count=1, cut_answer=300_000)) as rule:
        assert client.get(f"{store}/records/large").content == LARGE
        assert rule.struck == 1
    with proxy.failing(Rule(asked("GET", "/records/"), cut_answer=1000)):
        assert_told_to_come_again(client.get(f"{store}/records/large"))
    with (
        proxy.failing(Rule(asked("GET", "/records/"), count=1, cut_answer=900_000)),
        proxy.failing(Rule(asked("GET", "/records/"), cut_answer=1000)),
        pytest.raises(httpx.RemoteProtocolError),
    ):
        client.get(f"{store}/records/large")
    with proxy.failing(Rule(asked("GET", "/records/"), cut_answer=5)):
        assert_told_to_come_again(client.get(f"{store}/records/small"))
    with proxy.failing(Rule(asked("GET", "prefix="), cut_answer=200)):
        assert_told_to_come_again(client.get(f"{store}/keys"))
    with (
        proxy.failing(Rule(asked("GET", "/records/"), cut_answer=1000)),
        pytest.raises(httpx.RemoteProtocolError),
    ):
        client.get(f"{store}/records")  # the archive
    assert_all_is_as_it_was(client, store)


@pytest.mark.parametrize("headers", [{"Range": "bytes=2-5"}, {"If-None-Match": '"another"'}])
def test_a_record_replaced_between_its_headers_and_its_bytes_comes_as_the_new_one(
    client: httpx.Client, s3: S3, place: str, store: str, proxy: FaultyS3, headers: dict[str, str]
) -> None:
    name = f"records/{store.rpartition('/')[2]}/small"

    def replace() -> None:
        obstore.put(s3.opened(place), name, b"replaced meanwhile", attributes={"Content-Type": "image/png"})

    with proxy.failing(Rule(asked("GET", name), count=1, meanwhile=replace)) as rule:
        answer = client.get(f"{store}/records/small", headers=headers)
        assert rule.struck == 1
    assert answer.headers["content-type"] == "image/png"
    assert answer.content == (b"plac" if answer.status_code == 206 else b"replaced meanwhile")


def test_a_part_that_breaks_off_leaves_no_half_record(
    client: httpx.Client, store: str, proxy: FaultyS3
) -> None:
    value = LARGE * (2 * PART_BYTES // len(LARGE)) + b"end"
    rules = [
        Rule(asked("PUT", "partNumber=2"), cut_request=PART_BYTES // 2),
        Rule(asked("POST", "uploadId="), status=500, code="InternalError"),
        Rule(asked("POST", "uploads"), status=503, code="SlowDown"),
    ]
    for rule in rules:
        with proxy.failing(rule):
            assert_told_to_come_again(client.put(f"{store}/records/new", content=value))
            assert rule.struck > 0
        assert_all_is_as_it_was(client, store)
    with proxy.failing(Rule(asked("PUT", "partNumber=2"), count=1, cut_request=PART_BYTES // 2)) as rule:
        assert client.put(f"{store}/records/new", content=value).status_code == 201
        assert rule.struck == 1
    assert client.get(f"{store}/records/new").content == value


def test_a_deed_whose_answer_is_lost_is_done_once(client: httpx.Client, store: str, proxy: FaultyS3) -> None:
    with proxy.failing(Rule(asked("PUT", "/records/"), count=1, cut_answer=0)) as rule:
        assert client.put(f"{store}/records/new", content=b"new").status_code == 201
        assert rule.struck == 1
    with proxy.failing(Rule(asked("POST", "delete"), count=1, cut_answer=0)) as rule:
        assert client.delete(f"{store}/records/new").status_code in (204, 503)
        assert rule.struck == 1
    assert_all_is_as_it_was(client, store)


@pytest.mark.parametrize(
    "rule",
    [
        Rule(asked("PUT", "/stores/"), count=1, cut_answer=0),
        Rule(asked("PUT", "/stores/"), count=1, status=500, code="InternalError", done=True),
    ],
    ids=["reset", "a lie"],
)
def test_a_rename_whose_answer_is_lost_leaves_one_name(
    client: httpx.Client, proxy: FaultyS3, rule: Rule
) -> None:
    made = client.post(STORES, params={"name": "before"}).json()["data"]["id"]
    with proxy.failing(rule):
        answer = client.put(f"{STORES}/{made}", json={"name": "after"})
        assert rule.struck == 1
    if answer.status_code == 503:
        answer = client.put(f"{STORES}/{made}", json={"name": "after"})
    assert answer.status_code == 200
    assert client.get(f"{STORES}/~after").json()["data"]["id"] == made
    assert client.get(f"{STORES}/~before").status_code == 404
    assert client.delete(f"{STORES}/{made}").status_code == 204


def test_a_gateway_that_takes_only_bare_tags_renames_too(client: httpx.Client, proxy: FaultyS3) -> None:
    """Ceph's (16.2): `If-Match: "tag"` of a PUT is refused, `If-Match: tag` is compared."""
    made = client.post(STORES, params={"name": "quoted"}).json()["data"]["id"]

    def quoted(request: Request) -> bool:
        return request.method == "PUT" and 'if-match: "' in request.headers.lower()

    with proxy.failing(Rule(quoted, status=412, code="PreconditionFailed")) as rule:
        assert client.put(f"{STORES}/{made}", json={"name": "bare"}).status_code == 200
        assert rule.struck > 0
    assert client.get(f"{STORES}/~bare").json()["data"]["id"] == made
    with proxy.failing(Rule(asked("PUT", "/stores/"), status=412, code="PreconditionFailed")):
        assert_told_to_come_again(client.put(f"{STORES}/{made}", json={"title": "never"}))
