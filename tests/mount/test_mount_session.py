"""A mount as the system sees it: its options, its beginning, and all the ways in which it ends."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from kvsfs.errors import ExitCode
from tests.mount.conftest import Mount
from tests.support.mounting import (
    COMMAND_SECONDS,
    KVSFS,
    LEAVING_SECONDS,
    Mounted,
    Sandbox,
    detach,
    failing,
    is_mounted,
    mount_table_line,
    wait_until,
)
from tests.support.serving import RunningServer
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse


def test_the_kernels_table_names_the_source_and_kvsfs(mounted: Mounted, store: StoreApi) -> None:
    line = mount_table_line(mounted.path)
    assert line is not None
    source, path, kind, options, *_ = line.split()
    assert (source, path, kind) == (store.id, str(mounted.path), "fuse.kvsfs")
    assert {"rw", "nosuid", "nodev", "default_permissions", f"user_id={os.getuid()}"} <= set(
        options.split(",")
    )
    assert mounted.run("findmnt", "-n", "-t", "fuse.kvsfs", "-o", "TARGET", str(mounted.path)).strip() == path


def test_statfs_and_df(mounted: Mounted) -> None:
    found = os.statvfs(mounted.path)
    assert found.f_namemax == 256
    assert found.f_bavail * found.f_frsize == 2**50
    assert found.f_ffree > 10**9
    assert mounted.run("df", "--output=fstype", ".").split()[-1] == "fuse.kvsfs"


def test_owner_and_modes_by_option(mount: Mount, store: StoreApi) -> None:
    store.put("folder!2Ff", b"x")
    with mount("-o", "uid=12,gid=34,file_mode=0600,dir-mode=0700,noatime,_netdev") as mounted:
        found = mounted.run("stat", "-c", "%u:%g %a", "folder", "folder/f")
    assert found == "12:34 700\n12:34 600\n"


def test_what_others_may_do_is_checked_by_mode(mounted: Mounted) -> None:
    mounted.sh("echo x > f; chmod 600 f; chmod 4755 f")
    assert mounted.run("stat", "-c", "%a", "f") == "4755\n"


@pytest.mark.skipif(os.getuid() != 0, reason="to become somebody else is for root")
def test_others_may_do_what_modes_let_them(mount: Mount, store: StoreApi) -> None:
    with mount("--allow-other") as mounted:
        mounted.sh("echo secret > private; echo hello > public; chmod 600 private")

        def as_nobody(script: str) -> tuple[int, str]:
            command = ["sh", "-c", script]
            ended = subprocess.run(
                command, cwd=mounted.path, user=65534, group=65534, extra_groups=[],
                capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False,
            )  # fmt: skip
            return ended.returncode, ended.stdout

        assert as_nobody("cat public") == (0, "hello\n")
        for refused in ("cat private", "echo x > public", "echo x > new", "rm public"):
            assert as_nobody(refused)[0] != 0
    assert {key: store.content(key) for key in store.sizes()} == {
        "private": b"secret\n",
        "public": b"hello\n",
    }


READ_ONLY_CHANGES: dict[str, Callable[[Path], object]] = {
    "create": lambda path: (path / "new").write_bytes(b"x"),
    "write": lambda path: (path / "f").write_bytes(b"x"),
    "append": lambda path: (path / "f").open("ab"),
    "truncate": lambda path: os.truncate(path / "f", 0),
    "unlink": lambda path: (path / "f").unlink(),
    "rename": lambda path: (path / "f").rename(path / "g"),
    "mkdir": lambda path: (path / "new").mkdir(),
    "rmdir": lambda path: (path / "empty").rmdir(),
    "chmod": lambda path: (path / "f").chmod(0o600),
    "utime": lambda path: os.utime(path / "f"),
    "setxattr": lambda path: os.setxattr(path / "f", "user.mime_type", b"a/b"),
    "removexattr": lambda path: os.removexattr(path / "f", "user.mime_type"),
    "link": lambda path: (path / "g").hardlink_to(path / "f"),
    "symlink": lambda path: (path / "g").symlink_to("f"),
}


@pytest.mark.parametrize("option", [["--read-only"], ["-o", "ro"]], ids=["--read-only", "-o ro"])
def test_read_only(mount: Mount, store: StoreApi, option: list[str]) -> None:
    store.put("f", b"there", "text/x-special")
    store.put("empty!2F", b"", "application/x-directory")
    with mount(*option) as mounted:
        line = mount_table_line(mounted.path)
        assert line is not None
        assert "ro" in line.split()[3].split(",")
        for change in READ_ONLY_CHANGES.values():
            with failing(errno.EROFS):
                change(mounted.path)
        assert (mounted.path / "f").read_bytes() == b"there"
        assert mounted.run("getfattr", "-n", "user.mime_type", "--only-values", "f") == "text/x-special"
        mounted.umount()
        assert [r for r in mounted.named_requests() if r.startswith(("PUT", "DELETE"))] == []
    assert store.sizes() == {"empty!2F": 0, "f": 5}


def test_in_the_background(mount: Mount, store: StoreApi, sandbox: Sandbox) -> None:
    with mount(background=True) as mounted:
        (mounted.path / "f").write_bytes(b"x")
        assert os.getsid(mounted.pid) == mounted.pid
        descriptors = [os.readlink(f"/proc/{mounted.pid}/fd/{number}") for number in range(3)]
        assert descriptors == ["/dev/null", str(mounted.log_path), str(mounted.log_path)]
        assert mounted.log_path.stat().st_mode & 0o077 == 0
        ended = sandbox.kvsfs("umount", str(mounted.path))
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
        mounted.wait_for_exit()
        assert "is mounted on" in mounted.log_text()
    assert store.content("f") == b"x"


def test_the_background_command_says_where_it_is_mounted(
    sandbox: Sandbox, store: StoreApi, mount: Mount, token: str
) -> None:
    with mount(name="first", background=True) as mounted:
        assert mounted.server is not None
        path = sandbox.mount_point("second")
        ended = sandbox.kvsfs(
            "mount", "--cache-dir", str(sandbox.folder / "other"), "--api-url", mounted.server.url, store.id,
            str(path), token=token,
        )  # fmt: skip
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout == f"{store.id} is mounted on {path}\n"
        assert sandbox.kvsfs("umount", str(path)).returncode == 0
        assert not is_mounted(path)


def test_two_mounts_of_one_store_see_each_others_files(mount: Mount, store: StoreApi) -> None:
    with mount(name="one") as one, mount("--cache-dir", "~/second-cache", name="two") as two:
        (one.path / "f").write_bytes(b"from one")
        assert (two.path / "f").read_bytes() == b"from one"
        (two.path / "g").write_bytes(b"from two")
        (one.path / "f").write_bytes(b"from one again")
        wait_until(lambda: (two.path / "f").read_bytes() == b"from one again")
        assert (one.sandbox.home / "second-cache").is_dir()
    assert store.keys() == ["f", "g"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_detaches_and_serves_open_files_to_their_end(
    mount: Mount, store: StoreApi, number: signal.Signals
) -> None:
    store.put("old", b"read on")
    with mount() as mounted:
        with (
            (mounted.path / "new").open("wb", buffering=0) as file,
            (mounted.path / "old").open("rb", buffering=0) as reader,
        ):
            file.write(b"before ")
            os.kill(mounted.pid, number)
            wait_until(lambda: not is_mounted(mounted.path))
            assert os.listdir(mounted.path) == []
            file.write(b"after")
            os.kill(mounted.pid, number)
            assert reader.read() == b"read on"
        mounted.wait_for_exit(ExitCode.OK)
    assert store.content("new") == b"before after"


def test_umount_8(mounted: Mounted, store: StoreApi) -> None:
    (mounted.path / "f").write_bytes(b"x")
    ended = subprocess.run(
        ["umount", mounted.path], capture_output=True, text=True, timeout=LEAVING_SECONDS, check=False
    )
    if ended.returncode and os.getuid() != 0:
        pytest.skip("umount(8) is for root and fstab's users")
    assert ended.returncode == 0, ended.stderr
    mounted.wait_for_exit(ExitCode.OK)
    assert store.content("f") == b"x"


def test_a_lazy_unmount_keeps_open_files_going(mounted: Mounted, store: StoreApi) -> None:
    with (mounted.path / "f").open("wb", buffering=0) as file:
        file.write(b"one ")
        subprocess.run(["fusermount3", "-u", "-z", mounted.path], timeout=LEAVING_SECONDS, check=True)
        file.write(b"two")
    mounted.wait_for_exit(ExitCode.OK)
    assert store.content("f") == b"one two"


def test_kvsfs_umount_of_what_is_in_use(mount: Mount, store: StoreApi, sandbox: Sandbox) -> None:
    with mount() as mounted:
        with (mounted.path / "f").open("wb", buffering=0) as file:
            file.write(b"x")
            ended = sandbox.kvsfs("umount", str(mounted.path))
            assert ended.returncode == ExitCode.BUSY
            assert len(ended.stderr.splitlines()) == 1
            assert "in use" in ended.stderr
            assert is_mounted(mounted.path)
            file.write(b"y")
        ended = sandbox.kvsfs("umount", str(mounted.path))
        assert (ended.returncode, ended.stderr) == (0, "")
        mounted.wait_for_exit(ExitCode.OK)
    assert store.content("f") == b"xy"


def test_kvsfs_umount_waits_whatever_the_environment(mount: Mount, store: StoreApi, sandbox: Sandbox) -> None:
    """Mounted from cron, say, and unmounted from a desktop session."""
    del sandbox.environment["XDG_RUNTIME_DIR"]
    with mount(background=True) as mounted:
        (mounted.path / "f").write_bytes(b"x")
        elsewhere = str(sandbox.folder / "elsewhere")
        ended = sandbox.kvsfs("umount", str(mounted.path), XDG_RUNTIME_DIR=elsewhere)
        assert (ended.returncode, ended.stderr) == (0, "")
        mounted.wait_for_exit()
    assert store.content("f") == b"x"


def test_a_mount_with_closed_standard_descriptors(
    mount: Mount, store: StoreApi, sandbox: Sandbox, token: str
) -> None:
    with mount(name="first", background=True) as mounted:
        assert mounted.server is not None
        path = sandbox.mount_point("second")
        command = [*KVSFS, "mount", "--cache-dir", str(sandbox.folder / "other")]
        command += ["--api-url", mounted.server.url, store.id, str(path)]
        ended = subprocess.run(
            ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command],
            env=sandbox.environment_with(token),
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert ended.returncode == 0
        assert is_mounted(path)
        assert sandbox.kvsfs("umount", str(path)).returncode == 0


def test_a_mount_that_cannot_say_so_is_mounted(
    mount: Mount, store: StoreApi, sandbox: Sandbox, token: str
) -> None:
    with mount(name="first", background=True) as mounted, open("/dev/full", "w") as full:
        assert mounted.server is not None
        path = sandbox.mount_point("second")
        command = [*KVSFS, "mount", "--cache-dir", str(sandbox.folder / "other")]
        command += ["--api-url", mounted.server.url, store.id, str(path)]
        ended = subprocess.run(
            command,
            env=sandbox.environment_with(token),
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert (ended.returncode, ended.stderr) == (0, b"")
        assert sandbox.kvsfs("umount", str(path)).returncode == 0


def test_kvsfs_umount_of_what_is_not_mounted(sandbox: Sandbox) -> None:
    for path in (sandbox.mount_point(), sandbox.folder / "missing", Path("/proc")):
        ended = sandbox.kvsfs("umount", str(path))
        assert ended.returncode == ExitCode.NOT_MOUNTED
        assert len(ended.stderr.splitlines()) == 1
        assert str(path) in ended.stderr


def test_a_killed_daemons_unstored_bytes_are_told_at_the_next_mount(mount: Mount, store: StoreApi) -> None:
    with mount() as mounted:
        (mounted.path / "stored").write_bytes(b"stored")
        with failing(errno.ENOTCONN), (mounted.path / "half").open("wb", buffering=0) as file:
            file.write(b"half a file")
            mounted.kill()
        mounted.detach_dead()
    with mount() as mounted:
        mounted.expect_log("an earlier mount was killed: 1 files that were never closed are in")
        assert mounted.run("ls") == "stored\n"
        (warning,) = [line for line in mounted.log_text().splitlines() if "earlier mount" in line]
        (kept,) = Path(warning.split()[-1]).iterdir()
        assert kept.name.endswith(".half")
        assert kept.read_bytes() == b"half a file"
    assert store.keys() == ["stored"]
    assert kept.read_bytes() == b"half a file"


def test_the_background_mount_after_a_kill_says_it_on_the_terminal(
    mount: Mount, store: StoreApi, sandbox: Sandbox, token: str
) -> None:
    with mount() as mounted:
        with failing(errno.ENOTCONN), (mounted.path / "half").open("wb", buffering=0) as file:
            file.write(b"half a file")
            mounted.kill()
        mounted.detach_dead()
        assert mounted.server is not None
        ended = sandbox.kvsfs(
            "mount", "--api-url", mounted.server.url, store.id, str(mounted.path), token=token
        )
        try:
            assert ended.returncode == 0
            (line,) = ended.stderr.splitlines()
            assert "not-uploaded" in line
        finally:
            assert sandbox.kvsfs("umount", str(mounted.path)).returncode == 0


def test_the_cache_folder_holds_nothing_after_a_clean_end(
    mount: Mount, store: StoreApi, sandbox: Sandbox
) -> None:
    store.put("f", b"x" * 10_000)
    with mount() as mounted:
        mounted.sh("cat f > g; echo h > h; rm g")
    (folder,) = (sandbox.folder / "cache_home" / "kvsfs").iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in folder.rglob("*") if path.is_file()} == {"lock", "journal.db"}


def test_a_mount_point_with_blanks_and_other_scripts(mount: Mount, store: StoreApi, sandbox: Sandbox) -> None:
    with mount(name="my  store\\日本", background=True) as mounted:
        (mounted.path / "f").write_bytes(b"x")
        ended = sandbox.kvsfs("umount", str(mounted.path))
        assert (ended.returncode, ended.stderr) == (0, "")
        mounted.wait_for_exit()
    assert store.content("f") == b"x"


def test_relative_paths_and_links_name_the_same_mount(
    store: StoreApi, sandbox: Sandbox, server: RunningServer, token: str
) -> None:
    path = sandbox.mount_point()
    (sandbox.folder / "parent").symlink_to(sandbox.folder)
    (sandbox.folder / "link").symlink_to("mnt")
    environment = sandbox.environment_with(token, APIFY_API_BASE_URL=server.url)

    def run(folder: Path, *arguments: str) -> tuple[int, str]:
        ended = subprocess.run(
            [*KVSFS, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
        )  # fmt: skip
        return ended.returncode, ended.stderr

    try:
        assert run(sandbox.folder, "mount", store.id, "mnt/") == (0, "")
        (path / "f").write_bytes(b"x")
        assert run(sandbox.folder, "umount", "./mnt/") == (0, "")
        assert not is_mounted(path)
        for mounted_by, unmounted_by in (
            ("parent/mnt", "mnt"),
            ("link", "parent/mnt"),
            ("mnt", "parent/link"),
        ):
            assert run(sandbox.folder, "mount", store.id, mounted_by) == (0, "")
            assert (path / "f").read_bytes() == b"x"
            assert run(sandbox.folder, "umount", unmounted_by) == (0, "")
            assert not is_mounted(path)
    finally:
        detach(path)
