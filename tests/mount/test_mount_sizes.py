"""Large files in bounded memory, many keys in few requests."""

from __future__ import annotations

import hashlib
import os
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.mount.conftest import Mount
from tests.support.mounting import Mounted, Sandbox, mounted_store
from tests.support.serving import RunningServer
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse

LARGE_BYTES = 300 * 1024**2
GROWTH_BYTES = 64 * 1024**2
"""What the daemon may need more than at its start, however large a record is."""

PIECE_BYTES = 1024**2

KEYS = [f"key-{number:04d}" for number in range(2500)]


def pieces(size: int) -> Iterator[bytes]:
    """Pseudo-random, so that nothing on the way can make it smaller or mix it up unseen."""
    source = random.Random(300)
    for _ in range(size // PIECE_BYTES):
        yield source.randbytes(PIECE_BYTES)


def digest_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


@pytest.mark.parametrize("size", [LARGE_BYTES, pytest.param(1024**3, marks=pytest.mark.long)])
def test_a_large_file_in_and_out_in_bounded_memory(
    mount: Mount, store: StoreApi, tmp_path: Path, size: int
) -> None:
    expected = hashlib.sha256()
    with mount() as mounted:
        before = mounted.peak_rss()
        with (mounted.path / "large").open("wb", buffering=0) as file:
            for piece in pieces(size):
                expected.update(piece)
                assert file.write(piece) == len(piece)
        assert (mounted.path / "large").stat().st_size == size
        assert mounted.peak_rss() - before < GROWTH_BYTES
        assert mounted.named_requests() == ["GET", "LIST", "PUT large"]
    assert store.sizes() == {"large": size}
    with mount() as mounted:
        before = mounted.peak_rss()
        assert digest_of(mounted.path / "large") == expected.hexdigest()
        mounted.run("cp", "large", tmp_path / "copy")
        assert mounted.peak_rss() - before < GROWTH_BYTES
        assert mounted.named_requests() == ["GET", "LIST", "GET large"]
    assert digest_of(tmp_path / "copy") == expected.hexdigest()
    (tmp_path / "copy").unlink()
    store.delete()


def test_the_first_byte_of_a_large_record_and_its_last(mount: Mount, store: StoreApi) -> None:
    """Two round trips to the first byte: a list, and the record; one more to what is far away, by a range."""
    content = b"".join(pieces(LARGE_BYTES))
    store.put("large", content)
    with mount() as mounted:
        descriptor = os.open(mounted.path / "large", os.O_RDONLY)
        try:
            assert os.pread(descriptor, 1, 0) == content[:1]
            assert os.pread(descriptor, 1, LARGE_BYTES - 1) == content[-1:]
        finally:
            os.close(descriptor)
    # The stream from the start ends by itself 64 MiB ahead of its reader: the last byte is no part of it.
    assert mounted.named_requests() == ["GET", "LIST", "GET large", "GET large"]
    assert Counter(request.status for request in mounted.requests()) == {200: 3, 206: 1}
    store.delete()


@pytest.fixture(scope="module")
def many(client: httpx.Client) -> StoreApi:
    """A store of 2,500 keys, put in no order."""
    store = StoreApi.create(client)
    shuffled = random.Random(5).sample(KEYS, len(KEYS))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.put(key, key.encode()), shuffled))
    return store


@pytest.fixture
def mount_many(sandbox: Sandbox, server: RunningServer, many: StoreApi, token: str) -> Iterator[Mounted]:
    with mounted_store(sandbox, many.id, token=token, server=server) as mounted:
        yield mounted


def test_2500_keys_are_listed_in_order_with_three_requests(mount_many: Mounted) -> None:
    assert os.listdir(mount_many.path) == KEYS
    assert mount_many.named_requests() == ["GET", "LIST", "LIST", "LIST"]
    with mount_many.counting() as requests:
        assert mount_many.run("ls").split() == KEYS
        lines = mount_many.run("ls", "-l").splitlines()[1:]
        assert [line.split()[4] for line in lines] == ["8"] * len(KEYS)
        assert mount_many.sh("ls -U") == "".join(f"{key}\n" for key in KEYS)
        assert "No such file" in mount_many.attempt("stat", "key-absent").stderr
        assert mount_many.sh("find . -type f | wc -l").strip() == "2500"
    assert requests == []


def test_a_name_far_down_is_found_without_the_whole_listing(mount_many: Mounted) -> None:
    assert (mount_many.path / KEYS[-1]).read_bytes() == KEYS[-1].encode()
    assert mount_many.named_requests() == ["GET", "LIST", f"LIST {KEYS[-1]}", f"GET {KEYS[-1]}"]


def test_reading_a_listing_while_files_come_and_go(mount_many: Mounted, many: StoreApi) -> None:
    """What is there all the time is listed once and only once (readdir(3))."""
    with os.scandir(mount_many.path) as entries:
        seen = [next(entries).name for _ in range(10)]
        (mount_many.path / "aaa").write_bytes(b"in front")
        (mount_many.path / "zzz").write_bytes(b"behind")
        seen += [entry.name for entry in entries]
    assert [name for name in seen if name in KEYS] == KEYS
    (mount_many.path / "aaa").unlink()
    (mount_many.path / "zzz").unlink()
    assert os.listdir(mount_many.path) == KEYS
    assert many.keys() == KEYS
