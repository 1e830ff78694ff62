"""What a mount refuses, and the errno by which programs know: as the man pages of the system calls name it."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.conftest import Mount
from tests.support import linux
from tests.support.mounting import Mounted, failing
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse

Call = Callable[[Path], object]


def opening(flags: int, name: str) -> Call:
    return lambda at: os.close(os.open(at / name, flags))


def bind(at: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        os.chdir(at)  # an address has room for 107 bytes
        try:
            made.bind("socket")
        finally:
            os.chdir("/")


def write_by_a_reader(at: Path) -> None:
    with (at / "f").open("rb") as file:
        os.write(file.fileno(), b"x")


NOT_HERE: dict[str, tuple[int, Call]] = {
    "a hard link": (errno.EPERM, lambda at: os.link(at / "f", at / "new")),
    "a symbolic link": (errno.EPERM, lambda at: os.symlink("f", at / "new")),
    "a fifo": (errno.EPERM, lambda at: os.mkfifo(at / "new")),
    "a device": (errno.EPERM, lambda at: os.mknod(at / "new", stat.S_IFCHR | 0o600, os.makedev(1, 3))),
    "a socket": (errno.EPERM, bind),
    "a link to read": (errno.EINVAL, lambda at: os.readlink(at / "f")),
    "a file without a name": (errno.EOPNOTSUPP, opening(os.O_TMPFILE | os.O_RDWR, ".")),
    "an exchange": (
        errno.EINVAL,
        lambda at: linux.renameat2(at / "f", at / "other", linux.RENAME_EXCHANGE),
    ),
    "a whiteout": (errno.EINVAL, lambda at: linux.renameat2(at / "f", at / "new", linux.RENAME_WHITEOUT)),
    "no replacing": (
        errno.EEXIST,
        lambda at: linux.renameat2(at / "f", at / "other", linux.RENAME_NOREPLACE),
    ),
}

NAMES: dict[str, tuple[int, Call]] = {
    "open what is not there": (errno.ENOENT, opening(os.O_RDONLY, "new")),
    "make a file in a folder that is not there": (errno.ENOENT, opening(os.O_CREAT | os.O_WRONLY, "new/x")),
    "make a file below a file": (errno.ENOTDIR, opening(os.O_CREAT | os.O_WRONLY, "f/x")),
    "make what is there": (errno.EEXIST, opening(os.O_CREAT | os.O_EXCL | os.O_WRONLY, "f")),
    "make a name past the limit": (errno.ENAMETOOLONG, opening(os.O_CREAT | os.O_WRONLY, "x" * 257)),
    "make a path past the limit": (
        errno.ENAMETOOLONG,
        opening(os.O_CREAT | os.O_WRONLY, "full/" + "x" * 250),
    ),
    "make a reserved name": (errno.EINVAL, opening(os.O_CREAT | os.O_WRONLY, "other!2F")),
    "write to a folder": (errno.EISDIR, opening(os.O_WRONLY, "full")),
    "open a file as a folder": (errno.ENOTDIR, opening(os.O_RDONLY | os.O_DIRECTORY, "f")),
    "list a file": (errno.ENOTDIR, lambda at: os.listdir(at / "f")),
    "unlink a folder": (errno.EISDIR, lambda at: (at / "full").unlink()),
    "unlink what is not there": (errno.ENOENT, lambda at: (at / "new").unlink()),
    "mkdir over a file": (errno.EEXIST, lambda at: (at / "f").mkdir()),
    "mkdir over a folder": (errno.EEXIST, lambda at: (at / "full").mkdir()),
    "rmdir of what is not empty": (errno.ENOTEMPTY, lambda at: (at / "full").rmdir()),
    "rmdir of a file": (errno.ENOTDIR, lambda at: (at / "f").rmdir()),
    "rmdir of what is not there": (errno.ENOENT, lambda at: (at / "new").rmdir()),
    "rename what is not there": (errno.ENOENT, lambda at: (at / "new").rename(at / "x")),
    "rename a file over a folder": (errno.EISDIR, lambda at: (at / "f").rename(at / "full")),
    "rename a folder into itself": (errno.EINVAL, lambda at: (at / "full").rename(at / "full" / "x")),
    "truncate a folder": (errno.EISDIR, lambda at: os.truncate(at / "full", 0)),
    "truncate to less than nothing": (errno.EINVAL, lambda at: os.truncate(at / "f", -1)),
    "write by a descriptor to read": (errno.EBADF, write_by_a_reader),
}


def refusal(call: Call, at: Path) -> str:
    try:
        call(at)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "nothing"


@pytest.fixture
def held(store: StoreApi) -> dict[str, bytes]:
    records = {"f": b"f", "full!2Fg": b"g", "other": b"other"}
    for key, content in records.items():
        store.put(key, content)
    return records


def test_what_is_refused_changes_nothing(mount: Mount, store: StoreApi, held: dict[str, bytes]) -> None:
    with mount() as mounted:
        mounted.run("ls", "-R")
        refusals = NOT_HERE | NAMES
        found = {what: refusal(call, mounted.path) for what, (_, call) in refusals.items()}
        assert found == {what: errno.errorcode[number] for what, (number, _) in refusals.items()}
        changes = [request for request in mounted.named_requests() if request.split()[0] in ("PUT", "DELETE")]
        assert changes == []
    assert {key: store.content(key) for key in store.sizes()} == held


def test_a_mount_to_read_only_refuses_every_change(
    mount: Mount, store: StoreApi, held: dict[str, bytes]
) -> None:
    changes: list[Call] = [
        opening(os.O_WRONLY, "f"),
        opening(os.O_RDWR, "f"),
        opening(os.O_RDONLY | os.O_TRUNC, "f"),
        opening(os.O_CREAT | os.O_WRONLY, "new"),
        lambda at: os.truncate(at / "f", 0),
        lambda at: (at / "f").unlink(),
        lambda at: (at / "f").rename(at / "new"),
        lambda at: (at / "new").mkdir(),
        lambda at: (at / "full").rmdir(),
        lambda at: (at / "f").chmod(0o600),
        lambda at: os.utime(at / "f"),
        lambda at: os.setxattr(at / "f", "user.mime_type", b"text/csv"),
        lambda at: os.removexattr(at / "f", "user.mime_type"),
        lambda at: os.symlink("f", at / "new"),
    ]
    with mount("--read-only") as mounted:
        assert [refusal(call, mounted.path) for call in changes] == ["EROFS"] * len(changes)
        assert (mounted.path / "f").read_bytes() == b"f"
    assert {key: store.content(key) for key in store.sizes()} == held


def test_neither_room_nor_holes_can_be_made(mounted: Mounted, store: StoreApi) -> None:
    """Programs then write zeros, as posix_fallocate(3) does by itself."""
    modes = (0, linux.KEEP_SIZE, linux.KEEP_SIZE | linux.PUNCH_HOLE, linux.ZERO_RANGE)
    with (mounted.path / "f").open("w+b", buffering=0) as file:
        file.write(b"x" * 5000)
        for mode in (*modes, linux.COLLAPSE_RANGE, linux.INSERT_RANGE):
            with failing(errno.EOPNOTSUPP):
                linux.fallocate(file.fileno(), mode, 0, 4096)
        assert os.fstat(file.fileno()).st_size == 5000
        os.posix_fallocate(file.fileno(), 0, 9000)
    assert store.content("f") == (b"x" * 5000).ljust(9000, b"\0")
    assert "unsupported" in mounted.attempt("fallocate", "-p", "-l", "4096", "f").stderr
    mounted.run("cp", "--reflink=auto", "f", "copy")
    assert "not supported" in mounted.attempt("cp", "--reflink=always", "f", "never").stderr
    assert store.content("copy") == store.content("f")


def test_a_file_has_no_holes_to_seek(mounted: Mounted) -> None:
    with (mounted.path / "f").open("w+b", buffering=0) as file:
        file.truncate(1_000_000)
        assert os.lseek(file.fileno(), 10, os.SEEK_DATA) == 10
        assert os.lseek(file.fileno(), 10, os.SEEK_HOLE) == 1_000_000
        with failing(errno.ENXIO):
            os.lseek(file.fileno(), 1_000_000, os.SEEK_DATA)


def test_rename_without_replacing(mounted: Mounted, store: StoreApi) -> None:
    (mounted.path / "f").write_bytes(b"x")
    linux.renameat2(mounted.path / "f", mounted.path / "new", linux.RENAME_NOREPLACE)
    assert os.listdir(mounted.path) == store.keys() == ["new"]


def test_attributes_in_buffers_that_are_too_small(mount: Mount, store: StoreApi) -> None:
    store.put("f", b"x", "text/x-special")
    with mount() as mounted:
        path = mounted.path / "f"
        length = len("text/x-special")
        assert linux.getxattr(path, "user.mime_type", 0) == length
        assert linux.getxattr(path, "user.mime_type", length) == length
        listed = len("user.mime_type") + 1
        assert linux.listxattr(path, 0) == linux.listxattr(path, listed) == listed
        for size in (1, length - 1):
            with failing(errno.ERANGE):
                linux.getxattr(path, "user.mime_type", size)
            with failing(errno.ERANGE):
                linux.listxattr(path, size)


def test_attributes_that_must_or_must_not_be_there(mount: Mount, store: StoreApi) -> None:
    store.put("f", b"x", "text/x-special")
    with mount() as mounted:
        path = mounted.path / "f"
        with failing(errno.EEXIST):
            os.setxattr(path, "user.mime_type", b"text/csv", os.XATTR_CREATE)
        assert store.content_type("f") == "text/x-special"
        os.setxattr(path, "user.mime_type", b"text/csv", os.XATTR_REPLACE)
        assert store.content_type("f") == "text/csv"
        with failing(errno.ENODATA):
            os.setxattr(path, "user.none", b"x", os.XATTR_REPLACE)
