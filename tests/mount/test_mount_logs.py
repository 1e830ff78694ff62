"""A mount's log: where it goes, that operations can be followed through it, and its level while it runs."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.mount.conftest import Mount
from tests.support.mounting import Sandbox, wait_until
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse


def lines_of(text: str, told: str) -> list[dict[str, Any]]:
    """Give the lines of a log in JSON whose message holds something."""
    return [line for line in map(json.loads, text.splitlines()) if told in line["message"]]


@pytest.mark.parametrize("options", [[], ["--write-back", "20ms"]], ids=["close-waits", "write-back"])
def test_a_request_of_the_kernel_is_joined_with_its_http_calls(
    mount: Mount, store: StoreApi, options: list[str]
) -> None:
    store.put("old", b"x")
    with mount("--log-format", "json", *options) as mounted:
        mounted.sh("cat old; echo y > new")
        mounted.umount()
        text = mounted.log_text()
    (get,) = lines_of(text, "get_record of record old: 200")
    (put,) = lines_of(text, "set_record of record new: 20")
    for call, handlers in ((get, ("open", "read")), (put, ("flush",))):
        requests = [r for r in lines_of(text, "") if r.get("operation") == call["operation"]]
        assert requests[0]["logger"] == "kvsfs.fuse.operations"
        assert requests[0]["message"].split()[0] in handlers
    assert not re.search("x-apify-operation|traceparent", text)


def test_sigusr2_logs_everything_for_a_while(mount: Mount) -> None:
    with mount("--log-level", "WARNING", background=True) as mounted:
        mounted.sh("echo 1 > one")
        os.kill(mounted.pid, signal.SIGUSR2)
        wait_until(lambda: "SIGUSR2: the log level is DEBUG" in mounted.log_text())
        mounted.sh("echo 2 > two")
        assert "set_record of record two: 20" in mounted.log_text()
        os.kill(mounted.pid, signal.SIGUSR2)
        wait_until(lambda: _is_quiet(mounted.path / "three", mounted.log_path))
        assert "record one" not in mounted.log_text()
        assert "token" not in mounted.log_text()


def _is_quiet(path: Path, log: Path) -> bool:
    before = log.stat().st_size
    path.write_bytes(b"3")
    return log.stat().st_size == before


@pytest.mark.parametrize("background", [True, False], ids=["background", "foreground"])
def test_a_file_of_ones_own(mount: Mount, sandbox: Sandbox, tmp_path: Path, background: bool) -> None:
    path = tmp_path / "own.log"
    with mount("--log", str(path), background=background) as mounted:
        mounted.sh("echo x > f")
        assert " is mounted on " in path.read_text()
        if background:  # libfuse and a crash of the interpreter still have a place to write to
            assert os.readlink(f"/proc/{mounted.pid}/fd/2") == str(sandbox.background_log(mounted.path))
        assert mounted.log_text() == ""
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_log_that_cannot_be_is_said_before_anything_is_mounted(
    sandbox: Sandbox, store: StoreApi, token: str
) -> None:
    mount_point = sandbox.mount_point()
    for background in ([], ["-f"]):
        ended = sandbox.kvsfs(
            "mount", *background, "--log", "/nowhere/at/all.log", store.id, str(mount_point), token=token
        )
        assert ended.returncode == 32
        assert ended.stderr == (
            "kvsfs: cannot write the log /nowhere/at/all.log: No such file or directory; name another file with --log\n"
        )
