"""`kvsfs serve` as a process: start, stop, crash, what it logs, what it needs."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from kvsfs.errors import ExitCode
from kvsfs.server.values import SMALL_BYTES
from tests.support.serving import STOP_SECONDS, RunningServer, running_server, serve_command

STORES = "/v2/key-value-stores"

MIB = 1024 * 1024

LARGE = SMALL_BYTES + 1
"""Bytes of a value that has a file of its own."""


@contextlib.contextmanager
def connected(server: RunningServer, token: str | None = None) -> Iterator[httpx.Client]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=30) as client:
        yield client


def new_store(client: httpx.Client, name: str = "test") -> str:
    return f"{STORES}/{client.post(STORES, params={'name': name}).json()['data']['id']}"


def failing(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        serve_command(*arguments),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, **environment},
    )


def value_files(data: Path) -> list[Path]:
    return [path for path in (data / "values").rglob("*") if path.is_file()]


def peak_rss(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    match = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert match is not None
    return int(match.group(1)) * 1024


def test_records_outlive_a_restart(tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as server, connected(server) as client:
        store = new_store(client)
        etag = client.put(f"{store}/records/a", content=b"x" * 100_000).headers["etag"]
        assert server.stop() == 0
    with running_server(tmp_path / "data") as server, connected(server) as client:
        answer = client.get(f"{store}/records/a")
        assert (answer.content, answer.headers["etag"]) == (b"x" * 100_000, etag)
        assert new_store(client) == store
        assert client.get(store).json()["data"]["stats"]["writeCount"] == 1


def test_acknowledged_writes_outlive_kill_9(tmp_path: Path) -> None:
    for round_number in range(3):
        with running_server(tmp_path / "data") as server, connected(server) as client:
            store = new_store(client)
            for number in range(round_number * 10):
                expected = 404 if number % 2 else 200
                answer = client.get(f"{store}/records/key{number}")
                assert answer.status_code == expected
                assert expected == 404 or answer.content == b"%d" % number
            for number in range(round_number * 10, round_number * 10 + 10):
                assert client.put(f"{store}/records/key{number}", content=b"%d" % number).status_code == 201
                if number % 2:
                    assert client.delete(f"{store}/records/key{number}").status_code == 204
            server.kill()


def test_no_value_file_is_left_behind(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running_server(data) as server, connected(server) as client:
        store = new_store(client)
        for number in range(5):
            client.put(f"{store}/records/a", content=b"%d" % number * LARGE)
        assert len(value_files(data)) == 1
        client.put(f"{store}/records/b", content=b"b" * LARGE)
        client.delete(f"{store}/records/a")
        assert len(value_files(data)) == 1
        client.put(f"{store}/records/b", content=b"small")
        assert value_files(data) == []
        client.put(f"{store}/records/b", content=b"b" * LARGE)
        assert len(value_files(data)) == 1
        client.delete(store)
        assert value_files(data) == []


def test_no_small_value_is_left_behind(tmp_path: Path) -> None:
    data = tmp_path / "data"

    def small_values() -> list[bytes]:
        with contextlib.closing(sqlite3.connect(data / "index.sqlite3")) as connection:
            return [row[0] for row in connection.execute("SELECT content FROM small_values ORDER BY content")]

    with running_server(data) as server, connected(server) as client:
        store = new_store(client)
        for content in (b"1", b"2", b"3" * SMALL_BYTES):
            client.put(f"{store}/records/a", content=content)
            assert client.get(f"{store}/records/a").content == content
            assert small_values() == [content]
        client.put(f"{store}/records/a", content=b"4" * (SMALL_BYTES + 1))
        assert (small_values(), len(value_files(data))) == ([], 1)
        client.put(f"{store}/records/a", content=b"5")
        client.put(f"{store}/records/b", content=b"6")
        assert (small_values(), value_files(data)) == ([b"5", b"6"], [])
        client.delete(f"{store}/records/a")
        assert small_values() == [b"6"]
        client.delete(store)
        assert small_values() == []


def test_an_upload_that_breaks_off_leaves_the_old_record(tmp_path: Path) -> None:
    data = tmp_path / "data"
    log = tmp_path / "log"
    with running_server(data, request_log=log) as server, connected(server) as client:
        store = new_store(client)
        client.put(f"{store}/records/a", content=b"old" * LARGE)
        before = len(server.requests())
        address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
        for framing in (b"Content-Length: 5000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n200000\r\n"):
            with socket.create_connection(address) as connection:
                head = f"PUT {store}/records/a HTTP/1.1\r\nHost: 127.0.0.1\r\n".encode()
                connection.sendall(head + framing + bytes(2 * MIB))
        wait_for(lambda: len(server.requests()) == before + 2)
        assert [request.status for request in server.requests()[before:]] == [400, 400]
        wait_for(lambda: len(value_files(data)) == 1)
        assert client.get(f"{store}/records/a").content == b"old" * LARGE
        assert client.get(store).json()["data"]["stats"]["writeCount"] == 1


def wait_for(condition: object) -> None:
    """Wait for a condition, up to a deadline."""
    assert callable(condition)
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


def test_large_records_stream_in_bounded_memory(tmp_path: Path) -> None:
    piece = random.Random(0).randbytes(MIB)
    size = 100 * MIB

    def body() -> Iterator[bytes]:
        for _ in range(100):
            yield piece

    with running_server(tmp_path / "data") as server, connected(server) as client:
        store = new_store(client)
        client.put(f"{store}/records/small", content=piece)
        before = peak_rss(server.pid)
        for headers in ({}, {"Content-Length": str(size)}):
            answer = client.put(f"{store}/records/a", content=body(), headers=headers)
            assert answer.status_code == 201
            received = 0
            with client.stream("GET", f"{store}/records/a") as stream:
                for number, chunk in enumerate(stream.iter_raw(MIB)):
                    assert chunk == piece, f"piece {number} differs"
                    received += len(chunk)
            assert received == size
        assert peak_rss(server.pid) - before < 30 * MIB


def test_a_bomb_is_decoded_in_bounded_memory(tmp_path: Path) -> None:
    import brotli  # type: ignore[import-untyped] # noqa: PLC0415

    size = 200 * MIB
    compressor = brotli.Compressor(quality=5)
    bomb = b"".join(compressor.process(bytes(MIB)) for _ in range(200)) + compressor.finish()
    assert len(bomb) < 10_000
    with running_server(tmp_path / "data") as server, connected(server) as client:
        store = new_store(client)
        client.put(f"{store}/records/a", content=bomb, headers={"Content-Encoding": "br"})
        before = peak_rss(server.pid)
        with client.stream("GET", f"{store}/records/a", headers={"Accept-Encoding": "identity"}) as stream:
            assert sum(len(chunk) for chunk in stream.iter_raw()) == size
        assert peak_rss(server.pid) - before < 30 * MIB


def test_every_request_is_in_the_log_when_its_answer_is_here(tmp_path: Path) -> None:
    with (
        running_server(tmp_path / "data", request_log=tmp_path / "log") as server,
        connected(server) as client,
    ):
        store = new_store(client)
        expected = [("POST", STORES, 201)]
        calls = [
            ("PUT", "a", 201),
            ("GET", "a", 200),
            ("HEAD", "a", 200),
            ("GET", "b", 404),
            ("DELETE", "a", 204),
        ]
        for number in range(20):
            for method, key, status in calls:
                content = bytes(number * 20_000) if method == "PUT" else None
                path = f"{store}/records/{key}"
                assert client.request(method, path, content=content).status_code == status
                expected.append((method, path, status))
                assert [(r.method, r.path, r.status) for r in server.requests()] == expected
        client.get(
            f"{store}/keys", params={"limit": "2", "prefix": "a b", "token": "hush", "signature": "hush"}
        )
        assert server.requests()[-1].query == {"limit": "2", "prefix": "a b"}
        assert "hush" not in (tmp_path / "log").read_text()


def test_latency_delays_every_answer(tmp_path: Path) -> None:
    with running_server(tmp_path / "data", latency="60ms") as server, connected(server) as client:
        store = new_store(client)
        for path in (store, f"{store}/keys", f"{store}/records/none", "/nowhere"):
            started = time.monotonic()
            client.get(path)
            assert time.monotonic() - started >= 0.06


def test_two_processes_share_one_folder(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with (
        running_server(data) as first,
        running_server(data) as second,
        connected(first) as one,
        connected(second) as other,
    ):
        store = new_store(one)
        assert new_store(other) == store
        failures: list[object] = []

        def write(client: httpx.Client, name: str) -> None:
            for number in range(40):
                for key in (f"{name}{number}", "shared"):
                    content = f"{name}{number}".encode() * (LARGE if number % 2 else 1)
                    answer = client.put(f"{store}/records/{key}", content=content)
                    if answer.status_code != 201:
                        failures.append(answer)

        writers = [threading.Thread(target=write, args=(c, n)) for c, n in ((one, "a"), (other, "b"))]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert failures == []
        keys = [i["key"] for i in one.get(f"{store}/keys").json()["data"]["items"]]
        assert keys == sorted([f"{name}{number}" for name in "ab" for number in range(40)] + ["shared"])
        shared = other.get(f"{store}/records/shared").content
        assert one.get(f"{store}/records/shared").content == shared
        assert shared in (b"a39" * LARGE, b"b39" * LARGE)
        assert other.get(store).json()["data"]["stats"]["writeCount"] == 160
        assert len(value_files(data)) == 41


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_stop_it_with_connections_open(tmp_path: Path, number: signal.Signals) -> None:
    with running_server(tmp_path / "data") as server, connected(server) as client:
        new_store(client)
        server.process.send_signal(number)
        assert server.process.wait(STOP_SECONDS) == 0


def test_a_stop_waits_for_nobody_for_ever(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running_server(data) as server, connected(server) as client:
        store = new_store(client)
        client.put(f"{store}/records/a", content=bytes(30 * MIB))
        address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
        with socket.create_connection(address) as reader, socket.create_connection(address) as writer:
            reader.sendall(f"GET {store}/records/a HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert reader.recv(100)  # and no more
            head = f"PUT {store}/records/b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n\r\n"
            writer.sendall(head.encode() + bytes(2 * MIB))
            wait_for(lambda: len(value_files(data)) == 2)
            assert server.stop() == 0
        assert len(value_files(data)) == 1


def test_others_on_the_machine_cannot_read_the_data(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o755)
    with running_server(data) as server, connected(server) as client:
        client.put(f"{new_store(client)}/records/a", content=b"x")
        modes = [path.stat().st_mode & 0o077 for path in data.rglob("*")]
    assert len(modes) >= 4
    assert set(modes) == {0}


def test_it_ends_when_its_parent_does(tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as server:
        assert server.process.stdin is not None
        server.process.stdin.close()
        assert server.process.wait(STOP_SECONDS) == 0


def test_a_port_in_use_is_told_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = failing("--data", str(tmp_path / "data"), "--port", str(port))
    assert ended.returncode == ExitCode.ADDRESS_IN_USE
    assert ended.stdout == ""
    assert re.fullmatch(rf"kvsfs: .*{port}.*\n", ended.stderr)


def test_an_unusable_data_folder_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "index.sqlite3").write_text(
        "this is no database, however long one reads it" * 100
    )
    for data in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "damaged"):
        ended = failing("--data", str(data), "--port", "0")
        assert ended.returncode == ExitCode.CACHE_UNUSABLE
        assert re.fullmatch(rf"kvsfs: .*{re.escape(str(data))}.*\n", ended.stderr)


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["--host", "0.0.0.0"], {}),
        (["--latency", "soon"], {}),
        (["--token", "secret one"], {}),
        (["--token", "=joe"], {}),
        (["--token", "secret=a~b"], {}),
        (["--token", "secret=a"], {"KVSFS_SERVE_TOKENS": "secret=b"}),
    ],
)
def test_bad_options_are_told_in_one_line(
    tmp_path: Path, arguments: list[str], environment: dict[str, str]
) -> None:
    ended = failing("--data", str(tmp_path), "--port", "0", *arguments, **environment)
    assert ended.returncode == ExitCode.USAGE
    assert re.fullmatch(r"kvsfs: .*\n", ended.stderr)
    assert "secret" not in ended.stderr


def test_tokens_of_both_kinds_are_known(tmp_path: Path) -> None:
    arguments = ["--token", "one=joe", "--token", "two"]
    with running_server(tmp_path / "data", tokens=["three=ann"], arguments=arguments) as server:
        for token, username in (("one", "joe"), ("two", "local"), ("three", "ann")):
            with connected(server, token) as client:
                assert client.get("/v2/users/me").json()["data"]["username"] == username
        with connected(server) as client:
            assert client.get("/v2/users/me").status_code == 401


def test_without_tokens_everyone_here_is_the_user_local(tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as server, connected(server, "whatever") as client:
        assert client.get("/v2/users/me").json()["data"]["username"] == "local"
        assert client.get("/v2/users/me", headers={"Host": "localhost:1"}).status_code == 200


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {"Origin": "https://evil.example"}, {"Origin": "null"}]
)
def test_without_tokens_foreign_web_pages_are_refused(tmp_path: Path, headers: dict[str, str]) -> None:
    with running_server(tmp_path / "data") as server, connected(server) as client:
        assert client.post(STORES, headers=headers).status_code == 403
        assert client.get("/v2/users/me", headers=headers).status_code == 403


def test_the_access_log_tells_no_secret(tmp_path: Path) -> None:
    command = serve_command(
        "--data", str(tmp_path / "data"), "--port", "0", "--verbose", "--exit-with-parent"
    )
    environment = {**os.environ, "KVSFS_SERVE_TOKENS": "hush=joe"}
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        httpx.get(f"{url}/v2/users/me", params={"token": "hush"})
        httpx.get(f"{url}{STORES}/%0Aforged%20line/keys", params={"signature": "hush", "prefix": "p"})
        process.terminate()
        _, errors = process.communicate(timeout=STOP_SECONDS)
    lines = errors.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("GET /v2/users/me 200 ")
    assert lines[1].startswith(f"GET {STORES}/%0Aforged%20line/keys?prefix=p 404 ")
    assert "hush" not in errors
