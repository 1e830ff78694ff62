"""A real systemd, PID 1 in namespaces of its own, on an overlay of this machine: nobody else sees what is put there."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support.mounting import COMMAND_SECONDS
from tests.support.namespaces import SCRIPTS

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "systemd"
SYSTEMD = Path("/lib/systemd/systemd")
BOOT_SECONDS = 60.0
"""It takes two."""

BOOT = r"""
mount --make-rprivate /
# What others have mounted at this moment: a copy here would keep their daemons waiting for its end.
awk '$3 ~ /^fuse/ {print $2}' /proc/mounts | while read -r path; do umount -l "$path"; done
root=$1/root
mkdir "$1/upper" "$1/work" "$root"
mount -t overlay overlay -o lowerdir=/,upperdir="$1/upper",workdir="$1/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for node in 'null 1 3' 'zero 1 5' 'full 1 7' 'random 1 8' 'urandom 1 9' 'tty 5 0' 'fuse 10 229' 'autofs 10 235'; do
    set -- "$1" "$2" $node
    mknod -m 666 "$root/dev/$3" c "$4" "$5"
done
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
mount --bind "$2" "$root$2"
# It starts nothing but its journal: the host's kernel settings are not ours to apply, nor its disks to clean.
rm -rf "$root"/etc/systemd/system/*.wants "$root"/lib/systemd/system/*.wants "$root/etc/fstab"
chmod 755 "$root/root"
ln -s "$SCRIPTS/kvsfs" "$root/usr/local/bin/kvsfs"
ln -s "$SCRIPTS/mount.kvsfs" "$root/usr/sbin/mount.kvsfs"
cp "$UNITS"/system/* "$root/etc/systemd/system"
cd "$root"
mkdir -p .before
pivot_root . .before
umount -l .before
mount --make-rshared /  # as at every boot: mounts that services make are seen by all
exec env -i container=unshare PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=basic.target --show-status=0
"""


class Machine:
    """What is booted."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def attempt(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command there, however it ends."""
        inside = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--cgroup", "--root", "--wdns=/"]
        return subprocess.run(
            [*inside, "--", *command],
            env={"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )

    def run(self, *command: str | Path, check: bool = True) -> str:
        """Run a command there; its output. With `check`, fails with what it wrote to stderr, and the journal."""
        ended = self.attempt(*command)
        told = f"{command} ended with {ended.returncode}: {ended.stdout}{ended.stderr}"
        assert not check or ended.returncode == 0, f"{told}\n{self.journal()}"
        return ended.stdout

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file of the machine."""
        target = Path(f"/proc/{self.pid}/root{path}")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)

    def property(self, unit: str, name: str) -> str:
        """Give what `systemctl show` says."""
        return self.run("systemctl", "show", f"--property={name}", "--value", unit).strip()

    def journal(self) -> str:
        return self.attempt("journalctl", "--no-pager", "-o", "cat").stdout


@contextlib.contextmanager
def booted(folder: Path, shared: Path) -> Iterator[Machine]:
    """Boot one that is gone afterwards; `folder` keeps its changes, `shared` is seen there as it is here."""
    cgroup = _cgroups() / f"kvsfs-test-{os.getpid()}-{folder.name}"
    cgroup.mkdir()
    # Into the cgroup first: it is then the root of the namespace's own.
    script = f"echo $$ > {cgroup}/cgroup.procs; exec unshare --mount --pid --cgroup --uts --ipc --fork --kill-child "
    boot = ["sh", "-ec", BOOT, "boot", str(folder), str(shared)]
    holder = subprocess.Popen(
        ["sh", "-ec", f'{script} "$@"', "sh", *boot],
        env=os.environ | {"SCRIPTS": str(SCRIPTS), "UNITS": str(UNITS)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield _running(holder)
    finally:
        holder.kill()
        holder.communicate()
        (cgroup / "cgroup.kill").write_text("1")
        _remove(cgroup)


def why_none() -> str | None:
    """Tell why none can be booted here; None where one can be."""
    if os.getuid() != 0:
        return "only root boots a systemd"
    if not SYSTEMD.exists() or shutil.which("journalctl") is None:
        return "systemd is missing: apt install systemd"
    try:
        _cgroups()
    except StopIteration:
        return "no cgroup2 is mounted here"
    return None


def _cgroups() -> Path:
    lines = Path("/proc/mounts").read_text().splitlines()
    return next(Path(fields[1]) for fields in map(str.split, lines) if fields[2] == "cgroup2")


def _running(holder: subprocess.Popen[str]) -> Machine:
    """Wait until basic.target is reached."""
    deadline = time.monotonic() + BOOT_SECONDS
    while holder.poll() is None and time.monotonic() < deadline:
        select.select([], [], [], 0.05)
        children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().split()
        if children:
            machine = Machine(int(children[0]))
            if machine.run("systemctl", "is-active", "basic.target", check=False) == "active\n":
                machine.run("systemctl", "start", "systemd-journald.socket")
                return machine
    holder.kill()
    raise AssertionError(f"systemd did not boot: {holder.communicate()[1]}")


def _remove(cgroup: Path) -> None:
    deadline = time.monotonic() + COMMAND_SECONDS
    for path in [*sorted(cgroup.rglob("*/"), reverse=True), cgroup]:
        while True:
            try:
                path.rmdir()
                break
            except OSError:  # its last processes are on their way out
                assert time.monotonic() < deadline, path
                select.select([], [], [], 0.05)
