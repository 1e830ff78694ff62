"""Find what must not be in the repository: it would tie it to one machine, one registry or one moment.

The patterns are written so that they do not match themselves.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK_FILES = {
    "Cargo.lock",
    "Pipfile.lock",
    "package-lock.json",
    "pdm.lock",
    "pnpm-lock.yaml",
    "poetry.lock",
    "uv.lock",
    "yarn.lock",
}
FORBIDDEN = {
    "a registry's host": re.compile(
        rb"py[p]i\.org|python[h]osted\.org|npm[j]s\.(?:org|com)|crat[e]s\.io|proxy\.golan[g]\.org|rubyg[e]ms\.org"
    ),
    "a package index": re.compile(rb"--(?:extra-)?ind[e]x-url|--find-lin[k]s"),
    "a path of one machine": re.compile(rb"(?<![\w.~-])/(?:w[o]rk|r[o]ot)/"),
    "a private key": re.compile(rb"-----BEGIN [A-Z ]*PRIVAT[E] KEY-----"),
    "a token of Apify": re.compile(rb"apify_a[p]i_[A-Za-z0-9]{20}"),
}
PIN = re.compile(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+_-]+")


def repository_files() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=True,
    )
    return sorted(name for name in listed.stdout.decode().split("\0") if Path(name).is_file())


def faults_of(name: str) -> Iterator[str]:
    if PurePosixPath(name).name in LOCK_FILES:
        yield f"{name}: a lock file names the registry it was made with; pins stand in constraints.txt"
        return
    content = Path(name).read_bytes()
    if b"\0" in content:
        yield f"{name}: a binary; make it where it is needed"
        return
    for number, line in enumerate(content.splitlines(), 1):
        for what, pattern in FORBIDDEN.items():
            if pattern.search(line):
                yield f"{name}:{number}: {what}"


def pin_faults() -> Iterator[str]:
    for number, line in enumerate(Path("constraints.txt").read_text().splitlines(), 1):
        if not PIN.fullmatch(line):
            yield f"constraints.txt:{number}: not a plain name==version"


def main() -> int:
    names = repository_files()
    faults = [*pin_faults(), *(fault for name in names for fault in faults_of(name))]
    sys.stdout.writelines(f"{fault}\n" for fault in faults)
    sys.stdout.write(f"{len(names)} files, {len(faults)} faults\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
