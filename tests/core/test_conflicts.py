"""Somebody else has written the record since it was read here: whose bytes stay, and what that costs."""

from __future__ import annotations

import os
import re

import pytest
import trio

from kvsfs.core.tuning import Tuning
from kvsfs.errors import StoreUnreachable
from tests.support.mounted import Mounted, mounted, on_mock_clock

GONE = StoreUnreachable("the network is down")
KEEP_BOTH = Tuning(keep_both=True)
WRITE_BACK = Tuning(write_back=5.0)


async def edited(m: Mounted, content: bytes) -> int:
    """Open the file, which others change from now on, and write over its beginning."""
    fh = await m.open("a.csv", os.O_RDWR)
    await m.fs.files.write(fh, 0, content)
    return fh


async def beside(m: Mounted) -> str:
    """Give the name of the other version."""
    (key,) = set(await m.other.records()) - {"a.csv"}
    assert re.fullmatch(r"a\.csv\.conflict-[^-].*-\d{8}T\d{6}Z", key)
    return key


def test_by_default_the_last_close_wins_and_nothing_is_asked() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("a.csv", b"first")
            fh = await edited(m, b"ours!")
            await m.other.put("a.csv", b"theirs")
            with m.costs(set_record=1):
                await m.close(fh)
            assert await m.other.records() == {"a.csv": b"ours!"}

    on_mock_clock(main)


@pytest.mark.parametrize("validators", [True, False])
def test_with_keep_both_theirs_stays_and_ours_gets_a_name_of_its_own(*, validators: bool) -> None:
    async def main() -> None:
        async with mounted(tuning=KEEP_BOTH, validators=validators) as m:
            await m.other.put("a.csv", b"first", "text/csv")
            fh = await edited(m, b"ours!")
            await m.other.put("a.csv", b"theirs", "text/csv")
            await m.close(fh)
            assert await m.other.records() == {"a.csv": b"theirs", await beside(m): b"ours!"}
            head = await m.other.head(await beside(m))
            assert head is not None
            assert head.content_type == "text/csv"
            assert await m.names() == ["a.csv", await beside(m)]
            assert await m.read_file("a.csv") == b"theirs"
            assert await m.read_file(await beside(m)) == b"ours!"

    on_mock_clock(main)


def test_keep_both_costs_a_question_and_else_nothing() -> None:
    async def main() -> None:
        async with mounted(tuning=KEEP_BOTH) as m:
            await m.other.put("a.csv", b"first")
            fh = await edited(m, b"ours!")
            with m.costs(head_record=1, set_record=1):
                await m.close(fh)
            assert await m.other.records() == {"a.csv": b"ours!"}

    on_mock_clock(main)


def test_two_new_files_of_one_name() -> None:
    async def main() -> None:
        async with mounted(tuning=KEEP_BOTH) as m:
            await m.names()
            fh = await m.create("a.csv")
            await m.fs.files.write(fh, 0, b"ours!")
            await m.other.put("a.csv", b"theirs")
            await m.close(fh)
            assert await m.other.records() == {"a.csv": b"theirs", await beside(m): b"ours!"}

    on_mock_clock(main)


def test_a_record_that_somebody_deleted_comes_back_with_ours() -> None:
    async def main() -> None:
        async with mounted(tuning=KEEP_BOTH) as m:
            await m.other.put("a.csv", b"first")
            fh = await edited(m, b"ours!")
            await m.other.delete("a.csv")
            await m.close(fh)
            assert await m.other.records() == {"a.csv": b"ours!"}

    on_mock_clock(main)


def test_an_upload_of_ours_whose_answer_was_lost_is_no_conflict() -> None:
    async def main() -> None:
        async with mounted(tuning=KEEP_BOTH) as m:
            await m.other.put("a.csv", b"first")
            fh = await edited(m, b"ours!")
            m.hooks.lose_answer("set_record", GONE)
            with pytest.raises(StoreUnreachable):
                await m.close(fh)
            await m.idle()
            assert await m.other.records() == {"a.csv": b"ours!"}
            assert await m.state("a.csv") == b"clean"

    on_mock_clock(main)


def test_what_waits_for_its_write_back_replaces_what_others_write_meanwhile() -> None:
    """The window of the default: the last upload wins, as the last close does without it."""

    async def main() -> None:
        async with mounted(tuning=WRITE_BACK) as m:
            await m.other.put("a.csv", b"first")
            await m.close(await edited(m, b"ours!"))
            await m.other.put("a.csv", b"theirs")
            await m.idle()
            assert await m.other.records() == {"a.csv": b"ours!"}

    on_mock_clock(main)


def test_what_an_earlier_mount_left_replaces_nothing_that_others_wrote_since() -> None:
    async def main() -> None:
        async with mounted(tuning=WRITE_BACK) as m:
            await m.other.put("a.csv", b"first")
            await m.close(await edited(m, b"ours!"))
            await m.end()
            await m.other.put("a.csv", b"theirs")
            await trio.sleep(24 * 3600)
            await m.mount(m.blobs.path)
            await m.idle()
            assert await m.other.records() == {"a.csv": b"theirs", await beside(m): b"ours!"}

    on_mock_clock(main)


def test_a_write_between_the_question_and_our_upload_is_overwritten() -> None:
    """The API has no conditional PUT: this window stays, also with `keep-both`."""

    async def main() -> None:
        async with mounted(tuning=KEEP_BOTH) as m:
            await m.other.put("a.csv", b"first")
            fh = await edited(m, b"ours!")

            async def write() -> None:
                await m.other.put("a.csv", b"theirs")

            m.hooks.meanwhile("head_record", write, after=True)
            await m.close(fh)
            assert await m.other.records() == {"a.csv": b"ours!"}

    on_mock_clock(main)


def test_without_validators_a_version_of_the_same_length_is_not_told_apart() -> None:
    async def main() -> None:
        async with mounted(tuning=KEEP_BOTH, validators=False) as m:
            await m.other.put("a.csv", b"first")
            fh = await edited(m, b"ours!")
            await m.other.put("a.csv", b"their")
            await m.close(fh)
            assert await m.other.records() == {"a.csv": b"ours!"}

    on_mock_clock(main)


def test_a_long_name_is_cut_for_its_conflict() -> None:
    async def main() -> None:
        async with mounted(tuning=KEEP_BOTH) as m:
            name = "n" * 256
            await m.other.put(name, b"first")
            fh = await m.open(name, os.O_RDWR)
            await m.fs.files.write(fh, 0, b"ours!")
            await m.other.put(name, b"theirs")
            await m.close(fh)
            (key,) = set(await m.other.records()) - {name}
            assert len(key) == 256
            assert ".conflict-" in key
            assert await m.other.read(key) == b"ours!"

    on_mock_clock(main)


def test_in_a_folder_that_leaves_no_room_for_a_conflict_it_goes_to_the_root() -> None:
    async def main() -> None:
        async with mounted(tuning=KEEP_BOTH) as m:
            folder = "d" * 240
            await m.other.put(f"{folder}!2Ff", b"first")
            fh = await m.open(f"{folder}/f", os.O_RDWR)
            await m.fs.files.write(fh, 0, b"ours!")
            await m.other.put(f"{folder}!2Ff", b"theirs")
            await m.close(fh)
            (key,) = set(await m.other.records()) - {f"{folder}!2Ff"}
            assert key.startswith("f.conflict-")
            assert await m.other.read(key) == b"ours!"
            assert sorted(await m.names()) == [folder, key]

    on_mock_clock(main)
