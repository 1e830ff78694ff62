"""Every way to end a mount with uploads that wait: what is not in the store then is there after the next mount."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from kvsfs.errors import ExitCode
from tests.mount.test_mount_faults import client_of
from tests.support.mounting import LEAVING_SECONDS, Mounted, Sandbox, mounted_store
from tests.support.serving import Home
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse

CONTENTS = {f"f{number}": b"%d " % number * 1000 for number in range(30)}


def by_kvsfs(mounted: Mounted, exit_code: int) -> None:
    assert mounted.sandbox.kvsfs("umount", str(mounted.path)).returncode == exit_code


def by_umount(mounted: Mounted, _exit_code: int) -> None:
    subprocess.run(["umount", str(mounted.path)], check=True, timeout=LEAVING_SECONDS)


def by_signal(number: signal.Signals) -> Callable[[Mounted, int], None]:
    def leave(mounted: Mounted, _exit_code: int) -> None:
        os.kill(mounted.pid, number)

    return leave


WAYS: dict[str, Callable[[Mounted, int], None]] = {
    "kvsfs umount": by_kvsfs,
    "umount": by_umount,
    "SIGTERM": by_signal(signal.SIGTERM),
    "SIGINT": by_signal(signal.SIGINT),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("there", [True, False], ids=["server", "no server"])
def test_nothing_that_waits_is_lost(
    tmp_path: Path, sandbox: Sandbox, token: str, way: str, there: bool
) -> None:
    home = Home(tmp_path / "server", token)
    options = ("--timeout", "1s", "--write-back", "1h", "--drain-timeout", "2s")
    with home.serving() as server, client_of(server, token) as client:
        store = StoreApi.create(client)
        with mounted_store(sandbox, store.id, *options, token=token, server=server) as mounted:
            for name, content in CONTENTS.items():
                (mounted.path / name).write_bytes(content)
            if not there:
                server.kill()
                mounted.allow_log(r" (WARNING|ERROR) kvsfs\.(core|daemon)\.?\S*: ")
            expected = ExitCode.OK if there else ExitCode.NOT_ALL_UPLOADED
            WAYS[way](mounted, expected)
            mounted.wait_for_exit(expected)
        if there:
            assert {name: store.content(name) for name in store.sizes()} == CONTENTS
    if there:
        return
    with home.serving() as server, client_of(server, token) as client:
        store = StoreApi(client, store.id)
        with mounted_store(sandbox, store.id, *options, token=token, server=server) as mounted:
            mounted.allow_log("of an earlier mount")
            mounted.allow_log("left for the next mount")
            mounted.allow_log(r" (WARNING|ERROR) kvsfs\.(core|daemon)\.?\S*: ")
            mounted.umount()
        assert {name: store.content(name) for name in store.sizes()} == CONTENTS
