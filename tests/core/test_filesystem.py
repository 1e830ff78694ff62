"""What each operation costs, and what it does when another one, another client or the network interferes."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from kvsfs.cache.blobs import Blob, BlobFolder
from kvsfs.core.requests import Changes
from kvsfs.core.tuning import Tuning
from kvsfs.errors import (
    FileError,
    PermissionDenied,
    RecordTooLarge,
    StoreError,
    StoreTimeout,
    StoreUnreachable,
)
from tests.support.mounted import Mounted, errno_in, mounted, on_mock_clock

GONE = StoreUnreachable("the network is down")


def bytes_in(path: str) -> bytes:
    return Path(path).read_bytes()


# --- what operations cost ---------------------------------------------------------------------------


def test_a_new_file_costs_one_put() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.names()
            with m.costs(set_record=1):
                await m.write_file("a.txt", b"hello")
            assert await m.other.records() == {"a.txt": b"hello"}

    on_mock_clock(main)


def test_a_file_made_in_a_folder_costs_one_put_and_no_marker() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.names()
            with m.costs(set_record=1):
                await m.mkdir("d")
                await m.write_file("d/a.txt", b"hello")
                await m.idle()
            assert await m.other.records() == {"d!2Fa.txt": b"hello"}

    on_mock_clock(main)


def test_a_create_of_what_was_listed_meanwhile_opens_it() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("a", b"theirs")
            await m.names()
            fh = await m.create("a", os.O_RDWR)
            assert await m.read_all(fh) == b"theirs"
            await m.close(fh)
            with pytest.raises(FileError) as raised:
                await m.create("a", os.O_RDWR | os.O_EXCL)
            assert raised.value.errno == errno.EEXIST

    on_mock_clock(main)


async def overwrite_in_place(m: Mounted) -> None:
    fh = await m.open("a", os.O_WRONLY)
    try:
        await m.fs.files.write(fh, 0, b"x")
    finally:
        await m.close(fh)


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "no space left")


@pytest.mark.parametrize("what", ["mark_dirty", "truncate", "pwrite"])
def test_a_change_that_the_disk_refuses_changes_nothing(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("a", b"precious")
            assert await m.read_file("a") == b"precious"
            with monkeypatch.context() as patched:
                patched.setattr(BlobFolder if what == "mark_dirty" else Blob, what, full_disk)
                with pytest.raises(OSError, match="no space"):
                    await (
                        overwrite_in_place(m) if what == "pwrite" else m.open("a", os.O_WRONLY | os.O_TRUNC)
                    )
            assert await m.state("a") == b"clean"
            await m.other.put("a", b"newer")
            await m.fs.drain()
            assert m.fs.left() == []
            assert await m.other.records() == {"a": b"newer"}

    on_mock_clock(main)


def test_a_full_disk_takes_back_what_is_only_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    disk, real = 250_000, os.pwrite

    async def main() -> None:
        async with mounted() as m:

            def pwrite(fd: int, data: bytes, offset: int) -> int:
                folders = (os.path.join(m.blobs.path, name) for name in ("clean", "dirty"))
                used = sum(os.path.getsize(os.path.join(f, name)) for f in folders for name in os.listdir(f))
                if used + max(0, offset + len(data) - os.fstat(fd).st_size) > disk:
                    raise OSError(errno.ENOSPC, "no space left")
                return real(fd, data, offset)

            monkeypatch.setattr(os, "pwrite", pwrite)
            for name in "abcabc":
                await m.write_file(name, name.encode() * 100_000)
                assert await m.read_file(name) == name.encode() * 100_000
            await m.write_file("d", b"d" * 200_000)
            assert (await m.other.records())["d"] == b"d" * 200_000
            with pytest.raises(OSError, match="no space"):
                await m.write_file("e", b"e" * 300_000)

    on_mock_clock(main)


def test_a_retry_does_not_replace_what_somebody_else_wrote_since() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("a", b"first")
            fh = await m.open("a", os.O_RDWR)
            await m.fs.files.write(fh, 0, b"ours!!!")
            m.hooks.fail("set_record", GONE)
            with pytest.raises(StoreUnreachable):
                await m.close(fh)
            await m.other.put("a", b"theirs")
            await m.idle()
            (beside,) = set(await m.other.records()) - {"a"}
            assert beside.startswith("a.conflict-")
            assert await m.other.records() == {"a": b"theirs", beside: b"ours!!!"}
            assert m.fs.left() == []
            assert await m.names() == ["a", beside]
            assert await m.read_file("a") == b"theirs"
            assert await m.read_file(beside) == b"ours!!!"
            assert await m.state("a") == b"clean"

    on_mock_clock(main)


def test_a_version_that_the_store_refused_is_kept_when_another_one_replaces_it() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("a", b"one")
            older = await m.open("a", os.O_RDWR)
            await m.other.put("a", b"second")
            await trio.sleep(m.tuning.revalidate + 1)
            newer = await m.open("a", os.O_RDWR)
            await m.fs.files.write(newer, 0, b"NEWER")
            m.hooks.fail("set_record", RecordTooLarge("no"))
            with pytest.raises(RecordTooLarge):
                await m.close(newer)
            await m.idle()
            await m.fs.files.write(older, 0, b"OLDER")
            await m.close(older)
            aside = os.path.join(m.blobs.path, "not-uploaded")
            assert [bytes_in(os.path.join(aside, name)) for name in os.listdir(aside)] == [b"NEWERd"]

    on_mock_clock(main)


@pytest.mark.parametrize("newer", [b"B" * 100, b"B" * 10, b"B" * 1000])
def test_readers_of_an_older_version_keep_its_inode_and_its_size(newer: bytes) -> None:
    """By the size of a shorter version the kernel would cut their reads, and end who has the rest mapped."""

    async def main() -> None:
        async with mounted() as m:
            await m.other.put("a", b"A" * 100)
            number = (await m.file("a")).number
            m.fs.inodes.looked_up(m.fs.inodes.get(number))
            first = await m.fs.open(number, os.O_RDONLY, 1)
            again = await m.fs.open(number, os.O_RDONLY, 1)
            assert again.keep_pages
            await m.other.put("a", newer)
            await trio.sleep(m.tuning.revalidate + 1)
            with m.costs(get_record=1):
                with pytest.raises(FileError) as caught:
                    await m.fs.open(number, os.O_RDONLY, 1)
                assert caught.value.errno == errno.ESTALE
                other = await m.open_answer("a")
                assert await m.read_all(other.fh) == newer
                with pytest.raises(FileError):
                    await m.fs.open(number, os.O_RDONLY, 1)
            m.fs.check_invariants()
            assert (other.direct, other.keep_pages) == (False, False)
            assert (await m.file("a")).number != number
            assert (await m.file("a")).size == len(newer)
            older = m.fs.inodes.file(number)
            assert (older.size, older.removed) == (100, True)
            assert await m.read_all(first.fh) == b"A" * 100
            for opened in (first, again, other):
                await m.close(opened.fh)
            m.fs.inodes.forget(number, 1)
            with pytest.raises(FileError):
                m.fs.inodes.get(number)
            assert await m.names() == ["a"]
            await m.unlink("a")
            assert await m.other.records() == {}
            m.fs.check_invariants()

    on_mock_clock(main)


def test_three_versions_are_open_at_once() -> None:
    async def main() -> None:
        async with mounted() as m:
            opened = []
            for content in (b"one", b"two, longer", b"3"):
                await m.other.put("a", content)
                opened.append((await m.open("a"), content))
                await trio.sleep(m.tuning.revalidate + 1)
            m.fs.check_invariants()
            for fh, content in opened:
                assert await m.read_all(fh) == content
                await m.close(fh)
            assert len(m.fs.inodes) == 2  # the root and the file

    on_mock_clock(main)


def test_opens_that_wait_for_the_same_answer_get_the_new_version() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("a", b"old")
            first = await m.open("a")
            await m.other.put("a", b"newer")
            await trio.sleep(m.tuning.revalidate + 1)
            answer = m.hooks.hold_answer("get_record")
            found: list[bytes] = []

            async def read() -> None:
                found.append(await m.read_file("a"))

            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(read)
                await answer.reached.wait()
                answer.open()
            assert found == [b"newer"] * 5
            assert await m.read_all(first) == b"old"
            await m.close(first)
            m.fs.check_invariants()

    on_mock_clock(main)


def test_beside_a_writer_a_handle_on_another_version_does_without_the_kernels_pages() -> None:
    """What it writes is to be the newest version, under the name: it cannot be left with an inode of its own."""

    async def main() -> None:
        async with mounted() as m:
            await m.other.put("a", b"A" * 100)
            number = (await m.file("a")).number
            writer = await m.fs.open(number, os.O_RDWR, 1)
            await m.other.put("a", b"B" * 100)
            await trio.sleep(m.tuning.revalidate + 1)
            newer = await m.fs.open(number, os.O_RDONLY, 1)
            assert newer.direct
            assert await m.read_all(newer.fh) == b"B" * 100
            await m.fs.files.release(writer.fh)
            last = await m.fs.open(number, os.O_RDONLY, 1)
            assert (last.direct, last.keep_pages) == (False, False)
            await m.fs.files.release(newer.fh)
            await m.fs.files.release(last.fh)

    on_mock_clock(main)


def test_unlink_does_not_wait_for_an_upload() -> None:
    async def main() -> None:
        async with mounted() as m:
            fh = await m.create("a")
            await m.fs.files.write(fh, 0, b"x" * 1000)
            m.hooks.hold("set_record")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(m.fs.files.flush, fh)
                await trio.sleep(1)
                with trio.fail_after(1):
                    await m.unlink("a")
            await m.fs.files.release(fh)
            await m.idle()
            assert await m.other.records() == {}

    on_mock_clock(main)


def test_a_truncation_during_an_upload_copies_nothing() -> None:
    async def main() -> None:
        async with mounted() as m:
            fh = await m.create("a")
            await m.fs.files.write(fh, 0, b"x" * 1000)
            gate = m.hooks.hold("set_record")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(m.fs.files.flush, fh)
                await gate.reached.wait()
                file = await m.file("a")
                await m.fs.setattr(file.number, Changes(size=0), fh)
                assert (file.size, await m.read_all(fh)) == (0, b"")
                gate.open()
            assert await m.other.records() == {"a": b"x" * 1000}
            await m.close(fh)
            assert await m.other.records() == {"a": b""}

    on_mock_clock(main)


def test_an_append_to_what_the_listing_does_not_know_yet_asks_first() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.names()
            await m.other.put("log", b"theirs\n")
            fh = await m.create("log", os.O_WRONLY | os.O_APPEND)
            await m.fs.files.write(fh, 0, b"ours\n")
            await m.close(fh)
            assert await m.other.records() == {"log": b"theirs\nours\n"}
            with m.costs(list_keys=1, set_record=1):
                await m.close(await m.create("new", os.O_WRONLY | os.O_APPEND))

    on_mock_clock(main)


def test_a_type_is_listed_where_there_is_one_and_taken_back_while_it_is_ours() -> None:
    async def main() -> None:
        async with mounted() as m:
            fh = await m.create("a.txt")
            file = await m.file("a.txt")
            assert await m.fs.xattrs.list(file) == []
            await m.fs.setxattr(file.number, b"user.mime_type", b"text/x-mine")
            assert await m.fs.xattrs.list(file) == [b"user.mime_type"]
            await m.fs.removexattr(file.number, b"user.mime_type")
            await m.close(fh)
            await m.fs.removexattr(file.number, b"user.mime_type")
            assert await m.mime_type("a.txt") == b"text/plain; charset=utf-8"
            await m.fs.setxattr(file.number, b"user.mime_type", b"text/x-mine")
            with pytest.raises(FileError) as refused:
                await m.fs.removexattr(file.number, b"user.mime_type")
            assert refused.value.errno == errno.EPERM

    on_mock_clock(main)


def test_an_overwrite_costs_one_put() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.write_file("a.txt", b"hello")
            with m.costs(set_record=1):
                await m.write_file("a.txt", b"bye")
            assert await m.other.records() == {"a.txt": b"bye"}

    on_mock_clock(main)


def test_an_empty_file_is_a_record() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.names()
            with m.costs(set_record=1):
                await m.write_file("a.txt", b"")
            assert await m.other.records() == {"a.txt": b""}
            assert await m.read_file("a.txt") == b""

    on_mock_clock(main)


def test_reading_twice_within_the_revalidation_costs_one_get_and_later_a_question() -> None:
    async def main() -> None:
        async with mounted(tuning=Tuning(revalidate=5.0)) as m:
            await m.other.put("a", b"hello")
            await m.names()
            with m.costs(get_record=1):
                assert await m.read_file("a") == b"hello"
                await trio.sleep(4.9)
                assert await m.read_file("a") == b"hello"
            await trio.sleep(0.2)
            with m.costs(get_record=1):
                fh = await m.open("a")
            with m.costs():
                assert await m.read_all(fh) == b"hello"
                await m.close(fh)

    on_mock_clock(main)


def test_two_opens_at_once_fetch_once() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("a", b"x" * 300_000)
            await m.names()
            with m.costs(get_record=1):
                async with trio.open_nursery() as nursery:
                    for _ in range(3):
                        nursery.start_soon(m.read_file, "a")

    on_mock_clock(main)


def test_unlink_costs_one_delete_and_nothing_for_a_file_that_the_store_never_had() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("a", b"hello")
            await m.names()
            with m.costs(delete_record=1):
                await m.unlink("a")
            with m.costs():
                fh = await m.create("b")
                await m.fs.files.write(fh, 0, b"x")
                await m.unlink("b")
                await m.close(fh)
                await m.idle()
            assert await m.other.records() == {}

    on_mock_clock(main)


def test_rename_of_a_record_is_put_then_delete() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.write_file("a", b"hello")
            with m.costs(set_record=1, delete_record=1):
                await m.rename("a", "b")
            assert m.hooks.log[-2:] == [("set_record", "b"), ("delete_record", "a")]
            assert await m.other.records() == {"b": b"hello"}
            assert await m.names() == ["b"]

    on_mock_clock(main)


def test_rename_of_an_open_new_file_costs_nothing_and_its_close_one_put() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.names()
            fh = await m.create("a")
            await m.fs.files.write(fh, 0, b"hello")
            with m.costs():
                await m.rename("a", "b")
            with m.costs(set_record=1):
                await m.close(fh)
            assert await m.other.records() == {"b": b"hello"}

    on_mock_clock(main)


def test_truncate_by_path_uploads_and_by_handle_waits_for_the_close() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.write_file("a", b"hello")
            file = await m.file("a")
            with m.costs(set_record=1):
                await m.fs.setattr(file.number, Changes(size=3), None)
            assert await m.other.read("a") == b"hel"
            fh = await m.open("a", os.O_RDWR)
            with m.costs():
                await m.fs.setattr(file.number, Changes(size=5), fh)
            with m.costs(set_record=1):
                await m.close(fh)
            assert await m.other.read("a") == b"hel\0\0"

    on_mock_clock(main)


def test_times_and_mode_never_upload() -> None:
    async def main() -> None:
        async with mounted() as m:
            fh = await m.create("a")
            await m.fs.files.write(fh, 0, b"x")
            await m.fs.files.flush(fh)
            number = (await m.file("a")).number
            with m.costs():
                changes = Changes(mode=0o600, atime_ns=1, mtime_ns=2, uid=3, gid=4)
                inode = await m.fs.setattr(number, changes, fh)
                await m.close(fh)
                await m.idle()
            assert (inode.mode & 0o7777, inode.atime_ns, inode.mtime_ns, inode.uid, inode.gid) == (
                0o600,
                1,
                2,
                3,
                4,
            )

    on_mock_clock(main)


def test_statfs_never_waits_and_asks_at_most_once_a_minute() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("a", b"x" * 1000)
            gate = m.hooks.hold("get")
            before = m.stores.calls["get"]
            assert m.fs.usage.used_bytes() == 0
            await trio.sleep(61)
            for _ in range(3):
                assert m.fs.usage.used_bytes() == 0
            await gate.reached.wait()
            assert m.stores.calls["get"] - before == 1
            gate.open()
            await m.idle()
            assert m.fs.usage.used_bytes() == 1000
            m.hooks.fail("get", GONE)
            await trio.sleep(61)
            assert m.fs.usage.used_bytes() == 1000
            await m.idle()
            assert m.fs.usage.used_bytes() == 1000

    on_mock_clock(main)


# --- refusals ---------------------------------------------------------------------------------------


def test_read_only_refuses_every_change_without_a_request() -> None:
    async def main() -> None:
        async with mounted(tuning=Tuning(read_only=True)) as m:
            await m.other.put("a", b"hello")
            await m.other.put("d!2Fb", b"")
            await m.names()
            a, d = await m.file("a"), await m.walk("d")
            refused: list[Callable[[], Awaitable[object]]] = [
                lambda: m.fs.create(1, b"n", 0o644, os.O_WRONLY, 1),
                lambda: m.fs.mkdir(1, b"n", 0o755),
                lambda: m.fs.unlink(1, b"a"),
                lambda: m.fs.rmdir(1, b"d"),
                lambda: m.fs.rename(1, b"a", 1, b"n", replace=True),
                lambda: m.fs.setattr(a.number, Changes(size=0), None),
                lambda: m.fs.setattr(d.number, Changes(mtime_ns=0), None),
                lambda: m.fs.setxattr(a.number, b"user.mime_type", b"text/html"),
                lambda: m.fs.removexattr(a.number, b"user.mime_type"),
                lambda: m.fs.open(a.number, os.O_WRONLY, 1),
                lambda: m.fs.open(a.number, os.O_RDWR, 1),
                lambda: m.fs.open(a.number, os.O_RDONLY | os.O_TRUNC, 1),
            ]
            with m.costs():
                for call in refused:
                    with pytest.raises(FileError) as caught:
                        await call()
                    assert caught.value.errno == errno.EROFS
            assert await m.read_file("a") == b"hello"

    on_mock_clock(main)


def test_strict_names_refuse_what_would_be_encoded() -> None:
    async def main() -> None:
        async with mounted(tuning=Tuning(strict_names=True)) as m:
            await m.other.put("old", b"x")
            await m.names()
            for call in (
                m.fs.create(1, "ä".encode(), 0o644, os.O_WRONLY, 1),
                m.fs.mkdir(1, b"a b", 0o755),
                m.fs.rename(1, b"old", 1, b"a~", replace=True),
            ):
                with pytest.raises(FileError) as caught:
                    await call
                assert caught.value.errno == errno.EINVAL
            await m.write_file("plain", b"x")
            assert await m.other.records() == {"old": b"x", "plain": b"x"}

    on_mock_clock(main)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda m: m.rename("d", "a"), errno.ENOTDIR),
        (lambda m: m.rename("a", "d"), errno.EISDIR),
        (lambda m: m.rename("a", "b", replace=False), errno.EEXIST),
        (lambda m: m.rename("nothing", "b"), errno.ENOENT),
        (lambda m: m.rename("a", "a!2F"), errno.EINVAL),
        (lambda m: m.rename("a", "n" * 257), errno.ENAMETOOLONG),
        (lambda m: m.unlink("d"), errno.EISDIR),
        (lambda m: m.unlink("nothing"), errno.ENOENT),
        (lambda m: m.rmdir("a"), errno.ENOTDIR),
        (lambda m: m.rmdir("d"), errno.ENOTEMPTY),
        (lambda m: m.mkdir("a"), errno.EEXIST),
        (lambda m: m.mkdir("d"), errno.EEXIST),
        (lambda m: m.create("a", os.O_EXCL), errno.EEXIST),
        (lambda m: m.create("d"), errno.EEXIST),
        (lambda m: m.create("x!2F"), errno.EINVAL),
        (lambda m: m.create("ж" * 43), errno.ENAMETOOLONG),
        (lambda m: m.walk("a/b"), errno.ENOTDIR),
        (lambda m: m.fs.open(1, os.O_RDONLY, 1), errno.EISDIR),
        (lambda m: m.fs.open(999, os.O_RDONLY, 1), errno.ESTALE),
        (lambda m: m.fs.setattr(1, Changes(size=0), None), errno.EISDIR),
        (lambda m: m.fs.files.read(99, 0, 1), errno.EBADF),
        (lambda m: m.fs.files.flush(99), errno.EBADF),
        (lambda m: m.fs.files.release(99), errno.EBADF),
    ],
)  # fmt: skip
def test_errors_leave_everything_as_it_was(
    call: Callable[[Mounted], Awaitable[object]], expected: int
) -> None:
    async def main() -> None:
        async with mounted() as m:
            for key in ("a", "b", "d!2Fc"):
                await m.other.put(key, key.encode())
            before = await m.other.records()
            await m.names()
            with pytest.raises(FileError) as caught:
                await call(m)
            assert caught.value.errno == expected
            assert sorted(await m.names()) == ["a", "b", "d"]
            await m.fs.drain()
            assert await m.other.records() == before

    on_mock_clock(main)


# --- content types and extended attributes ------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.json", b"{}", b"application/json; charset=utf-8"),
        ("a", b'{"x": 1}', b"application/json; charset=utf-8"),
        ("a", b"\xff\xfe\x00\x01", b"application/octet-stream"),
        ("a.png", b"no picture", b"image/png"),
    ],
)
def test_a_new_record_gets_a_guessed_type(name: str, content: bytes, expected: bytes) -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.write_file(name, content)
            head = await m.other.head(name)
            assert head is not None
            assert head.content_type.encode() == await m.mime_type(name)
            assert head.content_type.split(";")[0] == expected.decode().split(";")[0]

    on_mock_clock(main)


def test_an_overwrite_keeps_the_type_and_a_rename_takes_it_along() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("a.txt", b"x", "application/x-mine")
            await m.write_file("a.txt", b"y")
            await m.rename("a.txt", "b.json")
            head = await m.other.head("b.json")
            assert head is not None
            assert head.content_type == "application/x-mine"

    on_mock_clock(main)


def test_a_replaced_file_gives_its_type_to_one_whose_type_was_guessed() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("doc", b"x", "application/x-mine")
            await m.names()
            await m.write_file("tmp.txt", b"new")
            await m.rename("tmp.txt", "doc")
            head = await m.other.head("doc")
            assert head is not None
            assert head.content_type == "application/x-mine"
            assert await m.other.read("doc") == b"new"

    on_mock_clock(main)


def test_a_type_set_before_the_close_costs_nothing_and_is_uploaded_with_the_bytes() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.names()
            with m.costs(set_record=1):
                fh = await m.create("a")
                await m.fs.setxattr((await m.file("a")).number, b"user.mime_type", b"text/x-mine")
                await m.fs.files.write(fh, 0, b"x")
                await m.close(fh)
            head = await m.other.head("a")
            assert head is not None
            assert head.content_type == "text/x-mine"

    on_mock_clock(main)


def test_a_type_set_on_a_closed_file_is_one_put_of_the_same_bytes() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.write_file("a", b"hello")
            number = (await m.file("a")).number
            with m.costs(set_record=1):
                await m.fs.setxattr(number, b"user.mime_type", b"text/x-mine")
            with m.costs():
                await m.fs.setxattr(number, b"user.mime_type", b"text/x-mine")
            head = await m.other.head("a")
            assert head is not None
            assert (head.content_type, await m.other.read("a")) == ("text/x-mine", b"hello")

    on_mock_clock(main)


def test_a_type_set_while_the_bytes_are_uploaded_is_not_lost() -> None:
    async def main() -> None:
        async with mounted() as m:
            fh = await m.create("a")
            await m.fs.files.write(fh, 0, b"hello")
            gate = m.hooks.hold("set_record")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(m.close, fh)
                await gate.reached.wait()
                nursery.start_soon(
                    m.fs.setxattr, (await m.file("a")).number, b"user.mime_type", b"text/x-mine"
                )
                await trio.testing.wait_all_tasks_blocked()
                gate.open()
            await m.fs.drain()
            head = await m.other.head("a")
            assert head is not None
            assert head.content_type == "text/x-mine"
            assert await m.mime_type("a") == b"text/x-mine"

    on_mock_clock(main)


def test_a_refused_retype_changes_nothing() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.write_file("a.txt", b"hello")
            before = await m.mime_type("a.txt")
            m.hooks.fail("set_record", PermissionDenied("no"))
            with pytest.raises(PermissionDenied):
                await m.fs.setxattr((await m.file("a.txt")).number, b"user.mime_type", b"text/x-mine")
            assert await m.mime_type("a.txt") == before
            assert await m.state("a.txt") == b"clean"

    on_mock_clock(main)


def test_extended_attributes_and_their_errors() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.write_file("a.txt", b"hello")
            await m.mkdir("d")
            a, d, root = (await m.file("a.txt")), await m.walk("d"), m.fs.inodes.root
            xattrs = m.fs.xattrs
            assert await xattrs.list(a) == [b"user.mime_type"]
            assert await xattrs.list(d) == await xattrs.list(root) == []
            assert await xattrs.get(a, b"user.apify.key") == b"a.txt"
            assert b"signature=" in await xattrs.get(a, b"user.apify.public_url")
            assert await xattrs.get(a, b"user.kvsfs.state") == b"clean"
            assert await xattrs.get(root, b"user.apify.name") == b"s"
            await xattrs.set(root, b"user.apify.title", b"Title")
            assert await xattrs.get(root, b"user.apify.title") == b"Title"
            for call, expected in (
                (xattrs.get(a, b"user.apify.content_encoding"), errno.ENODATA),
                (xattrs.get(a, b"user.nothing"), errno.ENODATA),
                (xattrs.get(a, b"security.capability"), errno.EOPNOTSUPP),
                (xattrs.get(d, b"user.mime_type"), errno.ENODATA),
                (xattrs.set(a, b"user.apify.key", b"b"), errno.EPERM),
                (xattrs.set(a, b"user.kvsfs.state", b"b"), errno.EPERM),
                (xattrs.set(a, b"user.other", b"b"), errno.EOPNOTSUPP),
                (xattrs.set(a, b"security.x", b"b"), errno.EOPNOTSUPP),
                (xattrs.set(a, b"user.mime_type", b"not a type"), errno.EINVAL),
                (xattrs.set(a, b"user.mime_type", b""), errno.EINVAL),
                (xattrs.set(root, b"user.apify.general_access", b"everybody"), errno.EINVAL),
                (xattrs.set(d, b"user.apify.title", b"x"), errno.EPERM),
                (xattrs.remove(a, b"user.nothing"), errno.ENODATA),
            ):
                with pytest.raises(FileError) as caught:
                    await call
                assert caught.value.errno == expected

    on_mock_clock(main)


# --- failures ---------------------------------------------------------------------------------------


def test_a_failed_upload_fails_the_close_keeps_the_bytes_and_says_why() -> None:
    async def main() -> None:
        async with mounted() as m:
            fh = await m.create("a")
            await m.fs.files.write(fh, 0, b"hello")
            m.hooks.fail("set_record", GONE)
            with pytest.raises(StoreUnreachable):
                await m.fs.files.flush(fh)
            assert (await m.state("a")).startswith(b"failed: ")
            assert await m.read_all(fh) == b"hello"
            await m.fs.files.release(fh)
            await m.idle()
            assert await m.other.records() == {"a": b"hello"}
            assert await m.state("a") == b"clean"

    on_mock_clock(main)


def test_what_the_store_refuses_for_good_is_not_tried_again_until_it_is_closed_anew() -> None:
    async def main() -> None:
        async with mounted() as m:
            fh = await m.create("a")
            await m.fs.files.write(fh, 0, b"hello")
            m.hooks.fail("set_record", RecordTooLarge("too large", status=413))
            with m.costs(set_record=1):
                with pytest.raises(RecordTooLarge):
                    await m.close(fh)
                await m.idle()
                await m.fs.drain()
            assert await m.state("a") == b"failed: too large"
            assert m.fs.left() == ["a (not uploaded: too large)"]
            await m.remount()
            assert await m.state("a") == b"failed: too large"
            assert await m.read_file("a") == b"hello"
            await m.idle()
            assert await m.other.records() == {}
            await m.write_file("a", b"less")
            assert await m.other.records() == {"a": b"less"}

    on_mock_clock(main)


def test_what_the_drain_could_not_upload_the_next_mount_does() -> None:
    async def main() -> None:
        async with mounted() as m:
            fh = await m.create("a")
            await m.fs.files.write(fh, 0, b"hello")
            for _ in range(20):
                m.hooks.fail("set_record", GONE)
            with pytest.raises(StoreUnreachable):
                await m.close(fh)
            await m.fs.drain()
            assert m.fs.left() == [f"a (not uploaded: {GONE})"]
            assert await m.other.records() == {}
            m.hooks.clear()
            await m.remount()
            assert await m.read_file("a") == b"hello"
            await m.idle()
            assert await m.other.records() == {"a": b"hello"}
            assert m.fs.left() == []

    on_mock_clock(main)


def test_the_drain_uploads_what_is_dirty_and_open() -> None:
    async def main() -> None:
        async with mounted() as m:
            fh = await m.create("a")
            await m.fs.files.write(fh, 0, b"hello")
            await m.fs.drain()
            assert await m.other.records() == {"a": b"hello"}
            assert m.fs.left() == []

    on_mock_clock(main)


def test_a_close_ends_within_its_time_out_and_the_bytes_stay() -> None:
    async def main() -> None:
        async with mounted(tuning=Tuning(close_timeout=10.0)) as m:
            fh = await m.create("a")
            await m.fs.files.write(fh, 0, b"hello")
            gate = m.hooks.hold("set_record")
            started = trio.current_time()
            with pytest.raises(StoreTimeout):
                await m.fs.files.flush(fh)
            assert trio.current_time() - started == pytest.approx(10.0, abs=0.1)
            assert (await m.state("a")).startswith(b"failed: ")
            gate.open()
            await m.fs.files.release(fh)
            await m.idle()
            assert await m.other.records() == {"a": b"hello"}

    on_mock_clock(main)


def test_a_record_whose_upload_had_no_answer_is_deleted_by_unlink() -> None:
    """Time-outs leave it open whether the store has the record: a removed file must not come back."""

    async def main() -> None:
        async with mounted() as m:
            fh = await m.create("a")
            await m.fs.files.write(fh, 0, b"hello")
            m.hooks.lose_answer("set_record", StoreTimeout("no answer"))
            with pytest.raises(StoreTimeout):
                await m.fs.files.flush(fh)
            assert "a" in await m.other.records()
            await m.unlink("a")
            await m.fs.files.release(fh)
            await m.idle()
            assert await m.other.records() == {}

    on_mock_clock(main)


def test_a_record_whose_upload_was_given_up_is_deleted_by_unlink() -> None:
    async def main() -> None:
        async with mounted(tuning=Tuning(close_timeout=10.0)) as m:
            fh = await m.create("a")
            await m.fs.files.write(fh, 0, b"hello")
            m.hooks.hold_answer("set_record")
            with pytest.raises(StoreTimeout):
                await m.fs.files.flush(fh)
            await m.unlink("a")
            await m.fs.files.release(fh)
            await m.idle()
            assert await m.other.records() == {}

    on_mock_clock(main)


def test_a_failed_unlink_leaves_the_file() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.write_file("a", b"hello")
            m.hooks.fail("delete_record", GONE)
            with pytest.raises(StoreUnreachable):
                await m.unlink("a")
            assert await m.names() == ["a"]
            assert await m.read_file("a") == b"hello"
            await m.unlink("a")
            assert await m.names() == []

    on_mock_clock(main)


def test_a_rename_of_a_file_that_is_being_written_waits_for_its_close() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.write_file("a", b"old")
            fh = await m.open("a", os.O_RDWR)
            await m.fs.files.write(fh, 0, b"ne")
            with m.costs():
                await m.rename("a", "b")
                await trio.sleep(60)
            assert await m.other.records() == {"a": b"old"}
            await m.fs.files.write(fh, 2, b"w")
            await m.close(fh)
            assert await m.other.read("b") == b"new"
            await m.idle()
            assert await m.other.records() == {"b": b"new"}

    on_mock_clock(main)


def test_errors_of_background_tasks_do_not_escape() -> None:
    async def main() -> None:
        async with mounted() as m:
            fh = await m.create("a")
            await m.fs.files.write(fh, 0, b"hello")
            await m.mkdir("d")
            m.hooks.fail("set_record", GONE, "a")
            m.hooks.fail("set_record", PermissionDenied("no"), "d!2F")
            await m.fs.files.release(fh)
            await m.idle()
            assert sorted(await m.names()) == ["a", "d"]
            await m.fs.drain()
            assert set(await m.other.records()) == {"a", "d!2F"}

    on_mock_clock(main)


# --- two things at once -----------------------------------------------------------------------------


def test_a_write_during_an_upload_is_not_torn_into_it_and_goes_with_the_next_flush() -> None:
    async def main() -> None:
        async with mounted() as m:
            fh = await m.create("a")
            await m.fs.files.write(fh, 0, b"a" * 1_000_000)
            gate = m.hooks.hold("set_record")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(m.fs.files.flush, fh)
                await gate.reached.wait()
                await m.fs.files.write(fh, 500_000, b"b")
                await m.fs.setattr((await m.file("a")).number, Changes(size=600_000), fh)
                assert await m.state("a") == b"uploading"
                gate.open()
            assert await m.other.read("a") == b"a" * 1_000_000
            assert await m.state("a") == b"dirty"
            await m.close(fh)
            assert await m.other.read("a") == b"a" * 500_000 + b"b" + b"a" * 99_999

    on_mock_clock(main)


def test_a_failed_upload_with_a_write_meanwhile_keeps_the_newest_bytes() -> None:
    async def main() -> None:
        async with mounted() as m:
            fh = await m.create("a")
            await m.fs.files.write(fh, 0, b"one")
            gate = m.hooks.hold("set_record")
            m.hooks.lose_answer("set_record", GONE)
            async with trio.open_nursery() as nursery:

                async def flush() -> None:
                    with pytest.raises(StoreUnreachable):
                        await m.fs.files.flush(fh)

                nursery.start_soon(flush)
                await gate.reached.wait()
                await m.fs.files.write(fh, 0, b"two")
                gate.open()
            assert await m.read_all(fh) == b"two"
            await m.close(fh)
            assert await m.other.read("a") == b"two"
            assert os.listdir(os.path.join(m.blobs.path, "dirty")) == []

    on_mock_clock(main)


def test_unlink_during_an_upload_deletes_what_was_uploaded() -> None:
    async def main() -> None:
        async with mounted() as m:
            fh = await m.create("a")
            await m.fs.files.write(fh, 0, b"hello")
            gate = m.hooks.hold("set_record")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(m.close, fh)
                await gate.reached.wait()
                nursery.start_soon(m.unlink, "a")
                await trio.testing.wait_all_tasks_blocked()
                gate.open()
            await m.idle()
            assert await m.other.records() == {}
            assert await m.names() == []

    on_mock_clock(main)


def test_rename_during_an_upload_ends_with_the_bytes_under_the_new_name_only() -> None:
    async def main() -> None:
        async with mounted() as m:
            fh = await m.create("a")
            await m.fs.files.write(fh, 0, b"hello")
            gate = m.hooks.hold("set_record")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(m.close, fh)
                await gate.reached.wait()
                nursery.start_soon(m.rename, "a", "b")
                await trio.testing.wait_all_tasks_blocked()
                gate.open()
            await m.idle()
            assert await m.other.records() == {"b": b"hello"}

    on_mock_clock(main)


def test_a_listing_amid_a_rename_does_not_break_it() -> None:
    async def main() -> None:
        async with mounted(tuning=Tuning(listing_ttl=0.0)) as m:
            await m.write_file("a", b"hello")
            gate = m.hooks.hold("delete_record")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(m.rename, "a", "b")
                await gate.reached.wait()
                await trio.sleep(1)
                await m.names()
                gate.open()
            assert await m.names() == ["b"]
            assert await m.other.records() == {"b": b"hello"}
            assert await m.read_file("b") == b"hello"

    on_mock_clock(main)


def test_open_with_truncation_while_another_open_fetches_loses_nothing() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("a", b"old")
            await m.names()
            gate = m.hooks.hold_answer("get_record")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(m.read_file, "a")
                await gate.reached.wait()
                writer = await m.open("a", os.O_WRONLY | os.O_TRUNC)
                await m.fs.files.write(writer, 0, b"new bytes")
                gate.open()
            await m.close(writer)
            assert await m.other.read("a") == b"new bytes"
            assert await m.read_file("a") == b"new bytes"

    on_mock_clock(main)


def test_a_cached_file_is_read_while_the_store_is_out_of_reach_and_asked_for_again_after_that() -> None:
    async def test() -> None:
        async with mounted() as m:
            await m.other.put("a", b"cached")
            await m.other.put("b", b"not cached")
            assert await m.read_file("a") == b"cached"
            await m.names()
            await m.other.put("a", b"changed meanwhile")
            for _ in range(3):
                await trio.sleep(m.tuning.revalidate + 1)
                m.hooks.fail("get_record", GONE)
                assert await m.read_file("a") == b"cached"
                m.hooks.fail("get_record", GONE)
                with pytest.raises(StoreUnreachable):
                    await m.read_file("b")
            assert await m.read_file("a") == b"changed meanwhile"

    on_mock_clock(test)


def test_a_file_that_is_cached_in_part_is_not_read_without_the_store() -> None:
    async def test() -> None:
        async with mounted() as m:
            await m.other.put("a", bytes(8 * 1024 * 1024))
            gate = m.hooks.hold_piece(1024 * 1024)
            fh = await m.open("a")
            assert await m.fs.files.read(fh, 0, 10) == bytes(10)
            await trio.sleep(m.tuning.revalidate + 1)
            m.hooks.fail("get_record", GONE)
            with pytest.raises(StoreUnreachable):
                await m.open("a")
            gate.open()
            await m.close(fh)

    on_mock_clock(test)


def test_a_write_while_another_open_revalidates_a_changed_record_is_not_lost() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("a", b"first")
            writer = await m.open("a", os.O_RDWR)
            await m.other.put("a", b"other")
            await trio.sleep(10)
            gate = m.hooks.hold_answer("get_record")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(m.read_file, "a")
                await gate.reached.wait()
                await m.fs.files.write(writer, 0, b"mine!")
                gate.open()
            assert await m.read_file("a") == b"mine!"
            await m.close(writer)
            await m.fs.drain()
            assert await m.other.read("a") == b"mine!"

    on_mock_clock(main)


def test_a_writer_with_an_older_version_open_is_not_forgotten() -> None:
    """The record changed and another process opened it anew: the last one to close wins, none is dropped."""

    async def main() -> None:
        async with mounted() as m:
            await m.other.put("a", b"first")
            writer = await m.open("a", os.O_RDWR)
            await m.other.put("a", b"other")
            await trio.sleep(10)
            reader = await m.open("a")
            assert await m.read_all(reader) == b"other"
            await m.fs.files.write(writer, 0, b"mine!")
            await m.close(writer)
            await m.close(reader)
            await m.fs.drain()
            assert await m.other.read("a") == b"mine!"
            assert await m.read_file("a") == b"mine!"

    on_mock_clock(main)


@pytest.mark.parametrize("first", [0, 1])
def test_two_writers_of_different_versions_the_last_to_close_wins(first: int) -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("a", b"first")
            writers = [await m.open("a", os.O_RDWR)]
            await m.other.put("a", b"other")
            await trio.sleep(10)
            writers.append(await m.open("a", os.O_RDWR))
            await m.fs.files.write(writers[0], 0, b"mine0")
            await m.fs.files.write(writers[1], 0, b"mine1")
            await m.close(writers[first])
            assert await m.other.read("a") == b"mine%d" % first
            await m.close(writers[1 - first])
            assert await m.other.read("a") == b"mine%d" % (1 - first)
            assert await m.read_file("a") == b"mine%d" % (1 - first)
            assert os.listdir(os.path.join(m.blobs.path, "dirty")) == []

    on_mock_clock(main)


def test_a_record_deleted_elsewhere_while_it_is_written_here_comes_back_with_the_close() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("a", b"first")
            writer = await m.open("a", os.O_RDWR)
            await m.other.delete("a")
            await trio.sleep(60)
            await m.names()
            await m.fs.files.write(writer, 0, b"mine!")
            await m.close(writer)
            assert await m.other.records() == {"a": b"mine!"}
            assert await m.read_file("a") == b"mine!"

    on_mock_clock(main)


def test_a_record_found_deleted_by_another_open_while_it_is_written_here_comes_back() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("a", b"first")
            writer = await m.open("a", os.O_RDWR)
            await m.other.delete("a")
            await trio.sleep(60)
            with pytest.raises(StoreError) as caught:
                await m.open("a")
            assert errno_in(caught.value) == errno.ENOENT
            await m.fs.files.write(writer, 0, b"mine!")
            await m.close(writer)
            assert await m.other.records() == {"a": b"mine!"}

    on_mock_clock(main)


def test_a_file_that_no_name_leads_to_is_not_opened_to_be_written() -> None:
    """The kernel may know an inode longer than its name: bytes written there would go nowhere, in silence."""

    async def main() -> None:
        async with mounted() as m:
            await m.other.put("a", b"first")
            file = await m.file("a")
            m.fs.inodes.looked_up(file)
            await m.other.delete("a")
            await trio.sleep(60)
            await m.names()
            with pytest.raises(FileError) as caught:
                await m.fs.open(file.number, os.O_WRONLY | os.O_TRUNC, 1)
            assert caught.value.errno == errno.ESTALE
            with pytest.raises(FileError) as caught:
                await m.fs.setattr(file.number, Changes(size=0), None)
            assert caught.value.errno == errno.ESTALE

    on_mock_clock(main)


def test_a_removed_file_never_shows_the_bytes_of_its_successor() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.write_file("a", b"first")
            file = await m.file("a")
            m.fs.inodes.looked_up(file)
            await m.unlink("a")
            await m.write_file("a", b"second")
            with pytest.raises(FileError) as caught:
                await m.fs.open(file.number, os.O_RDONLY, 1)
            assert caught.value.errno == errno.ESTALE

    on_mock_clock(main)


def test_an_unlinked_open_file_keeps_its_bytes_and_never_reaches_the_store() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("a", b"x" * 200_000)
            fh = await m.open("a", os.O_RDWR)
            await m.unlink("a")
            assert await m.read_all(fh) == b"x" * 200_000
            await m.fs.files.write(fh, 0, b"y")
            await m.fs.files.fsync(fh)
            await m.close(fh)
            await m.fs.drain()
            assert await m.other.records() == {}
            assert os.listdir(os.path.join(m.blobs.path, "dirty")) == []
            assert os.listdir(os.path.join(m.blobs.path, "clean")) == []

    on_mock_clock(main)


def test_unlink_works_though_a_reader_cannot_be_given_the_rest() -> None:
    async def main() -> None:
        async with mounted(validators=False) as m:
            await m.other.put("a", b"x" * 300_000)
            m.hooks.break_piece(131072, GONE)
            fh = await m.open("a")
            with pytest.raises(StoreError):
                await m.read_all(fh)
            await m.unlink("a")
            await m.idle()
            assert await m.other.records() == {}
            await m.close(fh)

    on_mock_clock(main)


def test_a_cached_file_evicted_while_it_is_revalidated_is_read_all_the_same() -> None:
    async def main() -> None:
        async with mounted(tuning=Tuning(cache_bytes=100)) as m:
            await m.other.put("a", b"a" * 80)
            await m.other.put("b", b"b" * 80)
            assert await m.read_file("a") == b"a" * 80
            await trio.sleep(10)
            gate = m.hooks.hold_answer("get_record", "a")
            async with trio.open_nursery() as nursery:

                async def read_a() -> None:
                    assert await m.read_file("a") == b"a" * 80

                nursery.start_soon(read_a)
                await gate.reached.wait()
                assert await m.read_file("b") == b"b" * 80
                gate.open()
            assert len(os.listdir(os.path.join(m.blobs.path, "clean"))) == 1

    on_mock_clock(main)


def test_retype_of_a_file_removed_meanwhile_does_not_bring_it_back() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.write_file("a", b"hello")
            number = (await m.file("a")).number
            gate = m.hooks.hold("delete_record")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(m.unlink, "a")
                await gate.reached.wait()

                async def retype() -> None:
                    with pytest.raises(FileError):
                        await m.fs.setxattr(number, b"user.mime_type", b"text/x-mine")

                nursery.start_soon(retype)
                await trio.testing.wait_all_tasks_blocked()
                gate.open()
            assert await m.other.records() == {}

    on_mock_clock(main)


def test_a_full_disk_at_create_leaves_no_ghost(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with mounted() as m:

            def full() -> None:
                raise OSError(errno.ENOSPC, "no space")

            await m.names()
            monkeypatch.setattr(m.blobs, "create", full)
            with pytest.raises(OSError, match="no space"):
                await m.create("a")
            monkeypatch.undo()
            assert await m.names() == []
            await m.write_file("a", b"x")
            assert await m.other.records() == {"a": b"x"}

    on_mock_clock(main)


def test_appends_go_to_the_end_whatever_the_kernel_thinks() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("log", b"one\n")
            fh = await m.open("log", os.O_WRONLY | os.O_APPEND)
            await m.fs.files.write(fh, 0, b"two\n")
            await m.fs.files.write(fh, 999, b"three\n")
            await m.close(fh)
            assert await m.other.read("log") == b"one\ntwo\nthree\n"

    on_mock_clock(main)


def test_the_kernels_pages_are_kept_only_while_the_bytes_are_the_same() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("a", b"one")
            number = (await m.file("a")).number
            kept = []
            for content in (None, None, b"two", None):
                if content is not None:
                    await m.other.put("a", content)
                await trio.sleep(10)
                opened = await m.fs.open(number, os.O_RDONLY, 1)
                kept.append(opened.keep_pages)
                await m.close(opened.fh)
            assert kept == [False, True, False, True]

    on_mock_clock(main)


# --- cancellation -----------------------------------------------------------------------------------


async def check_agreement(m: Mounted) -> None:
    """What the mount shows is what the store has, and no cache file is left over."""
    await m.fs.drain()
    assert m.fs.left() == []
    await trio.sleep(m.tuning.listing_ttl + 1)
    records = await m.other.records()
    assert sorted(await m.names()) == sorted(records)
    for key, content in records.items():
        assert await m.read_file(key) == content
    m.fs.check_invariants()
    used = {f.content.blob.path for f in m.fs.inodes.files() if f.content is not None}
    folders = (os.path.join(m.blobs.path, name) for name in ("clean", "dirty"))
    assert {os.path.join(folder, name) for folder in folders for name in os.listdir(folder)} == used


@pytest.mark.parametrize("hold", ["hold", "hold_answer"])
@pytest.mark.parametrize(
    ("request_held", "call"),
    [
        ("set_record", lambda m, fh: m.fs.files.flush(fh)),
        ("set_record", lambda m, fh: m.fs.files.fsync(fh)),
        ("set_record", lambda m, _: m.rename("c", "b")),
        ("delete_record", lambda m, _: m.rename("c", "b")),
        ("set_record", lambda m, _: m.rename("c", "a")),
        ("delete_record", lambda m, _: m.rename("c", "a")),
        ("get_record", lambda m, _: m.rename("c", "b")),
        ("delete_record", lambda m, _: m.unlink("c")),
        ("get_record", lambda m, _: m.open("c")),
        ("get_record", lambda m, _: m.open("c", os.O_RDWR)),
        ("get_record", lambda m, _: m.read_file("c")),
        ("list_keys", lambda m, _: m.names()),
        ("get_record", lambda m, _: set_type_of_c(m)),
        ("set_record", lambda m, _: set_type_of_c(m)),
        ("get_record", lambda m, _: truncate_c(m)),
        ("set_record", lambda m, _: truncate_c(m)),
    ],
)  # fmt: skip
def test_a_cancelled_operation_leaves_a_consistent_state(
    hold: str, request_held: str, call: Callable[[Mounted, int], Awaitable[object]]
) -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("a", b"old")
            await m.other.put("c", b"c" * 100_000)
            await m.names()
            fh = await m.open("a", os.O_RDWR)
            await m.fs.files.write(fh, 0, b"new")
            if request_held == "list_keys":
                await trio.sleep(m.tuning.listing_ttl + 1)
            await m.walk("c")
            getattr(m.hooks, hold)(request_held)
            with trio.move_on_after(1) as scope:
                await call(m, fh)
            assert scope.cancelled_caught
            m.hooks.clear()
            m.fs.check_invariants()
            assert not any(file.remote.locked() for file in m.fs.inodes.files())
            names = await m.names()
            if "a" in names and "b" not in names and "c" in names:
                assert await m.read_all(fh) == b"new"
            await m.close(fh)
            await check_agreement(m)
            if "a" in names and "c" in names:  # else c has replaced it: the store had that when time was over
                assert b"new" in (await m.other.records()).values()

    on_mock_clock(main)


async def set_type_of_c(m: Mounted) -> None:
    await m.fs.setxattr((await m.file("c")).number, b"user.mime_type", b"text/x-mine")


async def truncate_c(m: Mounted) -> None:
    await m.fs.setattr((await m.file("c")).number, Changes(size=5), None)


def test_a_read_waits_a_moment_for_room_on_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with mounted() as m:
            for key in ("a", "b"):
                await m.other.put(key, b"x" * 100_000)
            fill, full = Blob.fill, [True, True]

            def fill_when_there_is_room(blob: Blob, data: bytes, offset: int, limit: int) -> None:
                if full:
                    full.pop()
                    raise OSError(errno.ENOSPC, "no space")
                fill(blob, data, offset, limit)

            monkeypatch.setattr(Blob, "fill", fill_when_there_is_room)
            assert await m.read_file("a") == b"x" * 100_000
            full.extend([True] * 1000)
            with pytest.raises(OSError, match="no space"):
                await m.read_file("b")

    on_mock_clock(main)
