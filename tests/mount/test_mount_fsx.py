"""One file under thousands of random operations: its bytes in the mount and in the store are the expected ones."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.mount.conftest import Mount
from tests.support import fsx
from tests.support.mounting import Mounted, wait_until
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse

KEY = "exercised"

LONG_SECONDS = 1200.0
"""For 20,000 operations, which take two minutes."""


class Driver:
    """Runs the verifier in a mount, and does at its stops what it asks for."""

    def __init__(self, mount: Mount, store: StoreApi) -> None:
        self._mount, self._store = mount, store
        self._stack = ExitStack()
        self.moves = 0

    def begin(self) -> Path:
        """Mount, and give the path to begin with."""
        return self.mounted().path / KEY

    def move(self) -> Path:
        """Take the mount away, and give the path in another."""
        self._stack.close()
        return self.begin()

    def run(self, seed: int, operations: int, *options: str) -> None:
        """Fails as the verifier fails."""
        with self._stack, verifier(self.begin(), seed, operations, *options) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            last = ""
            for line in process.stdout:
                last = line
                if not line.startswith("done "):
                    print(self._answer(*line.split()), file=process.stdin, flush=True)
            told = process.stderr.read()
            assert process.wait() == 0, told
            assert last.startswith("done "), last
        assert self._store.keys() == [KEY]

    def mounted(self, *arguments: str, **options: str) -> Mounted:
        """Mount the store until the end, or the next move."""
        return self._stack.enter_context(self._mount(*arguments, within=LONG_SECONDS, **options))

    def _answer(self, what: str, digest: str = "") -> str:
        if what == "remount":
            self.moves += 1
            return str(self.move())
        if what == "closed":
            assert self._stored() == digest, "the store has other bytes than were closed"
        else:
            wait_until(lambda: self._stored() == digest)
        return "go on"

    def _stored(self) -> str:
        return hashlib.sha256(self._store.content(KEY)).hexdigest()


class TwoComputers(Driver):
    """Moves to and fro between two mounts that both stay."""

    def begin(self) -> Path:
        options = ("--revalidate", "0s", "--listing-ttl", "100ms")
        one = self.mounted(*options).path
        other = self.mounted(*options, "--cache-dir", f"{one}-cache", name="other").path
        self._paths = [one / KEY, other / KEY]
        return self._paths[0]

    def move(self) -> Path:
        path = self._paths[self.moves % 2]
        wait_until(path.exists)
        return path


@contextmanager
def verifier(path: Path, seed: int, operations: int, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [
        sys.executable,
        fsx.__file__,
        str(path),
        f"--seed={seed}",
        f"--operations={operations}",
        *options,
    ]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def test_random_operations_on_one_file(mount: Mount, store: StoreApi) -> None:
    Driver(mount, store).run(1, 1500)


def test_random_operations_with_remounts_among_them(mount: Mount, store: StoreApi) -> None:
    driver = Driver(mount, store)
    driver.run(2, 750, "--remounts")
    assert driver.moves > 3


def test_random_operations_on_two_computers(mount: Mount, store: StoreApi) -> None:
    computers = TwoComputers(mount, store)
    computers.run(3, 1500, "--remounts")
    assert computers.moves > 10


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "options"), [(Driver, ()), (Driver, ("--remounts",)), (TwoComputers, ("--remounts",))]
)
@pytest.mark.parametrize("seed", [11, 12, 13])
def test_many_random_operations_on_one_file(
    mount: Mount, store: StoreApi, kind: type[Driver], seed: int, options: tuple[str, ...]
) -> None:
    kind(mount, store).run(seed, 20_000, *options)


def test_the_verifier_finds_a_wrong_byte(mounted: Mounted) -> None:
    """Somebody else writes between its operations; it tells the seed and what it did."""
    path = mounted.path / KEY
    with verifier(path, 1, 1500) as process:
        assert process.stdout is not None
        process.stdout.readline()
        path.write_bytes(b"other")
        _, told = process.communicate("go on\n" * 1500)
    assert process.returncode == 1
    assert told.startswith("seed 1, the last operations:\n0: ")
    assert " bytes instead of " in told
