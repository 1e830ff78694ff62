"""What reading whole folders costs on a real mount: each record once, whatever program reads it."""

from __future__ import annotations

from collections import Counter

import pytest

from kvsfs.core.prefetch import WHOLE_OPENS
from tests.mount.conftest import Mount
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse

FILES = 300
FEW = 90
"""Too few for an archive."""

READERS = {
    "cp -r": "cp -r . ../out",
    "grep -r": "grep -r content . > ../found",
    "tar": "tar c . | tar x -C ..",
    "rsync": "rsync -a ./ ../out",
    "xargs": "ls | xargs -P8 -n10 cat > ../found",
}


@pytest.fixture
def filled(store: StoreApi) -> dict[str, bytes]:
    """What the store then holds."""
    records = {f"f{number:03}": b"content %d\n" % number for number in range(FILES)}
    for key, content in records.items():
        store.put(key, content)
    return records


@pytest.mark.parametrize("reader", READERS)
def test_a_folder_that_is_read_as_a_whole_costs_one_get_a_file(
    mount: Mount, store: StoreApi, reader: str
) -> None:
    keys = [f"f{number:03}" for number in range(FEW)]
    for key in keys:
        store.put(key, b"content")
    with mount() as mounted:
        mounted.sh(READERS[reader])
        mounted.umount()
        asked = Counter(mounted.named_requests())
    assert asked == Counter({f"GET {key}": 1 for key in keys} | {"GET": 1, "LIST": 1})


@pytest.mark.parametrize("reader", [reader for reader in READERS if reader != "xargs"])
def test_many_files_cost_one_archive_and_the_first_few_a_get(
    mount: Mount, filled: dict[str, bytes], reader: str
) -> None:
    with mount() as mounted:
        mounted.sh(READERS[reader])
        mounted.umount()
        asked = Counter(mounted.named_requests())
    assert asked["GET /records"] == 1
    assert asked.total() <= 3 + WHOLE_OPENS + 3
    assert len(filled) == FILES


def test_a_copy_has_every_byte(mount: Mount, filled: dict[str, bytes]) -> None:
    with mount() as mounted:
        mounted.sh("cp -r . ../out")
        out = mounted.sandbox.folder / "out"
        assert {path.name: path.read_bytes() for path in out.iterdir()} == filled


def test_a_copy_again_asks_for_each_file_once_and_sends_no_bytes(mount: Mount, store: StoreApi) -> None:
    for number in range(FEW):
        store.put(f"f{number:03}", b"content")
    with mount("--revalidate", "1s") as mounted:
        mounted.sh("cp -r . ../out; sleep 1.1")
        before = len(mounted.requests())
        mounted.sh("cp -r . ../again")
        mounted.umount()
        asked = mounted.requests()[before:]
    assert Counter(request.status for request in asked) == {304: FEW}


def test_a_copy_again_of_many_files_is_one_archive_again(mount: Mount, filled: dict[str, bytes]) -> None:
    with mount("--revalidate", "1s") as mounted:
        mounted.sh("cp -r . ../out; sleep 1.1")
        before = len(mounted.requests())
        mounted.sh("cp -r . ../again")
        mounted.umount()
        asked = mounted.requests()[before:]
        again = mounted.sandbox.folder / "again"
        assert {path.name: path.read_bytes() for path in again.iterdir()} == filled
    assert len(asked) <= WHOLE_OPENS + 4
