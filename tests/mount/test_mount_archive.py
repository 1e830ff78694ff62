"""A folder read as a whole while its archive breaks: each program gets every byte, by GETs."""

from __future__ import annotations

import gzip
import random
from typing import Any

import brotli  # type: ignore[import-untyped]  # the wheel ships no stubs
import pytest

from tests.mount.test_mount_status import Place, faulty, own_store, place
from tests.support.fault_rules import archive_fault

__all__ = ["faulty", "own_store", "place"]  # fixtures

pytestmark = pytest.mark.fuse

FILES = 120
SEED = random.Random(6)

FAULTS: dict[str, dict[str, Any]] = {
    "refused": {"kind": "status", "status": 403},
    "cut in the middle": {"kind": "truncate", "after": 150_000},
    "stalls in the middle": {"kind": "stall", "after": 150_000},
    "garbage": {"kind": "garbage"},
}


def contents() -> dict[str, bytes]:
    """Text, bytes, what looks like stored forms, nothing at all."""
    made = {f"f{number:03}": b"text %d " % number * 300 for number in range(FILES)}
    made |= {f"f{number:03}": SEED.randbytes(5000) for number in range(0, FILES, 7)}
    made |= {f"f{number:03}": gzip.compress(b"%d" % number, mtime=0) for number in range(3, FILES, 20)}
    made |= {f"f{number:03}": brotli.compress(b"%d" % number * 9) for number in range(5, FILES, 20)}
    return made | {"f100": b"", "f101": b";", "f102": b"\x06"}


@pytest.mark.parametrize("name", FAULTS)
def test_a_copy_has_every_byte_whatever_becomes_of_the_archive(place: Place, name: str) -> None:
    records = contents()
    for key, content in records.items():
        place.store.put(key, content)
    with place.mounted() as mounted, archive_fault(place.store, **FAULTS[name]):
        mounted.sh("cp -r . ../out")
        out = mounted.sandbox.folder / "out"
        assert {path.name: path.read_bytes() for path in out.iterdir()} == records


def test_records_stored_compressed_are_copied_decoded(place: Place) -> None:
    expected = {}
    for number in range(FILES):
        text = b"text of %d, " % number * 300
        encoding, encode = (("gzip", gzip.compress), ("br", brotli.compress))[number % 2]
        place.store.put(f"f{number:03}", encode(text), encoding=encoding)
        expected[f"f{number:03}"] = text
    with place.mounted() as mounted:
        mounted.sh("cp -r . ../out")
        out = mounted.sandbox.folder / "out"
        assert {path.name: path.read_bytes() for path in out.iterdir()} == expected
        assert mounted.sh("wc -c < f115").strip() == str(len(expected["f115"]))
        assert [name for name in mounted.named_requests() if name == "GET /records"] == ["GET /records"]
