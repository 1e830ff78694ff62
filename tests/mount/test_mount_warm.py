"""`kvsfs warm`: what is in the cache afterwards, what it asked for, and what it says of what there is not."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections import Counter

import pytest

from kvsfs.errors import ExitCode
from tests.mount.test_mount_status import Place, faulty, own_store, place
from tests.support.mounting import Mounted

__all__ = ["faulty", "own_store", "place"]  # fixtures

pytestmark = pytest.mark.fuse

FILES = 150


def fill(place: Place) -> None:
    for number in range(FILES):
        place.store.put(f"d!2Ff{number:03}", b"content %d\n" % number)
    place.store.put("large", bytes(3_000_000))
    place.store.put("beside", b"x")


def test_a_folder_comes_by_one_archive_and_is_then_read_without_a_request(place: Place) -> None:
    fill(place)
    with place.mounted("--revalidate", "1h") as mounted:
        ended = place.kvsfs("warm", mounted.path / "d")
        assert (ended.returncode, ended.stderr) == (0, "")
        assert re.fullmatch(rf".*/d: {FILES} files \(1\.\d+ KiB\) in the cache\n", ended.stdout)
        asked = Counter(mounted.named_requests())
        assert asked["GET /records"] == 1
        assert not any(name.startswith("GET d!2F") for name in asked)
        assert mounted.sh("cat d/*") == "".join(f"content {number}\n" for number in range(FILES))
        reads = Counter(mounted.named_requests())
        assert not any(name.startswith("GET d!2F") for name in reads)
        assert reads["GET /records"] == 1


def test_what_an_archive_is_not_worth_comes_by_gets(place: Place) -> None:
    fill(place)
    with place.mounted("--revalidate", "1h") as mounted:
        ended = place.kvsfs("warm", mounted.path / "large", mounted.path / "beside")
        first, second = ended.stdout.splitlines()
        assert first.endswith("/large: 1 file (2.9 MiB) in the cache")
        assert second.endswith("/beside: 1 file (1 B) in the cache")
        asked = Counter(mounted.named_requests())
        assert (asked["GET large"], asked["GET beside"]) == (1, 1)
        assert (mounted.path / "large").read_bytes() == bytes(3_000_000)
        assert Counter(mounted.named_requests())["GET large"] == 1


def test_what_it_says_of_what_there_is_not(place: Place) -> None:
    with place.mounted() as mounted:
        ended = place.kvsfs("warm", mounted.path / "absent")
        assert (ended.returncode, ended.stdout) == (ExitCode.NOTHING_PENDING, "")
        assert ended.stderr == "kvsfs: absent: there is no such file in the mount\n"
        assert place.kvsfs("warm", place.sandbox.folder).returncode == ExitCode.NOT_MOUNTED
        ended = place.kvsfs("warm", mounted.path)
        assert ended.stdout.endswith(": 0 files (0 B) in the cache\n")


def test_a_terminal_gets_a_bar(place: Place) -> None:
    fill(place)
    with place.mounted() as mounted:
        shown = shown_on_a_terminal(place, mounted)
        assert "152 files (2.9 MiB) in the cache" in shown


def shown_on_a_terminal(place: Place, mounted: Mounted) -> str:
    """Run the command as a person does."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "kvsfs", "warm", str(mounted.path)]
    environment = place.sandbox.environment_with(None, TERM="xterm", COLUMNS="120")
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 65536):
                shown += piece
        except OSError:  # EIO: nobody has the other end any more (pty(7))
            pass
        os.close(ours)
        assert process.wait() == 0
    return shown.decode()
