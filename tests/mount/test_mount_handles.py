"""Open files: several handles, files that lose or change their name, memory maps, holes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.mount.conftest import Mount
from tests.support.mounting import Mounted, wait_until
from tests.support.store_api import StoreApi

pytestmark = pytest.mark.fuse


def test_a_file_unlinked_while_open_is_read_and_written_on(mount: Mount, store: StoreApi) -> None:
    store.put("f", b"the old bytes")
    with mount() as mounted:
        with (mounted.path / "f").open("r+b", buffering=0) as file:
            (mounted.path / "f").unlink()
            assert os.listdir(mounted.path) == []
            assert file.read() == b"the old bytes"
            assert file.write(b" and more") == 9
            file.seek(0)
            assert file.read() == b"the old bytes and more"
            assert os.fstat(file.fileno()).st_nlink == 0
        assert os.listdir(mounted.path) == []
    assert store.keys() == []


def test_a_name_is_used_again_while_its_old_file_is_open(mounted: Mounted, store: StoreApi) -> None:
    path = mounted.path / "f"
    with path.open("w+b", buffering=0) as old:
        old.write(b"old")
        path.unlink()
        path.write_bytes(b"new")
        old.write(b" and older")
        old.seek(0)
        assert old.read() == b"old and older"
        assert path.read_bytes() == b"new"
    mounted.umount()
    assert store.content("f") == b"new"


def test_a_file_renamed_while_open_is_stored_under_its_new_name(mounted: Mounted, store: StoreApi) -> None:
    with (mounted.path / "before").open("wb", buffering=0) as file:
        file.write(b"one ")
        (mounted.path / "before").rename(mounted.path / "after")
        file.write(b"two")
    mounted.umount()
    assert mounted.named_requests() == ["GET", "LIST", "PUT after"]  # the GET is of the store, at its start
    assert store.keys() == ["after"]
    assert store.content("after") == b"one two"


def test_a_stored_file_renamed_while_open_for_writing(mount: Mount, store: StoreApi) -> None:
    store.put("before", b"old ", "text/x-special")
    with mount() as mounted:
        with (mounted.path / "before").open("ab", buffering=0) as file:
            file.write(b"one ")
            (mounted.path / "before").rename(mounted.path / "after")
            file.write(b"two")
        assert os.listdir(mounted.path) == ["after"]
    assert store.keys() == ["after"]
    assert store.content("after") == b"old one two"
    assert store.content_type("after") == "text/x-special"


def test_two_handles_see_each_others_writes(mounted: Mounted, store: StoreApi) -> None:
    path = mounted.path / "f"
    with path.open("w+b", buffering=0) as one, path.open("r+b", buffering=0) as other:
        one.write(b"aaaa")
        assert other.read() == b"aaaa"
        other.seek(2)
        other.write(b"bb")
        one.seek(0)
        assert one.read() == b"aabb"
        other.truncate(3)
        assert os.fstat(one.fileno()).st_size == 3
    assert store.content("f") == b"aab"


def test_each_writers_close_stores_what_there_is(mounted: Mounted, store: StoreApi) -> None:
    path = mounted.path / "f"
    with path.open("wb", buffering=0) as one:
        one.write(b"one")
        mounted.sh("printf two >> f")
        assert store.content("f") == b"onetwo"
        one.write(b"ONE")
        assert store.content("f") == b"onetwo"
    assert store.content("f") == b"oneONE"


def test_the_last_close_of_a_process_stores_what_its_earlier_ones_wrote(
    mounted: Mounted, store: StoreApi
) -> None:
    path = mounted.path / "f"
    for number in range(20):
        writer = os.open(path, os.O_WRONLY | os.O_CREAT)
        idle = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.write(writer, b"%02d" % number)
        os.close(writer)
        os.close(idle)
        assert store.content("f") == b"%02d" % number


def test_a_descriptor_to_read_by_holds_no_upload_back(mounted: Mounted, store: StoreApi) -> None:
    path = mounted.path / "f"
    path.touch()
    with path.open("rb", buffering=0) as reader:
        for number in range(20):
            path.write_bytes(b"%02d" % number)
            assert store.content("f") == os.pread(reader.fileno(), 10, 0) == b"%02d" % number


def test_two_processes_append_without_losing_a_line(mounted: Mounted, store: StoreApi) -> None:
    mounted.sh(
        "append() { i=0; while [ $i -lt 200 ]; do echo $1$i; i=$((i+1)); done >> f; }; append a & append b & wait"
    )
    lines = store.content("f").split()
    assert sorted(lines) == sorted(f"{name}{i}".encode() for name in "ab" for i in range(200))
    assert [line for line in lines if line.startswith(b"a")] == [b"a%d" % i for i in range(200)]


def test_exclusive_creation(mount: Mount, store: StoreApi) -> None:
    store.put("there", b"x")
    with mount() as mounted:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        with pytest.raises(FileExistsError):
            os.open(mounted.path / "there", flags)
        os.close(os.open(mounted.path / "new", flags))
        with pytest.raises(FileExistsError):
            os.open(mounted.path / "new", flags)
        code = (
            "import os, sys, threading\n"
            "won = []\n"
            "def race():\n"
            "    try: os.close(os.open('raced', os.O_CREAT | os.O_EXCL | os.O_WRONLY)); won.append(1)\n"
            "    except FileExistsError: pass\n"
            "threads = [threading.Thread(target=race) for _ in range(8)]\n"
            "[t.start() for t in threads]; [t.join() for t in threads]; print(len(won))\n"
        )
        assert mounted.run("python3", "-c", code) == "1\n"
    assert store.keys() == ["new", "raced", "there"]


def test_memory_mapped_reading_and_writing(mount: Mount, store: StoreApi) -> None:
    """In processes of their own: a page fault holds the interpreter's lock, a hang could not be ended here."""
    content = bytes(range(256)) * 1000
    store.put("f", content)
    with mount() as mounted:
        read = "import mmap; f = open('f', 'rb'); m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)"
        code = f"{read}; print(len(m), m[:].hex() == bytes(range(256)).hex() * 1000, m[200_000])"
        assert mounted.run("python3", "-c", code) == f"256000 True {200_000 % 256}\n"
        write = (
            "import mmap\n"
            "with open('f', 'r+b') as f, mmap.mmap(f.fileno(), 0) as m:\n"
            "    m[100_000:100_003] = b'XYZ'\n"
            "    m.flush()\n"
        )
        mounted.run("python3", "-c", write)
        assert (mounted.path / "f").read_bytes() == content[:100_000] + b"XYZ" + content[100_003:]
    assert store.content("f") == content[:100_000] + b"XYZ" + content[100_003:]


def test_a_map_written_after_close_is_stored(mounted: Mounted, store: StoreApi) -> None:
    code = (
        "import mmap\n"
        "f = open('f', 'w+b'); f.write(b'-' * 10000); f.flush()\n"
        "m = mmap.mmap(f.fileno(), 0); f.close()\n"
        "m[5000:5003] = b'XYZ'; m.close()\n"
    )
    mounted.run("python3", "-c", code)
    mounted.umount()
    assert store.content("f") == b"-" * 5000 + b"XYZ" + b"-" * 4997


def test_a_sparse_file(mounted: Mounted, store: StoreApi, tmp_path: Path) -> None:
    mounted.sh("truncate -s 3M sparse; printf end | dd of=sparse bs=1 seek=2000000 conv=notrunc status=none")
    expected = (bytes(2_000_000) + b"end").ljust(3 * 1024**2, b"\0")
    assert (mounted.path / "sparse").read_bytes() == expected
    assert store.content("sparse") == expected
    mounted.run("cp", "--sparse=always", "sparse", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == expected


def test_fsync_stores_while_the_file_stays_open(mounted: Mounted, store: StoreApi) -> None:
    with (mounted.path / "f").open("wb", buffering=0) as file:
        file.write(b"one")
        assert store.keys() == []
        os.fsync(file.fileno())
        assert store.content("f") == b"one"
        file.write(b" two")
        os.fdatasync(file.fileno())
        assert store.content("f") == b"one two"
    mounted.umount()
    assert [r for r in mounted.named_requests() if r.startswith("PUT")] == ["PUT f", "PUT f"]


def test_a_change_by_another_client_is_seen_by_the_next_open(mount: Mount, store: StoreApi) -> None:
    store.put("f", b"before, and rather long")
    with mount() as mounted:
        assert (mounted.path / "f").read_bytes() == b"before, and rather long"
        store.put("f", b"after")

        def content() -> bytes:
            return (mounted.path / "f").read_bytes()

        wait_until(lambda: content() == b"after")
        store.delete_record("f")
        wait_until(lambda: not (mounted.path / "f").exists() or content_gone(mounted.path / "f"))


def content_gone(path: Path) -> bool:
    try:
        path.read_bytes()
    except FileNotFoundError:
        return True
    return False


def test_a_record_deleted_under_an_open_file_is_read_to_its_end(mount: Mount, store: StoreApi) -> None:
    content = os.urandom(3_000_000)
    store.put("f", content)
    with mount() as mounted, (mounted.path / "f").open("rb", buffering=0) as file:
        assert file.read(10) == content[:10]
        store.delete_record("f")
        found = bytearray(content[:10])
        while piece := file.read(100_000):
            found += piece
        assert found == content


def test_reads_at_random_places(mount: Mount, store: StoreApi) -> None:
    content = b"".join(b"%07d\n" % number for number in range(500_000))
    store.put("f", content)
    with mount() as mounted, (mounted.path / "f").open("rb", buffering=0) as file:
        for place in (3_999_992, 0, 2_000_000, 1, 3_500_001, 4096 * 300):
            assert os.pread(file.fileno(), 5000, place) == content[place : place + 5000]
        assert os.pread(file.fileno(), 10, len(content)) == b""


def test_two_open_versions_never_mix_their_bytes(mounted: Mounted, store: StoreApi) -> None:
    """The kernel's pages belong to the file, not to who has it open."""
    size = 8 * 1024 * 1024
    store.put("f", b"A" * size)
    with (mounted.path / "f").open("rb", buffering=0) as first:
        assert os.pread(first.fileno(), 4096, 0) == b"A" * 4096
        store.put("f", b"B" * size)
        wait_until(lambda: reopened(mounted.path / "f") == b"B")
        with (mounted.path / "f").open("rb", buffering=0) as second:
            for offset in range(0, size, size // 8):
                for file, letter in ((second, b"B"), (first, b"A"), (second, b"B")):
                    assert os.pread(file.fileno(), 4096, offset) == letter * 4096


def reopened(path: Path) -> bytes:
    with path.open("rb", buffering=0) as file:
        return file.read(1)
