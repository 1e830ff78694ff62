"""One server for all mounts; each test gets a store and a home of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.support.buckets import S3
from tests.support.mounting import Mounted, Sandbox, mounted_store
from tests.support.serving import RunningServer, running_server
from tests.support.store_api import StoreApi

TOKEN = "apify_api_hush0123456789"

Mount = Callable[..., AbstractContextManager[Mounted]]


@pytest.fixture(scope="session")
def token() -> str:
    return TOKEN


@pytest.fixture(scope="session")
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("server")
    tokens = [f"{TOKEN}=joe"]
    arguments: Sequence[str] = ()
    if request.config.getoption("--bucket"):
        s3: S3 = request.getfixturevalue("s3")
        arguments = s3.arguments(s3.place())
    with running_server(
        folder / "data", tokens=tokens, request_log=folder / "log", arguments=arguments
    ) as running:
        yield running


@pytest.fixture(scope="session")
def client(server: RunningServer) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=30) as made:
        yield made


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    return Sandbox(tmp_path / "sandbox")


@pytest.fixture
def store(client: httpx.Client) -> StoreApi:
    """A new store."""
    return StoreApi.create(client)


@pytest.fixture
def mount(sandbox: Sandbox, server: RunningServer, store: StoreApi) -> Mount:
    """Mount the test's store, by options."""
    return partial(mounted_store, sandbox, store.id, token=TOKEN, server=server)


@pytest.fixture
def mounted(mount: Mount) -> Iterator[Mounted]:
    """The test's store, mounted."""
    with mount() as found:
        yield found
