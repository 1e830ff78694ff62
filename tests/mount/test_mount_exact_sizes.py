"""`--exact-sizes`: programs that read as many bytes as lstat(2) said, on records that are stored compressed."""

from __future__ import annotations

import gzip
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from tests.mount.conftest import Mount
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse

PACKED = {f"packed-{number}": (b"line %d of a page\n" % number) * (500 + number) for number in range(20)}
PLAIN = {f"plain-{number}": b"as it is %d" % number for number in range(20)}
RECORDS = PACKED | PLAIN

TAR = """
import sys, tarfile
with tarfile.open(sys.argv[1], 'w') as archive:
    archive.add('.', arcname='')
"""


@pytest.fixture
def filled(store: StoreApi) -> StoreApi:
    for key, content in PACKED.items():
        store.put(key, gzip.compress(content), encoding="gzip")
    for key, content in PLAIN.items():
        store.put(key, content)
    return store


def test_git_adds_whole_records_each_asked_for_once(mount: Mount, filled: StoreApi, tmp_path: Path) -> None:
    git = ["git", f"--git-dir={tmp_path / 'repository'}"]
    with mount("--exact-sizes") as mounted:
        mounted.run(*git, "--work-tree=.", "init", "-q")
        mounted.run(*git, "--work-tree=.", "add", "-A")
        mounted.run(*git, "fsck", "--strict", "--no-dangling")
        assert mounted.run(*git, "ls-files").split() == sorted(RECORDS)
        for key, content in RECORDS.items():
            assert mounted.run(*git, "show", f":{key}").encode() == content
        mounted.umount()
        asked = Counter(request for request in mounted.named_requests() if "-" in request)
    assert asked == Counter([*(f"HEAD {key}" for key in RECORDS), *(f"GET {key}" for key in RECORDS)])
    assert filled.keys() == sorted(RECORDS)


def test_pythons_tarfile_packs_whole_records(mount: Mount, filled: StoreApi, tmp_path: Path) -> None:
    with mount("--exact-sizes") as mounted:
        mounted.run("python3", "-c", TAR, tmp_path / "all.tar")
    with tarfile.open(tmp_path / "all.tar") as archive:
        found = {m.name: archive.extractfile(m).read() for m in archive.getmembers() if m.isfile()}  # type: ignore[union-attr]
    assert found == RECORDS
    assert filled.keys() == sorted(RECORDS)


def test_ls_and_stat_tell_true_sizes_and_cost_nothing_the_second_time(mount: Mount, filled: StoreApi) -> None:
    with mount("-o", "exact-sizes") as mounted:
        with mounted.counting() as requests:
            sizes = mounted.sh("stat -c '%n %s' *").splitlines()
        assert dict(line.split() for line in sizes) == {k: str(len(v)) for k, v in RECORDS.items()}
        assert Counter(request.split()[0] for request in requests) == Counter(
            LIST=1, HEAD=len(RECORDS), GET=len(PACKED)
        )
        with mounted.counting() as requests:
            mounted.sh("ls -l; stat *; find . -size +1k; du -a")
        assert requests == []
    assert filled.keys() == sorted(RECORDS)


def test_sizes_of_one_name_ask_for_that_name_alone(mount: Mount, filled: StoreApi) -> None:
    with mount("--exact-sizes") as mounted:
        with mounted.counting() as requests:
            assert (mounted.path / "packed-3").lstat().st_size == len(PACKED["packed-3"])
            assert (mounted.path / "plain-3").lstat().st_size == len(PLAIN["plain-3"])
        assert requests == ["LIST", "HEAD packed-3", "GET packed-3", "HEAD plain-3"]
    assert filled.keys() == sorted(RECORDS)
