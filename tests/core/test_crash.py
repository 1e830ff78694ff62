"""The daemon is killed at a chosen moment: what the next mount makes of it."""

from __future__ import annotations

import os

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from kvsfs.core.tuning import Tuning
from kvsfs.errors import StoreUnreachable
from kvsfs.types import ContentEncoding
from tests.support.mounted import Mounted, mounted, on_mock_clock

WRITE_BACK = Tuning(write_back=1.0)


@pytest.mark.parametrize("validators", [True, False])
@pytest.mark.parametrize("compress", [None, "gzip"])
@pytest.mark.parametrize("there", [True, False])
def test_an_older_version_of_ours_that_came_through_unheard_is_no_conflict(
    *, validators: bool, compress: ContentEncoding | None, there: bool
) -> None:
    """The newer one was closed while the older one was on its way, and then came the crash."""

    async def main() -> None:
        tuning = Tuning(write_back=1.0, compress=compress)
        async with mounted(tuning=tuning, validators=validators) as m:
            if there:
                await m.other.put("f.txt", b"before")
            await m.write_file("f.txt", b"older " * 1000)
            gate = m.hooks.hold_answer("set_record")
            await trio.sleep(1.1)
            await gate.reached.wait()
            await m.write_file("f.txt", b"the newest " * 1000)
            await m.remount()
            m.hooks.clear()
            await m.idle()
            assert await m.other.records() == {"f.txt": b"the newest " * 1000}

    on_mock_clock(main)


def test_a_record_of_ours_that_came_through_unheard_goes_after_a_rename_and_a_crash() -> None:
    async def main() -> None:
        async with mounted(tuning=WRITE_BACK) as m:
            await m.other.put("f", b"before")
            fh = await m.open("f", os.O_RDWR)
            await m.fs.files.write(fh, 0, b"newest")
            await m.close(fh)
            m.hooks.lose_answer("set_record", StoreUnreachable("the network is down"))
            await trio.sleep(1.1)
            await wait_all_tasks_blocked()
            m.hooks.hold("set_record")
            await m.rename("f", "g")
            await m.remount()
            m.hooks.clear()
            await m.idle()
            assert await m.names() == ["g"]
            assert await m.other.records() == {"g": b"newest"}

    on_mock_clock(main)


def test_a_save_that_fails_at_first_does_not_take_its_own_old_record_for_anothers() -> None:
    """As vim does: the old one becomes the backup, and a new file is made in its place."""

    async def main() -> None:
        async with mounted() as m:
            await m.other.put("f", b"before")
            await m.rename("f", "f~")
            m.hooks.fail("set_record", StoreUnreachable("the network is down"))
            with pytest.raises(StoreUnreachable):
                await m.write_file("f", b"after")
            await m.unlink("f~")
            await m.idle()
            assert await m.other.records() == {"f": b"after"}

    on_mock_clock(main)


@pytest.mark.parametrize("crash", [True, False])
def test_a_temporary_file_that_replaces_one_whose_upload_was_not_answered(*, crash: bool) -> None:
    async def main() -> None:
        async with mounted(tuning=WRITE_BACK) as m:
            await m.other.put("f", b"before")
            await m.write_file("f", b"between")
            m.hooks.lose_answer("set_record", StoreUnreachable("the network is down"))
            await trio.sleep(1.1)
            await m.write_file("f.tmp", b"the newest")
            await m.rename("f.tmp", "f")
            if crash:
                await m.remount()
            await m.idle()
            assert await m.other.records() == {"f": b"the newest"}

    on_mock_clock(main)


def test_a_folder_in_the_place_of_one_that_still_moves() -> None:
    """The first record is stored under its new key before anything else: its old bytes may be needed there."""

    async def main() -> None:
        async with mounted() as m:
            await m.other.put("a!2Ff", b"of a")
            await m.other.put("b!2Ff", b"of b")
            await m.names("a")
            await m.names("b")
            m.hooks.delay = 4.0
            await m.rename("a", "c")
            m.hooks.delay = 0.0
            await m.rename("b", "a")
            await m.idle()
            assert await m.other.records() == {"a!2Ff": b"of b", "c!2Ff": b"of a"}
            await trio.sleep(60)
            assert await m.other.records() == {"a!2Ff": b"of b", "c!2Ff": b"of a"}

    on_mock_clock(main)


async def rename_unheard(m: Mounted) -> None:
    m.hooks.lose_answer("set_record", StoreUnreachable("the network is down"))
    with pytest.raises(StoreUnreachable):
        await m.rename("f", "g")


def test_a_rename_whose_answer_was_lost_leaves_no_record_under_the_new_name() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.write_file("f", b"of f")
            await rename_unheard(m)
            assert await m.other.records() == {"f": b"of f", "g": b"of f"}
            assert await m.names() == ["f"]
            await m.idle()
            assert await m.other.records() == {"f": b"of f"}

    on_mock_clock(main)


def test_what_others_write_where_a_rename_may_have_come_to_stays() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.write_file("f", b"of f")
            await rename_unheard(m)
            await m.other.put("g", b"of another")
            await m.idle()
            assert await m.other.records() == {"f": b"of f", "g": b"of another"}
            await trio.sleep(m.tuning.listing_ttl + 1)
            assert sorted(await m.names()) == ["f", "g"]

    on_mock_clock(main)


@pytest.mark.parametrize("there", [True, False])
def test_a_file_where_a_rename_may_have_come_to_meets_no_conflict(*, there: bool) -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.write_file("f", b"of f")
            if there:
                await m.write_file("g", b"of g before")
            await rename_unheard(m)
            m.hooks.fail("set_record", StoreUnreachable("the network is down"))
            with pytest.raises(StoreUnreachable):
                await m.write_file("g", b"of g by now")
            await m.idle()
            assert await m.other.records() == {"f": b"of f", "g": b"of g by now"}

    on_mock_clock(main)


def test_the_end_of_a_mount_waits_for_what_was_closed_while_an_older_version_was_on_its_way() -> None:
    async def main() -> None:
        async with mounted(tuning=WRITE_BACK) as m:
            await m.write_file("f", b"older")
            gate = m.hooks.hold("set_record")
            await trio.sleep(1.1)
            await gate.reached.wait()
            await m.write_file("f", b"newest")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(m.fs.drain)
                await wait_all_tasks_blocked()
                gate.open()
            assert m.fs.left() == []
            assert await m.other.records() == {"f": b"newest"}

    on_mock_clock(main)


@pytest.mark.parametrize("dirty", [True, False])
def test_two_crashes_amid_a_rename_bring_no_older_version_back(*, dirty: bool) -> None:
    """The second one comes when the new name is stored, and the old one is not deleted yet."""

    async def main() -> None:
        async with mounted(tuning=WRITE_BACK) as m:
            await m.other.put("f", b"before")
            if dirty:
                await m.write_file("f", b"newest")
            else:
                m.hooks.hold("set_record")
            await m.rename("f", "g")
            await m.end()
            m.hooks.clear()
            gate = m.hooks.hold("delete_record")
            await m.mount(m.blobs.path)
            await gate.reached.wait()
            assert (await m.other.records())["g"] == (b"newest" if dirty else b"before")
            await m.end()
            await m.other.put("g", b"of another")
            m.hooks.clear()
            await m.mount(m.blobs.path)
            await m.idle()
            assert await m.other.records() == {"g": b"of another"}

    on_mock_clock(main)


@pytest.mark.parametrize("what", ["unlink", "rename", "replace"])
def test_what_follows_an_upload_does_not_overtake_it(what: str) -> None:
    """Its bytes are all sent: the store goes on with them, whatever becomes of the request."""

    async def main() -> None:
        async with mounted(tuning=WRITE_BACK) as m:
            await m.write_file("f", b"older")
            await m.write_file("g.tmp", b"newer")
            gate = m.hooks.hold_answer("set_record", "f")
            await trio.sleep(1.1)
            await gate.reached.wait()
            before = len(m.hooks.log)
            async with trio.open_nursery() as nursery:
                if what == "unlink":
                    nursery.start_soon(m.unlink, "f")
                elif what == "rename":
                    nursery.start_soon(m.rename, "f", "h")
                else:
                    nursery.start_soon(m.rename, "g.tmp", "f")
                await wait_all_tasks_blocked()
                assert [entry for entry in m.hooks.log[before:] if entry[1] == "f"] == []
                gate.open()
            await m.idle()
            found = await m.other.records()
            assert found.get("f") == (b"newer" if what == "replace" else None)

    on_mock_clock(main)
