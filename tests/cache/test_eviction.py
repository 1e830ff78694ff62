"""Clean cache files: never more than the capacity, never one that was taken."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvsfs.cache.blobs import Blob, BlobFolder
from kvsfs.cache.eviction import CleanBlobs

CAPACITY = 100


def sized(folder: BlobFolder, size: int) -> Blob:
    blob = folder.create()
    blob.pwrite(b"x" * size, 0)
    blob.release()
    return blob


def test_the_least_recently_added_goes_first(tmp_path: Path) -> None:
    folder, evicted = BlobFolder(str(tmp_path)), list[str]()
    clean = CleanBlobs[str](CAPACITY, evicted.append)
    blobs = {name: sized(folder, 40) for name in "abcd"}
    for name in "ab":
        clean.add(name, blobs[name])
    clean.take("a")
    clean.add("a", blobs["a"])
    clean.add("c", blobs["c"])
    assert evicted == ["b"]
    clean.add("d", blobs["d"])
    assert evicted == ["b", "a"]
    assert {name for name, blob in blobs.items() if os.path.exists(blob.path)} == {"c", "d"}
    folder.close()


def test_what_is_larger_than_the_cache_goes_at_once_and_takes_nothing_along(tmp_path: Path) -> None:
    folder, evicted = BlobFolder(str(tmp_path)), list[str]()
    clean = CleanBlobs[str](CAPACITY, evicted.append)
    small, large, exact = (sized(folder, size) for size in (10, CAPACITY + 1, CAPACITY))
    clean.add("small", small)
    clean.add("large", large)
    assert evicted == ["large"]
    assert os.path.exists(small.path)
    assert not os.path.exists(large.path)
    clean.add("exact", exact)
    assert evicted == ["large", "small"]
    assert clean.used_bytes == CAPACITY
    folder.close()


def test_taking_what_is_not_there_is_nothing(tmp_path: Path) -> None:
    evicted = list[str]()
    clean = CleanBlobs[str](CAPACITY, evicted.append)
    clean.take("never")
    blob = sized(folder := BlobFolder(str(tmp_path)), 10)
    clean.add("a", blob)
    clean.take("a")
    clean.take("a")
    assert (clean.used_bytes, evicted) == (0, [])
    assert os.path.exists(blob.path)
    folder.close()


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 120)), max_size=40))
def test_what_was_taken_is_never_evicted(
    tmp_path_factory: pytest.TempPathFactory, ops: list[tuple[bool, int, int]]
) -> None:
    folder = BlobFolder(str(tmp_path_factory.mktemp("cache")))
    blobs: dict[int, Blob] = {}
    inside: set[int] = set()

    def evicted(key: int) -> None:
        assert key in inside
        inside.remove(key)
        del blobs[key]

    clean = CleanBlobs[int](CAPACITY, evicted)
    for add, key, size in ops:
        if add and key not in inside:
            if key not in blobs:
                blobs[key] = sized(folder, size)
            inside.add(key)
            clean.add(key, blobs[key])
        elif not add:
            clean.take(key)
            inside.discard(key)
        clean.check_invariants()
        assert set(clean) == inside
        assert all(os.path.exists(blob.path) for blob in blobs.values())
        assert len(os.listdir(os.path.join(folder.path, "clean"))) == len(blobs)
    folder.close()


def test_clean_blobs_go_while_the_disk_has_less_free_than_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, evicted = BlobFolder(str(tmp_path), min_free=1000), list[str]()
    clean = CleanBlobs[str](CAPACITY, evicted.append)
    folder.make_room = clean.make_room
    disk = {"free": 1000}
    monkeypatch.setattr(folder, "free_bytes", lambda: disk["free"] + 20 * len(evicted))
    for name in "abcde":
        clean.add(name, sized(folder, 20))
    assert evicted == []
    disk["free"] = 950
    sized(folder, 1)
    assert evicted == ["a", "b", "c"]  # the older half, which is enough
    disk["free"] = 0
    sized(folder, 1)
    assert evicted == ["a", "b", "c", "d", "e"]  # there is no more to go: the write is done all the same
    folder.close()
