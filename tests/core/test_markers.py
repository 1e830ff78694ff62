"""Empty folders: a marker only for what stays empty, and only once nothing else keeps the folder."""

from __future__ import annotations

import pytest
import trio

from kvsfs.core.markers import IN_PARALLEL
from kvsfs.core.tuning import GRACE
from kvsfs.errors import RequestRefused, StoreUnreachable
from tests.support.mounted import Mounted, mounted, on_mock_clock


async def with_marker(m: Mounted, *folders: str) -> None:
    for folder in folders:
        await m.mkdir(folder)
    await trio.sleep(GRACE + 1)
    await m.idle()


def test_a_marker_goes_after_the_grace_when_its_folder_has_a_record() -> None:
    async def main() -> None:
        async with mounted() as m:
            await with_marker(m, "d")
            assert list(await m.other.records()) == ["d!2F"]
            with m.costs(set_record=1):
                await m.write_file("d/f", b"text")
                await trio.sleep(GRACE - 0.1)
            with m.costs(delete_record=1):
                await trio.sleep(0.2)
            with m.costs(set_record=1):  # the second one finds no marker
                await m.write_file("d/g", b"text")
                await trio.sleep(2 * GRACE)
            assert sorted(await m.other.records()) == ["d!2Ff", "d!2Fg"]
            m.fs.check_invariants()

    on_mock_clock(main)


def test_the_markers_of_all_folders_above_go_too() -> None:
    async def main() -> None:
        async with mounted() as m:
            await with_marker(m, "a")
            await with_marker(m, "a/b")
            assert sorted(await m.other.records()) == ["a!2Fb!2F"]
            await m.other.put("a!2F", b"", "application/x-directory")
            await m.remount()
            await m.names()
            await m.names("a")
            await m.names("a/b")
            with m.costs(set_record=1, delete_record=2):
                await m.write_file("a/b/f", b"text")
                await trio.sleep(GRACE + 1)
            assert sorted(await m.other.records()) == ["a!2Fb!2Ff"]
            assert await m.names("a") == ["b"]
            assert await m.names("a/b") == ["f"]

    on_mock_clock(main)


def test_a_folder_that_is_filled_and_emptied_again_keeps_its_marker() -> None:
    async def main() -> None:
        async with mounted() as m:
            await with_marker(m, "d")
            with m.costs(set_record=1, delete_record=1):
                await m.write_file("d/f", b"text")
                await m.unlink("d/f")
                await trio.sleep(2 * GRACE)
            assert list(await m.other.records()) == ["d!2F"]

    on_mock_clock(main)


def test_a_folder_that_loses_its_marker_and_then_its_last_record_gets_it_again() -> None:
    async def main() -> None:
        async with mounted() as m:
            await with_marker(m, "d")
            await m.write_file("d/f", b"text")
            await trio.sleep(GRACE + 1)
            assert list(await m.other.records()) == ["d!2Ff"]
            with m.costs(set_record=1, delete_record=1):
                await m.unlink("d/f")
                await trio.sleep(GRACE + 1)
            assert list(await m.other.records()) == ["d!2F"]

    on_mock_clock(main)


def test_a_folder_that_is_emptied_while_its_marker_is_deleted_gets_another() -> None:
    async def main() -> None:
        async with mounted() as m:
            await with_marker(m, "d")
            await m.write_file("d/f", b"text")
            gate = m.hooks.hold("delete_record", "d!2F")
            await gate.reached.wait()
            await m.unlink("d/f")
            gate.open()
            await trio.sleep(2 * GRACE)
            assert list(await m.other.records()) == ["d!2F"]

    on_mock_clock(main)


def test_a_marker_stays_until_the_record_is_in_the_store() -> None:
    async def main() -> None:
        async with mounted() as m:
            await with_marker(m, "d")
            gate = m.hooks.hold("set_record", "d!2Ff")
            m.nursery.start_soon(m.write_file, "d/f", b"text")
            await gate.reached.wait()
            await trio.sleep(10 * GRACE)
            assert list(await m.other.records()) == ["d!2F"]
            gate.open()
            await trio.sleep(GRACE + 1)
            assert list(await m.other.records()) == ["d!2Ff"]

    on_mock_clock(main)


def test_a_record_that_the_store_did_not_take_keeps_the_marker() -> None:
    async def main() -> None:
        async with mounted() as m:
            await with_marker(m, "d")
            for _ in range(2):  # its close, and what is tried again after the release
                m.hooks.fail("set_record", RequestRefused("no"))
            with pytest.raises(RequestRefused):
                await m.write_file("d/f", b"text")
            await trio.sleep(10 * GRACE)
            assert list(await m.other.records()) == ["d!2F"]

    on_mock_clock(main)


def test_a_record_renamed_into_a_folder_takes_its_marker_away() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("f", b"text")
            await with_marker(m, "d")
            await m.rename("f", "d/f")
            await trio.sleep(GRACE + 1)
            assert list(await m.other.records()) == ["d!2Ff"]

    on_mock_clock(main)


def test_a_page_that_was_asked_for_before_does_not_bring_a_marker_back() -> None:
    async def main() -> None:
        async with mounted() as m:
            await with_marker(m, "d")
            await trio.sleep(m.tuning.listing_ttl + 1)
            await m.write_file("d/f", b"text")
            gate = m.hooks.hold_answer("list_keys")
            m.nursery.start_soon(m.names)
            await gate.reached.wait()
            await trio.sleep(GRACE + 1)
            assert list(await m.other.records()) == ["d!2Ff"]
            gate.open()
            await trio.sleep(0.1)
            await m.unlink("d/f")
            await trio.sleep(GRACE + 1)
            assert list(await m.other.records()) == ["d!2F"]

    on_mock_clock(main)


def test_somebodys_record_under_the_key_of_a_marker_is_a_file_and_is_never_deleted() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("d!2F", b"theirs")
            assert await m.names("d") == ["!2F"]
            await m.write_file("d/f", b"text")
            await trio.sleep(2 * GRACE)
            assert await m.other.records() == {"d!2F": b"theirs", "d!2Ff": b"text"}

    on_mock_clock(main)


def test_a_marker_never_shows_as_a_file() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("d!2F", b"", "application/x-directory")
            await m.other.put("d!2Ff", b"text")
            assert await m.names() == ["d"]
            assert await m.names("d") == ["f"]
            await m.unlink("d/f")
            with m.costs():
                await trio.sleep(2 * GRACE)
            assert await m.names("d") == []

    on_mock_clock(main)


def test_the_end_puts_and_deletes_what_waits_side_by_side() -> None:
    count = 3 * IN_PARALLEL

    async def main() -> None:
        async with mounted() as m:
            await with_marker(m, "full")
            await m.write_file("full/f", b"text")
            for n in range(count):
                await m.mkdir(f"d{n}")
            m.hooks.delay = 1.0
            started = trio.current_time()
            with m.costs(set_record=count, delete_record=1):
                await m.fs.drain()
            rounds = trio.current_time() - started
            assert count / IN_PARALLEL <= rounds <= count / IN_PARALLEL + 1.5
            assert sorted(await m.other.records()) == sorted(
                [f"d{n}!2F" for n in range(count)] + ["full!2Ff"]
            )

    on_mock_clock(main)


def test_the_end_tries_refused_markers_once_more() -> None:
    async def main() -> None:
        async with mounted() as m:
            m.hooks.fail("set_record", StoreUnreachable("no network"))
            await with_marker(m, "d")
            assert await m.other.records() == {}
            await m.fs.drain()
            assert list(await m.other.records()) == ["d!2F"]

    on_mock_clock(main)


def test_a_marker_whose_answer_was_lost_goes_too() -> None:
    async def main() -> None:
        async with mounted() as m:
            m.hooks.lose_answer("set_record", StoreUnreachable("no answer"))
            await with_marker(m, "d")
            assert list(await m.other.records()) == ["d!2F"]
            await m.write_file("d/f", b"text")
            await trio.sleep(GRACE + 1)
            assert list(await m.other.records()) == ["d!2Ff"]

    on_mock_clock(main)


def test_a_marker_whose_answer_was_lost_while_its_folder_was_filled_goes_with_the_next_record() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.mkdir("d")
            gate = m.hooks.hold("set_record", "d!2F")
            m.hooks.lose_answer("set_record", StoreUnreachable("no answer"), "d!2F")
            await gate.reached.wait()
            await m.write_file("d/f", b"text")
            gate.open()
            await trio.sleep(2 * GRACE)
            assert sorted(await m.other.records()) == ["d!2F", "d!2Ff"]
            await m.write_file("d/f", b"more text")
            await trio.sleep(2 * GRACE)
            assert list(await m.other.records()) == ["d!2Ff"]
            await m.unlink("d/f")
            await trio.sleep(GRACE + 1)
            assert list(await m.other.records()) == ["d!2F"]

    on_mock_clock(main)


def test_a_renamed_folder_leaves_no_marker_behind_also_one_whose_put_had_no_answer() -> None:
    async def main() -> None:
        async with mounted() as m:
            m.hooks.lose_answer("set_record", StoreUnreachable("no answer"))
            await with_marker(m, "d")
            assert list(await m.other.records()) == ["d!2F"]
            await m.rename("d", "f")
            await trio.sleep(GRACE + 1)
            await m.idle()
            assert list(await m.other.records()) == ["f!2F"]
            await m.rename("f", "d")
            await m.mkdir("f")  # while the one that had this name is to go
            await m.fs.drain()
            assert list(await m.other.records()) == ["d!2F", "f!2F"]

    on_mock_clock(main)
