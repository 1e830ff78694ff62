"""Content types of records that a mount makes: by name, by content, kept by an overwrite."""

from __future__ import annotations

import pytest

from tests.mount.conftest import Mount
from tests.support.mounting import Mounted
from tests.support.store_api import StoreApi, expected_key
from tests.support.typed import BODIES, JSON, NAMES, TEXT

pytestmark = pytest.mark.fuse


def test_new_files_are_typed_by_name_and_else_by_content(mounted: Mounted, store: StoreApi) -> None:
    expected = {}
    for path, by_name in NAMES:
        name = path.replace("/", "-")
        (mounted.path / name).write_bytes(b"hello\n")
        expected[expected_key(name)] = by_name or TEXT
    for number, (body, by_content) in enumerate(BODIES):
        (mounted.path / f"body{number}").write_bytes(body)
        expected[f"body{number}"] = by_content
    assert {key: store.content_type(key) for key in store.sizes()} == expected
    mounted.umount()
    asked = [request.split()[0] for request in mounted.named_requests()]
    assert asked.count("PUT") == len(expected)
    assert asked.count("HEAD") == 0


def test_what_the_store_had_keeps_its_type_whatever_is_written(mount: Mount, store: StoreApi) -> None:
    """As another client gave it, or an earlier mount; what this mount guessed, it guesses again."""
    store.put("theirs.json", b"{}", "text/x-theirs")
    with mount() as mounted:
        (mounted.path / "earlier").write_bytes(b"{}")
    with mount() as mounted:
        (mounted.path / "ours").write_bytes(b"{}")
        for name in ("theirs.json", "earlier", "ours"):
            (mounted.path / name).write_bytes(b"no JSON")
    assert store.content_type("theirs.json") == "text/x-theirs"
    assert store.content_type("earlier") == JSON
    assert store.content_type("ours") == TEXT
