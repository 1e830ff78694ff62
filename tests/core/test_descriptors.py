"""Who still has a file open, from /proc: against real files of this process and of children."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kvsfs.core.descriptors import holds_open_to_write, thread_group

NOBODY = 2**22 + 1
"""No process: PID_MAX_LIMIT is 2**22."""


@pytest.fixture(params=["here", "tmpfs"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    if request.param == "here":
        yield tmp_path / "file"
        return
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("no tmpfs at /dev/shm")
    found = Path("/dev/shm") / f"kvsfs-test-{os.getpid()}"
    yield found
    found.unlink(missing_ok=True)


def held(process: int, path: Path) -> bool:
    found = path.stat()
    return holds_open_to_write(process, found.st_ino, found.st_dev)


@contextmanager
def child(*inherited: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds these descriptors until its standard input ends, and has started."""
    code = "import sys; print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=inherited
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        yield process
        process.stdin.close()
        process.wait()


@pytest.mark.skipif(
    not any(line.startswith("ino:") for line in Path("/proc/self/fdinfo/0").read_text().splitlines()),
    reason="the kernel is older than 5.14: fdinfo tells no inode",
)
class TestHoldsOpen:
    def test_only_while_a_descriptor_is_open(self, path: Path) -> None:
        path.write_text("x")
        assert not held(os.getpid(), path)
        first = os.open(path, os.O_RDWR)
        second = os.dup(first)
        assert held(os.getpid(), path)
        os.close(first)
        assert held(os.getpid(), path)
        os.close(second)
        assert not held(os.getpid(), path)

    def test_to_read_does_not_count(self, path: Path) -> None:
        path.write_text("x")
        with path.open():
            assert not held(os.getpid(), path)
            with path.open("a"):
                assert held(os.getpid(), path)

    def test_another_file_does_not_count(self, path: Path) -> None:
        path.write_text("x")
        other = path.with_name(path.name + "-other")
        other.write_text("x")
        try:
            with other.open("a"):
                assert not held(os.getpid(), path)
        finally:
            other.unlink()

    def test_the_same_number_on_another_device_does_not_count(self, path: Path) -> None:
        with path.open("a"):
            found = path.stat()
            assert holds_open_to_write(os.getpid(), found.st_ino, found.st_dev)
            assert not holds_open_to_write(os.getpid(), found.st_ino, found.st_dev + 1)

    def test_an_unlinked_file_counts(self, path: Path) -> None:
        with path.open("w") as file:
            path.unlink()
            found = os.fstat(file.fileno())
            assert holds_open_to_write(os.getpid(), found.st_ino, found.st_dev)

    def test_a_child_that_inherited_it_counts_for_itself(self, path: Path) -> None:
        with path.open("w") as file, child(file.fileno()) as process:
            file.close()
            assert held(process.pid, path)
            assert not held(os.getpid(), path)

    def test_a_child_that_did_not_inherit_it_does_not_count(self, path: Path) -> None:
        with path.open("w"), child() as process:
            assert held(os.getpid(), path)
            assert not held(process.pid, path)

    def test_nobody_holds_nothing(self, path: Path) -> None:
        path.write_text("x")
        assert not held(NOBODY, path)


def test_a_thread_belongs_to_its_process() -> None:
    found: list[tuple[int, int | None]] = []

    def look() -> None:
        found.append((threading.get_native_id(), thread_group(threading.get_native_id())))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    number, group = found[0]
    assert number != os.getpid()
    assert group == os.getpid()
    assert thread_group(os.getpid()) == os.getpid()


def test_a_child_is_a_group_of_its_own_and_gone_it_is_none() -> None:
    with child() as process:
        assert thread_group(process.pid) == process.pid
    assert thread_group(process.pid) is None
    assert thread_group(NOBODY) is None


def test_a_zombie_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with (
        path.open("w") as file,
        subprocess.Popen([sys.executable, "-c", ""], pass_fds=[file.fileno()]) as process,
    ):
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not held(process.pid, path)
