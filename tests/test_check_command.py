"""`kvsfs check DIR` as a command: what it prints, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kvsfs.errors import ExitCode


def kvsfs(*arguments: str, locale: str = "C.UTF-8") -> tuple[int, str, str]:
    environment = os.environ | {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ended = subprocess.run(
        [sys.executable, "-m", "kvsfs", "check", *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="surrogateescape",
        env=environment,
        timeout=60,
        check=False,
    )
    return ended.returncode, ended.stdout, ended.stderr


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "f").touch()
    (tmp_path / "link").symlink_to("f")
    os.link(tmp_path / "f", tmp_path / "g")
    return tmp_path


def test_a_folder_that_fits(tree: Path) -> None:
    (tree / "link").unlink()
    code, output, errors = kvsfs(str(tree))
    assert (code, errors) == (ExitCode.OK, "")
    assert output.splitlines() == [
        f"{tree}/g: note: a hard link to f: becomes a file of its own",
        "2 files and folders, none that a store cannot hold; notes: 1",
    ]


def test_a_folder_that_does_not_fit(tree: Path) -> None:
    code, output, errors = kvsfs(f"{tree}/")
    assert (code, errors) == (ExitCode.NOT_ALL_FITS, "")
    assert output.splitlines()[1:] == [
        f"{tree}/link: a symbolic link, and a store has none: cp -L copies what it points to",
        "3 files and folders, 1 that a store cannot hold; notes: 1",
    ]


def test_json(tree: Path) -> None:
    Path(tree, os.fsdecode(b"\xff" * 100)).touch()
    code, output, errors = kvsfs("--json", str(tree))
    assert (code, errors) == (ExitCode.NOT_ALL_FITS, "")
    told = json.loads(output)
    assert told["entries"] == 4
    assert [os.fsencode(misfit["path"]) for misfit in told["misfits"]] == [b"link", b"\xff" * 100]
    assert told["notes"] == [{"path": "g", "why": "a hard link to f: becomes a file of its own"}]


def test_any_name_in_any_locale(tree: Path) -> None:
    (tree / ("你" * 80)).touch()
    (tree / os.fsdecode(b"\xff\n" * 80)).touch()
    for locale, shown in (("C.UTF-8", "你" * 80), ("C", "\\u4f60" * 80)):
        code, output, errors = kvsfs(str(tree), locale=locale)
        assert (code, errors) == (ExitCode.NOT_ALL_FITS, "")
        assert f"{tree}/{shown}: the key would be 720 characters long, the API allows 256\n" in output
        assert "\\xff\\n\\xff\\n" in output
        assert len(output.splitlines()) == 5


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["{}/f"], "{}/f: there is no such folder"),
        (["{}/absent"], "{}/absent: there is no such folder"),
        (["{}", "--prefix", "../x"], "--prefix ../x: not a file name"),
        (["{}", "--names", "odd"], "--names odd: use encoded or strict"),
    ],
)
def test_what_cannot_be_checked(tree: Path, arguments: list[str], told: str) -> None:
    code, output, errors = kvsfs(*(argument.format(tree) for argument in arguments))
    assert (code, output) == (ExitCode.USAGE, "")
    assert errors.startswith(f"kvsfs: {told.format(tree)}")
    assert len(errors.splitlines()) == 1
