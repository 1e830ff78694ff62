"""`kvsfs check`: what does not fit is exactly what a mount would refuse."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kvsfs.core import names
from kvsfs.core.fitting import TreeCheck, raw_folder, readable
from kvsfs.core.name_rules import NameRules
from kvsfs.core.numbers import ROOT
from kvsfs.core.tuning import Tuning
from kvsfs.errors import FileError
from tests.support.mounted import NOBODY, mounted, on_mock_clock

LONGEST = "a" * 255


def found(folder: Path | str, target: str = "", *, strict: bool = False) -> dict[str, tuple[str, bool]]:
    raw = raw_folder(os.fsencode(target), strict=strict)
    check = TreeCheck(os.fsencode(folder), target=raw, strict=strict)
    return {os.fsdecode(f.path): (f.why, f.fits) for f in check.findings()}


def test_a_tree_that_fits_gives_nothing(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "my file.txt").write_text("x")
    (tmp_path / LONGEST).write_text("x")
    (tmp_path / "你好").write_text("x")
    check = TreeCheck(os.fsencode(tmp_path))
    assert list(check.findings()) == []
    assert check.entries == 5


def test_the_limit_is_of_the_whole_encoded_path(tmp_path: Path) -> None:
    folder = tmp_path / ("f" * 100)
    folder.mkdir()
    (folder / ("a" * 153)).touch()  # 100 + 3 of the slash + 153 = 256
    assert found(tmp_path) == {}
    (folder / ("b" * 154)).touch()
    why = "the key would be 257 characters long, the API allows 256"
    assert found(tmp_path) == {f"{folder.name}/{'b' * 154}": (why, False)}
    assert len(found(tmp_path, "p")) == 2
    assert found(folder) == {}
    (tmp_path / ("g" * 254) / "below").mkdir(parents=True)  # its marker would not fit
    assert found(tmp_path)["g" * 254] == (f"{why}; nothing in it fits", False)
    assert len(found(tmp_path)) == 2


def test_links_and_special_files(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("a")
    os.mkfifo(tmp_path / "fifo")
    os.link(tmp_path / "file", tmp_path / "a" / "again")
    os.link(tmp_path / "file", tmp_path / "other")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    told = found(tmp_path)
    assert {path: fits for path, (_, fits) in told.items()} == {
        "fifo": False,
        "link": False,
        "socket": False,
        "other": True,
        os.path.join("a", "again"): True,
    }
    assert "cp -L" in told["link"][0]
    assert told["other"][0] == told["a/again"][0] == "a hard link to file: becomes a file of its own"


def test_a_hard_link_to_elsewhere_is_nothing_to_tell(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").touch()
    os.link(tmp_path / "out", tmp_path / "in" / "f")
    assert found(tmp_path / "in") == {}


def test_strict_names(tmp_path: Path) -> None:
    (tmp_path / "my folder").mkdir()
    (tmp_path / "my folder" / "a b").touch()
    (tmp_path / "fine").touch()
    assert found(tmp_path) == {}
    ((path, (why, fits)),) = found(tmp_path, strict=True).items()
    assert (path, fits) == ("my folder", False)
    assert why.startswith("'my folder': a key cannot hold ' ' (U+0020) (--names strict)")


def test_what_stays_on_this_machine_is_told_and_not_looked_into(tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").touch()
    (tmp_path / ".Trash-1000" / "files").mkdir(parents=True)
    (tmp_path / ".Trash-1000" / "files" / "link").symlink_to("x")
    assert {path: fits for path, (_, fits) in found(tmp_path).items()} == {
        ".DS_Store": True,
        ".Trash-1000": True,
    }


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe")).touch()
    name = os.fsdecode(b"\xff" * 90)
    (tmp_path / name).touch()
    assert list(found(tmp_path)) == [name]
    assert readable(b"a\n\xff\xc5\xbe\t") == "a\\n\\xff\u017e\\t"


def test_what_cannot_be_read_is_told_and_what_went_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root nothing is unreadable: the system call's answer is made up."""
    for name in ("closed", "gone", "open"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "link").symlink_to("x")
    real = os.scandir

    def scandir(path: bytes) -> object:
        if path.endswith(b"/closed"):
            raise PermissionError(errno.EACCES, "Permission denied")
        if path.endswith(b"/gone"):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    told = found(tmp_path)
    assert told["closed"] == ("cannot be read: Permission denied", False)
    assert sorted(told) == ["closed", "open/link"]


@pytest.mark.parametrize("target", ["a/b", "/a/b/", "./a//b/."])
def test_where_the_copy_will_lie(target: str) -> None:
    assert raw_folder(target.encode()) == b"a/b/"


def test_what_is_no_folder_of_a_mount() -> None:
    for target in ("..", "a/../b", "x!2F", "a" * 254):
        with pytest.raises(FileError):
            raw_folder(target.encode())


def test_the_order_is_that_of_the_names(tmp_path: Path) -> None:
    for folder in ("b", "a"):
        (tmp_path / folder).mkdir()
        for name in ("2", "1"):
            (tmp_path / folder / name).symlink_to("x")
    (tmp_path / "c").symlink_to("x")
    assert list(found(tmp_path)) == ["c", "a/1", "a/2", "b/1", "b/2"]


# --- against the mount --------------------------------------------------------------------------------

NAMES = st.one_of(
    st.binary(min_size=1, max_size=8),
    st.text("!2EF1.a-", min_size=1, max_size=6).map(str.encode),
    st.sampled_from(
        [b"a" * 250, "ž".encode() * 41, b"b" * 120, b"#a#", b"._a", b"._x!2F", b"x!2F", b"!2F", b"!2E", b" "]
    ),
).filter(lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b".."))

PATHS = st.lists(st.lists(NAMES, min_size=1, max_size=3), min_size=1, max_size=5)


@example(paths=[[b"##", b"x!2F"], [b".Trash-1!2F"]], strict=False)
@settings(max_examples=60, deadline=None)
@given(paths=PATHS, strict=st.booleans())
def test_what_fits_is_what_a_mount_takes(paths: list[list[bytes]], strict: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        make(os.fsencode(folder), paths)
        check = TreeCheck(os.fsencode(folder), strict=strict)
        misfits = {finding.path for finding in check.findings() if not finding.fits}
        refused = copied(os.fsencode(folder), strict=strict)
    assert misfits == refused


@settings(max_examples=200, deadline=None)
@given(path=st.lists(NAMES, min_size=1, max_size=4))
def test_what_fits_is_what_encode_takes(path: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        if not make(os.fsencode(folder), [path]) or any(map(is_local, path)):
            return
        misfits = list(TreeCheck(os.fsencode(folder)).findings())
    assert (misfits == []) == encodable(path), misfits
    assert not any(misfit.fits for misfit in misfits)


def is_local(name: bytes) -> bool:
    return NameRules().is_local_name(name)


def encodable(path: list[bytes]) -> bool:
    try:
        components = [names.component(name) for name in path]
        names.encode(b"/".join(components))
        if len(components) > 1:
            names.encode_prefix(b"/".join(components[:-1]) + b"/")
    except FileError:
        return False
    return True


def make(folder: bytes, paths: list[list[bytes]]) -> bool:
    """Make files, with the folders above them; whether all could be made here."""
    made = True
    for path in paths:
        try:
            os.makedirs(os.path.join(folder, *path[:-1]), exist_ok=True)
            with open(os.path.join(folder, *path), "xb"):
                pass
        except OSError:  # too long for this disk, or there as the other kind
            made = False
    return made


def copied(folder: bytes, *, strict: bool) -> set[bytes]:
    """Copy a folder into a mount; the paths that it refuses."""
    refused: set[bytes] = set()

    async def copy() -> None:
        async with mounted(tuning=Tuning(strict_names=strict)) as m:

            async def into(number: int, path: bytes) -> None:
                for entry in os.scandir(os.path.join(folder, path)):
                    name, below = entry.name, os.path.join(path, entry.name)
                    try:
                        if entry.is_dir():
                            made = await m.fs.mkdir(number, name, 0o755)
                            if not is_local(name):  # else what is below is nobody's matter
                                await into(made.number, below)
                        else:
                            _, opened = await m.fs.create(number, name, 0o644, os.O_WRONLY, NOBODY)
                            await m.close(opened.fh)
                    except FileError:
                        refused.add(below)

            await into(ROOT, b"")

    run: Callable[[Callable[[], object]], None] = on_mock_clock  # type: ignore[assignment]
    run(copy)
    return refused
