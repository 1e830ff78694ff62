"""What shells offer at TAB, by the files in completions/."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from tests.support.mounting import Sandbox, mounted_store

COMPLETIONS = Path(__file__).parents[2] / "completions"
ANSWER_SECONDS = 20
"""For a TAB: it takes a third of a second; on a machine that is busy with everything else, much longer."""


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    sandbox = Sandbox(tmp_path / "sandbox")
    sandbox.environment |= {
        "PATH": f"{Path(sys.executable).parent}:{sandbox.environment['PATH']}",
        "TERM": "xterm",
        "PS1": "ready> ",
    }
    configuration = Path(sandbox.environment["XDG_CONFIG_HOME"], "kvsfs")
    configuration.mkdir(parents=True)
    (configuration / "config.toml").write_text("[mounts.work]\nsource = 'local:demo'\n")
    return sandbox


def shell(sandbox: Sandbox, command: str, *setup: str) -> pexpect.spawn[str]:
    spawned: pexpect.spawn[str] = pexpect.spawn(
        command,
        env=sandbox.environment,
        cwd=str(sandbox.home),
        encoding="utf-8",
        timeout=ANSWER_SECONDS,
    )
    for line in (*setup, "echo set up $((1 + 1))"):
        spawned.sendline(line)
    spawned.expect("set up 2")
    spawned.expect_exact("ready> ")  # before that, what is typed may be lost
    return spawned


@pytest.fixture(params=["bash", "zsh"])
def session(request: pytest.FixtureRequest, sandbox: Sandbox) -> Iterator[pexpect.spawn[str]]:
    if request.param == "bash":
        spawned = shell(sandbox, "bash --norc --noprofile", f". {COMPLETIONS}/kvsfs")
    else:
        compinit = f"autoload -Uz compinit; compinit -u -d {sandbox.home}/dump"
        spawned = shell(sandbox, "zsh -f", f"fpath=({COMPLETIONS} $fpath)", compinit)
    yield spawned
    spawned.close(force=True)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("kvsfs mo", "unt"),
        ("kvsfs mount wo", "rk"),
        ("kvsfs mount --names s", "trict"),
        ("kvsfs mount --compr", "ess"),
        ("kvsfs mount -o ro,allow_", "other"),
        ("kvsfs umount wo", "rk"),
        ("kvsfs stores acc", "ess"),
    ],
)
def test_words_are_completed(session: pexpect.spawn[str], typed: str, offered: str) -> None:
    session.send(f"{typed}\t")
    session.expect_exact(offered)  # zsh paints the blank behind it


@pytest.mark.fuse
def test_mounts_are_completed(session: pexpect.spawn[str], sandbox: Sandbox) -> None:
    with mounted_store(sandbox, "local:demo") as mounted:
        session.send(f"kvsfs status {str(mounted.path)[:-2]}\t")
        session.expect_exact(str(mounted.path)[-2:])


def test_fish_offers_the_same(sandbox: Sandbox) -> None:
    for typed, offered in (
        ("kvsfs mo", "mount"),
        ("kvsfs mount wo", "work"),
        ("kvsfs mount --names s", "strict"),
    ):
        ended = subprocess.run(
            ["fish", "--no-config", "-c", f"source {COMPLETIONS}/kvsfs.fish; complete -C {typed!r}"],
            env=sandbox.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        words = [line.split("\t")[0] for line in ended.stdout.splitlines()]
        assert words == [offered], ended.stderr


def test_a_fault_in_a_file_of_configuration_offers_nothing(sandbox: Sandbox) -> None:
    Path(sandbox.environment["XDG_CONFIG_HOME"], "kvsfs/config.toml").write_text("[mont]")
    words = {"_KVSFS_COMPLETE": "complete_bash", "COMP_WORDS": "kvsfs mount wo", "COMP_CWORD": "2"}
    environment = sandbox.environment | words
    ended = subprocess.run(
        ["kvsfs"], env=environment, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False
    )
    assert (ended.stdout.strip(), ended.stderr) == ("", "")
