"""What cannot be copied, what ends a copy, and what it leaves: told, and nothing half done."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from kvsfs.errors import ExitCode
from kvsfs.signatures import sign_storage
from tests.crawlee.conftest import TOKEN, Command
from tests.support.fault_rules import fault
from tests.support.mounting import COMMAND_SECONDS, KVSFS, Sandbox, wait_until
from tests.support.serving import RunningServer
from tests.support.store_api import StoreApi

MANY = 200


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A store's folder of `MANY` records."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(MANY):
        (folder / f"r{number:03}.txt").write_bytes(b"x" * 100)
    return folder


# --- what the other side cannot hold ----------------------------------------------------------------


def test_what_is_no_record_is_told(store: StoreApi, command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    (folder / "good.txt").write_bytes(b"good")
    (folder / "link.txt").symlink_to("/etc/hostname")
    (folder / "folder").mkdir()
    os.mkfifo(folder / "fifo")
    (folder / "a b.txt").write_bytes(b"x")
    (folder / ("K" * 250 + ".txt")).write_bytes(b"x")
    os.close(os.open(bytes(folder) + b"/\xff.txt", os.O_CREAT))
    (folder / "typed").write_bytes(b"x")
    (folder / "typed.__metadata__.json").write_text('{"key": "typed", "content_type": "no type"}')
    (folder / "long").write_bytes(b"x")
    (folder / "long.__metadata__.json").write_text(
        json.dumps({"key": "L" * 257, "content_type": "text/plain"})
    )
    (folder / "gone.__metadata__.json").write_text('{"key": "gone", "content_type": "text/plain"}')
    (folder / "deep.__metadata__.json").write_text("[" * 60_000)
    (folder / "list.__metadata__.json").write_text("[]")
    (folder / "out.__metadata__.json").write_text('{"key": "out", "filename": "../../etc/hostname"}')
    (folder / ".kvsfs-0123456789abcdef.tmp").write_bytes(b"half")
    told, errors = command("import", folder, store.id, code=ExitCode.NOT_ALL_FITS)
    assert told == "2 records stored (5 B), 11 that cannot be copied\n"
    assert store.keys() == ["K" * 250, "good"]
    reasons = dict(line.split(": ", 1) for line in errors.splitlines())
    assert reasons == {
        "link.txt": "a symbolic link, which is not followed",
        "folder": "a folder: no key holds a slash",
        "fifo": "neither file nor folder",
        "a b.txt": "its key would be 'a b', and keys allow a-zA-Z0-9!-_.'() only",
        "\\udcff.txt": "its key would be '\\udcff', and keys allow a-zA-Z0-9!-_.'() only",
        "typed": "its content type is none: 'no type'",
        "long": "its key would be 257 characters long, the API allows 256",
        "gone.__metadata__.json": "the file of its record 'gone' is not there",
        "deep.__metadata__.json": "it is no metadata of Crawlee's: too deep",
        "list.__metadata__.json": "it is no metadata of Crawlee's: no JSON object",
        "out.__metadata__.json": "the file of its record 'out' is not there",
    } | {"\\udcff.txt": reasons["\\udcff.txt"]}


@pytest.mark.parametrize(
    ("layout", "bad", "good"),
    [
        ("python", [".", "..", "__metadata__.json", "x.__metadata__.json", "'" * 80, "K" * 238], ["K" * 237]),
        ("javascript", ["x.__metadata__.y", "K" * 252], [".", "..", "__metadata__.json", "K" * 251]),
    ],
)
def test_keys_that_no_file_can_have(
    store: StoreApi, command: Command, tmp_path: Path, layout: str, bad: list[str], good: list[str]
) -> None:
    for key in (*bad, *good):
        store.put(key, b"x", "text/plain; charset=utf-8")
    for dry_run in (["--dry-run"], []):
        told, errors = command(
            "export", "--for", layout, *dry_run, store.id, tmp_path / "s", code=ExitCode.NOT_ALL_FITS
        )
        assert told.endswith(f"({len(good)} B), {len(bad)} that cannot be copied\n")
        assert sorted(line.partition(": ")[0] for line in errors.splitlines()) == sorted(bad)
    files = [name for name in names_in(tmp_path / "s/key_value_stores/default") if "K" in name or "." in name]
    assert len([name for name in files if not name.endswith("__metadata__.json")]) == len(good)


def test_no_link_leads_out_of_the_folder(store: StoreApi, command: Command, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    storage = tmp_path / "storage"
    (storage / "key_value_stores").mkdir(parents=True)
    (storage / "key_value_stores" / "linked").symlink_to(outside)
    store.put("record", b"content")
    _, told = command("import", storage, store.id, "--store", "linked", code=ExitCode.USAGE)
    assert "there is no store linked; it holds none" in told
    _, told = command("export", store.id, storage, "--store", "linked", code=ExitCode.USAGE)
    assert "cannot be used" in told
    folder = storage / "key_value_stores" / "default"
    folder.mkdir()
    (folder / "record").symlink_to(outside / "secret")
    (folder / "record.__metadata__.json").symlink_to(outside / "secret")
    command("export", store.id, storage)
    assert (folder / "record").read_bytes() == b"content"
    assert not (folder / "record").is_symlink()
    assert names_in(outside) == ["secret"]
    assert (outside / "secret").read_bytes() == b"secret"


# --- what the store, or the way to it, refuses ------------------------------------------------------


def test_one_that_fails_does_not_stop_the_others(store: StoreApi, command: Command, many: Path) -> None:
    with fault(store, "PUT", "r007", kind="status", status=400, error_type="schema", message="no"):
        told, errors = command("import", many, store.id, code=ExitCode.NOT_ALL_UPLOADED)
    assert told == f"{MANY - 1} records stored (19.4 KiB), 1 failed\n"
    assert errors.startswith("r007.txt: record r007: ")
    assert len(store.keys()) == MANY - 1
    told, _ = command("import", many, store.id)
    assert told == f"1 record stored (100 B), {MANY - 1} there already\n"


def test_what_would_fail_for_all_ends_it(
    store: StoreApi, command: Command, many: Path, requests_of: Callable[[], list[str]], tmp_path: Path
) -> None:
    for status, code, why in (
        (402, ExitCode.NOT_ALL_UPLOADED, "kvsfs: the plan allows no more: record r"),
        (403, ExitCode.NO_PERMISSION, "kvsfs: the token may not do this: record r"),
    ):
        with fault(store, "PUT", kind="status", status=status):
            requests_of()
            _, errors = command("import", many, store.id, code=code)
        assert len(requests_of()) <= 16
        assert errors.splitlines()[-1].startswith(why)
    command("import", many, "nobody-has-this", code=ExitCode.NO_SUCH_STORE)
    command("export", "nobody-has-this", tmp_path / "new", code=ExitCode.NO_SUCH_STORE)
    assert not (tmp_path / "new").exists()


def test_a_record_that_breaks_off_is_read_again(store: StoreApi, command: Command, tmp_path: Path) -> None:
    content = bytes(range(256)) * 4000
    store.put("big", content, "application/octet-stream")
    folder = tmp_path / "key_value_stores" / "default"
    with fault(store, "GET", "big", kind="truncate", after=300_000):
        told, errors = command("export", store.id, tmp_path, code=ExitCode.NOT_ALL_UPLOADED)
    assert told == "0 records written (0 B), 1 failed\n"
    assert "\nbig: record big: the API's answer broke off\n" in f"\n{errors}"
    assert names_in(folder) == []
    rule = {"method": "GET", "path": f"*/{store.id}/records/big", "count": 1}
    store.client.post("/testing/faults", json=rule | {"action": {"kind": "truncate", "after": 300_000}})
    told, _ = command("export", store.id, tmp_path)
    assert told == "1 record written (1000 KiB)\n"
    assert (folder / "big").read_bytes() == content


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_no_half_file(
    store: StoreApi, sandbox: Sandbox, server: RunningServer, tmp_path: Path, stop: signal.Signals
) -> None:
    store.put("a-small", b"small")
    store.put("b-big", bytes(1_000_000))
    folder = tmp_path / "key_value_stores" / "default"
    with fault(store, "GET", "b-big", kind="stall", after=300_000):
        exporting = subprocess.Popen(
            [*KVSFS, "export", store.id, str(tmp_path)],
            env=sandbox.environment_with(TOKEN, APIFY_API_BASE_URL=server.url),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until(lambda: folder.is_dir() and {"a-small"} < set(names_in(folder)))
        wait_until(lambda: any(path.stat().st_size > 100_000 for path in folder.glob(".kvsfs-*.tmp")))
        exporting.send_signal(stop)
        told, errors = exporting.communicate(timeout=COMMAND_SECONDS)
    assert exporting.returncode == ExitCode.INTERRUPTED
    assert names_in(folder) == ["a-small", "a-small.__metadata__.json"]
    assert told == "1 record written (5 B)\n"
    assert errors == "kvsfs: stopped; what is copied stays, and the same command goes on\n"


def test_a_stopped_import_goes_on(
    store: StoreApi, sandbox: Sandbox, server: RunningServer, many: Path, command: Command
) -> None:
    with fault(store, "PUT", "r1*", kind="stall"):
        importing = subprocess.Popen(
            [*KVSFS, "import", str(many), store.id],
            env=sandbox.environment_with(TOKEN, APIFY_API_BASE_URL=server.url),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until(lambda: len(store.keys()) == MANY // 2)
        importing.send_signal(signal.SIGINT)
        told, _ = importing.communicate(timeout=COMMAND_SECONDS)
    assert importing.returncode == ExitCode.INTERRUPTED
    assert told == f"{MANY // 2} records stored (9.8 KiB)\n"
    assert command("import", many, store.id)[0].endswith(f"{MANY // 2} there already\n")


def test_a_signature_is_seen_by_nobody_while_its_store_is_exported(
    store: StoreApi, sandbox: Sandbox, server: RunningServer, tmp_path: Path
) -> None:
    store.put("a", b"content")
    info = store.client.get(f"/v2/key-value-stores/{store.id}").json()["data"]
    signature = sign_storage(info["urlSigningSecretKey"], store.id, None)
    url = f"{server.url}/v2/key-value-stores/{store.id}/keys?signature={signature}"
    with fault(store, "GET", "a", kind="stall", seconds=1.0):
        exporting = subprocess.Popen(
            [*KVSFS, "export", url, str(tmp_path)],
            env=sandbox.environment_with(None),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until((tmp_path / "key_value_stores" / "default").exists)
        process = Path(f"/proc/{exporting.pid}")
        for seen in ("cmdline", "environ"):
            assert signature.encode() not in (process / seen).read_bytes()
    assert exporting.communicate(timeout=COMMAND_SECONDS) == ("1 record written (7 B)\n", "")
    assert (tmp_path / "key_value_stores" / "default" / "a").read_bytes() == b"content"


# --- what is asked for wrongly ----------------------------------------------------------------------


def test_wrong_words(
    store: StoreApi, command: Command, many: Path, tmp_path: Path, client: httpx.Client
) -> None:
    def refused(code: ExitCode, *arguments: str | Path, token: str | None = TOKEN) -> str:
        told, errors = command(*arguments, code=code, token=token)
        assert told == ""
        (line,) = errors.splitlines()
        return line

    assert "No such file" in refused(ExitCode.USAGE, "import", tmp_path / "missing", store.id)
    assert "one store's folder" in refused(ExitCode.USAGE, "import", many, store.id, "--store", "x")
    assert "give a store's ID" in refused(ExitCode.INVALID_SOURCE, "import", many, "a b")
    assert "python or javascript" in refused(ExitCode.USAGE, "export", store.id, many, "--for", "perl")
    for name in ("..", "a/b", ""):
        assert "no folder's name" in refused(
            ExitCode.USAGE, "export", store.id, tmp_path / "s", "--store", name or "."
        )
    assert "cannot be used: Not a directory" in refused(ExitCode.USAGE, "export", store.id, many / "r000.txt")
    assert "token" in refused(ExitCode.NO_TOKEN, "import", many, store.id, token=None)
    client.put(
        f"/v2/key-value-stores/{store.id}", json={"generalAccess": "ANYONE_WITH_ID_CAN_READ"}
    ).raise_for_status()
    url = f"{client.base_url}/v2/key-value-stores/{store.id}/keys?signature=hush"
    for source in (store.id, url):
        told = refused(ExitCode.NO_PERMISSION, "import", many, source, token=None)
        assert "can only be read" in told
        assert "hush" not in told
    storage = tmp_path / "storage"
    for name in ("one", "two"):
        (storage / "key_value_stores" / name).mkdir(parents=True)
    told = refused(ExitCode.USAGE, "import", tmp_path, store.id)
    assert f"holds a storage folder: give {storage}" in told
    told = refused(ExitCode.USAGE, "import", storage, store.id)
    assert "name a store with --store; it holds one, two" in told


def test_a_store_is_made_for_it(command: Command, many: Path, client: httpx.Client) -> None:
    command("import", many, "made-for-it", code=ExitCode.NO_SUCH_STORE)
    told, _ = command("import", "--dry-run", "--create", many, "made-for-it")
    assert told.endswith(f"{MANY} records would be stored (19.5 KiB)\n")
    assert client.get("/v2/key-value-stores/~made-for-it").status_code == 404
    command("import", "--create", many, "made-for-it")
    assert client.get("/v2/key-value-stores/~made-for-it/keys").json()["data"]["count"] == MANY


def test_programs_are_told_in_json(store: StoreApi, command: Command, many: Path) -> None:
    (many / "a b").write_bytes(b"x")
    told, errors = command("import", "--json", many, store.id, code=ExitCode.NOT_ALL_FITS)
    found = json.loads(told)
    assert (found["copied"], found["same"], found["bytes"], found["failed"]) == (MANY, 0, MANY * 100, [])
    assert [misfit["name"] for misfit in found["misfits"]] == ["a b"]
    assert errors == ""


# --- how it is done ---------------------------------------------------------------------------------


PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
"""Runs a command and tells the most KiB that it took. In a process of its own: a peak begins with what the process
that forked had, and a suite has hundreds of MiB."""


def test_no_record_is_held_in_memory(
    store: StoreApi, sandbox: Sandbox, server: RunningServer, tmp_path: Path
) -> None:
    """Four at a time of 48 MiB each; a process without anything in it takes some 60 MiB."""
    folder = tmp_path / "large"
    folder.mkdir()
    for number in range(4):
        with (folder / f"r{number}.bin").open("wb") as file:
            file.truncate(48 * 1024**2)
    for words in (["import", str(folder), store.id], ["export", store.id, str(tmp_path / "out")]):
        ended = subprocess.run(
            [sys.executable, "-c", PEAK, *KVSFS, *words],
            env=sandbox.environment_with(TOKEN, APIFY_API_BASE_URL=server.url),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        assert int(ended.stdout.splitlines()[-1]) < 130 * 1024
    assert (tmp_path / "out/key_value_stores/default/r3").stat().st_size == 48 * 1024**2


def test_a_terminal_shows_a_bar(store: StoreApi, sandbox: Sandbox, server: RunningServer, many: Path) -> None:
    ours, theirs = os.openpty()
    ended = subprocess.run(
        [*KVSFS, "import", str(many), store.id],
        env=sandbox.environment_with(TOKEN, APIFY_API_BASE_URL=server.url, TERM="xterm", COLUMNS="100"),
        stdout=subprocess.PIPE,
        stderr=theirs,
        timeout=COMMAND_SECONDS,
        check=True,
    )
    shown = os.read(ours, 1_000_000).decode()
    os.close(ours)
    os.close(theirs)
    assert f"of {MANY} records" in shown
    assert ended.stdout == f"{MANY} records stored (19.5 KiB)\n".encode()
