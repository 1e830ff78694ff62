"""The servers for the API tests, over a folder and over a bucket; each test gets a store of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import httpx
import pytest

from tests.support.buckets import S3
from tests.support.serving import RunningServer, running_server
from tests.support.specification import check_answer

TOKENS = {"joe": "token-of-joe", "ann": "token-of-ann"}

Client = Callable[..., httpx.Client]


@pytest.fixture(scope="session", params=["folder", "bucket"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    tokens = [f"{token}={name}" for name, token in TOKENS.items()]
    folder = tmp_path_factory.mktemp("server")
    arguments: Sequence[str] = ()
    if request.param == "bucket":
        s3: S3 = request.getfixturevalue("s3")
        arguments = s3.arguments(s3.place())
    with running_server(
        folder / "data", tokens=tokens, request_log=folder / "log", arguments=arguments
    ) as running:
        yield running


@pytest.fixture(scope="session")
def client(server: RunningServer) -> Iterator[Client]:
    """Make clients for a user (or nobody) whose every answer is held against the specification."""
    clients: list[httpx.Client] = []

    def make(user: str | None = "joe") -> httpx.Client:
        headers = {"Authorization": f"Bearer {TOKENS[user]}"} if user else {}
        made = httpx.Client(
            base_url=server.url, headers=headers, timeout=30, event_hooks={"response": [check_answer]}
        )
        clients.append(made)
        return made

    yield make
    for made in clients:
        made.close()


@pytest.fixture(scope="session")
def joe(client: Client) -> httpx.Client:
    return client("joe")


@pytest.fixture(scope="session")
def ann(client: Client) -> httpx.Client:
    return client("ann")


@pytest.fixture(scope="session")
def nobody(client: Client) -> httpx.Client:
    return client(None)


@pytest.fixture
def store(joe: httpx.Client) -> str:
    """The path of a new store of joe's."""
    answer = joe.post("/v2/key-value-stores")
    assert answer.status_code == 201
    return f"/v2/key-value-stores/{answer.json()['data']['id']}"
