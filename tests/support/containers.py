"""An image built from the Dockerfile, and programs run in it, by buildah: no daemon, and no registry of images."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
"""Those that this machine trusts: a proxy of its own may stand between the build and what it downloads."""

CERTIFICATES_INSIDE = "/run/certificates-of-the-machine.crt"

SUITE = "bookworm"
"""What the Dockerfile's BASE is unless told."""

BUILD_SECONDS = 900.0
"""A base takes two minutes on a busy machine, the image two more."""


def why_none() -> str | None:
    """Tell why no image can be built here; None where one can be."""
    if os.getuid() != 0:
        return "only root builds an image without a daemon"
    missing = [program for program in ("buildah", "debootstrap") if shutil.which(program) is None]
    return f"{' and '.join(missing)} missing: apt install buildah debootstrap" if missing else None


class Images:
    """A store of images, and the containers made of them, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._buildah = ["buildah", "--root", str(folder / "storage"), "--runroot", str(folder / "run")]

    def base(self) -> str:
        """Make what the Dockerfile begins with, and give its name."""
        tree = self._folder / "base"
        _run("debootstrap", "--variant=minbase", SUITE, tree)
        container = self._ask("from", "scratch")
        self._ask("add", container, str(tree), "/")
        self._ask("commit", "--rm", container, "kvsfs-test-base")
        shutil.rmtree(tree)
        return "localhost/kvsfs-test-base"

    def build(self, base: str) -> str:
        """Build the Dockerfile, and give the image's name."""
        pip = self._folder / "pip.conf"
        pip.write_text(f"[global]\ncert = {CERTIFICATES_INSIDE}\n")
        self._ask(
            *("build", "--pull-never", "--format=docker", "--isolation=chroot", f"--build-arg=BASE={base}"),
            *(f"--secret=id=pip.conf,src={pip}", f"--volume={CERTIFICATES}:{CERTIFICATES_INSIDE}:ro"),
            *("--tag=kvsfs-test", str(ROOT)),
        )
        return "localhost/kvsfs-test"

    def container(self, image: str) -> str:
        """Make a container, and give its name."""
        return self._ask("from", "--pull-never", image)

    def bytes_of(self, image: str) -> int:
        """Give what an image's files weigh."""
        container = self.container(image)
        tree = self._ask("mount", container)
        used = _run("du", "-sxb", tree).split()[0]
        self._ask("umount", container)
        return int(used)

    def remove(self) -> None:
        """Let go of all of it. buildah leaves its own folder mounted on itself."""
        self._ask("rm", "--all")
        overlay = self._folder / "storage" / "overlay"
        if overlay.is_mount():
            _run("umount", overlay)
        _run("rm", "-rf", "--one-file-system", self._folder)

    def command(
        self, container: str, words: Sequence[str], environment: Mapping[str, str], *volumes: str
    ) -> list[str]:
        """Give what runs words as the image's user, with what mounting takes."""
        return [
            *(*self._buildah, "run", "--isolation=chroot", "--cap-add=CAP_SYS_ADMIN"),
            *(f"--env={name}={value}" for name, value in environment.items()),
            *(f"--volume={volume}" for volume in volumes),
            *(container, "--", *words),
        ]

    def _ask(self, *arguments: str) -> str:
        """Run buildah; the last line that it printed, which names what was made."""
        return _run(*self._buildah, *arguments).rpartition("\n")[2]


def _run(*command: str | Path) -> str:
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False, stdin=subprocess.DEVNULL
    )
    assert ended.returncode == 0, f"{command} ended with {ended.returncode}:\n{ended.stdout}{ended.stderr}"
    return ended.stdout.strip()
