"""`kvsfs stores`: of an account and of this machine, asked before anything is deleted."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from kvsfs.errors import ExitCode
from tests.support.mounting import COMMAND_SECONDS, KVSFS, Sandbox
from tests.support.serving import RunningServer, running_server
from tests.support.store_api import StoreApi

TOKEN = "a-token-0123456789"

Command = Callable[..., str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("server"), tokens=[f"{TOKEN}=joe"]) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {TOKEN}"}) as made:
        yield made


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    return Sandbox(tmp_path / "sandbox")


@pytest.fixture
def stores(sandbox: Sandbox, server: RunningServer) -> Command:
    """Run `kvsfs stores`: what it printed, or the line that says why it did not."""

    def run(*words: str, code: ExitCode = ExitCode.OK) -> str:
        ended = sandbox.kvsfs("stores", *words, token=TOKEN, APIFY_API_BASE_URL=server.url)
        assert ended.returncode == code, ended.stderr
        if code == ExitCode.OK:
            return ended.stdout
        (line,) = ended.stderr.splitlines()
        return line

    return run


def test_the_stores_of_this_machine(sandbox: Sandbox) -> None:
    """Without a token, an account or a server that somebody has started."""

    def stores(*words: str, code: ExitCode = ExitCode.OK) -> str:
        ended = sandbox.kvsfs("stores", *words, APIFY_API_BASE_URL="http://127.0.0.1:9")
        assert ended.returncode == code, ended.stderr
        return ended.stdout if code == ExitCode.OK else ended.stderr

    assert stores("ls", "local:").split() == ["ID", "NAME", "SIZE", "MODIFIED", "TITLE"]
    first = json.loads(stores("create", "local:first", "--json"))
    stores("create", "local:")
    listed = stores("ls", "local:").splitlines()
    assert [line.split()[1] for line in listed] == ["NAME", "first"]
    assert listed[1].startswith(f"{first['id']}  first   0 B  ")
    names = [info["name"] for info in json.loads(stores("ls", "local:", "--unnamed", "--json"))]
    assert names == ["first", None]
    stores("rename", "local:first", "renamed", "--title", "T")
    told = json.loads(stores("info", "local:renamed", "--json"))
    assert told == first | {"name": "renamed", "title": "T", "modifiedAt": told["modifiedAt"]}
    assert stores("rm", "local:renamed", "--yes") == "local/renamed is deleted\n"
    assert stores("rm", "local:renamed", "--yes", code=ExitCode.NO_SUCH_STORE) == (
        "kvsfs: there is no store renamed on this machine: `kvsfs stores ls local:` lists those there are\n"
    )
    assert "1 to 63 letters" in stores("create", "local:a_b", code=ExitCode.INVALID_NAME)
    assert "`kvsfs stores info` describes it" in stores("ls", "local:first", code=ExitCode.USAGE)


@pytest.mark.parametrize(
    ("answer", "deleted"), [("y\n", True), ("n\n", False), ("\n", False), ("\x04", False)]
)
def test_who_is_asked_decides(
    sandbox: Sandbox, server: RunningServer, client: httpx.Client, answer: str, deleted: bool
) -> None:
    store = StoreApi.create(client, f"asked-{secrets.token_hex(4)}")
    ours, theirs = os.openpty()
    os.write(ours, answer.encode())
    ended = subprocess.run(
        [*KVSFS, "stores", "rm", store.id],
        env=sandbox.environment_with(TOKEN, APIFY_API_BASE_URL=server.url),
        stdin=theirs,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    os.close(ours)
    os.close(theirs)
    assert "with all its records (0 B)? [y/N]" in ended.stdout
    assert ended.returncode == (ExitCode.OK if deleted else ExitCode.NOT_CONFIRMED)
    assert ("nothing is deleted" in ended.stderr) == (not deleted)
    assert client.get(f"/v2/key-value-stores/{store.id}").status_code == (404 if deleted else 200)


def test_what_was_agreed_on_is_deleted_and_no_newer_runs_store(
    sandbox: Sandbox, server: RunningServer, client: httpx.Client
) -> None:
    actor = f"/v2/actors/joe~actor-{secrets.token_hex(4)}"

    def new_store() -> str:
        return str(client.post(f"{actor}/runs").raise_for_status().json()["data"]["defaultKeyValueStoreId"])

    first = new_store()
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [*KVSFS, "stores", "rm", f"actor:{actor.rpartition('/')[2]}"],
        env=sandbox.environment_with(TOKEN, APIFY_API_BASE_URL=server.url),
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    asked = b""
    while b"[y/N]" not in asked:
        asked += os.read(process.stdout.fileno(), 1000)
    assert first.encode() in asked
    second = new_store()
    os.write(ours, b"y\n")
    _, errors = process.communicate(timeout=COMMAND_SECONDS)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == ExitCode.NOT_CONFIRMED
    assert f"it is another store by now, {second}: nothing is done" in errors.decode()
    for store_id in (first, second):
        assert client.get(f"/v2/key-value-stores/{store_id}").status_code == 200


def test_a_table_for_people_and_json_for_programs(stores: Command, client: httpx.Client) -> None:
    name, title = f"shown-{secrets.token_hex(4)}", "Öl & [b]Wasser[/b]"
    store = StoreApi.create(client, name)
    store.put("a", b"x" * 2048)
    client.put(f"/v2/key-value-stores/{store.id}", json={"title": title}).raise_for_status()
    (line,) = [line for line in stores("ls").splitlines() if line.startswith(store.id)]
    assert line.split(maxsplit=6)[1:4] == [name, "2.0", "KiB"]
    assert line.endswith(title)
    (told,) = [info for info in json.loads(stores("ls", "--json")) if info["id"] == store.id]
    assert (told["name"], told["title"], told["username"]) == (name, title, "joe")
    assert told == json.loads(stores("info", name, "--json")) | {"accessedAt": told["accessedAt"]}
    assert "Secret" not in stores("info", name) + stores("info", name, "--json")


@pytest.mark.parametrize("command", [["info"], ["rename"], ["access"], ["rm", "--yes"]], ids=" ".join)
def test_a_store_that_is_none_says_what_forms_there_are(stores: Command, command: list[str]) -> None:
    more = ["new-name"] if command == ["rename"] else []
    told = stores(*command, "--", "x" * 64, *more, code=ExitCode.INVALID_SOURCE)
    assert "is not a store: give a store's ID, ~name or name (your own), user/name, run:RUN_ID" in told
    assert "there is no store" in stores(*command, "nobody/nothing", *more, code=ExitCode.NO_SUCH_STORE)


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("A" * 17, ExitCode.NO_SUCH_STORE),
        ("run:" + "A" * 17, ExitCode.NO_SUCH_RUN),
        ("actor:joe/nothing", ExitCode.NO_SUCH_RUN),
        ("task:joe/nothing", ExitCode.NO_SUCH_RUN),
    ],
)
def test_what_is_not_there_is_told(stores: Command, source: str, code: ExitCode) -> None:
    assert "there is no" in stores("info", source, code=code)
