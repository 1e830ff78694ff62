"""Cache files' labels as paths: whatever stands there, nothing is written outside of the folder that was named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kvsfs.cache.blobs import LABEL_LENGTH
from kvsfs.control import recovery
from kvsfs.control.recovery import Found

NAME = "0123456789abcdef" * 2

LABELS = {
    "a": "a",
    "dir!2Fmy!20file": "dir/my file",
    "..!2F..!2Fetc!2Fpasswd": ".!2E/.!2E/etc/passwd",
    "!2Fetc!2Fpasswd": "!2F/etc/passwd",
    ".": "!2E",
    "no~key": "unknown",
    "": "unknown",
}


@pytest.mark.parametrize("label", LABELS)
def test_labels_become_paths_below_the_folder(tmp_path: Path, label: str) -> None:
    cache, target = tmp_path / "cache", tmp_path / "target"
    (cache / "not-uploaded").mkdir(parents=True)
    (cache / "not-uploaded" / f"{NAME}.{label}").write_bytes(b"bytes")
    found = Found(str(cache / "not-uploaded" / f"{NAME}.{label}"), recovery._shown(label), False, 5, 0.0)
    assert found.path == LABELS[label]
    made = recovery.save(found, str(target))
    assert made == os.path.join(target, LABELS[label])
    assert os.path.realpath(made).startswith(f"{target}/")
    assert Path(made).read_bytes() == b"bytes"
    assert recovery.save(found, str(target)) == f"{made}.2"


def test_a_label_that_was_cut_says_so(tmp_path: Path) -> None:
    path = tmp_path / f"{NAME}.{'x' * LABEL_LENGTH}"
    path.write_bytes(b"")
    assert recovery._described(str(path)).cut
    shorter = tmp_path / f"{NAME}.{'x' * (LABEL_LENGTH - 1)}"
    shorter.write_bytes(b"")
    assert not recovery._described(str(shorter)).cut
