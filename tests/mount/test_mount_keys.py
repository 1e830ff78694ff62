"""Keys that no file name could be: each is a file that is read, changed and removed under its own key."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import Mount
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse

KEYS = [
    *(".", "..", "...", "a.", ".a", "-", "-rf", "'", "()", "!", "!!", "!!!"),
    *("!21", "!2121", "!2E", "!212E", ".!2E", ".!212E", "..!2E", "!2E!2E", "!2e", "!2F", "!212F", "x!212F"),
    *("!00", "!0", "!G0", "!41", "!C3!A4", "!FF", "!0A", "!20", "!7E", "!25", "%21".replace("%", "!")),
    *("d!2Fa", "d!2F.", "d!2F..", "d!2F!2Fa", "d!2F!2F", "d!2F.!2Fa", "d!2F..!2Fa", "d!2F!2E", "!2Fa"),
    *("both", "both!2Fa", "both!2Fa!2Fb", "!2E!2Fa", ".!2Fa", "..!2Fa"),
    *("k" * 256, "!" * 256, "." * 256, "!20" * 85, "!2F" * 85 + "a", "d!2F" * 63 + "a", "!21" * 85 + "!"),
]
"""Dots, empty names, `!` before everything, control characters, a record beside a folder, 256 characters of each."""


def files(folder: Path) -> Iterator[Path]:
    for path, _, names in os.walk(os.fsencode(folder)):
        yield from (Path(os.fsdecode(os.path.join(path, name))) for name in names)


def test_every_key_is_one_file(mount: Mount, store: StoreApi) -> None:
    keys = sorted(set(KEYS))
    for key in keys:
        store.put(key, key.encode())
    assert sorted(store.keys()) == keys
    with mount() as mounted:
        found = {path: path.read_text() for path in files(mounted.path)}
        assert sorted(found.values()) == keys
        for path in found:
            with path.open("ab") as file:
                file.write(b" and more")
        assert {key: store.content(key) for key in keys} == {key: f"{key} and more".encode() for key in keys}
        mounted.run("find", ".", "-type", "f", "-delete")
    assert [key for key in store.sizes() if not key.endswith("!2F")] == []
