"""Several servers over one bucket: what one has answered the other knows, and whoever dies is made up for."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import brotli  # type: ignore[import-untyped] # ships no types
import httpx
import obstore
import pytest

from kvsfs.errors import ExitCode
from kvsfs.server.bucket.objects import PART_BYTES
from tests.support.buckets import BUCKET, S3
from tests.support.mounting import wait_until
from tests.support.serving import RunningServer, running_server, serve_command

TOKEN = "token-of-joe"
STORES = "/v2/key-value-stores"


@dataclass
class Fleet:
    """Servers over one place in the bucket, and a client of each."""

    s3: S3
    place: str
    folder: Path

    @contextmanager
    def server(self) -> Iterator[tuple[RunningServer, httpx.Client]]:
        with (
            running_server(
                self.folder, tokens=[f"{TOKEN}=joe"], arguments=self.s3.arguments(self.place)
            ) as server,
            httpx.Client(
                base_url=server.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30
            ) as client,
        ):
            yield server, client

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return serve(*self.s3.arguments(self.place), *arguments)

    def paths(self, below: str) -> list[str]:
        return self.s3.paths(self.place, below)


def serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(serve_command(*arguments), capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def fleet(s3: S3, tmp_path: Path) -> Fleet:
    return Fleet(s3, s3.place(), tmp_path / "unused")


@pytest.fixture
def two(fleet: Fleet) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    with ExitStack() as stack:
        (_, one), (_, other) = (stack.enter_context(fleet.server()) for _ in range(2))
        yield one, other


def made(client: httpx.Client, **params: str) -> str:
    answer = client.post(STORES, params=params)
    assert answer.status_code in (200, 201)
    return str(answer.json()["data"]["id"])


def keys(client: httpx.Client, store: str) -> list[str]:
    return [item["key"] for item in client.get(f"{STORES}/{store}/keys").json()["data"]["items"]]


def test_what_one_server_answered_the_other_has_at_once(two: tuple[httpx.Client, httpx.Client]) -> None:
    one, other = two
    store = made(one, name="shared")
    assert made(other, name="shared") == store
    for number in range(20):
        path = f"{STORES}/{store}/records/key-{number}"
        content = bytes([number]) * number
        assert one.put(path, content=content, headers={"Content-Type": "image/png"}).status_code == 201
        seen = other.get(path)
        assert (seen.content, seen.headers["content-type"]) == (content, "image/png")
        assert keys(other, store) == keys(one, store)
        assert other.get(path).headers["etag"] == one.get(path).headers["etag"]
    assert other.delete(f"{STORES}/{store}/records/key-7").status_code == 204
    assert one.get(f"{STORES}/{store}/records/key-7").status_code == 404
    assert "key-7" not in keys(one, store)


def test_the_counters_are_the_sum_of_both(two: tuple[httpx.Client, httpx.Client]) -> None:
    one, other = two
    store = made(one)
    for client in two:
        client.put(f"{STORES}/{store}/records/a", content=b"12345")
        client.get(f"{STORES}/{store}/records/a")

    def stats(client: httpx.Client) -> dict[str, int]:
        found: dict[str, int] = client.get(f"{STORES}/{store}").json()["data"]["stats"]
        return found

    wanted = {"readCount": 2, "writeCount": 2, "deleteCount": 0, "listCount": 0, "storageBytes": 5}
    wait_until(lambda: stats(one) == wanted)
    wait_until(lambda: stats(other) == wanted)


def test_changes_of_a_store_hold_at_the_other_within_a_second(
    two: tuple[httpx.Client, httpx.Client],
) -> None:
    one, other = two
    store = made(one, name="before")
    assert other.get(f"{STORES}/{store}").json()["data"]["name"] == "before"
    one.put(f"{STORES}/{store}", json={"name": "after", "generalAccess": "ANYONE_WITH_ID_CAN_READ"})
    wait_until(lambda: other.get(f"{STORES}/joe~after").status_code == 200)
    wait_until(lambda: other.get(f"{STORES}/joe~before").status_code == 404)
    one.put(f"{STORES}/{store}/records/a", content=b"x")
    with httpx.Client(base_url=other.base_url) as nobody:
        assert nobody.get(f"{STORES}/{store}/records/a").content == b"x"
        one.put(f"{STORES}/{store}", json={"generalAccess": "RESTRICTED"})
        wait_until(lambda: nobody.get(f"{STORES}/{store}/records/a").status_code == 403)
    one.delete(f"{STORES}/{store}")
    wait_until(lambda: other.get(f"{STORES}/{store}/records/a").status_code == 404)
    assert made(other, name="after") != store


def side_by_side(*calls: Callable[[], httpx.Response]) -> list[httpx.Response]:
    with ThreadPoolExecutor(len(calls)) as threads:
        return [future.result() for future in [threads.submit(call) for call in calls]]


def test_two_who_write_one_key_leave_one_whole_value(two: tuple[httpx.Client, httpx.Client]) -> None:
    store = made(two[0])
    path = f"{STORES}/{store}/records/contended"
    for number in range(10):
        values = [bytes([number, server]) * 40_000 for server in range(2)]
        types = ["text/plain", "image/png"]
        answers = side_by_side(
            *(
                partial(client.put, path, content=value, headers={"Content-Type": kind})
                for client, value, kind in zip(two, values, types, strict=True)
            )
        )
        assert [answer.status_code for answer in answers] == [201, 201]
        seen = [client.get(path) for client in two]
        assert seen[0].content == seen[1].content
        winner = values.index(seen[0].content)
        assert [answer.headers["content-type"] for answer in seen] == [types[winner]] * 2
        assert seen[0].headers["etag"] == answers[winner].headers["etag"]


def test_of_two_who_make_one_name_both_get_one_store(two: tuple[httpx.Client, httpx.Client]) -> None:
    for number in range(10):
        answers = side_by_side(
            *(partial(client.post, STORES, params={"name": f"n{number}"}) for client in two)
        )
        assert {answer.status_code for answer in answers} <= {200, 201}
        assert len({answer.json()["data"]["id"] for answer in answers}) == 1
    for client in two:
        assert client.get(STORES).json()["data"]["total"] == 10


def test_a_deletion_against_a_write_leaves_the_whole_record_or_none(
    two: tuple[httpx.Client, httpx.Client],
) -> None:
    one, other = two
    path = f"{STORES}/{made(one)}/records/a"
    for number in range(10):
        value = bytes([number]) * 1000
        answers = side_by_side(partial(one.put, path, content=value), partial(other.delete, path))
        assert [answer.status_code for answer in answers] == [201, 204]
        seen = [client.get(path) for client in two]
        assert seen[0].status_code == seen[1].status_code
        assert seen[0].status_code == 404 or seen[0].content == seen[1].content == value


def test_a_large_record_goes_in_parts_and_comes_back(fleet: Fleet) -> None:
    block = hashlib.sha256(b"large").digest() * 32768
    with fleet.server() as (_, client):
        path = f"{STORES}/{made(client)}/records/large"

        def body() -> Iterator[bytes]:
            yield from (block for _ in range(3 * PART_BYTES // len(block)))
            yield b"end"

        assert client.put(path, content=body()).status_code == 201
        assert client.get(path).content == block * (3 * PART_BYTES // len(block)) + b"end"
        middle = client.get(path, headers={"Range": f"bytes={PART_BYTES - 2}-{PART_BYTES + 1}"})
        assert (middle.status_code, middle.content) == (206, block[-2:] + block[:2])
        etag = client.head(path).headers["etag"]
        assert client.get(path, headers={"If-None-Match": etag}).status_code == 304

        def broken() -> Iterator[bytes]:
            yield from (block for _ in range(2 * PART_BYTES // len(block)))
            raise InterruptedError

        with pytest.raises(InterruptedError):
            client.put(path, content=broken())
        assert client.head(path).headers["etag"] == etag


def test_a_deletion_is_finished_by_the_next_server(fleet: Fleet) -> None:
    with fleet.server() as (_, client):
        store = made(client, name="doomed")
        for number in range(3):
            client.put(f"{STORES}/{store}/records/{number}", content=b"x")
    opened = fleet.s3.opened(fleet.place)
    obstore.put(opened, f"doomed/{store}", b"null")  # as far as a server came that was killed then
    with fleet.server() as (_, client):
        wait_until(lambda: fleet.paths(f"records/{store}") == [])
        wait_until(lambda: fleet.paths("doomed") == [])
        assert client.get(f"{STORES}/{store}").status_code == 404
        assert made(client, name="doomed") != store


def test_a_check_finds_what_is_damaged_and_clears_what_is_nobodys(fleet: Fleet) -> None:
    with fleet.server() as (_, client):
        store = made(client)
        for key in ("sound", "damaged"):
            client.put(f"{STORES}/{store}/records/{key}", content=key.encode())
    assert fleet.command("--check").stdout == "2 records, 0 faults, 0 orphans removed\n"
    obstore.put(fleet.s3.opened(fleet.place), "records/nobodys/record", b"x")
    ended = fleet.command("--check")
    assert (ended.returncode, ended.stdout) == (0, "2 records, 0 faults, 1 orphans removed\n")
    assert fleet.paths("records/nobodys") == []


def test_everything_moves_to_a_bucket_and_back(fleet: Fleet, tmp_path: Path) -> None:
    data, back = tmp_path / "data", tmp_path / "back"
    with running_server(data, tokens=[f"{TOKEN}=joe"]) as server, client_of(server) as client:
        stores = [made(client, name="named"), made(client)]
        for store in stores:
            for number in range(30):
                headers = {"Content-Type": "text/x", **({"Content-Encoding": "br"} if number == 7 else {})}
                content = bytes([number]) * number * 1000
                content = brotli.compress(content) if number == 7 else content
                client.put(f"{STORES}/{store}/records/{number}", content=content, headers=headers)
        client.put(f"{STORES}/{stores[0]}", json={"title": "A title"})
        run = client.post("/v2/actors/joe~scraper/runs").json()["data"]["id"]
        before = everything(client, stores, run)
    copied = serve("--data", str(data), "--copy-to", fleet.place, *options(fleet))
    assert (copied.returncode, copied.stderr) == (0, "")
    assert copied.stdout == "3 stores, 60 records copied and read back (836 KiB), 0 there already\n"
    again = serve("--data", str(data), "--copy-to", fleet.place, *options(fleet))
    assert again.stdout == "3 stores, 0 records copied and read back (0 B), 60 there already\n"
    with fleet.server() as (_, client):
        assert everything(client, stores, run) == before
    assert fleet.command("--copy-to", f"file://{back}").returncode == 0
    with running_server(back, tokens=[f"{TOKEN}=joe"]) as server, client_of(server) as client:
        assert everything(client, stores, run) == before
    assert serve("--data", str(back), "--check").stdout == "60 records, 0 faults, 0 orphans removed\n"


def client_of(server: RunningServer) -> httpx.Client:
    return httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30)


def options(fleet: Fleet) -> list[str]:
    return [argument for argument in fleet.s3.arguments(fleet.place) if "option" in argument]


def everything(client: httpx.Client, stores: list[str], run: str) -> list[object]:
    """What clients see of the stores and their records, without counters and times of change."""
    found: list[object] = [client.get(f"/v2/actor-runs/{run}").json()["data"]["defaultKeyValueStoreId"]]
    for store in stores:
        told = client.get(f"{STORES}/{store}").json()["data"]
        found.append(
            {name: told[name] for name in ("id", "name", "title", "createdAt", "urlSigningSecretKey")}
        )
        found.append(client.get(STORES, params={"unnamed": "1"}).json()["data"]["total"])
        for key in keys(client, store):
            answer = client.get(f"{STORES}/{store}/records/{key}", headers={"Accept-Encoding": "br"})
            described = (answer.headers["content-type"], answer.headers.get("content-encoding"))
            found.append((key, *described, answer.headers["content-length"], answer.content))
    return found


@pytest.mark.parametrize(
    ("place", "changed", "code", "said"),
    [
        ("s3://no-such-bucket/x", {}, ExitCode.USAGE, "there is no such bucket"),
        (f"s3://{BUCKET}/x", {"endpoint": "http://127.0.0.1:1"}, ExitCode.UNREACHABLE, "cannot be reached"),
        (f"s3://{BUCKET}/x", {"colour": "red"}, ExitCode.USAGE, "'colour' is not valid"),
        ("ftp://x/y", {}, ExitCode.USAGE, "say s3://BUCKET/PREFIX"),
        ("s3:///x", {}, ExitCode.USAGE, "s3:///x"),
    ],
)
def test_what_cannot_be_used_says_why(
    s3: S3, place: str, changed: dict[str, str], code: int, said: str
) -> None:
    given = {**s3.options, **changed}
    ended = serve(
        "--records",
        place,
        "--port",
        "0",
        *(f"--records-option={key}={value}" for key, value in given.items()),
    )
    assert ended.returncode == code, ended.stderr
    assert said in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert "hush" not in ended.stderr


def test_without_obstore_the_command_says_what_to_install(tmp_path: Path) -> None:
    hidden = "import sys; sys.modules['obstore'] = None; from kvsfs.cli import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", hidden, "serve", "--records", "s3://x/y", "--data", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == ExitCode.USAGE
    assert "pip install 'kvsfs[records]'" in ended.stderr


def test_a_file_url_means_a_data_folder(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    url = folder.as_uri()
    with running_server(tmp_path / "unused", arguments=["--records", url]) as server:
        store = httpx.post(f"{server.url}{STORES}").json()["data"]["id"]
        httpx.put(f"{server.url}{STORES}/{store}/records/a", content=b"x")
    assert serve("--data", str(folder), "--check").stdout.startswith("1 records, 0 faults")
    assert not (tmp_path / "unused").exists()
