"""Renames on a real mount: of folders, of what takes long, and what they cost."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from kvsfs.core.renames import REPLY_SECONDS
from tests.mount.conftest import TOKEN, Mount
from tests.support.mounting import Mounted, Sandbox, mounted_store, wait_until
from tests.support.serving import running_server
from tests.support.store_api import StoreApi

HEADERS = {"Authorization": f"Bearer {TOKEN}"}

pytestmark = pytest.mark.fuse


def test_a_folder_is_renamed_with_all_its_records(mount: Mount, store: StoreApi) -> None:
    records = {f"a!2F{name}": name.encode() for name in ("one", "two", "b!2Fthree", "b!2Fc!2Ffour", ".INPUT")}
    for key, content in records.items():
        store.put(key, content, "text/x-mine")
    store.put("beside", b"stays")
    with mount() as mounted:
        assert mounted.run("ls") == "a\nbeside\n"
        before = mounted.requests()
        mounted.run("mv", "a", "z")
        assert mounted.run("ls") == "beside\nz\n"
        assert mounted.run("cat", "z/b/c/four") == "b!2Fc!2Ffour"
        mounted.umount()
        made = [request.method for request in mounted.requests()[len(before) :]]
        # Each record is read, stored and deleted; each folder is listed once.
        assert (made.count("PUT"), made.count("DELETE"), made.count("GET")) == (5, 5, 5 + 3)
    moved = {"z" + key[1:]: content for key, content in records.items()}
    assert {key: store.content(key) for key in store.keys()} == {**moved, "beside": b"stays"}  # noqa: SIM118
    assert {store.content_type(key) for key in moved} == {"text/x-mine"}


def test_a_rename_over_an_empty_folder_and_over_a_full_one(mounted: Mounted, store: StoreApi) -> None:
    mounted.sh("mkdir a empty full && echo 1 > a/f && echo 2 > full/g")
    python = "import os, sys; os.rename(*sys.argv[1:])"
    ended = subprocess.run(
        [sys.executable, "-c", python, "a", "full"],
        cwd=mounted.path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Directory not empty" in ended.stderr
    subprocess.run([sys.executable, "-c", python, "a", "empty"], cwd=mounted.path, check=True)
    assert mounted.sh("ls; cat empty/f") == "empty\nfull\n1\n"
    mounted.umount()
    assert store.keys() == ["empty!2Ff", "full!2Fg"]


def test_files_open_in_a_renamed_folder_go_on(mounted: Mounted, store: StoreApi) -> None:
    mounted.sh("mkdir a; echo read me > a/r; echo old > a/w")
    with (
        (mounted.path / "a/r").open("rb", buffering=0) as reader,
        (mounted.path / "a/w").open("r+b") as writer,
    ):
        writer.write(b"new")
        writer.flush()
        os.rename(mounted.path / "a", mounted.path / "b")
        assert reader.read() == b"read me\n"
        writer.write(b"er")
        writer.flush()
    assert (mounted.path / "b/w").read_bytes() == b"newer"
    mounted.umount()
    assert {key: store.content(key) for key in store.keys()} == {"b!2Fr": b"read me\n", "b!2Fw": b"newer"}  # noqa: SIM118


@pytest.mark.parametrize("names", [("old", "new"), ("folder", "other")])
def test_a_rename_replies_in_seconds_and_the_store_follows(
    names: tuple[str, str], tmp_path: Path, sandbox: Sandbox
) -> None:
    """While the store takes no PUT: the old record stays until the new one is there, also over a kill -9."""
    old, new = names
    keys = (old, new) if old == "old" else (f"{old}!2Ff", f"{new}!2Ff")
    tokens = [f"{TOKEN}=joe"]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(
            running_server(
                tmp_path / "data", tokens=tokens, request_log=tmp_path / "log", arguments=["--testing"]
            )
        )
        client = stack.enter_context(httpx.Client(base_url=server.url, headers=HEADERS, timeout=30))
        store = StoreApi.create(client)
        store.put(keys[0], b"precious")
        with mounted_store(sandbox, store.id, token=TOKEN, server=server) as mounted:
            os.listdir(mounted.path)
            rule = {"method": "PUT", "path": "*", "action": {"kind": "stall"}}
            number = store.client.post("/testing/faults", json=rule).raise_for_status().json()["data"]["id"]
            begun = time.monotonic()
            os.rename(mounted.path / old, mounted.path / new)
            assert time.monotonic() - begun < 2 * REPLY_SECONDS + 2
            assert os.listdir(mounted.path) == [new]
            assert store.keys() == [keys[0]]
            mounted.kill()
            mounted.detach_dead()
        with mounted_store(sandbox, store.id, "--timeout", "3s", token=TOKEN, server=server) as mounted:
            mounted.allow_log("is not uploaded yet: .*: no answer within 3 s")
            assert os.listdir(mounted.path) == [new]
            store.client.delete(f"/testing/faults/{number}").raise_for_status()
            wait_until(lambda: store.keys() == [keys[1]], within=60)
            assert store.content(keys[1]) == b"precious"
