"""Pages of keys as folders: what a listing costs, and who is right when pages and changes cross."""

from __future__ import annotations

import errno
import itertools
import os
from unittest.mock import patch

import pytest
import trio

from kvsfs.core.inodes import File, Folder
from kvsfs.core.listing import READ_ENTRIES
from kvsfs.core.numbers import ROOT
from kvsfs.core.tuning import Tuning
from kvsfs.errors import FileError, ProtocolViolation, StoreError, StoreUnreachable
from kvsfs.store.memory import MemoryStore
from kvsfs.types import KeyEntry, KeyPage, RecordKey
from tests.support.mounted import Mounted, mounted, on_mock_clock

GONE = StoreUnreachable("the network is down")
TTL = Tuning().listing_ttl


async def put_all(m: Mounted, *keys: str) -> None:
    for key in keys:
        await m.other.put(key, key.encode())


async def read_on(m: Mounted, fh: int, place: int = 0) -> list[tuple[str, int]]:
    entries = await m.fs.readdir(fh, place)
    return [(name.decode(), after) for name, _, after in entries]


def test_a_small_buffer_does_not_prepare_the_whole_folder_again_and_again() -> None:
    """Each call once gave all that was left: 30 names at a time, 100,000 files cost 170 million entries."""

    async def main() -> None:
        async with mounted(page_size=1000) as m:
            keys = [f"k{number:04}" for number in range(2 * READ_ENTRIES + 100)]
            await put_all(m, *keys)
            fh = m.fs.opendir(ROOT)
            found: list[str] = []
            place = 0
            while entries := await read_on(m, fh, place):
                assert len(entries) <= READ_ENTRIES
                taken = entries[:30]
                found += [name for name, _ in taken]
                place = taken[-1][1]
            assert found == keys
            assert len(await m.names()) == len(keys)

    on_mock_clock(main)


# --- what it costs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "pages"), [(0, 1), (1, 1), (9, 1), (10, 1), (11, 2), (35, 4)])
def test_a_flat_listing_costs_its_pages_and_a_second_one_nothing(count: int, pages: int) -> None:
    async def main() -> None:
        async with mounted(page_size=10) as m:
            keys = [f"k{number:03}" for number in range(count)]
            await put_all(m, *keys)
            with m.costs(list_keys=pages):
                assert await m.names() == keys
            with m.costs():
                assert await m.names() == keys
                for key in keys:
                    assert isinstance(await m.walk(key), File)
                with pytest.raises(FileError):
                    await m.walk("absent")
            await trio.sleep(TTL + 1)
            with m.costs(list_keys=pages):
                assert await m.names() == keys

    on_mock_clock(main)


def test_a_subfolder_costs_one_list_however_many_pages_are_below_it() -> None:
    async def main() -> None:
        async with mounted(page_size=10) as m:
            await put_all(m, "a", *(f"d!2F{number:03}" for number in range(200)), "e", "z")
            with m.costs(list_keys=2):
                assert sorted(await m.names()) == ["a", "d", "e", "z"]
            with m.costs(list_keys=20):
                assert len(await m.names("d")) == 200

    on_mock_clock(main)


def test_many_subfolders_cost_one_list_each_at_most() -> None:
    async def main() -> None:
        async with mounted(page_size=10) as m:
            await put_all(m, *(f"d{folder}!2F{number:02}" for folder in range(8) for number in range(25)))
            before = m.calls
            assert sorted(await m.names()) == [f"d{number}" for number in range(8)]
            assert (m.calls - before)["list_keys"] <= 9

    on_mock_clock(main)


def test_keys_between_a_folder_and_its_name_are_not_jumped_over() -> None:
    """`!` sorts before all else in a key, and `d!2F` is followed by `d!20…`, `d-`, `d0`: none may be skipped."""

    async def main() -> None:
        keys = ["d", "d!20x", "d!2Fa", "d!2Fb", "d!2Fz", "d!2f", "d!3A", "d!7E", "d-", "d.txt", "d0", "dd"]
        for page_size in (1, 2, 3, 1000):
            async with mounted(page_size=page_size) as m:
                await put_all(m, *keys)
                shown = sorted(["d!2F", "d", "d x", "d!2f", "d:", "d~", "d-", "d.txt", "d0", "dd"])
                assert sorted(await m.names()) == shown
                assert sorted(await m.names("d")) == ["a", "b", "z"]

    on_mock_clock(main)


def test_a_lookup_in_a_huge_store_lists_next_to_nothing() -> None:
    async def main() -> None:
        async with mounted(page_size=10) as m:
            await put_all(m, *(f"k{number:03}" for number in range(300)), "zz!2Ffile")
            before = m.calls["list_keys"]
            assert isinstance(await m.walk("k250"), File)
            assert isinstance(await m.walk("zz"), Folder)
            with pytest.raises(FileError):
                await m.walk("k2500")
            assert m.calls["list_keys"] - before <= 6

    on_mock_clock(main)


def test_many_unknown_names_list_the_folder_once() -> None:
    async def main() -> None:
        async with mounted(page_size=10) as m:
            await put_all(m, *(f"k{number:03}" for number in range(100)))
            for number in range(200):
                with pytest.raises(FileError):
                    await m.walk(f"new{number}")
            assert m.calls["list_keys"] <= 10 + 5

    on_mock_clock(main)


def test_two_readers_at_once_ask_for_each_page_once() -> None:
    async def main() -> None:
        async with mounted(page_size=10) as m:
            keys = [f"k{number:03}" for number in range(50)]
            await put_all(m, *keys)
            m.hooks.delay = 0.1
            found: list[list[str]] = []
            with m.costs(list_keys=5):
                async with trio.open_nursery() as nursery:
                    for _ in range(3):

                        async def read() -> None:
                            found.append(await m.names())

                        nursery.start_soon(read)
            assert found == [keys] * 3

    on_mock_clock(main)


def test_the_first_entries_wait_for_one_page_only() -> None:
    async def main() -> None:
        async with mounted(page_size=10) as m:
            await put_all(m, *(f"k{number:03}" for number in range(50)))
            fh = m.fs.opendir(ROOT)
            with m.costs(list_keys=1):
                # The last record's name depends on the next page: there may be a folder of that name.
                assert len(await read_on(m, fh)) == 9

    on_mock_clock(main)


# --- names and markers ------------------------------------------------------------------------------


def test_a_record_beside_a_folder_is_shown_and_read_under_its_own_name() -> None:
    async def main() -> None:
        async with mounted() as m:
            await put_all(m, "d", "d!2Fa")
            assert sorted(await m.names()) == ["d", "d!2F"]
            assert isinstance(await m.walk("d"), Folder)
            assert await m.read_file("d!2F") == b"d"
            await m.unlink("d!2F")
            assert await m.names() == ["d"]
            with pytest.raises(FileError) as caught:
                await m.walk("d!2F")
            assert caught.value.errno == errno.ENOENT
            assert set(await m.other.records()) == {"d!2Fa"}

    on_mock_clock(main)


def test_a_record_that_a_page_ends_at_hides_no_folder_of_its_name() -> None:
    """That there is one, a later page would tell: a name is not known before."""

    async def main() -> None:
        async with mounted(page_size=3) as m:
            await put_all(m, "2", "22", "a", "a!2Fb", "a!x", "b")
            await m.walk("2")
            with m.costs(list_keys=2):  # for the name, and for what is in the folder
                assert isinstance(await m.walk("a/b"), File)
            with m.costs():
                assert isinstance(await m.walk("a"), Folder)
                assert (await m.file("a!2F")).key == "a"

    on_mock_clock(main)


def test_a_record_under_a_folders_own_key_hides_no_folder_either() -> None:
    async def main() -> None:
        async with mounted(page_size=1) as m:
            await put_all(m, "d!2F", "d!2F!2Fx", "d!2F0")
            await m.file("d/0")
            assert (await m.file("d/!2F/x")).key == "d!2F!2Fx"

    on_mock_clock(main)


@pytest.mark.parametrize("later", [0, TTL + 1])
def test_a_record_that_a_page_ends_at_is_asked_about_once(later: float) -> None:
    async def main() -> None:
        async with mounted(page_size=3) as m:
            await put_all(m, "2", "22", "a", "a!x", "a!y", "b")
            await m.walk("2")
            await trio.sleep(later)
            with m.costs(list_keys=2 if later else 1):
                found = await m.file("a")
            with m.costs():
                assert await m.file("a") is found
            await trio.sleep(TTL + 1)
            with m.costs():
                assert await m.file("a") is found

    on_mock_clock(main)


def test_a_record_that_a_page_ended_at_is_known_once_a_listing_went_past_it() -> None:
    async def main() -> None:
        async with mounted(page_size=3) as m:
            await put_all(m, "2", "22", "a", "b", "c")
            await m.walk("2")
            assert await m.names() == ["2", "22", "a", "b", "c"]
            await trio.sleep(TTL + 1)
            with m.costs():
                await m.file("a")

    on_mock_clock(main)


def test_a_folder_that_others_made_beside_a_known_record_takes_the_name_in_the_kernel_too() -> None:
    async def main() -> None:
        async with mounted() as m:
            await put_all(m, "a", "b")
            assert await m.names() == ["a", "b"]
            record = await m.file("a")
            await put_all(m, "a!2Fx")
            await trio.sleep(TTL + 1)
            assert sorted(await m.names()) == ["a", "a!2F", "b"]
            assert m.kernel.gone == [(ROOT, b"a", record.number)]
            assert isinstance(await m.walk("a"), Folder)
            assert await m.file("a!2F") is record

    on_mock_clock(main)


def test_a_marker_shows_an_empty_folder_and_no_file() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("d!2F", b"", "application/x-directory")
            assert await m.names() == ["d"]
            assert await m.names("d") == []
            await m.rmdir("d")
            assert await m.other.records() == {}
            assert await m.names() == []

    on_mock_clock(main)


def test_a_record_named_like_a_marker_that_holds_bytes_is_a_file() -> None:
    async def main() -> None:
        async with mounted() as m:
            await put_all(m, "d!2F")
            assert await m.names() == ["d"]
            assert await m.names("d") == ["!2F"]
            assert await m.read_file("d/!2F") == b"d!2F"
            with pytest.raises(FileError) as caught:
                await m.rmdir("d")
            assert caught.value.errno == errno.ENOTEMPTY

    on_mock_clock(main)


def test_an_empty_folder_gets_its_marker_after_the_grace_and_a_filled_one_none() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.names()
            with m.costs():
                await m.mkdir("empty")
                await m.mkdir("short")
                await m.rmdir("short")
                await trio.sleep(1.9)
            with m.costs(set_record=1):
                await m.idle()
            head = await m.other.head("empty!2F")
            assert head is not None
            assert head.content_type == "application/x-directory"
            with m.costs(set_record=1, delete_record=1):
                await m.write_file("empty/a", b"x")
                await m.unlink("empty/a")
                await m.idle()
            with m.costs(delete_record=1):
                await m.rmdir("empty")
            assert await m.other.records() == {}

    on_mock_clock(main)


def test_removing_the_last_child_keeps_the_folder() -> None:
    async def main() -> None:
        async with mounted() as m:
            await put_all(m, "d!2Fa")
            await m.names("d")
            await m.unlink("d/a")
            await trio.sleep(TTL + 1)
            assert await m.names() == ["d"]
            assert set(await m.other.records()) == {"d!2F"}

    on_mock_clock(main)


def test_a_folder_removed_while_its_marker_is_on_the_way_stays_removed() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.mkdir("d")
            gate = m.hooks.hold("set_record", "d!2F")
            async with trio.open_nursery() as nursery:
                await gate.reached.wait()
                nursery.start_soon(m.rmdir, "d")
                await trio.testing.wait_all_tasks_blocked()
                gate.open()
            await m.idle()
            assert await m.other.records() == {}
            await trio.sleep(TTL + 1)
            assert await m.names() == []

    on_mock_clock(main)


def test_a_marker_whose_answer_was_lost_is_deleted_with_its_folder() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.names()
            await m.mkdir("d")
            m.hooks.lose_answer("set_record", GONE)
            await m.idle()
            await m.rmdir("d")
            await trio.sleep(TTL + 1)
            assert await m.names() == []
            assert await m.other.records() == {}

    on_mock_clock(main)


# --- who is right -----------------------------------------------------------------------------------


def test_what_changed_here_wins_over_pages_asked_for_before() -> None:
    async def main() -> None:
        async with mounted() as m:
            await put_all(m, "gone", "new", "old", "stays", "d!2F")
            await m.names()
            await trio.sleep(TTL + 1)
            gate = m.hooks.hold_answer("list_keys")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(m.names)
                await gate.reached.wait()
                await m.unlink("gone")
                await m.rename("old", "new")
                await m.close(await m.create("made"))
                await m.mkdir("e")
                await trio.sleep(3)
                gate.open()
            assert sorted(await m.names()) == ["d", "e", "made", "new", "stays"]
            await trio.sleep(TTL + 1)
            assert sorted(await m.names()) == ["d", "e", "made", "new", "stays"]

    on_mock_clock(main)


def test_a_folder_removed_here_does_not_come_back_with_an_older_page() -> None:
    async def main() -> None:
        async with mounted() as m:
            await put_all(m, "d!2Fa")
            await m.names()
            await m.names("d")
            await trio.sleep(TTL + 1)
            gate = m.hooks.hold_answer("list_keys")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(m.names)
                await gate.reached.wait()
                await m.unlink("d/a")
                await m.rmdir("d")
                gate.open()
            assert await m.names() == []
            await m.idle()
            assert await m.other.records() == {}

    on_mock_clock(main)


def test_a_file_removed_before_its_first_page_came_is_not_shown() -> None:
    async def main() -> None:
        async with mounted(page_size=2) as m:
            await put_all(m, "a", "b", "c", "d")
            fh = m.fs.opendir(ROOT)
            first = await read_on(m, fh)
            gate = m.hooks.hold_answer("list_keys")
            async with trio.open_nursery() as nursery:
                rest: list[tuple[str, int]] = []

                async def read() -> None:
                    rest.extend(await read_on(m, fh, first[-1][1]))

                nursery.start_soon(read)
                await gate.reached.wait()
                await m.unlink("d")
                gate.open()
            assert [name for name, _ in first + rest] == ["a", "b", "c"]

    on_mock_clock(main)


def test_names_deleted_elsewhere_go_with_the_next_complete_listing() -> None:
    async def main() -> None:
        async with mounted() as m:
            await put_all(m, "a", "b", "d!2Fx", "e!2Fy")
            await m.names()
            await m.names("d")
            for key in ("b", "d!2Fx"):
                await m.other.delete(key)
            await m.other.put("c", b"")
            assert sorted(await m.names()) == ["a", "b", "d", "e"]
            await trio.sleep(TTL + 1)
            assert sorted(await m.names()) == ["a", "c", "e"]
            with pytest.raises(FileError):
                await m.walk("b")

    on_mock_clock(main)


def test_a_sweep_takes_nothing_that_only_we_have() -> None:
    async def main() -> None:
        async with mounted() as m:
            await put_all(m, "d!2Fx", "a")
            await m.names("d")
            fh = await m.create("d/new")
            await m.fs.files.write(fh, 0, b"mine")
            opened = await m.open("a")
            await m.other.delete("d!2Fx")
            await m.other.delete("a")
            await trio.sleep(TTL + 1)
            assert sorted(await m.names()) == ["a", "d"]
            assert await m.names("d") == ["new"]
            await m.close(fh)
            await m.close(opened)
            await trio.sleep(TTL + 1)
            assert await m.names() == ["d"]
            assert await m.other.records() == {"d!2Fnew": b"mine"}

    on_mock_clock(main)


def test_inode_numbers_stay_while_the_names_do() -> None:
    async def main() -> None:
        async with mounted() as m:
            await put_all(m, "a", "d!2Fx")
            numbers = [(await m.walk(path)).number for path in ("a", "d", "d/x")]
            await m.other.put("a", b"changed by somebody")
            await trio.sleep(TTL + 1)
            await m.names()
            await m.names("d")
            assert [(await m.walk(path)).number for path in ("a", "d", "d/x")] == numbers
            await m.rename("a", "b")
            assert (await m.walk("b")).number == numbers[0]

    on_mock_clock(main)


def test_a_changed_size_is_shown_by_the_next_listing_as_provisional() -> None:
    async def main() -> None:
        async with mounted() as m:
            await put_all(m, "a")
            await m.read_file("a")
            file = await m.file("a")
            assert (file.size, file.size_is_exact) == (1, True)
            await m.other.put("a", b"longer")
            await trio.sleep(TTL + 1)
            await m.names()
            assert await m.read_file("a") == b"longer"
            assert (file.size, file.size_is_exact) == (6, True)

    on_mock_clock(main)


def test_a_page_that_fails_leaves_what_is_known_and_can_be_asked_for_again() -> None:
    async def main() -> None:
        async with mounted(page_size=2) as m:
            await put_all(m, "a", "b", "c", "d")
            m.hooks.fail("list_keys", GONE)
            with pytest.raises(StoreError):
                await m.names()
            assert await m.names() == ["a", "b", "c", "d"]
            await trio.sleep(TTL + 1)
            m.hooks.fail("list_keys", GONE)
            assert sorted(await m.names()) == ["a", "b", "c", "d"]

    on_mock_clock(main)


def test_a_cancelled_reader_does_not_stop_the_others() -> None:
    async def main() -> None:
        async with mounted() as m:
            await put_all(m, "a")
            gate = m.hooks.hold("list_keys")
            async with trio.open_nursery() as nursery:
                with trio.move_on_after(1):
                    await m.names()

                async def read() -> None:
                    assert await m.names() == ["a"]

                nursery.start_soon(read)
                gate.open()

    on_mock_clock(main)


# --- places -----------------------------------------------------------------------------------------


def test_places_stay_while_entries_come_and_go() -> None:
    async def main() -> None:
        async with mounted(page_size=3) as m:
            await put_all(m, "b", "d", "f", "h")
            fh = m.fs.opendir(ROOT)
            first = await read_on(m, fh)
            assert [name for name, _ in first] == ["b", "d"]
            await m.unlink("b")
            await m.write_file("a", b"")
            await m.write_file("e", b"")
            again = await read_on(m, fh, first[0][1])
            assert again[0] == first[1]
            await m.unlink("h")
            seen, place = [name for name, _ in first], first[-1][1]
            while entries := await read_on(m, fh, place):
                seen += [name for name, _ in entries]
                place = entries[-1][1]
            assert len(seen) == len(set(seen))
            assert set(seen) >= {"b", "d", "f"}
            assert "h" not in seen
            assert set(await m.names()) == {"a", "d", "e", "f"}

    on_mock_clock(main)


def test_rewinding_shows_what_is_new() -> None:
    async def main() -> None:
        async with mounted() as m:
            await put_all(m, "a")
            fh = m.fs.opendir(ROOT)
            assert [name for name, _ in await read_on(m, fh)] == ["a"]
            await m.write_file("b", b"")
            assert [name for name, _ in await read_on(m, fh)] == ["a", "b"]

    on_mock_clock(main)


def test_a_file_moved_away_amid_a_reading_is_not_shown_here_under_its_new_name() -> None:
    async def main() -> None:
        async with mounted() as m:
            await put_all(m, "a", "b", "d!2Fx")
            fh = m.fs.opendir(ROOT)
            place = (await read_on(m, fh))[0][1]
            await m.rename("b", "d/elsewhere")
            assert "elsewhere" not in [name for name, _ in await read_on(m, fh, place)]
            assert sorted(await m.names("d")) == ["elsewhere", "x"]

    on_mock_clock(main)


def test_keys_that_are_none_are_not_shown() -> None:
    async def main() -> None:
        async with mounted() as m:
            await put_all(m, "a", "no~key")
            assert await m.names() == ["a"]

    on_mock_clock(main)


def test_what_a_listing_takes_away_leaves_no_cache_file_and_no_inode() -> None:
    async def main() -> None:
        async with mounted() as m:
            await put_all(m, "a", "d!2Fb", "d!2Fe!2Fc")
            for path in ("a", "d/b", "d/e/c"):
                await m.read_file(path)
            before = len(m.fs.inodes)
            for key in await m.other.records():
                await m.other.delete(key)
            await trio.sleep(TTL + 1)
            assert await m.names() == []
            assert len(m.fs.inodes) == before - 5 == 1
            assert os.listdir(os.path.join(m.blobs.path, "clean")) == []
            m.fs.check_invariants()

    on_mock_clock(main)


@pytest.mark.parametrize("key", ["gone", "gone!2Fbelow"])
def test_an_older_pass_brings_nothing_back_that_a_newer_one_found_gone(key: str) -> None:
    """Its page was asked for while the name was there, and answered when it was gone."""

    async def main() -> None:
        async with mounted() as m:
            await put_all(m, "a", key, "z")
            late = m.hooks.hold_answer("list_keys")
            fh = m.fs.opendir(ROOT)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_on, m, fh)
                await late.reached.wait()
                await trio.sleep(TTL + 1)
                await m.other.delete(key)
                assert await m.names() == ["a", "z"]
                late.open()
            assert await m.names() == ["a", "z"]
            with pytest.raises(FileError), m.costs():
                await m.walk("gone")

    on_mock_clock(main)


def test_a_page_that_is_asked_for_later_shows_what_is_new_to_an_earlier_pass() -> None:
    async def main() -> None:
        async with mounted(page_size=2) as m:
            await put_all(m, "a", "b", "c", "d")
            fh = m.fs.opendir(ROOT)
            first = await read_on(m, fh)
            found, place = [name for name, _ in first], first[-1][1]
            await trio.sleep(TTL + 1)
            assert await m.names() == ["a", "b", "c", "d"]
            await trio.sleep(1)
            await put_all(m, "e")
            while entries := await read_on(m, fh, place):
                found += [name for name, _ in entries]
                place = entries[-1][1]
            assert sorted(found) == ["a", "b", "c", "d", "e"]
            assert await m.names() == ["a", "b", "c", "d", "e"]

    on_mock_clock(main)


@pytest.mark.parametrize("keys", [[], ["no key", "nor~this"]], ids=["empty", "illegal"])
def test_pages_that_go_on_for_ever_and_bring_nothing_end(keys: list[str]) -> None:
    """A listing cannot be interrupted: each of these pages leads on, and no name ever comes."""
    numbers = itertools.count()

    async def endless(_store: object, **_query: object) -> KeyPage:
        await trio.lowlevel.checkpoint()
        number = next(numbers)
        items = tuple(KeyEntry(RecordKey(f"{number:09}{key}"), 1) for key in keys)
        return KeyPage(items, is_truncated=True, next_exclusive_start_key=f"{number:09}")

    async def main() -> None:
        async with mounted() as m:
            with pytest.raises(ProtocolViolation, match="without a key"):
                await m.names()

    with patch.object(MemoryStore, "list_keys", endless):
        on_mock_clock(main)
    assert next(numbers) < 200
