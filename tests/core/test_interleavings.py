"""What happens between two awaits of something that writes: no byte, name or record of anybody is lost by it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

import pytest
import trio

from kvsfs.core.tuning import GRACE, Tuning
from kvsfs.errors import FileError, KvsfsError, StoreUnreachable
from tests.support.mounted import Mounted, mounted, on_mock_clock

GONE = StoreUnreachable("the network is down")
WRITE_BACK = Tuning(write_back=5.0)


async def moved_here_only(m: Mounted, name: str, new: str) -> None:
    """Rename with a store that does not answer in time: the record keeps its key until the upload is through."""
    m.hooks.hold("set_record", new)  # the call is given up
    for _ in range(3):
        m.hooks.fail("set_record", GONE, new)
    await m.rename(name, new)
    assert (await m.file(new)).origin == name


def _cache_files(m: Mounted) -> list[Path]:
    return sorted(Path(m.blobs.path).rglob("*"))


def test_a_moved_file_that_is_being_written_is_not_uploaded_half() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("f", b"old")
            await moved_here_only(m, "f", "g")
            fh = await m.open("g", os.O_WRONLY | os.O_TRUNC)
            await m.fs.files.write(fh, 0, b"half")
            m.hooks.clear()
            await trio.sleep(60)
            assert await m.other.records() == {"f": b"old"}
            await m.fs.files.write(fh, 4, b" and half")
            await m.close(fh)
            await m.idle()
            assert await m.other.records() == {"g": b"half and half"}

    on_mock_clock(main)


def test_a_type_that_is_set_while_a_file_is_written_uploads_no_half() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("f", b"old")
            await m.read_file("f")
            file = await m.file("f")
            gate = m.hooks.hold("head_record", "f")
            m.nursery.start_soon(m.fs._versions.learn_head, file)
            await gate.reached.wait()
            m.nursery.start_soon(m.fs.setxattr, file.number, b"user.mime_type", b"text/csv")
            await trio.testing.wait_all_tasks_blocked()
            fh = await m.open("f", os.O_WRONLY | os.O_TRUNC)
            await m.fs.files.write(fh, 0, b"half")
            gate.open()
            await trio.sleep(1)
            assert await m.other.records() == {"f": b"old"}
            await m.close(fh)
            assert await m.other.records() == {"f": b"half"}
            head = await m.other.head("f")
            assert head is not None
            assert head.content_type == "text/csv"

    on_mock_clock(main)


def test_what_waits_for_its_upload_stays_when_its_record_is_found_missing() -> None:
    async def main() -> None:
        async with mounted(tuning=WRITE_BACK) as m:
            await m.other.put("f", b"old")
            await m.write_file("f", b"new")
            await m.other.delete("f")
            with pytest.raises(KvsfsError):
                await m.mime_type("f")
            assert await m.read_file("f") == b"new"
            await m.idle()
            assert await m.other.records() == {"f": b"new"}

    on_mock_clock(main)


def test_a_poll_does_not_take_the_name_of_a_moved_file() -> None:
    async def main() -> None:
        async with mounted(tuning=Tuning(poll=1.0)) as m:
            await m.other.put("f", b"precious")
            await m.read_file("f")
            await moved_here_only(m, "f", "g")
            await m.other.put("x", b"")
            await trio.sleep(3)
            await m.idle()
            await m.fs.drain()
            assert await m.other.records() == {"g": b"precious", "x": b""}
            assert await m.read_file("g") == b"precious"

    on_mock_clock(main)


def test_a_moved_file_whose_record_others_delete_leaves_their_next_one_alone() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("f", b"old")
            m.hooks.hold("get_record", "f")
            m.hooks.hold("get_record", "f")
            await m.rename("f", "g")
            await m.other.delete("f")
            m.hooks.clear()
            with pytest.raises(FileError):
                await m.read_file("g")
            await m.other.put("f", b"theirs")
            m.fs.inodes.root.listing = None
            assert await m.names() == ["f"]
            await m.idle()
            await m.fs.drain()
            assert await m.other.records() == {"f": b"theirs"}

    on_mock_clock(main)


def test_a_name_can_be_made_anew_after_the_moved_file_is_found_gone() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("f", b"old")
            m.hooks.hold("get_record", "f")
            m.hooks.hold("get_record", "f")
            await m.rename("f", "g")
            await m.other.delete("f")
            m.hooks.clear()
            with pytest.raises(FileError):
                await m.read_file("g")
            await m.write_file("f", b"ours")
            await m.idle()
            assert await m.other.records() == {"f": b"ours"}

    on_mock_clock(main)


def test_two_folders_that_swap_their_names_wait_for_each_other_only_once() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("d!2Ff", b"d's")
            await m.other.put("e!2Ff", b"e's")
            await m.names("d")
            await m.names("e")
            for name, new, key in (("d", "x", "d!2Ff"), ("e", "d", "e!2Ff")):
                m.hooks.hold("get_record", key)  # for longer than a rename waits
                for _ in range(9):
                    m.hooks.fail("get_record", GONE, key)
                await m.rename(name, new)
            await m.rename("x", "e")
            m.hooks.clear()
            m.hooks.delay = 1
            await m.remount()
            with trio.fail_after(3600):
                await m.idle()
                await m.fs.drain()
            assert await m.other.records() == {"d!2Ff": b"e's", "e!2Ff": b"d's"}

    on_mock_clock(main)


def test_a_folder_whose_rename_the_disk_refuses_is_as_it_was() -> None:
    async def main() -> None:
        async with mounted() as m:
            for name in ("a", "b", "c"):
                await m.other.put(f"d!2F{name}", name.encode())
            await m.names("d")
            bury, calls = m.fs._deletes.bury, []

            def full(*args: object, **kwargs: object) -> None:
                calls.append(args)
                if len(calls) == 2:
                    raise OSError(errno.ENOSPC, "full")
                bury(*args, **kwargs)  # type: ignore[arg-type]

            with patch.object(m.fs._deletes, "bury", full), pytest.raises(OSError, match="full"):
                await m.rename("d", "e")
            m.fs.inodes.root.listing = None
            (await m.walk("d")).listing = None  # type: ignore[union-attr]
            await trio.sleep(60)
            assert sorted(await m.names("d")) == ["a", "b", "c"]
            await m.fs.drain()
            assert await m.other.records() == {f"d!2F{name}": name.encode() for name in ("a", "b", "c")}

    on_mock_clock(main)


def test_a_folder_whose_rename_the_journal_cannot_note_is_where_it_is_shown() -> None:
    @contextmanager
    def full(together: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
        with together():
            yield
        raise OSError(errno.ENOSPC, "full")

    async def main() -> None:
        async with mounted() as m:
            for name in ("a", "b", "c"):
                await m.other.put(f"d!2F{name}", name.encode())
            journal = m.cache.journal
            with (
                patch.object(journal, "together", partial(full, journal.together)),
                pytest.raises(OSError, match="full"),
            ):
                await m.rename("d", "e")
            await m.idle()
            assert sorted(await m.names("e")) == ["a", "b", "c"]
            assert await m.other.records() == {f"e!2F{name}": name.encode() for name in ("a", "b", "c")}

    on_mock_clock(main)


def test_a_folder_with_a_name_too_long_for_its_new_place_leaves_no_copy_there() -> None:
    async def main() -> None:
        async with mounted() as m:
            long = "l" * 250
            records = {"d!2Fa": b"short", f"d!2F{long}": b"long"}
            for key, content in records.items():
                await m.other.put(key, content)
            with pytest.raises(FileError) as caught:
                await m.rename("d", "longer-than-d")
            assert caught.value.errno == errno.ENAMETOOLONG
            await m.idle()
            assert await m.other.records() == records

    on_mock_clock(main)


def test_a_file_removed_while_its_folder_is_renamed_stays_removed() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("d!2Fa", b"a")
            await m.other.put("d!2Fb", b"b")
            await m.read_file("d/b")
            gate = m.hooks.hold_answer("set_record", "e!2Fa")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(m.rename, "d", "e")
                await gate.reached.wait()
                nursery.start_soon(m.unlink, "d/a")
                await trio.testing.wait_all_tasks_blocked()
                gate.open()
            await m.idle()
            assert await m.other.records() == {"e!2Fb": b"b"}

    on_mock_clock(main)


def test_a_create_that_fails_leaks_nothing() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("f", b"old")
            m.hooks.hold("get_record", "f")
            for _ in range(9):
                m.hooks.fail("get_record", GONE, "f")
            await m.rename("f", "g")
            before = len(os.listdir("/proc/self/fd"))
            files = _cache_files(m)
            with pytest.raises(StoreUnreachable):
                await m.create("f")
            assert len(os.listdir("/proc/self/fd")) == before
            assert _cache_files(m) == files

    on_mock_clock(main)


def test_a_rename_cut_short_while_the_old_record_goes_shows_the_file_all_the_same() -> None:
    async def main() -> None:
        async with mounted(tuning=Tuning(revalidate=1.0)) as m:
            await m.other.put("f", b"bytes")
            await m.names()
            m.hooks.hold_answer("delete_record", "f")
            await m.rename("f", "g")
            await trio.sleep(10)
            assert await m.names() == ["g"]
            assert await m.read_file("g") == b"bytes"
            await m.idle()
            await m.fs.drain()
            assert m.fs.left() == []
            assert await m.other.records() == {"g": b"bytes"}
            assert await m.names() == ["g"]

    on_mock_clock(main)


def test_what_a_moved_file_leaves_goes_although_it_is_removed_amid_the_delete() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("f", b"bytes")
            await moved_here_only(m, "f", "g")
            gate = m.hooks.hold("delete_record", "f")
            await gate.reached.wait()
            await m.unlink("g")
            await m.idle()
            assert await m.other.records() == {}

    on_mock_clock(main)


def test_a_closed_version_is_not_given_up_for_a_newer_one_that_nobody_closed() -> None:
    async def main() -> None:
        async with mounted(tuning=WRITE_BACK) as m:
            await m.write_file("f", b"one")
            fh = await m.open("f", os.O_WRONLY)
            await m.fs.files.write(fh, 0, b"two")
            m.fs.left()  # the time for uploads was over before any began
            await m.remount()
            await m.idle()
            assert (await m.other.records())["f"] in {b"one", b"two"}

    on_mock_clock(main)


def test_a_file_removed_by_the_mount_after_a_kill_does_not_come_back() -> None:
    async def main() -> None:
        async with mounted() as m:
            gate = m.hooks.hold_answer("set_record", "f")
            fh = await m.create("f")
            await m.fs.files.write(fh, 0, b"bytes")
            m.nursery.start_soon(m.fs.files.flush, fh)
            await gate.reached.wait()
            held = m.hooks.hold("head_record", "f")
            await m.remount()
            await held.reached.wait()
            await m.unlink("f")
            await m.idle()
            assert await m.other.records() == {}

    on_mock_clock(main)


def test_a_mount_to_read_sends_nothing_of_what_an_earlier_one_left() -> None:
    async def main() -> None:
        async with mounted(tuning=WRITE_BACK) as m:
            await m.other.put("f", b"old")
            await m.other.put("g", b"removed")
            await m.write_file("f", b"new")
            await m.close(await _unlinked_open(m, "g"))
            m.tuning = Tuning(read_only=True)
            await m.remount()
            await trio.sleep(60)
            await m.fs.drain()
            assert m.fs.left() == []
            assert await m.other.records() == {"f": b"old", "g": b"removed"}
            assert await m.read_file("f") == b"old"
            m.tuning = Tuning()
            await m.remount()
            await m.idle()
            assert await m.other.records() == {"f": b"new"}

    on_mock_clock(main)


async def _unlinked_open(m: Mounted, name: str) -> int:
    fh = await m.open(name)
    await m.unlink(name)
    return fh


def test_a_folder_made_in_the_place_of_a_moved_one_leaves_its_records_alone() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("d!2Fa", b"a")
            m.hooks.delay = 3
            await m.rename("d", "e")
            await m.mkdir("d")
            await m.write_file("d/a", b"new")
            m.hooks.delay = 0
            await m.idle()
            await m.fs.drain()
            assert await m.other.records() == {"d!2Fa": b"new", "e!2Fa": b"a"}
            await trio.sleep(GRACE)

    on_mock_clock(main)
