"""`mount.kvsfs`, which mount(8) runs for `mount -t kvsfs` and for lines of fstab."""

from __future__ import annotations

import getopt
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import typer

from kvsfs.cli import fill_standard_descriptors
from kvsfs.cli.mount import configured_by, mount_in_background, restart_without, taken
from kvsfs.cli.mount_options import of_words
from kvsfs.errors import CommandError, ExitCode
from kvsfs.settings import usage
from kvsfs.store.sources import is_secret, shown

MODULE = "kvsfs.cli.mount_helper"

USAGE = "mount.kvsfs SOURCE DIR [-sfnv] [-t TYPE] [-o OPTION[,OPTION…]]"
"""As mount(8) writes it, under EXTERNAL HELPERS. -n, -t and -N tell nothing that matters here."""

FAILURE = 32
"""mount(8), EXIT STATUS: mount failure."""

EXIT_CODES: Mapping[int, int] = {
    ExitCode.OK: 0,
    ExitCode.USAGE: 1,
    ExitCode.INVALID_SOURCE: 1,
    ExitCode.INVALID_NAME: 1,
    ExitCode.NO_FUSE_DEVICE: 2,
    ExitCode.NO_FUSERMOUNT: 2,
    ExitCode.CACHE_UNUSABLE: 2,
    ExitCode.UNEXPECTED: 4,
    ExitCode.INTERRUPTED: 8,
}
"""mount(8), EXIT STATUS: 1 for a wrong invocation, 2 for the system's faults, 4 for our own, 8 for an interrupt.
Every other code of ours is a `FAILURE`."""


@dataclass(frozen=True, slots=True)
class Request:
    """What mount(8) asks for."""

    source: str
    folder: str
    options: Sequence[str] = ()
    sloppy: bool = False
    """-s: leave out options that are not known."""
    fake: bool = False
    """-f: do all but the mount."""
    verbose: bool = False


def main() -> int:
    """Mount what sys.argv says; the exit code is one of mount(8)'s."""
    fill_standard_descriptors()
    try:
        return EXIT_CODES.get(_mount(_request(sys.argv[1:])), FAILURE)
    except CommandError as error:
        print(f"mount.kvsfs: {error}", file=sys.stderr)
        return EXIT_CODES.get(error.exit_code, FAILURE)
    except KeyboardInterrupt:
        return EXIT_CODES[ExitCode.INTERRUPTED]


def _request(words: Sequence[str]) -> Request:
    """Read the arguments. Raises CommandError."""
    try:
        options, places = getopt.gnu_getopt(list(words), "sfnvhN:t:o:", ["help", "source-fd="])
    except getopt.GetoptError as error:
        raise usage(f"{error}; usage: {USAGE}") from None
    given = dict(options)
    if "-h" in given or "--help" in given:
        print(f"usage: {USAGE}\nSee mount.kvsfs(8).")
        raise SystemExit(0)
    if len(places) != 2:
        raise usage(f"usage: {USAGE}")
    source, folder = places
    if "--source-fd" in given:
        source = taken(int(given["--source-fd"]))
    elif is_secret(source):
        restart_without(source, MODULE)
    return Request(
        source,
        folder,
        options=[value for name, value in options if name == "-o"],
        sloppy="-s" in given,
        fake="-f" in given,
        verbose="-v" in given,
    )


def _mount(request: Request) -> int:
    """Mount in the background; a code of ours. Raises CommandError."""
    said = of_words(request.options, sloppy=request.sloppy)
    configured = configured_by(request.source, request.folder, [said])
    if request.fake:
        return ExitCode.OK
    try:
        mount_in_background(configured)
    except typer.Exit as ended:  # the daemon has said why
        return ended.exit_code
    if request.verbose:
        print(f"{shown(configured.source)} is mounted on {configured.mount_point}")
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
