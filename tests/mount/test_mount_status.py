"""`kvsfs status` of real mounts: what it counts, what it says of what the store refused, and of what was left."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import stat
import subprocess
import termios
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from kvsfs.errors import ExitCode
from tests.support.fault_rules import fault
from tests.support.mounting import (
    COMMAND_SECONDS,
    KVSFS,
    Mounted,
    Sandbox,
    failing,
    mounted_store,
    wait_until,
)
from tests.support.serving import RunningServer, running_server
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse

TOKEN = "a-secret-for-status"


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("faulty")
    with running_server(
        folder / "data", tokens=[f"{TOKEN}=joe"], request_log=folder / "log", arguments=["--testing"]
    ) as server:
        yield server


@pytest.fixture
def own_store(faulty: RunningServer) -> Iterator[StoreApi]:
    with httpx.Client(base_url=faulty.url, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        yield StoreApi.create(client)


class Place:
    """Where a test mounts its store."""

    def __init__(self, sandbox: Sandbox, store: StoreApi, server: RunningServer) -> None:
        self.sandbox = sandbox
        self.store = store
        self._server = server

    def mounted(self, *options: str, **more: Any) -> AbstractContextManager[Mounted]:
        options = ("--timeout", "2s", *options)
        return mounted_store(self.sandbox, self.store.id, *options, token=TOKEN, server=self._server, **more)

    @property
    def server_options(self) -> list[str]:
        return ["--api-url", self._server.url]

    def kvsfs(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return self.sandbox.kvsfs(*map(str, arguments), token=TOKEN)

    def status(self, *arguments: str | Path) -> list[dict[str, Any]]:
        ended = self.kvsfs("status", "--json", *arguments)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert TOKEN not in ended.stdout
        assert "signature" not in ended.stdout
        told = json.loads(ended.stdout)
        assert isinstance(told, list)
        return told

    def one(self, *arguments: str | Path) -> dict[str, Any]:
        (told,) = self.status(*arguments)
        return told


@pytest.fixture
def place(sandbox: Sandbox, own_store: StoreApi, faulty: RunningServer) -> Place:
    return Place(sandbox, own_store, faulty)


def write(path: Path, content: bytes) -> None:
    """Write and close, which may fail."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        os.write(descriptor, content)
    finally:
        os.close(descriptor)


def test_a_mount_at_work(place: Place) -> None:
    place.store.put("there", b"x" * 1000)
    with place.mounted() as mounted:
        mounted.sh("cat there there >/dev/null; printf 12345 > new; echo x > .a.swp")
        told = place.one(mounted.path)
        assert (told["state"], told["mount_point"], told["source"]) == (
            "mounted",
            str(mounted.path),
            place.store.id,
        )
        assert told["store"]["id"] == place.store.id
        assert (told["read_only"], told["write_back_seconds"], told["pid"]) == (False, None, mounted.pid)
        assert told["left"] == {"files": 0, "bytes": 0, "failed": 0, "removals": 0}
        assert told["cache"]["clean_bytes"] == 1005
        assert told["cache"]["local_only_files"] == 1
        assert told["opened"] == {"cached": 1, "confirmed": 0, "fetched": 1}
        traffic = told["store_traffic"]
        assert traffic["answers"] is True
        assert traffic["requests"] == {"get": 1, "list_keys": 1, "get_record": 1, "set_record": 1}
        assert (traffic["total_requests"], traffic["retries"], traffic["rate_limited"]) == (4, 0, 0)
        assert traffic["sent_bytes"] == 5
        assert set(traffic["latency_seconds"]) == set(traffic["requests"])
        latency = traffic["latency_seconds"]["get_record"]
        assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"] < 30
        assert 0 < told["uptime_seconds"] < 100
        assert place.one(mounted.path / "a" / "b")["pid"] == mounted.pid  # a path in it, there or not
        assert place.one()["pid"] == mounted.pid  # all mounts of the user
        text = place.kvsfs("status").stdout
        assert text.startswith(f"{mounted.path}: {place.store.id} (store {place.store.id}), for ")
        assert "  left       nothing\n" in text
        assert "  opened     1 from the cache, 0 confirmed, 1 fetched, 50 % from here\n" in text


def test_read_only_and_write_back_are_told(place: Place) -> None:
    with place.mounted("--read-only", name="r") as mounted:
        assert place.one(mounted.path)["read_only"] is True
        assert "  mode       read-only\n" in place.kvsfs("status", mounted.path).stdout
    with place.mounted("--write-back", "90s") as mounted:
        write(mounted.path / "a", b"12345")
        told = place.one(mounted.path)
        assert told["write_back_seconds"] == 90
        assert told["left"] == {"files": 1, "bytes": 5, "failed": 0, "removals": 0}
        (upload,) = told["uploads"]
        assert (upload["path"], upload["size"], upload["attempts"], upload["error"]) == ("a", 5, 0, None)
        assert 60 < upload["next_attempt_in"] <= 90
        assert "  a  5 B, closed " in place.kvsfs("status", mounted.path).stdout
    assert place.store.content("a") == b"12345"


def test_what_the_store_does_not_take(place: Place) -> None:
    with place.mounted() as mounted:
        mounted.expect_log(r" (WARNING|ERROR) kvsfs\.(core|fuse)\.")
        with fault(place.store, "PUT", "big*", kind="status", status=413), failing(errno.EFBIG):
            write(mounted.path / "big file", b"x" * 3000)
        with fault(place.store, "PUT", "away", kind="status", status=503):
            with failing(errno.EIO, errno.ETIMEDOUT, errno.EBUSY):
                write(mounted.path / "away", b"y" * 10)
            told = place.one(mounted.path)
            assert told["left"] == {"files": 1, "bytes": 10, "failed": 1, "removals": 0}
            failed, away = told["uploads"]
            assert (failed["path"], failed["key"], failed["size"]) == ("big file", "big!20file", 3000)
            assert (failed["failed"], failed["attempts"], failed["next_attempt_in"]) == (True, 1, None)
            assert "413" in failed["error"]
            assert (away["path"], away["failed"]) == ("away", False)
            assert away["attempts"] >= 1
            assert away["error"]
            text = place.kvsfs("status", mounted.path).stdout
            assert "  left       1 file (10 B), 1 failed for good\n" in text
            assert "\n    big file  2.9 KiB, closed " in text
            assert " failed for good after 1 attempt: " in text
        mounted.expect_log("left for the next mount of this store: big!20file ")
        mounted.umount(ExitCode.NOT_ALL_UPLOADED)
    assert place.store.content("away") == b"y" * 10


def test_a_mount_that_is_gone_and_what_it_has_left(place: Place) -> None:
    with place.mounted() as mounted:
        mounted.expect_log(r" (WARNING|ERROR) kvsfs\.(core|fuse)\.")
        with fault(place.store, "PUT", "big", kind="status", status=413), failing(errno.EFBIG):
            write(mounted.path / "big", b"x" * 3000)
        with (
            fault(place.store, "PUT", "away", kind="status", status=503),
            failing(errno.EIO, errno.ETIMEDOUT, errno.EBUSY),
        ):
            write(mounted.path / "away", b"y" * 10)
        with fault(place.store, "PUT", "away", kind="status", status=503):
            mounted.kill()
        mounted.detach_dead()
        for told in (place.one(mounted.path), place.one(place.store.id), place.one()):
            assert (told["state"], told["mount_point"]) == ("not mounted", str(mounted.path))
            assert told["store"]["id"] == place.store.id
            assert told["left"] == {"files": 1, "bytes": 10, "failed": 1, "removals": 0}
            assert [(u["path"], u["size"], u["failed"]) for u in told["uploads"]] == [
                ("big", 3000, True),
                ("away", 10, False),
            ]
        assert (
            f"{mounted.path}: {place.store.id} is not mounted; the next mount goes on"
            in place.kvsfs("status").stdout
        )
    with place.mounted(name="again") as mounted:
        mounted.expect_log(r"files of an earlier mount were not uploaded yet")
        mounted.expect_log(r"left for the next mount of this store: big \(not uploaded: .*413")
        wait_until(lambda: "away" in place.store.keys())  # noqa: SIM118
        wait_until(lambda: place.one(mounted.path)["left"]["files"] == 0)
        mounted.umount(ExitCode.NOT_ALL_UPLOADED)


def test_a_reload_does_not_end_a_drain(place: Place) -> None:
    with place.mounted("--write-back", "1h", "--timeout", "30s") as mounted:
        write(mounted.path / "a", b"12345")
        with fault(place.store, "PUT", "a", kind="status", status=503):
            subprocess.run(["fusermount3", "-u", "--", mounted.path], timeout=COMMAND_SECONDS, check=True)
            wait_until(lambda: place.one(mounted.path)["state"] == "draining")
            os.kill(mounted.pid, signal.SIGHUP)
            wait_until(lambda: "SIGHUP: APIFY_TOKEN has the same token as before" in mounted.log_text())
            assert place.one(mounted.path)["left"]["files"] == 1
        mounted.wait_for_exit(within=COMMAND_SECONDS)
    assert place.store.content("a") == b"12345"


def test_nothing_mounted(place: Place) -> None:
    ended = place.kvsfs("status")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "nothing is mounted, and nothing is left to upload\n"
    assert place.status() == []
    ended = place.kvsfs("status", place.sandbox.folder)
    assert ended.returncode == ExitCode.NOT_MOUNTED
    assert len(ended.stderr.splitlines()) == 1


def test_the_socket_is_for_the_user_alone_and_goes_with_the_mount(place: Place) -> None:
    folder = place.sandbox.folder / "runtime_dir" / "kvsfs"
    with place.mounted():
        (path,) = folder.glob("*.sock")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert list(folder.iterdir()) == []


def hear_interrupts() -> None:
    """What a shell starts with `&` ignores SIGINT, and so do its children: these tests may run so."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_watching_until_it_is_interrupted(place: Place) -> None:
    with place.mounted() as mounted:
        mounted.sh("echo x > 'a name'")
        terminal, other_end = os.openpty()
        termios.tcsetwinsize(other_end, (40, 120))
        process = subprocess.Popen(
            [*KVSFS, "status", "--watch", str(mounted.path)],
            env=place.sandbox.environment | {"TERM": "xterm-256color"},
            stdout=other_end,
            stderr=subprocess.PIPE,
            preexec_fn=hear_interrupts,  # noqa: PLW1509 - no other thread holds a lock that it takes
        )
        os.close(other_end)
        assert process.stderr is not None
        with process.stderr:
            shown = b""
            while b" requests a second" not in shown:  # which the second look tells first
                shown += os.read(terminal, 4096)
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
                while piece := os.read(terminal, 4096):
                    shown += piece
            assert process.wait(COMMAND_SECONDS) == 0
            assert process.stderr.read() == b""
        os.close(terminal)
        assert shown.count(b"nothing") >= 2
        assert b"\x1b[?1049h" in shown  # a screen of its own (xterm's alternate one) …
        assert shown.rstrip().endswith(b"\x1b[?25h") or b"\x1b[?1049l" in shown  # … which goes
        for name in (b"mode", b"cache", b"left", b"kernel", b"requests", b"limits", b"latency"):
            assert name in shown
        assert place.kvsfs("status", "--watch", "--json").returncode == ExitCode.USAGE


def test_watching_in_a_log_is_plain(place: Place) -> None:
    with place.mounted() as mounted:
        process = subprocess.Popen(
            [*KVSFS, "status", "--watch", str(mounted.path)],
            env=place.sandbox.environment,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=hear_interrupts,  # noqa: PLW1509 - no other thread holds a lock that it takes
        )
        assert process.stdout is not None
        with process.stdout:
            lines: list[str] = []
            while lines.count("  left       nothing\n") < 2:
                lines.append(process.stdout.readline())
            process.send_signal(signal.SIGINT)
            assert process.wait(COMMAND_SECONDS) == 0
        assert "\x1b" not in "".join(lines)


def test_a_name_that_a_terminal_would_obey_is_escaped(place: Place) -> None:
    with place.mounted("--write-back", "1h") as mounted:
        write(mounted.path / "a\x1b]0;owned\x07 b\nc", b"x")
        ended = place.kvsfs("status", mounted.path)
        assert "    a\\x1b]0;owned\\x07 b\\nc  1 B, closed " in ended.stdout
        assert "\x1b" not in ended.stdout
