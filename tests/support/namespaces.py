"""A mount namespace in which a test may change the machine: what it puts into /etc and /usr/sbin nobody else sees."""

from __future__ import annotations

import contextlib
import pwd
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.support.mounting import COMMAND_SECONDS

OVERLAID = (Path("/etc"), Path("/usr/sbin"))
"""Where a namespace may be changed, file by file."""

SCRIPTS = Path(sys.executable).parent
"""Where kvsfs's commands are installed."""


class Namespace:
    """Runs commands where the changes are. Needs root."""

    def __init__(self, pid: int, environment: Mapping[str, str]) -> None:
        self._pid = pid
        self.environment = dict(environment)

    def run(
        self, *command: str | Path, user: int = 0, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, however it ends."""
        changed = ["runuser", "-u", pwd.getpwuid(user).pw_name, "--"] if user else []
        return subprocess.run(
            [*self.entering, *changed, *command],
            env=self.environment,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )

    @property
    def entering(self) -> Sequence[str]:
        """What stands before a command that shall run here."""
        return ["nsenter", f"--target={self._pid}", "--mount", f"--wd={Path.cwd()}", "--"]

    def write(self, path: str, text: str) -> None:
        """Write a file below one of the folders that may be changed."""
        subprocess.run(
            [*self.entering, "sh", "-c", f"cat > {path}"],
            input=text,
            text=True,
            check=True,
            timeout=COMMAND_SECONDS,
        )

    def mounts(self) -> list[str]:
        """Give the lines of the namespace's table of mounts that are of kvsfs."""
        lines = Path(f"/proc/{self._pid}/mounts").read_text().splitlines()
        return [line for line in lines if " fuse.kvsfs " in line]

    def mount_line(self, path: Path) -> str | None:
        """Give the table's line of a mount point without blanks; None if no store is mounted there."""
        found = [line for line in self.mounts() if line.split(" ")[1] == str(path)]
        return found[-1] if found else None


@contextlib.contextmanager
def namespace(folder: Path, environment: Mapping[str, str]) -> Iterator[Namespace]:
    """Make a namespace that is gone afterwards; `folder` keeps what is changed."""
    script = [
        "mount --make-rprivate /",
        # What others have mounted at this moment: a copy here would keep their daemons waiting for its end.
        "awk '$3 ~ /^fuse/ {print $2}' /proc/mounts | while read -r path; do umount -l \"$path\"; done",
    ]
    for place in (*OVERLAID, *_closed_to_others()):
        upper, work = (folder / kind / str(place).replace("/", "_") for kind in ("upper", "work"))
        for made in (upper, work):
            made.mkdir(parents=True)
        upper.chmod(0o755)  # what is seen of the two has the upper one's mode
        script.append(f"mount -t overlay overlay -o lowerdir={place},upperdir={upper},workdir={work} {place}")
    script += [
        f"mknod -m 666 {folder}/fuse c 10 229",  # as udev makes it; a container's may be root's alone
        f"mount --bind {folder}/fuse /dev/fuse",
        "mkdir -p /run/mount",
        "mount -t tmpfs tmpfs /run/mount",  # where mount(8) keeps its own notes
        f"ln -s {SCRIPTS}/mount.kvsfs /usr/sbin/mount.kvsfs",
        "echo made",
        "exec cat",  # until stdin ends
    ]
    holder = subprocess.Popen(
        ["unshare", "--mount", "sh", "-ec", "\n".join(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "made\n"
        entered = Namespace(holder.pid, environment)
        try:
            yield entered
        finally:
            for line in entered.mounts():
                entered.run("fusermount3", "-u", "-z", "--", line.split(" ")[1])


def _closed_to_others() -> list[Path]:
    """Give the folders above our Python and our code that only root may enter: root's home, where a clone is in it."""
    ours = [Path(sys.executable).absolute(), Path(sys.executable).resolve(), Path(__file__).absolute()]
    above = {folder for path in ours for folder in path.parents}
    return sorted(folder for folder in above if not folder.stat().st_mode & stat.S_IXOTH)
