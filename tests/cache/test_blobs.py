"""Cache files: what was written stays, what was fetched fills the rest, and what a kill leaves behind."""

from __future__ import annotations

import errno
import gc
import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from kvsfs.cache.blobs import Blob, BlobFolder
from kvsfs.cache.durable import all_synced
from kvsfs.cache.folder import CacheFolder
from kvsfs.errors import CommandError, ExitCode


@pytest.fixture
def blob(tmp_path: Path) -> Blob:
    found = Blob(str(tmp_path / "blob"))
    found.acquire()
    return found


def open_descriptors(path: Path) -> list[str]:
    links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    targets = [os.readlink(link) for link in links if os.path.islink(link)]
    return [target for target in targets if target.startswith(str(path))]


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """Let the kernel cut every write there, and refuse the next with EFBIG, as a full disk does with ENOSPC."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


REMOTE = bytes(range(1, 65))
"""The record that is fetched: no byte of it is zero."""

offsets = st.integers(0, 80)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("write"), offsets, st.integers(0, 20)),
        st.tuples(st.just("fill"), st.integers(0, len(REMOTE)), st.integers(0, 40)),
        st.tuples(st.just("truncate"), offsets, st.just(0)),
    ),
    max_size=20,
)


@settings(deadline=None)
@given(operations)
def test_a_blob_is_the_record_under_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, ops: list[tuple[str, int, int]]
) -> None:
    """The model: each byte is the record's until it was written, cut off or skipped over."""
    blob = Blob(str(tmp_path_factory.mktemp("blobs") / "blob"))
    blob.acquire()
    blob.expect(len(REMOTE))
    expected, fetched, limit = list(REMOTE), [False] * len(REMOTE), len(REMOTE)
    for name, offset, argument in ops:
        if name == "write":
            data = bytes([200 + argument]) * argument
            blob.pwrite(data, offset)
            if data:
                grown = max(0, offset - len(expected))
                expected += [0] * grown
                fetched += [True] * grown
                expected[offset : offset + argument] = data
                fetched[offset : offset + argument] = [True] * argument
        elif name == "fill":
            blob.fill(REMOTE[offset : offset + argument], offset, limit)
            for place in range(offset, min(offset + argument, limit, len(expected))):
                fetched[place] = True
        else:
            limit = min(limit, offset)
            blob.truncate(offset)
            grown = max(0, offset - len(expected))
            expected = expected[:offset] + [0] * grown
            fetched = fetched[:offset] + [True] * grown
        blob.check_invariants()
        assert blob.size == len(expected)
        assert [blob.present.covers(i, i + 1) for i in range(len(fetched))] == fetched
        now = [byte if there else 0 for byte, there in zip(expected, fetched, strict=True)]
        assert blob.pread(1000, 0) == bytes(now)
        assert blob.complete == all(fetched)
    blob.release()


def test_fill_never_overwrites_what_was_written(blob: Blob) -> None:
    blob.expect(30)
    blob.pwrite(b"mine", 10)
    blob.pwrite(b"too", 20)
    blob.fill(b"r" * 30, 0, 30)
    assert blob.pread(100, 0) == b"r" * 10 + b"mine" + b"r" * 6 + b"too" + b"r" * 7


def test_fill_stays_below_the_limit_and_the_end(blob: Blob) -> None:
    blob.expect(10)
    blob.fill(b"r" * 30, 5, 8)
    assert (blob.size, blob.pread(100, 0)) == (10, b"\0" * 5 + b"rrr" + b"\0" * 2)
    blob.fill(b"r" * 30, 5, 30)
    assert blob.size == 10


def test_an_empty_write_behind_the_end_changes_nothing(blob: Blob) -> None:
    """write(2) of no bytes has no effect, wherever it is."""
    blob.pwrite(b"", 100)
    assert blob.size == 0
    blob.check_invariants()


def test_a_write_that_fails_half_way_leaves_no_bytes_behind_the_end(blob: Blob) -> None:
    blob.pwrite(b"hello", 0)
    for offset in (5, 60):
        with files_end_at(64), pytest.raises(OSError, match="too large"):
            blob.pwrite(b"x" * 100, offset)
        blob.check_invariants()
        assert (blob.size, blob.pread(200, 0)) == (5, b"hello")
    blob.truncate(200)
    assert blob.pread(200, 0) == b"hello" + bytes(195)


def test_a_write_that_fails_half_way_brings_back_what_it_overwrote(blob: Blob) -> None:
    """The blob may be clean: half a write in it would be shown, and uploaded with the next one, as the store's."""
    blob.expect(40)
    blob.pwrite(b"hello", 10)
    for offset in (0, 8, 12):
        with files_end_at(64), pytest.raises(OSError, match="too large"):
            blob.pwrite(b"x" * 100, offset)
        blob.check_invariants()
        assert blob.pread(5, 10) == b"hello"
        assert (blob.present.gap(0, 40), blob.present.gap(10, 40)) == ((0, 10), (15, 40))
    blob.fill(b"r" * 40, 0, 40)
    assert blob.pread(100, 0) == b"r" * 10 + b"hello" + b"r" * 25


def test_room_is_made_as_often_as_it_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = iter(range(3000))  # more than Python's stack has frames
    blob = Blob(str(tmp_path / "blob"), lambda: next(rounds, None) is not None)
    blob.acquire()
    pwrite, left = os.pwrite, [10, *[0] * 2000, 100]

    def nearly_full(fd: int, data: memoryview, offset: int) -> int:
        if not (room := left.pop(0)):
            raise OSError(errno.ENOSPC, "full")
        return pwrite(fd, data[:room], offset)

    monkeypatch.setattr(os, "pwrite", nearly_full)
    blob.pwrite(b"x" * 100, 0)
    assert blob.pread(200, 0) == b"x" * 100
    assert next(rounds) == 2000


def test_what_a_failed_write_did_not_write_is_still_to_be_fetched(blob: Blob) -> None:
    blob.expect(len(REMOTE))
    with files_end_at(20), pytest.raises(OSError, match="too large"):
        blob.pwrite(b"x" * 30, 10)
    with files_end_at(20), pytest.raises(OSError, match="too large"):
        blob.fill(REMOTE[10:40], 10, len(REMOTE))
    blob.check_invariants()
    assert blob.present.gap(0, 100) == (0, 100)
    blob.fill(REMOTE, 0, len(REMOTE))
    assert blob.pread(100, 0) == REMOTE


def test_reads_end_at_the_end(blob: Blob) -> None:
    blob.pwrite(b"hello", 0)
    assert (blob.pread(2, 1), blob.pread(99, 3), blob.pread(1, 5), blob.pread(1, 99)) == (
        b"el",
        b"lo",
        b"",
        b"",
    )


@pytest.mark.parametrize("fails", [None, errno.EXDEV, errno.EOPNOTSUPP])
def test_a_copy_is_the_same_bytes_and_independent(
    tmp_path: Path, blob: Blob, fails: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fails is not None:

        def refuse(*_: object) -> int:
            raise OSError(fails, "not here")

        monkeypatch.setattr(os, "copy_file_range", refuse)
    size = 3 * 1024 * 1024
    blob.pwrite(b"head", 0)
    blob.truncate(size)  # a hole between
    blob.pwrite(b"tail", size - 4)
    copy = Blob(str(tmp_path / "copy"))
    copy.acquire()
    blob.copy_to(copy)
    copy.check_invariants()
    assert copy.complete
    assert copy.pread(size + 1, 0) == b"head" + bytes(size - 8) + b"tail"
    copy.pwrite(b"X", 0)
    assert blob.pread(4, 0) == b"head"


def test_a_copy_of_nothing_is_empty(tmp_path: Path, blob: Blob) -> None:
    copy = Blob(str(tmp_path / "copy"))
    copy.acquire()
    blob.copy_to(copy)
    assert (copy.size, copy.complete) == (0, True)


def test_a_copy_of_a_file_that_was_cut_behind_our_back_is_an_error(tmp_path: Path, blob: Blob) -> None:
    blob.pwrite(b"hello", 0)
    os.truncate(blob.path, 2)
    copy = Blob(str(tmp_path / "copy"))
    copy.acquire()
    with pytest.raises(OSError, match="shorter"):
        blob.copy_to(copy)


def test_the_descriptor_is_open_only_while_in_use(tmp_path: Path, blob: Blob) -> None:
    blob.acquire()
    blob.pwrite(b"x", 0)
    blob.release()
    assert open_descriptors(tmp_path) == [blob.path]
    blob.release()
    assert open_descriptors(tmp_path) == []
    blob.acquire()
    assert blob.pread(9, 0) == b"x"
    assert not os.get_inheritable(blob.fd)


def test_a_removed_blob_keeps_its_bytes_for_its_users(blob: Blob) -> None:
    blob.pwrite(b"hello", 0)
    blob.remove()
    blob.remove()
    assert blob.pread(5, 0) == b"hello"


# --- the folder -------------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def killed(folder: BlobFolder) -> None:
    """End as SIGKILL does: only the descriptors go."""
    os.close(folder._lock_fd)


def test_nobody_else_can_look_in(tmp_path: Path) -> None:
    folder = BlobFolder(str(tmp_path / "cache"))
    blob = folder.create()
    folder.mark_dirty(blob, "key")
    for path in (tmp_path / "cache").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700


def test_in_a_folder_that_others_can_look_into_nothing_can_be_seen(tmp_path: Path) -> None:
    """Its mode is its owner's choice; what we make in it is ours."""
    tmp_path.chmod(0o755)
    BlobFolder(str(tmp_path)).close()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_somebody_elses_folder_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for name in ("clean/photo.jpg", "clean/album/photo.jpg", "dirty/laundry.txt", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    before = contents(tmp_path)
    with pytest.raises(CommandError, match="--cache-dir") as caught:
        BlobFolder(str(tmp_path))
    assert caught.value.exit_code == ExitCode.CACHE_UNUSABLE
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == before
    assert sorted(os.listdir(tmp_path)) == ["clean", "dirty", "notes.txt"]
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_files_and_folders_that_are_not_ours_stay_where_they_are(tmp_path: Path) -> None:
    BlobFolder(str(tmp_path)).close()
    ours = "0123456789abcdef" * 2
    strange = [
        *(
            f"{folder}/{name}"
            for folder in ("clean", "dirty")
            for name in ("notes.txt", ours.upper(), f"x{ours}")
        ),
        f"clean/{ours}/below.txt",
        f"dirty/{ours}.folder/below.txt",
        f"not-uploaded/{ours}.key",
        "local/sub/.notes.swp",
    ]
    for name in (*strange, f"clean/{ours[::-1]}", f"dirty/{ours}.a\nb.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    folder = BlobFolder(str(tmp_path))
    folder.set_aside_others(set())
    folder.close()
    expected = {name: name.encode() for name in strange}
    expected[f"not-uploaded/{ours}.a\nb.txt"] = f"dirty/{ours}.a\nb.txt".encode()
    assert contents(tmp_path) == {"lock": b"", **expected}


def test_a_cache_folder_that_cannot_be_tidied_is_one_line(tmp_path: Path) -> None:
    BlobFolder(str(tmp_path)).close()
    (tmp_path / "clean").rmdir()
    (tmp_path / "clean").write_text("no folder")
    with pytest.raises(CommandError, match="--cache-dir") as caught:
        BlobFolder(str(tmp_path))
    assert caught.value.exit_code == ExitCode.CACHE_UNUSABLE
    gc.collect()
    assert open_descriptors(tmp_path) == []


def test_two_daemons_never_share_a_folder(tmp_path: Path) -> None:
    first = BlobFolder(str(tmp_path))
    blob = first.create()
    blob.pwrite(b"x", 0)
    first.mark_dirty(blob, "key")
    before = contents(tmp_path)
    with pytest.raises(CommandError, match="--cache-dir") as caught:
        BlobFolder(str(tmp_path))
    assert caught.value.exit_code == ExitCode.CACHE_UNUSABLE
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == before
    first.close()
    BlobFolder(str(tmp_path)).close()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(CommandError, match="--cache-dir") as caught:
        BlobFolder(str(tmp_path / "file" / "cache"))
    assert caught.value.exit_code == ExitCode.CACHE_UNUSABLE


def test_a_refused_folder_leaks_no_descriptor(tmp_path: Path) -> None:
    first = BlobFolder(str(tmp_path))
    with pytest.raises(CommandError):
        BlobFolder(str(tmp_path))
    gc.collect()
    assert open_descriptors(tmp_path) == [str(tmp_path / "lock")]
    first.close()
    assert open_descriptors(tmp_path) == []


def test_after_a_kill_dirty_bytes_are_set_aside_and_clean_ones_go(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = BlobFolder(str(tmp_path))
    for key, dirty in (("kept-1", True), ("kept-2", True), ("gone", False)):
        blob = folder.create()
        blob.pwrite(key.encode(), 0)
        if dirty:
            folder.mark_dirty(blob, key)
        blob.release()
    killed(folder)
    folder = BlobFolder(str(tmp_path))
    folder.set_aside_others(set())
    folder.close()
    assert "2 files" in caplog.text
    left = contents(tmp_path)
    del left["lock"]
    assert {name.rpartition(".")[2]: content for name, content in left.items()} == {
        "kept-1": b"kept-1",
        "kept-2": b"kept-2",
    }
    assert all(name.startswith("not-uploaded/") for name in left)
    BlobFolder(str(tmp_path)).close()
    assert set(contents(tmp_path)) == {"lock", *left}


def test_dirty_and_clean_can_change_often_and_the_path_follows(tmp_path: Path) -> None:
    folder = BlobFolder(str(tmp_path))
    blob = folder.create()
    blob.pwrite(b"hello", 0)
    for key in ("a", "b" * 256, "c.d.e"):
        for _ in range(2):
            folder.mark_dirty(blob, key)
            assert folder.is_dirty(blob)
            assert Path(blob.path).read_bytes() == b"hello"
            assert key[:200] in os.path.basename(blob.path)
        for _ in range(2):
            folder.mark_clean(blob)
            assert not folder.is_dirty(blob)
            assert Path(blob.path).read_bytes() == b"hello"
    assert len(contents(tmp_path)) == 2
    folder.close()


def test_closing_removes_what_is_clean_and_keeps_what_is_dirty(tmp_path: Path) -> None:
    folder = BlobFolder(str(tmp_path))
    clean, dirty, aside = folder.create(), folder.create(), folder.create()
    folder.mark_dirty(dirty, "d")
    folder.mark_dirty(aside, "s")
    kept = folder.set_aside(aside)
    for blob in (clean, dirty, aside):
        blob.release()
    folder.close()
    assert set(contents(tmp_path)) == {
        "lock",
        os.path.relpath(dirty.path, tmp_path),
        os.path.relpath(kept, tmp_path),
    }


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every path that was made durable, in order."""
    paths: list[str] = []
    fsync = os.fsync

    def noted(fd: int) -> None:
        fsync(fd)
        paths.append(os.readlink(f"/proc/self/fd/{fd}"))

    monkeypatch.setattr(os, "fsync", noted)
    return paths


def test_durable_are_the_bytes_and_each_name_on_the_way_to_them(tmp_path: Path, synced: list[str]) -> None:
    folder = BlobFolder(str(tmp_path / "a" / "b"))
    assert synced == [str(tmp_path), str(tmp_path / "a")]  # the names `a` and `b` are theirs
    root = str(tmp_path / "a" / "b")
    blob = folder.create()
    folder.mark_dirty(blob, "key")
    swap = folder.create_local(b"one/two/.swap")
    moved = folder.create()
    folder.make_local(moved, b"one/.moved")
    expected = [
        (blob, [blob.path, f"{root}/dirty"]),
        (swap, [swap.path, f"{root}/local/one/two", f"{root}/local/one", f"{root}/local"]),
        (moved, [moved.path, f"{root}/local/one", f"{root}/local"]),
    ]
    for each, paths in expected:
        synced.clear()
        each.pwrite(b"hello", 0)
        for sync in folder.syncs(each):
            sync()
        assert synced == paths


def test_the_names_in_the_cache_folder_are_durable_before_anything_is_written(
    tmp_path: Path, synced: list[str]
) -> None:
    """Those of `dirty/`, of the journal and of its log: no close syncs them again."""
    there: list[str] = []
    root = str(tmp_path / "cache")
    real = BlobFolder.make_names_durable

    def note(self: BlobFolder) -> None:
        there.extend(os.listdir(root))
        real(self)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(BlobFolder, "make_names_durable", note)
        cache = CacheFolder(root, "store")
    assert {"dirty", "local", "journal.db", "journal.db-wal"} <= set(there)
    assert synced == [str(tmp_path), root]
    cache.close()


def test_a_disk_that_cannot_keep_the_bytes_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = BlobFolder(str(tmp_path))
    blob = folder.create()
    for number, told in ((errno.EIO, True), (errno.EINVAL, False)):

        def refuse(fd: int, number: int = number) -> None:
            if os.path.isdir(f"/proc/self/fd/{fd}"):
                raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "fsync", refuse)
        with pytest.raises(OSError, match="Input/output") if told else nullcontext():
            trio.run(all_synced, folder.syncs(blob))
    blob.release()
    assert open_descriptors(tmp_path) == [str(tmp_path / "lock")]
