"""Servers with two users and a store of 2,500 keys, for the official clients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import pytest

from tests.support.buckets import S3
from tests.support.serving import RunningServer, running_server

TOKENS = {"joe": "token-of-joe", "ann": "token-of-ann"}

CROWD = [f"key-{number:04}" for number in range(2500)]
"""Keys of the crowded store, in the API's order: two full pages and a half."""


@dataclass(frozen=True)
class CrowdedStore:
    """A store with the records CROWD, each holding its key as text."""

    store_id: str
    keys_path: str


@dataclass(frozen=True)
class Habits:
    """What a server does that another does not."""

    arguments: tuple[str, ...]
    page_limit: int
    in_bucket: bool = False


PLAIN = Habits((), 1000)

# What the platform may do at any time: smaller pages, records on another host, no ETag.
AWKWARD = Habits(
    ("--testing", "--page-limit", "500", "--redirect-above", "20KiB", "--no-validators"), page_limit=500
)


BUCKET = Habits((), 1000, in_bucket=True)


@pytest.fixture(scope="session", params=[PLAIN, AWKWARD, BUCKET], ids=["plain", "awkward", "bucket"])
def habits(request: pytest.FixtureRequest) -> Habits:
    assert isinstance(request.param, Habits)
    return request.param


@pytest.fixture(scope="session")
def server(
    habits: Habits, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("clients")
    tokens = [f"{token}={name}" for name, token in TOKENS.items()]
    arguments: Sequence[str] = habits.arguments
    if habits.in_bucket:
        s3: S3 = request.getfixturevalue("s3")
        arguments = s3.arguments(s3.place())
    with running_server(
        folder / "data", tokens=tokens, request_log=folder / "log", arguments=arguments
    ) as running:
        yield running


@pytest.fixture(scope="session")
def crowded(server: RunningServer) -> CrowdedStore:
    headers = {"Authorization": f"Bearer {TOKENS['joe']}", "Content-Type": "text/plain; charset=utf-8"}
    with (
        httpx.Client(base_url=server.url, headers=headers, timeout=30) as http,
        ThreadPoolExecutor(8) as writers,
    ):
        store_id = str(http.post("/v2/key-value-stores", params={"name": "crowded"}).json()["data"]["id"])
        path = f"/v2/key-value-stores/{store_id}"

        def put(key: str) -> int:
            return http.put(f"{path}/records/{key}", content=key.encode()).status_code

        assert set(writers.map(put, CROWD)) == {201}
    return CrowdedStore(store_id, f"{path}/keys")
