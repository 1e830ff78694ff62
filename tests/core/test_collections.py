"""Collections as folders in a file system: where records go, what is refused, and what it costs."""

from __future__ import annotations

import errno
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio

from kvsfs.core.numbers import ROOT
from kvsfs.core.tuning import Tuning
from kvsfs.errors import KvsfsError, StoreUnreachable
from tests.support.mounted import Mounted, errno_in, mounted, on_mock_clock

SCHEMA = {
    "collections": {
        "images": {"keyPrefix": "img-"},
        "output": {"key": "OUTPUT"},
        "deep": {"keyPrefix": "a!2Fb!2Fc"},
    }
}


@asynccontextmanager
async def by_collection(tuning: Tuning | None = None) -> AsyncIterator[Mounted]:
    async with mounted(tuning=tuning, schema=SCHEMA) as m:
        yield m


async def refused(action: object) -> None:
    with pytest.raises(KvsfsError) as error:
        await action  # type: ignore[misc]
    assert errno_in(error.value) == errno.EINVAL


def test_each_record_is_in_the_folder_of_its_collection() -> None:
    async def main() -> None:
        async with by_collection() as m:
            for key in (
                "INPUT",
                "OUTPUT",
                "OUTPUT2",
                "img-1",
                "img-dir!2F2",
                "a!2Fb!2Fc1",
                "a!2Fx",
                "log!2Ff",
            ):
                await m.other.put(key, key.encode())
            with m.costs():
                assert sorted(await m.names()) == [".other", "deep", "images", "output"]
            with m.costs(list_keys=1):
                assert await m.names("images") == ["img-1", "img-dir"]
            with m.costs(list_keys=1):
                assert await m.names("output") == ["OUTPUT"]
            with m.costs(list_keys=3):
                assert await m.names("deep/a/b") == ["c1"]
            with m.costs(list_keys=1):
                assert sorted(await m.names(".other")) == ["INPUT", "OUTPUT2", "a", "log"]
            assert await m.names(".other/a") == ["x"]
            assert await m.read_file("images/img-dir/2") == b"img-dir!2F2"
            for absent in ("images/INPUT", ".other/img-1", ".other/OUTPUT", "output/OUTPUT2", "OUTPUT"):
                with pytest.raises(KvsfsError) as error:
                    await m.walk(absent)
                assert errno_in(error.value) == errno.ENOENT
            assert await m.fs.xattrs.get(await m.file("images/img-1"), b"user.apify.key") == b"img-1"

    on_mock_clock(main)


def test_that_a_folder_has_no_archive_of_its_own_keeps_nothing_from_the_others() -> None:
    async def main() -> None:
        async with by_collection() as m:
            for number in range(300):
                await m.other.put(f"img-{number:03}", b"%d" % number)
                await m.other.put(f"rest-{number:03}", b"%d" % number)
            assert len(await m.names(".other")) == len(await m.names("images")) == 300
            m.hooks.delay = 0.02
            for name, archives in (("rest", 0), ("img", 1)):
                folder = ".other" if name == "rest" else "images"
                for number in range(300):
                    assert await m.read_file(f"{folder}/{name}-{number:03}") == b"%d" % number
                    await trio.testing.wait_all_tasks_blocked()
                assert m.calls["read_records"] == archives
            assert m.calls["get_record"] < 350

    on_mock_clock(main)


def test_what_is_made_in_a_folder_has_to_belong_there() -> None:
    async def main() -> None:
        async with by_collection() as m:
            with m.costs(list_keys=6, set_record=4):
                for path in ("images/img-1", "output/OUTPUT", "deep/a/b/c", ".other/x"):
                    await m.write_file(path, path.encode())
            for path in ("images/x", "images/OUTPUT", "output/OUTPUT2", ".other/img-2", "x", "deep/a/x"):
                await refused(m.create(path))
            for path in ("images/x", "x", "output/x", ".other/img-d", "deep/a/x"):
                await refused(m.mkdir(path))
            await refused(m.rename("images/img-1", ".other/img-1"))
            await refused(m.rename("images/img-1", "images/x"))
            await refused(m.rename("images/img-1", "x"))
            await m.rename("images/img-1", ".other/moved")
            await m.rename(".other/x", "images/img-x")
            m.fs.check_invariants()
            assert await m.other.records() == {
                "OUTPUT": b"output/OUTPUT",
                "a!2Fb!2Fc": b"deep/a/b/c",
                "img-x": b".other/x",
                "moved": b"images/img-1",
            }

    on_mock_clock(main)


def test_the_reason_is_told() -> None:
    async def main() -> None:
        async with by_collection() as m:
            with pytest.raises(
                KvsfsError, match=r"record x: images is for img-…, this key belongs into \.other"
            ):
                await m.create("images/x")
            with pytest.raises(KvsfsError, match="record img-1: this key belongs into images"):
                await m.create(".other/img-1")
            with pytest.raises(KvsfsError, match=r"in the folders of their collections, and in \.other"):
                await m.create("x")

    on_mock_clock(main)


def test_the_folders_of_the_collections_stay() -> None:
    async def main() -> None:
        async with by_collection() as m:
            await m.write_file("images/img-1", b"x")
            await m.write_file("deep/a/b/c", b"x")
            await trio.sleep(10)
            with m.costs(delete_record=2):
                await m.unlink("images/img-1")
                await m.unlink("deep/a/b/c")
                await trio.sleep(10)
                await m.idle()
            for folder in ("images", ".other", "deep/a/b"):
                await refused(m.rmdir(folder))
            for folder in ("images", ".other", "deep/a", "deep/a/b"):
                await refused(m.rename(folder, ".other/x"))
            assert sorted(await m.names()) == [".other", "deep", "images", "output"]
            await trio.sleep(Tuning().listing_ttl + 1)
            assert sorted(await m.names()) == [".other", "deep", "images", "output"]
            assert await m.names("deep/a") == ["b"]
            await m.mkdir("images/img-dir")
            await m.idle()
            assert await m.other.records() == {"img-dir!2F": b""}
            await m.rmdir("images/img-dir")
            assert await m.other.records() == {}
            m.fs.check_invariants()

    on_mock_clock(main)


def test_a_folder_of_records_is_renamed_where_all_of_them_belong() -> None:
    async def main() -> None:
        async with by_collection() as m:
            for key in ("img-a!2F1", "img-a!2F2"):
                await m.other.put(key, key.encode())
            await refused(m.rename("images/img-a", "images/b"))
            await refused(m.rename("images/img-a", ".other/img-a"))
            with m.costs(list_keys=1, get_record=2, set_record=2, delete_record=2):
                await m.rename("images/img-a", ".other/b")
                await m.idle()
            assert await m.other.records() == {"b!2F1": b"img-a!2F1", "b!2F2": b"img-a!2F2"}

    on_mock_clock(main)


def test_a_save_by_rename_works_in_a_collection_and_a_stray_temporary_file_fails_for_good() -> None:
    async def main() -> None:
        async with by_collection() as m:
            await m.other.put("OUTPUT", b"old", "application/json")
            await m.names("output")
            with m.costs(head_record=1, set_record=1):
                await m.write_file("output/sedX.tmp", b"new")
                await m.rename("output/sedX.tmp", "output/OUTPUT")
            assert await m.other.records() == {"OUTPUT": b"new"}
            await m.write_file("output/stray.tmp", b"lost?")
            await trio.sleep(10)
            assert (await m.state("output/stray.tmp")).startswith(b"failed: record stray.tmp: output is for")
            assert await m.read_file("output/stray.tmp") == b"lost?"
            await m.rename("output/stray.tmp", ".other/stray")
            await m.idle()
            assert (await m.other.records())["stray"] == b"lost?"

    on_mock_clock(main)


def test_local_only_names_stay_here_in_every_folder() -> None:
    async def main() -> None:
        async with by_collection() as m:
            await m.names("images")
            with m.costs():
                await m.write_file(".x.swp", b"1")
                await m.write_file("images/.img.swp", b"2")
                await m.idle()
            assert await m.read_file("images/.img.swp") == b"2"
            assert await m.names("images") == [".img.swp"]

    on_mock_clock(main)


def test_a_conflict_is_kept_in_the_folder_where_its_name_belongs() -> None:
    async def main() -> None:
        async with by_collection(Tuning(keep_both=True)) as m:
            for path, key in (("output/OUTPUT", "OUTPUT"), ("images/img-1", "img-1")):
                await m.other.put(key, b"old")
                fh = await m.open(path, 1)
                await m.fs.files.write(fh, 0, b"ours")
                await m.other.put(key, b"theirs")
                await m.close(fh)
            assert "output" in await m.names()
            (copy,) = [name for name in await m.names(".other") if name.startswith("OUTPUT.conflict-")]
            assert await m.read_file(f".other/{copy}") == b"ours"
            assert [name[:14] for name in await m.names("images")] == ["img-1", "img-1.conflict"[:14]]
            m.fs.check_invariants()

    on_mock_clock(main)


def test_a_pending_upload_survives_a_remount() -> None:
    async def main() -> None:
        async with by_collection() as m:
            m.hooks.fail("set_record", StoreUnreachable("no network"))
            with pytest.raises(StoreUnreachable):
                await m.write_file("images/img-1", b"kept")
            m.hooks.clear()
            await m.remount()
            await m.idle()
            assert await m.other.records() == {"img-1": b"kept"}

    on_mock_clock(main)


def test_a_schema_that_changes_hides_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The server then refuses, or finds by another prefix; who asked for the schema knows it."""

    async def main() -> None:
        async with by_collection() as m:
            await m.other.put("img-1", b"1")
            await m.other.put("pic-1", b"2")
            contents = m.stores.find("~s")
            assert contents is not None
            changed = {"collections": {"images": {"keyPrefix": "pic-"}}}
            contents.info = replace(contents.info, schema=changed)
            with caplog.at_level(logging.WARNING):
                await m.fs.xattrs.get(m.fs.inodes.folder(ROOT), b"user.apify.id")  # asks the store
                assert await m.names("output") == []  # no such collection any more
            assert "the store's schema has changed" in caplog.text
            assert await m.names("images") == ["img-1"]
            assert await m.names(".other") == ["pic-1"]

    on_mock_clock(main)


def test_a_collections_folder_takes_nothing_of_the_length_of_a_key() -> None:
    async def main() -> None:
        longest, in_folder = "img-".ljust(256, "x"), "img-".ljust(200, "d") + "!2F" + "f" * 53
        async with by_collection() as m:
            await m.other.put(longest, b"1")
            await m.other.put(in_folder, b"2")
            folder, _, name = in_folder.partition("!2F")
            assert await m.names("images") == [folder, longest]
            assert await m.names(f"images/{folder}") == [name]
            assert await m.read_file(f"images/{longest}") == b"1"
            assert await m.read_file(f"images/{folder}/{name}") == b"2"
            for path in (f"images/{longest}x", f"images/{folder}/{name}x", ".other/" + "o" * 257):
                with pytest.raises(KvsfsError) as error:
                    await m.create(path)
                assert errno_in(error.value) == errno.ENAMETOOLONG
            with pytest.raises(KvsfsError) as error:
                await m.rename(f"images/{folder}/{name}", f"images/{folder}/{name}x")
            assert errno_in(error.value) == errno.ENAMETOOLONG
            await m.write_file(".other/" + "o" * 256, b"3")
            await m.rename(f"images/{folder}/{name}", "images/" + "img-".ljust(256, "y"))
            await m.write_file(f"images/{longest}", b"4")
            await m.remount()
            assert await m.read_file(f"images/{longest}") == b"4"
            await m.unlink(f"images/{longest}")
            assert await m.other.records() == {"o" * 256: b"3", "img-".ljust(256, "y"): b"2"}

    on_mock_clock(main)
