"""`mount -t kvsfs` and lines of fstab: mount(8) as administrators use it, in a mount namespace of the test's own."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvsfs.cli.mount_helper import EXIT_CODES, FAILURE
from kvsfs.errors import ExitCode
from tests.mount.conftest import TOKEN
from tests.support.mounting import Sandbox, processes_naming, wait_until
from tests.support.namespaces import SCRIPTS, Namespace, namespace
from tests.support.serving import RunningServer
from tests.support.store_api import StoreApi

NOBODY = 65534

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(os.getuid() != 0, reason="only root mounts by mount(8) and makes a namespace"),
]


@pytest.fixture
def machine(tmp_path: Path, sandbox: Sandbox) -> Iterator[Namespace]:
    with namespace(tmp_path / "namespace", sandbox.environment) as made:
        yield made


@pytest.fixture
def token_file(sandbox: Sandbox) -> Path:
    path = sandbox.folder / "token"
    path.write_text(TOKEN)
    path.chmod(0o600)
    return path


@pytest.fixture
def options(server: RunningServer, token_file: Path) -> str:
    return f"api_url={server.url},token_file={token_file}"


def left(machine: Namespace, path: Path) -> None:
    """Unmount as administrators do, and wait for the daemon's end."""
    ended = machine.run("umount", path)
    assert (ended.returncode, ended.stderr) == (0, "")
    wait_until(lambda: not processes_naming(str(path)))
    assert machine.mount_line(path) is None


def test_mount_by_type(machine: Namespace, sandbox: Sandbox, store: StoreApi, options: str) -> None:
    store.put("folder!2Ff", b"some bytes")
    path = sandbox.mount_point()
    words = f"{options},ro,allow_other,noexec,uid=7,gid=8,file_mode=640,dir_mode=750,cache_size=1MiB"
    ended = machine.run("mount", "-t", "kvsfs", store.id, path, "-o", words)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    line = machine.mount_line(path)
    assert line is not None
    source, _, kind, flags, *_ = line.split(" ")
    assert (source, kind) == (store.id, "fuse.kvsfs")
    assert {"ro", "nosuid", "nodev", "noexec", "allow_other", "default_permissions"} <= set(flags.split(","))
    told = machine.run("sh", "-ec", f"cd {path}; stat -c '%a %u %g' folder folder/f; cat folder/f")
    assert told.stdout == "750 7 8\n640 7 8\nsome bytes"
    assert machine.run("touch", path / "new").stderr.endswith("Read-only file system\n")
    left(machine, path)
    assert store.keys() == ["folder!2Ff"]


@pytest.fixture(scope="module")
def install_page() -> str:
    return (Path(__file__).parents[2] / "docs/INSTALL.md").read_text()


def test_the_line_of_fstab_that_the_documents_show(
    machine: Namespace,
    sandbox: Sandbox,
    store: StoreApi,
    server: RunningServer,
    token_file: Path,
    install_page: str,
) -> None:
    (line,) = re.findall(r"^```fstab\n(.*)\n```$", install_page, re.MULTILINE)
    path = sandbox.mount_point()
    store.put("old", b"")
    for shown, ours in (
        ("my-name/my-store", store.id),
        ("/mnt/store", str(path)),
        ("/etc/kvsfs.token", f"{token_file},api_url={server.url}"),
        ("nofail", "nofail,x-systemd.automount,x-systemd.mount-timeout=1min,noatime"),
    ):
        assert line.count(shown) == 1
        line = line.replace(shown, ours)
    machine.write("/etc/fstab", f"{line}\n")
    for command in (["mount", path], ["mount", "-a"]):
        assert machine.run(*command).returncode == 0
        assert machine.run("stat", "-c", "%a %u %g", path / "old").stdout == "640 1000 1000\n"
        assert machine.run("sh", "-c", f"echo 1 > {path}/new").stderr == ""
        assert machine.run("mount", "-a").returncode == 0  # mounted already: nothing to do
        assert len(machine.mounts()) == 1
        left(machine, path)
    assert store.keys() == ["new", "old"]


def test_noauto_waits_until_it_is_asked_for(
    machine: Namespace, sandbox: Sandbox, store: StoreApi, options: str
) -> None:
    path = sandbox.mount_point()
    machine.write("/etc/fstab", f"{store.id} {path} kvsfs noauto,{options} 0 0\n")
    assert machine.run("mount", "-a").returncode == 0
    assert machine.mounts() == []
    assert machine.run("mount", path).returncode == 0
    left(machine, path)


def test_a_user_mounts_where_fstab_allows_it(tmp_path: Path, store: StoreApi, server: RunningServer) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own nobody else may enter
        sandbox = Sandbox(Path(folder))
        path = sandbox.mount_point()
        token_file = sandbox.folder / "token"
        token_file.write_text(TOKEN)
        token_file.chmod(0o600)
        subprocess.run(["chown", "-R", str(NOBODY), folder], check=True)
        with namespace(tmp_path / "namespace", sandbox.environment) as machine:
            words = f"noauto,user,api_url={server.url},token_file={token_file}"
            machine.write("/etc/fstab", f"{store.id} {path} kvsfs {words} 0 0\n")
            ended = machine.run("mount", path, user=NOBODY)
            assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr
            line = machine.mount_line(path)
            assert line is not None
            flags = line.split(" ")[3].split(",")
            assert {f"user_id={NOBODY}", "nosuid", "nodev", "noexec"} <= set(flags)
            assert machine.run("sh", "-c", f"echo 1 > {path}/mine", user=NOBODY).stderr == ""
            assert machine.run("cat", path / "mine").stderr.endswith("Permission denied\n")  # root is another
            ended = machine.run(SCRIPTS / "kvsfs", "umount", path, user=NOBODY)
            assert (ended.returncode, ended.stderr) == (0, "")
    assert store.keys() == ["mine"]


def test_the_type_as_the_kernel_shows_it(
    machine: Namespace, sandbox: Sandbox, store: StoreApi, options: str
) -> None:
    """What `findmnt --fstab` or a copied line of /proc/mounts may say."""
    path = sandbox.mount_point()
    machine.run("ln", "-s", SCRIPTS / "mount.kvsfs", "/usr/sbin/mount.fuse.kvsfs")
    assert machine.run("mount", "-t", "fuse.kvsfs", store.id, path, "-o", options).returncode == 0
    assert machine.mount_line(path) is not None
    left(machine, path)


def test_a_named_mount(machine: Namespace, sandbox: Sandbox, store: StoreApi, options: str) -> None:
    path = sandbox.mount_point()
    settings = "\n".join(
        f'{name} = "{text}"' for name, _, text in (o.partition("=") for o in options.split(","))
    )
    machine.write(
        "/etc/kvsfs.toml", f'[mounts.work]\nsource = "{store.id}"\nmount-point = "{path}"\n{settings}\n'
    )
    assert machine.run("mount", "-t", "kvsfs", "work", path).returncode == 0
    assert machine.mount_line(path) is not None
    ended = machine.run(SCRIPTS / "kvsfs", "umount", "work")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert machine.mounts() == []
    ended = machine.run(SCRIPTS / "kvsfs", "umount", "wrok")
    assert ended.returncode == ExitCode.NOT_MOUNTED


def test_updatedb_leaves_it_out(
    machine: Namespace,
    sandbox: Sandbox,
    store: StoreApi,
    server: RunningServer,
    options: str,
    install_page: str,
) -> None:
    """With the type among PRUNEFS, as docs/INSTALL.md says; without it, the store is listed."""
    (command,) = re.findall(r"^sed -i .*/etc/updatedb.conf$", install_page, re.MULTILINE)
    machine.write("/etc/updatedb.conf", 'PRUNEFS="NFS afs"\n')
    assert machine.run("sh", "-c", command).returncode == 0
    pruned_types = machine.run("cat", "/etc/updatedb.conf").stdout.removeprefix("PRUNEFS=").strip('"\n')
    path = sandbox.mount_point()
    assert machine.run("mount", "-t", "kvsfs", store.id, path, "-o", options).returncode == 0
    costs = {}
    for pruned in (pruned_types, "fuse.other"):
        before = len(server.requests())
        words = ["--prunepaths", "", "--prune-bind-mounts", "no", "--prunefs", pruned]
        ended = machine.run("updatedb", "-l", "0", "-U", sandbox.folder, "-o", sandbox.folder / "db", *words)
        assert (ended.returncode, ended.stderr) == (0, "")
        costs[pruned] = [r for r in server.requests()[before:] if store.id in r.path]
    assert costs[pruned_types] == []
    assert costs["fuse.other"]
    left(machine, path)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (
            ["{source}", "{path}", "-o", "red_only"],
            1,
            "-o red-only: not an option of kvsfs; did you mean read-only?",
        ),
        (["{source}", "{path}", "-o", "remount,ro"], 1, "-o remount: a mount cannot be changed"),
        (["{source}"], 1, "usage: mount.kvsfs SOURCE DIR"),
        (["{source}", "{path}", "-x"], 1, "option -x not recognized; usage: mount.kvsfs SOURCE DIR"),
        (["no//source", "{path}"], 1, "'no//source' is not a store: give"),
        (["{source}", "{path}/missing", "-o", "{options}"], 32, "does not exist: make it with mkdir"),
        (
            ["{source}", "{path}", "-o", "api_url=http://127.0.0.1:1,timeout=2s"],
            32,
            "cannot reach http://127.0.0.1:1",
        ),
        (["{source}", "{path}", "-o", "{options},cache_dir=/proc/x"], 2, "/proc/x"),
    ],
)
def test_exit_codes_are_those_of_mount_8(
    sandbox: Sandbox, store: StoreApi, options: str, arguments: list[str], code: int, told: str
) -> None:
    fill = {"source": store.id, "path": str(sandbox.mount_point()), "options": options}
    command = [str(SCRIPTS / "mount.kvsfs"), *(word.format(**fill) for word in arguments)]
    ended = subprocess.run(
        command, env=sandbox.environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout) == (code, "")
    (line,) = ended.stderr.splitlines()
    assert told in line


def test_sloppy_fake_and_verbose(sandbox: Sandbox, store: StoreApi, options: str) -> None:
    path = sandbox.mount_point()

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [str(SCRIPTS / "mount.kvsfs"), store.id, str(path), *words]
        return subprocess.run(
            command, env=sandbox.environment, capture_output=True, text=True, timeout=60, check=False
        )

    ended = run("-f", "-o", options)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert not os.path.ismount(path)
    assert run("-f", "-o", "no_such_thing=1").returncode == 1
    ended = run("-s", "-n", "-v", "-t", "kvsfs", "-o", f"no_such_thing=1,{options}")
    assert (ended.returncode, ended.stdout) == (0, f"{store.id} is mounted on {path}\n")
    ended = sandbox.kvsfs("umount", str(path))
    assert (ended.returncode, ended.stderr) == (0, "")


def test_every_code_of_ours_is_one_of_mounts() -> None:
    assert set(EXIT_CODES) <= {int(code) for code in ExitCode}
    assert {*EXIT_CODES.values(), FAILURE} <= {0, 1, 2, 4, 8, 16, 32, 64}
