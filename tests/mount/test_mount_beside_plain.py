"""A mount beside a plain folder: drawn operations must do the same in both, by results, errors and trees."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.mount.conftest import Mount
from tests.support.mounting import Mounted

pytestmark = pytest.mark.fuse

Op = tuple[Any, ...]

names = st.sampled_from(("a", "a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "my file~ü.txt"))
offsets = st.sampled_from((0, 3, 5000))
lengths = st.sampled_from((0, 1, 4097))

operations = st.one_of(
    st.tuples(st.just("write"), names, st.sampled_from(("wb", "ab", "r+b", "xb")), offsets, lengths),
    st.tuples(st.just("read"), names),
    st.tuples(st.just("truncate"), names, st.sampled_from((0, 2, 9000))),
    st.tuples(st.just("unlink"), names),
    st.tuples(st.just("rename"), names, names),
    st.tuples(st.just("rename"), names, names),
    st.tuples(st.sampled_from(("mkdir", "rmdir", "listdir")), names),
    st.tuples(st.just("size"), names),
    st.tuples(st.just("open_and_rename"), names, names),
    st.tuples(st.just("open_and_unlink"), names),
    st.tuples(st.just("touch"), names),
    st.tuples(st.just("exists"), names),
)


class Doing:
    """One of the two folders."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, op: Op) -> object:
        """Give what an operation answers, or its errno."""
        name, *arguments = op
        method: Callable[..., object] = getattr(self, name)
        try:
            return method(*arguments)
        except OSError as error:
            return error.errno

    def write(self, name: str, mode: str, offset: int, length: int) -> object:
        with (self.root / name).open(mode) as file:
            file.seek(offset)
            return file.write(name.encode()[:1] * length)

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def truncate(self, name: str, size: int) -> None:
        os.truncate(self.root / name, size)

    def unlink(self, name: str) -> None:
        os.unlink(self.root / name)

    def rename(self, name: str, new: str) -> None:
        os.rename(self.root / name, self.root / new)

    def mkdir(self, name: str) -> None:
        os.mkdir(self.root / name)

    def rmdir(self, name: str) -> None:
        os.rmdir(self.root / name)

    def listdir(self, name: str) -> list[str]:
        return sorted(os.listdir(self.root / name))

    def size(self, name: str) -> tuple[bool, int]:
        status = os.stat(self.root / name)
        is_file = (self.root / name).is_file()
        return is_file, status.st_size if is_file else 0

    def open_and_rename(self, name: str, new: str) -> bytes:
        with (self.root / name).open("r+b") as file:
            os.rename(self.root / name, self.root / new)
            file.write(b"renamed")
            file.flush()
            file.seek(0)
            return file.read()

    def open_and_unlink(self, name: str) -> bytes:
        with (self.root / name).open("r+b") as file:
            os.unlink(self.root / name)
            file.write(b"gone")
            file.flush()
            file.seek(0)
            return file.read()

    def touch(self, name: str) -> int:
        os.utime(self.root / name, ns=(10**18, 10**18 + 1))
        return os.stat(self.root / name).st_mtime_ns

    def exists(self, name: str) -> bool:
        return os.path.lexists(self.root / name)


def tree(root: Path) -> dict[str, bytes | None]:
    found: dict[str, bytes | None] = {}
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        found |= {str((here / name).relative_to(root)): None for name in folders}
        found |= {str((here / name).relative_to(root)): (here / name).read_bytes() for name in files}
    return found


@settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)
@given(ops=st.lists(operations, min_size=5, max_size=40))
def compare(mounted: Mounted, plain: Path, places: Iterator[int], ops: list[Op]) -> None:
    place = str(next(places))
    sides = Doing(mounted.path / place), Doing(plain / place)
    for side in sides:
        side.root.mkdir()
    for op in ops:
        here, there = (side(op) for side in sides)
        assert here == there, op
    assert tree(sides[0].root) == tree(sides[1].root)


def test_a_mount_does_what_a_plain_folder_does(mount: Mount, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    with mount() as mounted:
        compare(mounted, plain, itertools.count())
        expected = tree(plain)
    with mount() as mounted:
        assert tree(mounted.path) == expected
