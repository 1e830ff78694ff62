"""Where the token is found, and how it changes in use."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import keyring
import pytest
import trio
from keyring.backend import KeyringBackend

from kvsfs import credentials
from kvsfs.credentials import Credential, Found
from kvsfs.errors import CommandError, ExitCode
from kvsfs.store.apify import ApifyStoreCollection
from tests.support.fault_server import answering, fault_server
from tests.support.running import run_async


class DesktopKeyring(KeyringBackend):
    """A desktop's keyring: open, without the entry, broken or locked."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.asked: list[tuple[str, str]] = []
        self.token: str | None = "of-the-keyring"
        self.error: Exception | None = None
        self.unlocked = threading.Event()
        self.unlocked.set()

    def get_password(self, service: str, username: str) -> str | None:
        self.asked.append((service, username))
        self.unlocked.wait(30)
        if self.error is not None:
            raise self.error
        return self.token

    def set_password(self, service: str, username: str, password: str) -> None:
        raise NotImplementedError

    def delete_password(self, service: str, username: str) -> None:
        raise NotImplementedError


@dataclass
class Machine:
    """A home and an environment without any token."""

    folder: Path
    patch: pytest.MonkeyPatch
    keyring: DesktopKeyring

    def token_file(self, content: str = "of-the-file\n", mode: int = 0o600) -> str:
        path = self.folder / "token"
        path.unlink(missing_ok=True)
        path.touch(mode=mode)
        path.chmod(mode)
        path.write_text(content)
        return str(path)

    def unit(self, content: str) -> None:
        (self.folder / "credentials").mkdir(exist_ok=True)
        (self.folder / "credentials" / "apify-token").write_text(content)
        self.patch.setenv("CREDENTIALS_DIRECTORY", str(self.folder / "credentials"))

    def cli_file(self, content: object) -> None:
        (self.folder / ".apify").mkdir(exist_ok=True)
        (self.folder / ".apify" / "auth.json").write_text(json.dumps(content))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    for variable in ("APIFY_TOKEN", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    before, own = keyring.get_keyring(), DesktopKeyring()
    keyring.set_keyring(own)
    yield Machine(tmp_path, monkeypatch, own)
    own.unlocked.set()
    keyring.set_keyring(before)


def find(token_file: str | None = None) -> Found | None:
    return run_async(lambda: credentials.find(token_file))


def test_the_most_deliberate_place_comes_first(machine: Machine) -> None:
    assert find() == Found("of-the-keyring", "the keyring entry of the Apify CLI")
    assert machine.keyring.asked == [("com.apify.cli", "token")]
    machine.cli_file({"token": "of-the-cli", "username": "joe"})
    assert find() == Found("of-the-cli", "~/.apify/auth.json")
    machine.unit("of-the-unit\n")
    assert find() == Found("of-the-unit", "systemd's credential apify-token")
    machine.patch.setenv("APIFY_TOKEN", "of-the-environment")
    assert find() == Found("of-the-environment", "APIFY_TOKEN")
    path = machine.token_file()
    assert find(path) == Found("of-the-file", path)
    assert len(machine.keyring.asked) == 1  # not where another place has one: it may be locked


def test_nothing_is_found(machine: Machine) -> None:
    machine.keyring.token = None
    machine.unit("\n")
    contents: list[object] = [{"username": "joe"}, {"token": 7}, {"token": ""}, [], "x"]
    for content in contents:
        machine.cli_file(content)
        assert find() is None


def test_a_keyring_that_is_locked_does_not_hang_the_mount(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    machine.keyring.unlocked.clear()
    monkeypatch.setattr(credentials, "KEYRING_SECONDS", 0.05)
    assert find() is None
    assert "the desktop's keyring has not answered for 0.05 s: is it locked?" in caplog.text


def test_a_keyring_that_fails_is_no_error(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    machine.keyring.error = RuntimeError("no D-Bus here, token=hush")
    with caplog.at_level("DEBUG", "kvsfs"):
        assert find() is None
    assert caplog.messages == ["the desktop's keyring cannot be asked: RuntimeError"]


@pytest.mark.parametrize(
    ("content", "mode", "told"),
    [
        ("x", 0o644, "can be read by others: chmod 600 "),
        ("x", 0o640, "can be read by others: chmod 600 "),
        (" \n", 0o600, " is empty"),
    ],
)
def test_a_named_file_that_cannot_be_used(machine: Machine, content: str, mode: int, told: str) -> None:
    with pytest.raises(CommandError) as caught:
        find(machine.token_file(content, mode))
    assert caught.value.exit_code == ExitCode.NO_TOKEN
    assert told in str(caught.value)


def test_a_token_shows_in_no_repr() -> None:
    found = Found("hush", "a place")
    assert "hush" not in repr(found) + repr(Credential(found)) + str(found)


class Source:
    """A place that has one token after the other, and fails where it has an error."""

    def __init__(self, *tokens: str | CommandError | None) -> None:
        self.left = list(tokens)

    async def read(self) -> Found | None:
        await trio.lowlevel.checkpoint()
        token = self.left.pop(0)
        if isinstance(token, CommandError):
            raise token
        return None if token is None else Found(token, "a place")


MOMENT = "2026-01-01T00:00:00.000Z"
STORE = {"id": "s", "userId": "u", "createdAt": MOMENT, "modifiedAt": MOMENT, "accessedAt": MOMENT}
REFUSED = answering(401, b'{"error": {"type": "user-or-token-not-found", "message": "unknown: first"}}')
ACCEPTED = answering(200, json.dumps({"data": STORE}).encode(), headers={"Content-Type": "application/json"})


@pytest.mark.parametrize(
    ("tokens", "sent", "told"),
    [
        (("second",), ["first", "second"], "a place has another, which is used from here on"),
        (("first",), ["first"], ""),
        ((None,), ["first"], ""),
        ((CommandError(ExitCode.NO_TOKEN, "the file is gone"),), ["first"], "no other: the file is gone"),
    ],
)
def test_a_refused_token_is_read_anew_once(
    tokens: tuple[str | CommandError | None, ...],
    sent: list[str],
    told: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        source = Source(*tokens)
        credential = Credential(Found("first", "a place"), source.read)
        steps = (REFUSED, ACCEPTED) if len(sent) == 2 else (REFUSED,)
        async with (
            fault_server(*steps) as server,
            ApifyStoreCollection(server.url, token=credential) as stores,
        ):
            if len(sent) == 2:
                info = await stores.store("s").get()
                assert info is not None
            else:
                for _ in range(2):  # the second time nothing is read: it has just been
                    with pytest.raises(Exception, match=r"unknown: \*\*\*"):
                        await stores.store("s").get()
            assert source.left == []
            seen = [e.headers["authorization"].removeprefix("Bearer ") for e in server.exchanges]
            assert list(dict.fromkeys(seen)) == sent

    with caplog.at_level("INFO", "kvsfs.credentials"):
        run_async(main)
    assert told in caplog.text
    assert "first" not in caplog.text
    assert "second" not in caplog.text


def test_of_many_that_are_refused_at_once_one_reads() -> None:
    async def main() -> None:
        source = Source("second")
        credential = Credential(Found("first", "a place"), source.read)
        renewed = []

        async def refused() -> None:
            renewed.append(await credential.is_renewed("first"))

        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(refused)
        assert renewed == [True] * 6
        assert credential.token == "second"
        assert credential.struck_out("first, second and third") == "***, *** and third"

    run_async(main)
