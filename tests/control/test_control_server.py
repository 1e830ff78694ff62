"""The control socket: found by its mount point, for one user, and unharmed by whoever connects."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from kvsfs.control import server as server_module
from kvsfs.control import wire
from kvsfs.control.client import Connection
from kvsfs.control.server import Answer, ControlServer, Tell
from kvsfs.errors import CommandError, ExitCode

MOUNT_POINT = "/some/mount"


async def echo(arguments: wire.Arguments, _tell: Tell) -> Answer:
    return Answer(dict(arguments))


async def count(_arguments: wire.Arguments, tell: Tell) -> Answer:
    for number in range(3):
        await tell({"number": number})
    return Answer({})


async def refuse(_arguments: wire.Arguments, _tell: Tell) -> Answer:
    raise CommandError(ExitCode.BUSY, "it is open: https://x/records/a?signature=abc123")


async def fail(_arguments: wire.Arguments, _tell: Tell) -> Answer:
    raise RuntimeError("a bug")


async def hand_over(_arguments: wire.Arguments, _tell: Tell) -> Answer:
    reader, writer = os.pipe()
    os.write(writer, b"bytes")
    os.close(writer)
    return Answer({"size": 5}, fd=reader)


COMMANDS = {"echo": echo, "count": count, "refuse": refuse, "fail": fail, "fd": hand_over}


@asynccontextmanager
async def listening(folder: Path) -> AsyncIterator[ControlServer]:
    server = ControlServer(str(folder), MOUNT_POINT, COMMANDS)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        yield server
        nursery.cancel_scope.cancel()


def with_server(folder: Path, test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        with trio.fail_after(30):
            async with listening(folder):
                await test()

    trio.run(main)


def connection(folder: Path) -> Connection:
    return Connection(str(folder), wire.socket_name(MOUNT_POINT))


async def ask(folder: Path, command: str, **arguments: Any) -> dict[str, Any]:
    def run() -> dict[str, Any]:
        with connection(folder) as made:
            return made.ask(command, **arguments)

    return await trio.to_thread.run_sync(run)


async def send_raw(folder: Path, request: bytes) -> bytes:
    """Send bytes, and no more; all that comes back."""
    stream = await _open(folder)
    async with stream:
        await stream.send_all(request)
        await stream.send_eof()
        found = b""
        while piece := await stream.receive_some():
            found += piece
        return found


async def _open(folder: Path) -> trio.SocketStream:
    with wire.address(str(folder), wire.socket_name(MOUNT_POINT)) as address:
        return await trio.open_unix_socket(address)


def test_an_answer_and_what_it_is_asked_with(tmp_path: Path) -> None:
    name = os.fsdecode(b"dir/\xff\n\xc3\xa4")

    async def test() -> None:
        assert await ask(tmp_path, "echo", path=name) == {"path": name}

    with_server(tmp_path, test)


def test_progress_comes_before_the_answer(tmp_path: Path) -> None:
    async def test() -> None:
        told: list[object] = []
        with connection(tmp_path) as made:
            await trio.to_thread.run_sync(lambda: made.ask("count", told.append))
        assert told == [{"number": 0}, {"number": 1}, {"number": 2}]

    with_server(tmp_path, test)


def test_an_error_has_its_exit_code_and_no_signature(tmp_path: Path) -> None:
    async def test() -> None:
        with pytest.raises(CommandError) as caught:
            await ask(tmp_path, "refuse")
        assert caught.value.exit_code is ExitCode.BUSY
        assert str(caught.value) == "it is open: https://x/records/a?signature=***"

    with_server(tmp_path, test)


def test_a_descriptor_is_handed_over(tmp_path: Path) -> None:
    async def test() -> None:
        with connection(tmp_path) as made:
            assert await trio.to_thread.run_sync(made.ask, "fd") == {"size": 5}
            (fd,) = made.fds
        assert os.read(fd, 100) == b"bytes"
        os.close(fd)

    with_server(tmp_path, test)


BROKEN = {
    "nothing": b"",
    "no newline": b'{"command": "echo"}',
    "no JSON": b"GET / HTTP/1.1\r\n",
    "no object": b"[1]\n",
    "no command": b"{}\n",
    "an unknown command": b'{"command": "rm -rf"}\n',
    "no string": b'{"command": []}\n',
    "arguments of another kind": b'{"command": "echo", "arguments": [1]}\n',
    "deep nesting": b"[" * 60_000 + b"\n",
    "no UTF-8": b'\xff\xfe{"command": "echo"}\n',
    "a line without end": b"x" * (wire.LONGEST_REQUEST + 10),
}


def test_broken_requests_are_refused_and_the_server_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        for request in BROKEN.values():
            answer = await send_raw(tmp_path, request)
            assert b'"exit_code": 2' in answer, request[:50]
        assert await ask(tmp_path, "echo", a=1) == {"a": 1}

    with_server(tmp_path, test)
    assert [r for r in caplog.records if r.levelname in ("WARNING", "ERROR")] == []


def test_a_bug_in_a_command_is_logged_and_ends_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        with pytest.raises(CommandError) as caught:
            await ask(tmp_path, "fail")
        assert caught.value.exit_code is ExitCode.NO_ANSWER
        assert await ask(tmp_path, "echo", a=1) == {"a": 1}

    with_server(tmp_path, test)
    assert "a control connection failed" in caplog.text


def test_whoever_says_nothing_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "REQUEST_SECONDS", 0.05)

    async def test() -> None:
        async with await _open(tmp_path) as stream:
            assert await stream.receive_some() == b""

    with_server(tmp_path, test)


def test_whoever_takes_no_answer_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "ANSWER_SECONDS", 0.05)
    large = "x" * (wire.LONGEST_REQUEST - 100)
    ended = trio.Event()

    async def repeat(_arguments: wire.Arguments, tell: Tell) -> Answer:
        try:
            for _ in range(1000):
                await tell({"text": large})
        finally:
            ended.set()
        return Answer({})

    monkeypatch.setitem(COMMANDS, "repeat", repeat)

    async def test() -> None:
        async with await _open(tmp_path) as stream:
            await stream.send_all(wire.encode({"command": "repeat"}))
            await ended.wait()

    with_server(tmp_path, test)


def test_more_connections_than_anybody_needs_are_closed(tmp_path: Path) -> None:
    async def test() -> None:
        streams = [await _open(tmp_path) for _ in range(server_module.MOST_CONNECTIONS)]
        await trio.testing.wait_all_tasks_blocked(0.01)
        async with await _open(tmp_path) as one_more:
            assert await one_more.receive_some() == b""
        for stream in streams:
            await stream.aclose()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert await ask(tmp_path, "echo", a=1) == {"a": 1}

    with_server(tmp_path, test)


def test_another_user_is_not_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        assert b"result" in await send_raw(tmp_path, wire.encode({"command": "echo"}))
        monkeypatch.setattr(server_module, "_peer_uid", lambda _peer: os.getuid() + 1)
        with pytest.raises(trio.BrokenResourceError):  # reset: its request was not even read
            await send_raw(tmp_path, wire.encode({"command": "echo"}))

    with_server(tmp_path, test)


def test_the_socket_is_the_users_alone_and_goes_with_the_server(tmp_path: Path) -> None:
    path = tmp_path / wire.socket_name(MOUNT_POINT)

    async def test() -> None:
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    with_server(tmp_path, test)
    assert not path.exists()


def test_a_killed_daemons_socket_is_replaced_and_a_newer_one_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / wire.socket_name(MOUNT_POINT)
    with socket.socket(socket.AF_UNIX) as dead, wire.address(str(tmp_path), path.name) as address:
        dead.bind(address)
    assert path.exists()

    async def test() -> None:
        assert await ask(tmp_path, "echo", a=1) == {"a": 1}
        async with listening(tmp_path):  # a second daemon at the same place, while the first one drains
            assert await ask(tmp_path, "echo", a=2) == {"a": 2}

    with_server(tmp_path, test)


def test_a_folder_whose_path_is_longer_than_a_sockets_may_be(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 150)
    folder.mkdir()

    async def test() -> None:
        assert await ask(folder, "echo", a=1) == {"a": 1}

    with_server(folder, test)


def test_without_a_place_for_it_the_mount_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        await ControlServer(str(tmp_path / "missing"), MOUNT_POINT, COMMANDS).run()

    trio.run(main)
    assert "no control socket" in caplog.text
