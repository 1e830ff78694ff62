"""The man pages: they render without a warning, and hold each command, option and exit code."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import typer.main

from kvsfs.cli import app
from kvsfs.cli.mount_helper import EXIT_CODES, FAILURE
from kvsfs.errors import ExitCode
from kvsfs.options import FLAG, OPTIONS, Option
from tests.support.mounting import KVSFS

MAN = Path(__file__).parents[2] / "man"
PAGES = sorted(MAN.iterdir())


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command],
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def rendered(name: str) -> str:
    return run("man", "-l", MAN / name, MANWIDTH="200", MANPAGER="cat").stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@pytest.mark.parametrize(
    "command", ["man --warnings=w -l", "groff -man -Tutf8 -ww -z", "mandoc -T lint -W warning"]
)
def test_they_render_without_a_warning(page: Path, command: str) -> None:
    program, *words = command.split()
    assert shutil.which(program), f"{program} is missing: ./dev test installs it"
    ended = run(program, *words, page, MANPAGER="cat", MANROFFOPT="-ww")
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_warning_would_be_seen(tmp_path: Path) -> None:
    page = tmp_path / "bad.1"
    page.write_text((MAN / "kvsfs.1").read_text() + "\n.NOSUCH macro\n")
    assert run("groff", "-man", "-Tutf8", "-ww", "-z", page).stderr
    assert run("mandoc", "-T", "lint", "-W", "warning", page).returncode


@pytest.mark.parametrize("option", OPTIONS.values(), ids=OPTIONS)
def test_every_option_is_in_the_pages(option: Option) -> None:
    for_users, for_mount = rendered("kvsfs.1"), rendered("mount.kvsfs.8")
    assert re.search(rf"^ +--{option.name}\b", for_users, re.MULTILINE)
    assert re.search(rf"Environment: {option.variable}$", for_users, re.MULTILINE)
    word = option.field if option.kind is FLAG else f"{option.field}={option.kind.metavar}"
    assert re.search(rf"^ +{re.escape(word)}(,| |$)", for_mount, re.MULTILINE)


def test_every_command_is_in_the_page() -> None:
    page = rendered("kvsfs.1")
    names = {
        f"{name} {below}".strip()
        for name, command in typer.main.get_command(app).commands.items()  # type: ignore[attr-defined]
        for below in getattr(command, "commands", {"": None})
    }
    assert {"mount", "stores ls", "config show"} <= names
    assert [name for name in names if not re.search(rf"^ +kvsfs {name}$", page, re.MULTILINE)] == []


def test_every_exit_code_is_in_the_pages_and_in_help() -> None:
    told = run(*KVSFS, "--help").stdout
    for text in (rendered("kvsfs.1"), told):
        for code in ExitCode:
            assert re.search(rf"^ +{int(code)} +{re.escape(code.meaning)}$", text, re.MULTILINE), code
    page = rendered("mount.kvsfs.8")
    assert {
        int(found) for found in re.findall(r"^ +(\d+) +\w", page.partition("EXIT STATUS")[2], re.MULTILINE)
    } == {
        *EXIT_CODES.values(),
        FAILURE,
    }
