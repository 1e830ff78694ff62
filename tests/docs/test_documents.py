"""Every command that a document shows is run, and must print what the document says."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from kvsfs.errors import ExitCode
from tests.support.mounting import Sandbox
from tests.support.serving import RunningServer, running_server
from tests.support.store_api import StoreApi

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)

BLOCK_SECONDS = 120.0
"""For the commands of one block; the demo takes three seconds."""

TOKEN = "a-readers-token"

RUN_INSTEAD = {
    "./dev demo": f"{ROOT}/docs/demo/run.sh demo-store",
    ".venv/bin/kvsfs --help": "kvsfs --help",
}
"""What `dev` and a reader's clone would run, in the sandbox's folder instead of this repository's."""

NOT_RUN = {
    "./dev test": "it is what runs this test",
    "./dev setup": "it has run, or there would be no .venv",
}

OWN_PORT, METRICS_PORT = "8765", "9464"
"""The ports that documents show; the test takes a free one instead."""

MARK = "@@@"
"""Stands before the number of each command in the output of a block."""


@dataclass(frozen=True)
class Shown:
    """One command of a document, and the output below it."""

    command: str
    output: str

    @property
    def pattern(self) -> str:
        """`…` stands for anything."""
        return re.escape(self.output.rstrip("\n")).replace("…", "(?s:.*)")


def parse(block: str) -> list[Shown]:
    """Cut a block into its commands; the demo's own output shows commands, which are not ours to run."""
    starts = r"^\$ (?=\./dev demo)" if block.startswith("$ ./dev demo") else r"^\$ "
    _, *parts = re.split(starts, block, flags=re.MULTILINE)
    return [Shown(command, output) for command, _, output in (part.partition("\n") for part in parts)]


BLOCKS = [
    pytest.param(match[1], id=f"{document.name}-{number}")
    for document in sorted([README, *(ROOT / "docs").glob("*.md")])
    for number, match in enumerate(BLOCK.finditer(document.read_text()), 1)
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Serve the store that the README mounts, with the records of the demo."""
    folder = tmp_path_factory.mktemp("documents")
    records = folder / "records"
    records.mkdir()
    subprocess.run([sys.executable, ROOT / "docs/demo/make_records.py", records], check=True)
    with running_server(folder / "data", tokens=[f"{TOKEN}=my-name"]) as server:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=server.url, headers=headers) as client:
            store = StoreApi.create(client, "my-store")
            for path in sorted(p for p in records.rglob("*") if p.is_file()):
                key = str(path.relative_to(records)).replace("/", "!2F").replace(" ", "!20")
                store.put(key, path.read_bytes())
            run = client.post("/v2/actors/my-name~scraper/runs").raise_for_status().json()["data"]
            StoreApi(client, run["defaultKeyValueStoreId"]).put("OUTPUT", b'{"found": 3}\n')
        yield server


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    yield Sandbox(tmp_path)
    for line in Path("/proc/mounts").read_text().splitlines():
        if f" {tmp_path}/" in line:
            subprocess.run(["fusermount3", "-u", "-z", line.split(" ")[1]], check=False)


@pytest.mark.fuse
@pytest.mark.parametrize("block", BLOCKS)
def test_commands_print_what_the_document_shows(block: str, server: RunningServer, sandbox: Sandbox) -> None:
    port = str(free_port())
    shown = parse(block.replace(OWN_PORT, port).replace(METRICS_PORT, port))
    assert shown
    printed = run_block([s.command for s in shown], port, server, sandbox)
    for part, output in zip(shown, printed, strict=True):
        if part.command in NOT_RUN:
            continue
        assert re.fullmatch(part.pattern, output.rstrip("\n")), f"$ {part.command}\n{output}"


def run_block(commands: list[str], port: str, server: RunningServer, sandbox: Sandbox) -> list[str]:
    """Run the commands in one shell; what each printed, its errors among it."""
    script = ["exec 2>&1", "trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT"]
    for number, command in enumerate(commands):
        script += [
            f"echo; echo {MARK}{number}",
            "true" if command in NOT_RUN else RUN_INSTEAD.get(command, command),
        ]
        if command.endswith("&"):
            script.append(f"until curl -s http://127.0.0.1:{port} -o /dev/null; do sleep 0.05; done")
    environment = sandbox.environment | {
        "PATH": f"{Path(sys.executable).parent}:{sandbox.environment['PATH']}",
        "APIFY_TOKEN": TOKEN,
        "APIFY_API_BASE_URL": server.url,
    }
    ended = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=sandbox.folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=BLOCK_SECONDS,
        check=False,
    )
    _, *parts = re.split(rf"\n?{MARK}\d+\n", ended.stdout)
    assert len(parts) == len(commands), ended.stdout
    return parts


@pytest.mark.fuse
@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("printf X | dd of=page.html bs=1 seek=5 conv=notrunc status=none", "page.html differ: "),
        ("rm notes/readme.txt", "notes/readme.txt"),
        ("true", None),
    ],
)
def test_the_demo_fails_when_a_file_comes_back_otherwise(
    sandbox: Sandbox, tmp_path: Path, damage: str, told: str | None
) -> None:
    """An rsync that damages what it copied stands before the real one."""
    wrapper = tmp_path / "bin" / "rsync"
    wrapper.parent.mkdir()
    wrapper.write_text(
        f'#!/bin/sh -e\n{shutil.which("rsync")} "$@"\nfor to; do :; done\ncd "$to"\n{damage}\n'
    )
    wrapper.chmod(0o755)
    programs = (wrapper.parent, Path(sys.executable).parent, sandbox.environment["PATH"])
    ended = subprocess.run(
        [ROOT / "docs/demo/run.sh", tmp_path / "demo-store"],
        env=sandbox.environment | {"PATH": ":".join(map(str, programs))},
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BLOCK_SECONDS,
        check=False,
    )
    assert (ended.returncode != 0) == (told is not None), ended.stdout
    assert ("byte for byte" in ended.stdout) == (told is None)
    if told is not None:
        assert told in ended.stdout.splitlines()[-1]


def test_the_clients_examples_work_one_after_the_other(tmp_path: Path) -> None:
    python, javascript = (example(language) for language in ("python", "js"))
    assert [len([line for line in e.splitlines() if line]) for e in (python, javascript)] == [3, 3]
    with running_server(tmp_path, tokens=["secret=me"]) as own:
        httpx.post(
            f"{own.url}/v2/key-value-stores",
            params={"name": "mine"},
            headers={"Authorization": "Bearer secret"},
        ).raise_for_status()
        url = f"http://127.0.0.1:{OWN_PORT}"
        run_example([sys.executable, "-c", python.replace(url, own.url)])
        command = ["node", "--input-type=module", "--eval", javascript.replace(url, own.url)]
        assert run_example(command) == "{ items: 3 }\n"


def example(language: str) -> str:
    """Give the README's only block in a language."""
    (block,) = re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    return str(block)


def run_example(command: list[str]) -> str:
    """Run a program where the JavaScript client is installed; what it printed."""
    ended = subprocess.run(
        command,
        cwd=ROOT / "tests/clients/javascript",
        capture_output=True,
        text=True,
        timeout=BLOCK_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_nothing_is_left_mounted_by_the_readme() -> None:
    """What a block mounts it unmounts; only the demo stays, and says so."""
    for match in BLOCK.finditer(README.read_text()):
        mounts = len(re.findall(r"^\$ .*\bkvsfs mount\b", match[1], re.MULTILINE))
        umounts = len(re.findall(r"^\$ .*\bkvsfs umount\b", match[1], re.MULTILINE))
        assert mounts == umounts or match[1].startswith("$ ./dev demo")


def test_what_is_generated_is_what_the_code_says() -> None:
    command = [sys.executable, str(ROOT / "docs/generate.py"), "--check"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=BLOCK_SECONDS, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_every_exit_code_has_a_meaning() -> None:
    meanings = [code.meaning for code in ExitCode]
    assert all(meanings)
    assert len(set(meanings)) == len(meanings)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
