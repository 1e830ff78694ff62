"""`kill -9` in the middle of writing, again and again, on a folder and a bucket: nothing acknowledged is lost."""

from __future__ import annotations

import contextlib
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx

from tests.support.buckets import S3
from tests.support.serving import RunningServer, running_server, serve_command

ROUNDS = 20
ROUNDS_IN_BUCKET = 10
"""Each takes longer, and what a server leaves half done there the object store forgets by itself."""

WRITERS = 4
KEYS_OF_A_WRITER = 8

MOST_ANSWERS = 40
"""The kill comes when at most so many answers of a round are here: some 50 ms of writing."""

DELAY_SECONDS = 0.005
"""And up to so much later: what a PUT takes, so that the kill meets each of its steps."""

LARGE_BYTES = 2_500_000
"""More than one piece (local.PIECE_BYTES): the kill meets uploads that are half on the disk."""

WAIT_SECONDS = 30


class Writer:
    """Writes and deletes keys of its own, and remembers what the server said.

    INVARIANT: a key's value is `acknowledged[key]` (None: deleted), or what `attempted` last says of it.
    """

    def __init__(self, number: int) -> None:
        self.acknowledged: dict[str, bytes | None] = {}
        self.attempted: dict[str, bytes | None] = {}
        self.answers = 0
        self._keys = [f"writer{number}-{key}" for key in range(KEYS_OF_A_WRITER)]
        self._random = random.Random(number)

    def run(self, client: httpx.Client, store: str) -> None:
        """Write until the server is gone."""
        with contextlib.suppress(httpx.TransportError):
            while True:
                self._step(client, f"{store}/records/{self._pick()}")

    def settle(self, key: str, seen: bytes | None) -> None:
        """Compare a key with what may be there, and take it for what is there."""
        possible = [self.acknowledged.get(key), self.attempted.get(key, self.acknowledged.get(key))]
        assert seen in possible, f"{key}: {_size(seen)}, neither of {[_size(value) for value in possible]}"
        self.acknowledged[key] = seen
        self.attempted.pop(key, None)

    def _pick(self) -> str:
        return self._random.choice(self._keys)

    def _step(self, client: httpx.Client, url: str) -> None:
        key = url.rpartition("/")[2]
        value = self._value()
        self.attempted[key] = value
        if value is None:
            assert client.delete(url).status_code == 204
        else:
            assert client.put(url, content=_pieces(value)).status_code == 201
        self.acknowledged[key] = value
        del self.attempted[key]
        self.answers += 1

    def _value(self) -> bytes | None:
        kind = self._random.random()
        if kind < 0.25:
            return None
        return self._random.randbytes(LARGE_BYTES if kind > 0.97 else self._random.randrange(100_000))


def _pieces(value: bytes) -> bytes | Iterator[bytes]:
    """Send large values without a length, piece by piece."""
    if len(value) < LARGE_BYTES:
        return value
    return (value[start : start + 200_000] for start in range(0, len(value), 200_000))


def _size(value: bytes | None) -> str:
    return "nothing" if value is None else f"{len(value)} bytes"


def write_until_killed(
    server: RunningServer, store: str, writers: list[Writer], chance: random.Random
) -> None:
    """Let all writers write, and kill the server at a random moment."""
    with httpx.Client(base_url=server.url, timeout=WAIT_SECONDS) as client:
        threads = [threading.Thread(target=writer.run, args=(client, store)) for writer in writers]
        enough = sum(writer.answers for writer in writers) + chance.randrange(MOST_ANSWERS)
        for thread in threads:
            thread.start()
        try:
            wait_for(lambda: sum(writer.answers for writer in writers) >= enough)
            time.sleep(chance.random() * DELAY_SECONDS)  # not a wait for something: a random moment
        finally:
            server.kill()
            for thread in threads:
                thread.join(WAIT_SECONDS)


def check_everything(server: RunningServer, store: str, writers: list[Writer]) -> None:
    """Compare index and values with each other, and with what the writers know."""
    with httpx.Client(base_url=server.url, timeout=WAIT_SECONDS) as client:
        page = client.get(f"{store}/keys").json()["data"]
        sizes = {item["key"]: item["size"] for item in page["items"]}
        values = {key: client.get(f"{store}/records/{key}") for key in sizes}
        assert {key: answer.status_code for key, answer in values.items()} == dict.fromkeys(sizes, 200)
        assert {key: len(answer.content) for key, answer in values.items()} == sizes
        for writer in writers:
            for key in writer.acknowledged.keys() | writer.attempted.keys():
                writer.settle(key, values.pop(key).content if key in values else None)
        assert not values
        told = client.get(store).json()["data"]
        assert told["stats"]["storageBytes"] == sum(sizes.values())


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.001)


def checked(data: Path, arguments: Sequence[str] = ()) -> str:
    """Let `--check` read every byte; what it says."""
    command = serve_command("--check", "--data", str(data), *arguments)
    ended = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    return ended.stdout


def value_files(data: Path) -> set[str]:
    return {path.name for path in (data / "values").rglob("*") if path.is_file()}


def test_acknowledged_writes_and_deletes_outlive_crashes(tmp_path: Path) -> None:
    data = tmp_path / "data"
    kept = crash_over_and_over(data, ROUNDS)
    with running_server(data):
        # What the crashes left behind is collected: at most a file for each record.
        wait_for(lambda: len(value_files(data)) <= kept)
    assert checked(data) == f"{kept} records, 0 faults, 0 orphans removed\n"


def test_acknowledged_writes_and_deletes_in_a_bucket_outlive_crashes(tmp_path: Path, s3: S3) -> None:
    place = s3.place()
    arguments = s3.arguments(place)
    kept = crash_over_and_over(tmp_path, ROUNDS_IN_BUCKET, arguments)
    assert checked(tmp_path, arguments) == f"{kept} records, 0 faults, 0 orphans removed\n"
    assert len(s3.paths(place, "records")) == kept


def crash_over_and_over(data: Path, rounds: int, arguments: Sequence[str] = ()) -> int:
    """Write, kill, and look at everything, so many times; how many records there are at the end."""
    chance = random.Random(50)
    writers = [Writer(number) for number in range(WRITERS)]
    store = ""
    for number in range(rounds):
        if number % 10 == 9:
            checked(data, arguments)
        with running_server(data, arguments=arguments) as server:
            if not store:
                made = httpx.post(f"{server.url}/v2/key-value-stores", params={"name": "crash"})
                store = f"/v2/key-value-stores/{made.json()['data']['id']}"
            check_everything(server, store, writers)
            write_until_killed(server, store, writers, chance)
    with running_server(data, arguments=arguments) as server:
        check_everything(server, store, writers)
    kept = sum(value is not None for writer in writers for value in writer.acknowledged.values())
    assert kept > WRITERS
    assert checked(data, arguments).startswith(f"{kept} records, 0 faults, ")
    return kept
