"""One file under thousands of random operations: its bytes in the mount and in the store are the expected ones."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from contextlib import ExitStack

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

    def __init__(self, mount: Mount, store: StoreApi, within: float) -> None:
        self._mount, self._store, self._within = mount, store, within
        self._stack = ExitStack()
        self.mounted = self._begin()
        self.remounts = 0

    def run(self, seed: int, operations: int, *options: str) -> str:
        """Give what the verifier says at its end. Fails as it fails."""
        path = self.mounted.path / KEY
        command = [sys.executable, fsx.__file__, str(path), f"--seed={seed}", f"--operations={operations}"]
        pipe = subprocess.PIPE
        with (
            self._stack,
            subprocess.Popen(
                [*command, *options], stdin=pipe, stdout=pipe, stderr=pipe, text=True
            ) as process,
        ):
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            last = ""
            try:
                for line in process.stdout:
                    last = line
                    if not line.startswith("done"):
                        self._answer(*line.split())
                        print("go on", file=process.stdin, flush=True)
                assert process.wait() == 0, process.stderr.read()
            except BaseException:
                process.kill()
                raise
        return last

    def _answer(self, what: str, digest: str = "") -> None:
        if what == "remount":
            self._stack.close()
            self.mounted = self._begin()
            self.remounts += 1
        elif what == "closed":
            assert self._stored() == digest, "the store has other bytes than were closed"
        else:
            wait_until(lambda: self._stored() == digest)

    def _stored(self) -> str:
        return hashlib.sha256(self._store.content(KEY)).hexdigest()

    def _begin(self) -> Mounted:
        return self._stack.enter_context(self._mount(within=self._within))


def check(mount: Mount, store: StoreApi, seed: int, operations: int, *options: str) -> Driver:
    driver = Driver(mount, store, LONG_SECONDS)
    said = driver.run(seed, operations, *options)
    assert said.startswith("done "), said
    assert store.keys() == [KEY]
    return driver


def test_random_operations_on_one_file(mount: Mount, store: StoreApi) -> None:
    check(mount, store, 1, 1500)


def test_random_operations_with_remounts_among_them(mount: Mount, store: StoreApi) -> None:
    assert check(mount, store, 2, 1500, "--remounts").remounts > 3


@pytest.mark.long
@pytest.mark.parametrize("options", [(), ("--remounts",)], ids=["", "remounts"])
@pytest.mark.parametrize("seed", [11, 12, 13])
def test_many_random_operations_on_one_file(
    mount: Mount, store: StoreApi, seed: int, options: tuple[str, ...]
) -> None:
    check(mount, store, seed, 20_000, *options)


def test_the_verifier_finds_a_wrong_byte(mounted: Mounted) -> None:
    """Somebody else writes between its operations; it tells the seed and what it did."""
    path = mounted.path / KEY
    command = [sys.executable, fsx.__file__, str(path), "--seed=1", "--operations=1500"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        path.write_bytes(b"other")
        _, told = process.communicate("go on\n" * 1500)
    assert process.returncode == 1
    assert told.startswith("seed 1, the last operations:\n0: ")
    assert " bytes instead of " in told
