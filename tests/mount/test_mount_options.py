"""Options reach the file system, from wherever they are written."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kvsfs.errors import ExitCode
from kvsfs.options import OPTIONS
from tests.mount.conftest import Mount
from tests.support.mounting import Mounted, Sandbox, failing, mount_table_line, mounted_store, wait_until
from tests.support.serving import RunningServer
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse


def write_configuration(sandbox: Sandbox, text: str) -> None:
    folder = Path(sandbox.environment["XDG_CONFIG_HOME"], "kvsfs")
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(text)


def by_flag(_: Sandbox, name: str, value: str) -> list[str]:
    return [f"--{name}", value]


def by_word(_: Sandbox, name: str, value: str) -> list[str]:
    return ["-o", f"{name.replace('-', '_')}={value}"]


def by_environment(sandbox: Sandbox, name: str, value: str) -> list[str]:
    sandbox.environment[f"KVSFS_MOUNT_{name.upper().replace('-', '_')}"] = value
    return []


def by_file(sandbox: Sandbox, name: str, value: str) -> list[str]:
    write_configuration(sandbox, f'[mount]\n{name} = "{value}"\n')
    return []


@pytest.mark.parametrize("write", [by_flag, by_word, by_environment, by_file])
@pytest.mark.parametrize("background", [True, False], ids=["background", "foreground"])
def test_names_strict(
    mount: Mount, sandbox: Sandbox, store: StoreApi, write: Callable[..., list[str]], background: bool
) -> None:
    with mount(*write(sandbox, "names", "strict"), background=background) as mounted:
        with failing(errno.EINVAL):
            (mounted.path / "my file").write_bytes(b"")
        (mounted.path / "my-file").write_bytes(b"")
    assert store.keys() == ["my-file"]


COSTS = {
    "revalidate": ("0", "cat f; cat f", ["GET f", "GET f"], ["GET f"]),
    "cache-size": ("5", "cat f; cat f", ["GET f", "GET f"], ["GET f"]),
    "cache-min-free": ("999999GiB", "cat f; cat g; cat f", ["GET f", "GET g", "GET f"], ["GET f", "GET g"]),
}
"""Option, value, and what a script costs with and without it."""


@pytest.mark.parametrize("name", COSTS)
def test_what_an_option_costs(mount: Mount, sandbox: Sandbox, store: StoreApi, name: str) -> None:
    value, script, with_it, without_it = COSTS[name]
    for key in "fg":
        store.put(key, b"some bytes")

    def cost(mounted: Mounted) -> list[str]:
        mounted.run("ls")
        with mounted.counting() as asked:
            mounted.sh(script)
        return asked

    with mount() as mounted:
        assert cost(mounted) == without_it
    with mount(*by_environment(sandbox, name, value), background=True) as mounted:
        assert cost(mounted) == with_it


def test_listing_ttl(mount: Mount, sandbox: Sandbox, store: StoreApi) -> None:
    with mount(*by_file(sandbox, "listing-ttl", "10ms"), background=True) as mounted:
        assert os.listdir(mounted.path) == []
        store.put("new", b"")
        within = OPTIONS["listing-ttl"].default / 2
        wait_until(lambda: os.listdir(mounted.path) == ["new"], within=within)


@pytest.mark.parametrize(
    ("options", "file_mode", "folder_mode"),
    [
        ([], 0o644, 0o755),
        (["--umask", "077"], 0o600, 0o700),
        (["--umask", "0"], 0o666, 0o777),
        (["--umask", "077", "-o", "file_mode=640"], 0o640, 0o700),
        (["--dir-mode", "750", "--file-mode", "0444"], 0o444, 0o750),
    ],
)
def test_modes(mount: Mount, store: StoreApi, options: list[str], file_mode: int, folder_mode: int) -> None:
    store.put("folder!2Ff", b"")
    with mount(*options, "--uid", "7", "-o", "gid=8") as mounted:
        file, folder = (os.stat(mounted.path / name) for name in ("folder/f", "folder"))
        assert (file.st_mode & 0o7777, folder.st_mode & 0o7777) == (file_mode, folder_mode)
        assert {(s.st_uid, s.st_gid) for s in (file, folder)} == {(7, 8)}


@pytest.mark.skipif(os.getuid() != 0, reason="for others than root, fuse.conf must allow it")
@pytest.mark.parametrize("options", [["--allow-other"], ["-o", "allow_other"]])
def test_allow_other(mount: Mount, options: list[str]) -> None:
    with mount(*options) as mounted:
        line = mount_table_line(mounted.path)
        assert line is not None
        assert "allow_other" in line.split()[3].split(",")


@contextmanager
def hanging(server: RunningServer) -> Iterator[None]:
    """Stop the server, so that it neither answers nor refuses."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


SOON = 10.0
"""Seconds: less than the store client's own stall time-out, which would end a wait as well."""


def test_close_timeout(mount: Mount, server: RunningServer, store: StoreApi) -> None:
    with mount("--close-timeout", "100ms") as mounted:
        mounted.run("ls")
        mounted.expect_log("flush: ")
        with hanging(server), failing(errno.ETIMEDOUT, within=SOON):
            (mounted.path / "f").write_bytes(b"x")
    assert store.content("f") == b"x"


def test_drain_timeout(mount: Mount, sandbox: Sandbox, server: RunningServer, store: StoreApi) -> None:
    with mount(*by_environment(sandbox, "drain-timeout", "100ms")) as mounted:
        mounted.run("ls")
        mounted.expect_log("uploads took longer than 0.1 s")
        mounted.expect_log("left for the next mount of this store: f!7E ")
        with hanging(server):
            # Uploaded when it was not renamed for a while, or at the end.
            (mounted.path / "f~").write_bytes(b"x")
            mounted.umount(ExitCode.NOT_ALL_UPLOADED, within=SOON)
    del sandbox.environment["KVSFS_MOUNT_DRAIN_TIMEOUT"]
    with mount(name="again") as mounted:
        mounted.expect_log("1 files of an earlier mount were not uploaded yet")
        assert (mounted.path / "f~").read_bytes() == b"x"
    assert store.content("f!7E") == b"x"


@pytest.mark.parametrize("background", [True, False], ids=["background", "foreground"])
def test_a_named_mount(
    sandbox: Sandbox, server: RunningServer, store: StoreApi, token: str, background: bool
) -> None:
    write_configuration(
        sandbox, f'[mounts.work]\nsource = "{store.id}"\napi-url = "{server.url}"\nread-only = true\n'
    )
    store.put("f", b"x")
    with mounted_store(sandbox, "work", token=token, background=background) as mounted:
        assert (mounted.path / "f").read_bytes() == b"x"
        with failing(errno.EROFS):
            (mounted.path / "g").write_bytes(b"")


def test_a_slip_of_the_pen_mounts_nothing(sandbox: Sandbox, store: StoreApi) -> None:
    write_configuration(sandbox, "[mount]\nread-onyl = true\n")
    for arguments in (["mount", store.id, str(sandbox.mount_point())], ["config", "show"]):
        ended = sandbox.kvsfs(*arguments)
        assert (ended.returncode, ended.stdout) == (ExitCode.USAGE, "")
        (line,) = ended.stderr.splitlines()
        assert line.endswith("config.toml [mount]: read-onyl is not known; did you mean read-only?")
