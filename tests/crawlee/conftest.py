"""A server for all; each test gets a home of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from kvsfs.errors import ExitCode
from tests.support.mounting import Sandbox
from tests.support.serving import RunningServer, running_server
from tests.support.store_api import StoreApi

TOKEN = "a-token-0123456789"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("server")
    options = ("--testing",)
    with running_server(
        folder / "data", tokens=[f"{TOKEN}=joe"], request_log=folder / "log", arguments=options
    ) as running:
        yield running


@pytest.fixture(scope="session")
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30) as made:
        yield made


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    return Sandbox(tmp_path / "sandbox")


@pytest.fixture
def store(client: httpx.Client) -> StoreApi:
    return StoreApi.create(client)


Command = Callable[..., tuple[str, str]]


@pytest.fixture
def command(sandbox: Sandbox, server: RunningServer) -> Command:
    """Run a command to its end; what it wrote to stdout and to stderr."""

    def run(
        *arguments: str | Path, code: ExitCode = ExitCode.OK, token: str | None = TOKEN
    ) -> tuple[str, str]:
        ended = sandbox.kvsfs(*map(str, arguments), token=token, APIFY_API_BASE_URL=server.url)
        assert ended.returncode == code, (ended.stdout, ended.stderr)
        return ended.stdout, ended.stderr

    return run


@pytest.fixture
def requests_of(server: RunningServer, store: StoreApi) -> Callable[[], list[str]]:
    """Give what was asked of the store since the last time: PUT, GET and so on, `LIST` for a listing."""
    seen = 0

    def new() -> list[str]:
        nonlocal seen
        before, seen = seen, len(server.requests())
        asked = [r for r in server.requests()[before:] if f"/{store.id}/" in r.path]
        return sorted("LIST" if r.path.endswith("/keys") else r.method for r in asked)

    return new
