"""`kvsfs recover`: what a killed daemon's programs had not closed."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from kvsfs.errors import ExitCode
from tests.mount.test_mount_status import Place, faulty, own_store, place
from tests.support.mounting import Mounted, failing

__all__ = ["faulty", "own_store", "place"]  # fixtures

pytestmark = pytest.mark.fuse

HALF = b"half a file" * 1000


def leave_half(place: Place) -> Mounted:
    with place.mounted() as mounted:
        mounted.sh("mkdir 'my dir'; printf whole > whole")
        with failing(errno.ENOTCONN), (mounted.path / "my dir" / "half").open("wb", buffering=0) as file:
            file.write(HALF)
            mounted.kill()
        mounted.detach_dead()
    return mounted


def test_it_is_found_copied_and_removed(place: Place, tmp_path: Path) -> None:
    ended = place.kvsfs("recover")
    assert (ended.returncode, ended.stdout) == (0, "nothing is kept that was never closed\n")
    dead = leave_half(place)
    for arguments in ([], [place.store.id], [dead.path]):  # not set aside yet: nothing was mounted since
        ended = place.kvsfs("recover", "--json", *arguments)
        assert (ended.returncode, ended.stderr) == (0, "")
        (found,) = json.loads(ended.stdout)
        assert (found["path"], found["size"], found["cut"]) == ("my dir/half", len(HALF), False)
    with place.mounted() as mounted:
        mounted.expect_log("1 files that were never closed are in")
        ended = place.kvsfs("recover")  # set aside by now, and a daemon runs
        assert ended.stdout.startswith("my dir/half  10.7 KiB, written 2")
        target = tmp_path / "saved"
        (target / "my dir").mkdir(parents=True)
        (target / "my dir" / "half").write_bytes(b"another")
        assert place.kvsfs("recover", "--remove").returncode == ExitCode.USAGE
        ended = place.kvsfs("recover", "--save-to", target, "--remove")
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout.endswith(f", saved as {target}/my dir/half.2\n")
        assert (target / "my dir" / "half.2").read_bytes() == HALF
        assert (target / "my dir" / "half").read_bytes() == b"another"
        assert place.kvsfs("recover").stdout == "nothing is kept that was never closed\n"
    assert place.store.content("whole") == b"whole"
    assert "my!20dir!2Fhalf" not in place.store.keys()  # noqa: SIM118


def test_another_cache_folder(place: Place, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with place.mounted("--cache-dir", str(cache)) as mounted:
        with failing(errno.ENOTCONN), (mounted.path / "half").open("wb", buffering=0) as file:
            file.write(HALF)
            mounted.kill()
        mounted.detach_dead()
    assert place.kvsfs("recover").stdout == "nothing is kept that was never closed\n"
    ended = place.kvsfs("recover", "--cache-dir", cache, "--save-to", tmp_path / "saved")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (tmp_path / "saved" / "half").read_bytes() == HALF
    assert place.kvsfs("recover", "--cache-dir", tmp_path).returncode == ExitCode.USAGE
    assert place.kvsfs("recover", "never-mounted").returncode == ExitCode.NO_SUCH_STORE
