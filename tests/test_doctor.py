"""`kvsfs doctor`: each line that says what to do, and the ones that say that all is well."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx
import pytest

from kvsfs.doctor import api, machine
from kvsfs.doctor.findings import Finding, Findings, Verdict
from kvsfs.doctor.machine import Machine
from kvsfs.errors import ExitCode
from kvsfs.options import MountConfig
from kvsfs.signatures import sign_storage
from tests.support.fault_server import Exchange, FaultServer, Step, answering, fault_server
from tests.support.mounting import Sandbox
from tests.support.running import run_async
from tests.support.serving import running_server
from tests.support.store_api import StoreApi

TOKEN = "hush-of-the-doctor"


def lines(found: Findings) -> dict[str, Finding]:
    assert len({finding.name for finding in found}) == len(found.all)
    return {finding.name: finding for finding in found}


# --- the machine --------------------------------------------------------------------------------------


@pytest.fixture
def good(tmp_path: Path) -> dict[str, Any]:
    """What a machine is like that lacks nothing."""
    for name in ("device", "cache", "bin"):
        (tmp_path / name).mkdir()
    (tmp_path / "device" / "fuse").touch()
    (tmp_path / "fuse.conf").write_text("user_allow_other\n")
    program = tmp_path / "bin" / "fusermount3"
    program.write_text('#!/bin/sh\necho "fusermount3 version: 3.99"\n')
    program.chmod(0o4755)
    return {
        "device": str(tmp_path / "device" / "fuse"),
        "fuse_configuration": str(tmp_path / "fuse.conf"),
        "kernel": "6.1.0",
        "user": 1000,
        "environment": {"PATH": f"{tmp_path}/bin:/bin"},
        "configuration_files": (str(tmp_path / "config.toml"),),
        "cache_folder": str(tmp_path / "cache" / "below"),
    }


def examined(good: Mapping[str, Any], **otherwise: object) -> dict[str, Finding]:
    found = Findings()
    machine.look_at(Machine(**{**good, **otherwise}), found)
    return lines(found)


def test_a_machine_that_lacks_nothing(good: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "LITTLE_SPACE", 0)
    found = examined(good)
    notes = {"read-ahead"} | ({"fusermount3"} if os.getuid() else set())  # only root can make it root's
    assert {name for name, finding in found.items() if finding.verdict is not Verdict.OK} == notes
    assert "Linux 6.1.0" in found["versions"].text
    assert found["configuration"].text == "no files: defaults hold"
    assert {finding.verdict for finding in examined(good, user=0).values()} == {Verdict.OK}


@pytest.mark.parametrize(
    ("name", "otherwise", "told"),
    [
        ("fuse device", {"device": "/dev/no-fuse"}, "/dev/no-fuse is missing: load the kernel module"),
        ("fuse device", {"device": "/dev"}, "cannot open /dev (Is a directory)"),
        ("fusermount3", {"environment": {"PATH": "/nowhere"}}, "install the package fuse3"),
        ("configuration", {"environment": {"KVSFS_MOUNT_TIMOUT": "1s", "PATH": "/bin"}}, "did you mean"),
    ],
)
def test_what_is_missing(good: dict[str, Any], name: str, otherwise: dict[str, object], told: str) -> None:
    found = examined(good, **otherwise)[name]
    assert found.verdict is Verdict.PROBLEM
    assert told in found.text
    assert len(found.text.splitlines()) == 1


def test_a_fusermount3_that_is_not_set_user_id_root(good: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "bin" / "fusermount3").chmod(0o755)
    found = examined(good)["fusermount3"]
    assert (found.verdict, "only root can mount" in found.text) == (Verdict.PROBLEM, True)
    assert examined(good, user=0)["fusermount3"].verdict is Verdict.OK


def test_a_cache_folder_of_somebody_else(good: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # noqa: ARG005 - root may everything
    found = examined(good)["cache"]
    assert found.verdict is Verdict.PROBLEM
    assert found.text.endswith("may not be written by you: name a folder of yours with --cache-dir")


def test_a_disk_that_is_nearly_full(good: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "LITTLE_SPACE", 1 << 62)
    found = examined(good)["cache"]
    assert found.verdict is Verdict.PROBLEM
    assert found.text.endswith("make room, or name another disk with --cache-dir")


@pytest.mark.parametrize(
    ("name", "otherwise", "told"),
    [
        ("allow_other", {"fuse_configuration": "/nowhere"}, "needs the line user_allow_other in /nowhere"),
        ("versions", {"kernel": "4.19.0-x"}, "kernels before 4.20 read 128 KiB at a time"),
        ("read-ahead", {}, "root may write 1024 to /sys/class/bdi/DEVICE/read_ahead_kb"),
    ],
)
def test_what_is_worth_a_note(
    good: dict[str, Any], name: str, otherwise: dict[str, object], told: str
) -> None:
    found = examined(good, **otherwise)[name]
    assert (found.verdict, told in found.text) == (Verdict.NOTE, True)


def test_a_configuration_file_that_is_wrong(good: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[mont]\n")
    found = examined(good)["configuration"]
    assert (found.verdict, "did you mean mount?" in found.text) == (Verdict.PROBLEM, True)


# --- the API ------------------------------------------------------------------------------------------


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    monkeypatch.setenv("APIFY_TOKEN", TOKEN)
    monkeypatch.setenv("HOME", str(tmp_path))
    return TOKEN


MOMENT = "2026-01-01T00:00:00.000Z"
STORE = {"id": "s", "name": "mine", "createdAt": MOMENT, "modifiedAt": MOMENT, "accessedAt": MOMENT}
KEYS = {"items": [{"key": "a", "size": 1}], "count": 1, "limit": 1, "isTruncated": False}


def api_server(
    clock: float = 0.0, delete: int = 204, status: int = 200, headers: Mapping[str, str] | None = None
) -> Step:
    """Answer as the API does, with a clock that is wrong by so many seconds."""

    async def step(exchange: Exchange) -> None:
        fields = {"Content-Type": "application/json", "Date": formatdate(time.time() + clock, usegmt=True)}
        if exchange.method == "DELETE":
            answer = answering(delete, b'{"error": {"type": "insufficient-permissions", "message": "no"}}')
        else:
            data: object = STORE
            if exchange.target.startswith("/v2/users/me"):
                data = {"username": "joe"}
            elif "/keys?" in exchange.target:
                data = KEYS
            body = json.dumps({"data": data}).encode()
            answer = answering(status, body, headers={**fields, **(headers or {})})
        await answer(exchange)

    return step


def asked(step: Step, source: str = "s") -> dict[str, Finding]:
    async def main() -> dict[str, Finding]:
        found = Findings()
        async with fault_server(step) as server:
            settings = MountConfig(source, "", api_url=server.url, timeout=2.0)
            await api.look_at(settings, found)
            assert_nothing_was_changed(server)
        return lines(found)

    return run_async(main)


def assert_nothing_was_changed(server: FaultServer) -> None:
    for exchange in server.exchanges:
        assert exchange.method in ("GET", "HEAD") or (
            exchange.method == "DELETE" and "/records/kvsfs-doctor-" in exchange.target
        )


@pytest.mark.usefixtures("token")
def test_a_store_that_is_well() -> None:
    found = asked(api_server(headers={"X-RateLimit-Limit": "60"}))
    assert {finding.verdict for finding in found.values()} == {Verdict.OK}
    assert found["token"].text == "APIFY_TOKEN has that of joe"
    assert found["store"].text == "s is the store mine (s)"
    assert found["clock"].text == "agrees with the API's"
    assert found["latency"].text.endswith(" at the most")
    assert "60 requests a second (store)" in found["rate limit"].text
    assert set(asked(api_server(), source="")) == {"token", "clock", "latency"}


@pytest.mark.usefixtures("token")
@pytest.mark.parametrize(("clock", "told"), [(3600, " s behind"), (-3600, "ahead of"), (90, "s behind")])
def test_a_clock_that_is_wrong(clock: float, told: str) -> None:
    found = asked(api_server(clock))["clock"]
    assert found.verdict is Verdict.PROBLEM
    assert told in found.text
    assert found.text.endswith("set it by NTP (timedatectl set-ntp true)")


@pytest.mark.usefixtures("token")
@pytest.mark.parametrize("date", ["", "yesterday", "Thu, 99 Foo 2026 00:00:00 GMT"])
def test_a_date_that_is_none_says_nothing_of_the_clock(date: str) -> None:
    assert asked(api_server(headers={"Date": date}))["clock"].verdict is Verdict.OK


@pytest.mark.usefixtures("token")
def test_a_token_that_only_reads() -> None:
    found = asked(api_server(delete=403))["writing"]
    assert (found.verdict, "mount with --read-only" in found.text) == (Verdict.PROBLEM, True)


@pytest.mark.usefixtures("token")
def test_a_slow_api(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "SLOW", 0.0)
    found = asked(api_server())["latency"]
    assert (found.verdict, "each open and close is felt" in found.text) == (Verdict.NOTE, True)


@pytest.mark.usefixtures("token")
def test_a_rate_limit_that_is_used_up() -> None:
    limited = answering(429, headers={"Retry-After": "0"})
    answers = [limited, api_server()]

    async def first_limited(exchange: Exchange) -> None:
        if exchange.method == "DELETE" and len(answers) == 2:
            await answers.pop(0)(exchange)
        else:
            await answers[-1](exchange)

    found = asked(first_limited)["rate limit"]
    assert (found.verdict, "429: somebody else uses up its rate limit" in found.text) == (
        Verdict.PROBLEM,
        True,
    )


@pytest.mark.usefixtures("token")
@pytest.mark.parametrize(
    ("status", "name", "told"),
    [
        (401, "token", "the API does not know this token: make a new one"),
        (403, "store", "the token may not read this store"),
        (404, "store", "there is no store s that you can read"),
        (500, "store", "check the network and --api-url"),
    ],
)
def test_a_store_that_is_not_to_be_had(status: int, name: str, told: str) -> None:
    found = asked(api_server(status=status))[name]
    assert (found.verdict, told in found.text) == (Verdict.PROBLEM, True), found
    assert TOKEN not in found.text


def test_what_cannot_be_reached(token: str) -> None:
    found = Findings()
    settings = MountConfig("s", "", api_url="http://127.0.0.1:9", timeout=1.0)
    run_async(lambda: api.look_at(settings, found))
    told = lines(found)
    assert told["store"].verdict is told["token"].verdict is Verdict.PROBLEM
    assert "cannot reach http://127.0.0.1:9" in told["store"].text
    assert token not in str(told)


def test_a_token_file_that_others_can_read(token: str, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(token)
    path.chmod(0o644)
    found = Findings()
    settings = MountConfig("", "", api_url="http://127.0.0.1:9", token_file=str(path))
    run_async(lambda: api.look_at(settings, found))
    (told,) = found.all
    assert (told.name, told.verdict) == ("token", Verdict.PROBLEM)
    assert told.text.endswith(f"chmod 600 {path}")


# --- the command --------------------------------------------------------------------------------------


def test_the_command(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path / "sandbox")
    with running_server(tmp_path / "data", tokens=[f"{TOKEN}=joe"]) as server:
        with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
            store = StoreApi.create(client, "mine")
            info = client.get(f"/v2/key-value-stores/{store.id}").raise_for_status().json()["data"]
        signature = sign_storage(info["urlSigningSecretKey"], store.id, None)
        options = ("--api-url", server.url)
        ended = sandbox.kvsfs("doctor", *options, "mine", token=TOKEN)
        well = [line for line in ended.stdout.splitlines() if not line.startswith(("ok  ", "note  "))]
        assert (ended.returncode, well, ended.stderr) == (ExitCode.OK, [], "")
        assert "ok       writing        records can be changed\n" in ended.stdout
        url = f"{server.url}/v2/key-value-stores/{store.id}/keys?signature={signature}"
        for arguments, token, code in (
            (("missing",), TOKEN, ExitCode.PROBLEM_FOUND),
            (("a/b/c",), TOKEN, ExitCode.PROBLEM_FOUND),
            (("mine",), None, ExitCode.PROBLEM_FOUND),
            ((), None, ExitCode.OK),
            ((url,), None, ExitCode.OK),
            (("local:none",), None, ExitCode.OK),
        ):
            ended = sandbox.kvsfs("doctor", "--json", *options, *arguments, token=token)
            told = json.loads(ended.stdout)
            assert (ended.returncode, ended.stderr) == (code, ""), told
            assert any(finding["verdict"] == "problem" for finding in told) == (code != 0)
            assert {"name", "verdict", "text"} == set(told[0])
            assert TOKEN not in ended.stdout
            assert signature not in ended.stdout
    assert not (tmp_path / "sandbox" / "data_home" / "kvsfs" / "none").exists()
