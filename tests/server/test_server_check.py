"""`kvsfs serve --check`, and files of users."""

from __future__ import annotations

import re
import sqlite3
import subprocess
from pathlib import Path

import pytest

from kvsfs.errors import ExitCode
from kvsfs.server.values import SMALL_BYTES
from tests.server.test_server_process import connected, failing, new_store, value_files
from tests.support.serving import running_server

SIZE = SMALL_BYTES + 1000


def checked(data: Path) -> subprocess.CompletedProcess[str]:
    return failing("--check", "--data", str(data))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with the records a to e of 1 to 5 times SIZE bytes."""
    folder = tmp_path / "data"
    with running_server(folder) as server, connected(server) as client:
        store = new_store(client)
        for number, key in enumerate("abcde", 1):
            headers = {"Content-Type": "text/plain", "Content-Encoding": "br"} if key == "b" else {}
            client.put(f"{store}/records/{key}", content=bytes(SIZE * number), headers=headers)
    return folder


def file_of(data: Path, size: int) -> Path:
    (found,) = [path for path in value_files(data) if path.stat().st_size == size]
    return found


def test_a_sound_folder_is_found_sound(data: Path) -> None:
    ended = checked(data)
    assert (ended.returncode, ended.stdout) == (0, "5 records, 0 faults, 0 orphans removed\n")


def test_every_fault_has_its_line(data: Path) -> None:
    file_of(data, SIZE).unlink()
    with file_of(data, 2 * SIZE).open("ab") as file:
        file.write(b"x")
    with file_of(data, 3 * SIZE).open("r+b") as file:
        file.write(b"x")
    orphan = data / "values" / "ab" / "abandoned"
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"")
    connection = sqlite3.connect(data / "index.sqlite3")
    connection.execute("UPDATE stores SET storage_bytes = 1")
    connection.commit()
    connection.close()

    ended = checked(data)

    assert ended.returncode == ExitCode.DATA_DAMAGED
    lines = ended.stdout.splitlines()
    expected = [
        rf"store \w{{17}}: it counts 1 bytes, its records have {15 * SIZE}",
        r"store \w{17}, record a: its value \w+ is missing",
        rf"store \w{{17}}, record b: its value \w+ has {2 * SIZE + 1} bytes instead of {2 * SIZE}",
        r"store \w{17}, record c: its value \w+ holds other bytes than were stored",
        r"5 records, 4 faults, 1 orphans removed",
    ]
    assert len(lines) == len(expected)
    for line, pattern in zip(lines, expected, strict=True):
        assert re.fullmatch(pattern, line)
    assert re.fullmatch(rf"kvsfs: {re.escape(str(data))} is damaged.*\n", ended.stderr)
    assert not orphan.exists()


def test_small_values_are_checked_too(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running_server(data) as server, connected(server) as client:
        store = new_store(client)
        for key in "abc":
            client.put(f"{store}/records/{key}", content=key.encode())
    connection = sqlite3.connect(data / "index.sqlite3")
    connection.execute("DELETE FROM small_values WHERE content = x'61'")
    connection.execute("UPDATE small_values SET content = x'00' WHERE content = x'62'")
    connection.execute("INSERT INTO small_values VALUES ('=stray', x'')")
    connection.commit()
    connection.close()
    ended = checked(data)
    assert ended.returncode == ExitCode.DATA_DAMAGED
    assert re.search(r"record a: its value \S+ is missing\n", ended.stdout)
    assert re.search(r"record b: its value \S+ holds other bytes than were stored\n", ended.stdout)
    assert "index: no record names the value =stray\n" in ended.stdout
    assert ended.stdout.endswith("3 records, 3 faults, 0 orphans removed\n")


def test_a_check_beside_a_running_server_finds_it_sound(data: Path) -> None:
    with running_server(data) as server, connected(server) as client:
        store = new_store(client)
        client.put(f"{store}/records/a", content=b"new")
        assert checked(data).returncode == 0
        assert client.get(f"{store}/records/a").content == b"new"


def test_there_is_nothing_to_check_in_an_empty_folder(tmp_path: Path) -> None:
    ended = checked(tmp_path)
    assert ended.returncode == ExitCode.USAGE
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_index_is_a_fault(data: Path) -> None:
    path = data / "index.sqlite3"
    content = bytearray(path.read_bytes())
    content[4096:8192] = b"\xff" * 4096
    path.write_bytes(content)
    ended = checked(data)
    assert ended.returncode in (ExitCode.DATA_DAMAGED, ExitCode.CACHE_UNUSABLE)
    assert "Traceback" not in ended.stderr


def test_tokens_of_a_users_file(tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text("# the team\nsecret-1=joe\n\n  secret-2=ann\n")
    users.chmod(0o600)
    arguments = ["--users", str(users), "--token", "three=eve"]
    with running_server(tmp_path / "data", arguments=arguments) as server:
        for token, username in (("secret-1", "joe"), ("secret-2", "ann"), ("three", "eve")):
            with connected(server, token) as client:
                assert client.get("/v2/users/me").json()["data"]["username"] == username
        command = Path(f"/proc/{server.pid}/cmdline").read_bytes()
        assert b"secret" not in command


@pytest.mark.parametrize(
    ("content", "mode", "told"),
    [
        ("secret=joe\n", 0o640, "can be read by others: chmod 600"),
        ("secret=joe\n", 0o604, "can be read by others: chmod 600"),
        ("# nobody\n", 0o600, "names nobody"),
        ("secret=joe\nsecret=ann\n", 0o600, "two users"),
        ("secret=j~e\n", 0o600, "user name"),
        (None, 0o600, "No such file"),
    ],
)
def test_bad_users_files_are_refused(tmp_path: Path, content: str | None, mode: int, told: str) -> None:
    users = tmp_path / "users"
    if content is not None:
        users.write_text(content)
        users.chmod(mode)
    ended = failing("--data", str(tmp_path / "data"), "--port", "0", "--users", str(users))
    assert ended.returncode == ExitCode.USAGE
    assert told in ended.stderr
    assert re.fullmatch(r"kvsfs: .*\n", ended.stderr)
    assert "secret" not in ended.stderr


def test_the_largest_record_is_an_option(tmp_path: Path) -> None:
    with (
        running_server(tmp_path, arguments=["--max-record-size", "1KiB"]) as server,
        connected(server) as client,
    ):
        path = f"{new_store(client)}/records/a"
        refused = client.put(path, content=bytes(1025))
        assert (refused.status_code, refused.json()["error"]["type"]) == (413, "record-too-large")
        assert client.put(path, content=bytes(1024)).status_code == 201
    for text in ("1KB", "x", "-1"):
        assert failing("--data", str(tmp_path), "--max-record-size", text).returncode == ExitCode.USAGE
