"""The stores of an account as folders: what each operation means for stores, what it costs, what is never lost."""

from __future__ import annotations

import errno
import os
from datetime import datetime
from unittest.mock import patch

import pytest
import trio

from kvsfs.core import entered
from kvsfs.core.numbers import ROOT, place_of
from kvsfs.core.requests import Changes
from kvsfs.core.tuning import Tuning
from kvsfs.errors import PermissionDenied, RequestRefused, StoreNotFound, StoreUnreachable
from tests.support.mounted import on_mock_clock
from tests.support.mounted_account import failing, mounted_account

GONE = StoreUnreachable("the network is down")
OLD = 31.0  # seconds: a listing that is no longer trusted


def ns(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000_000_000  # the memory store's clock ticks once a second


# --- which stores there are -------------------------------------------------------------------------


def test_named_unnamed_and_shared_stores_are_folders() -> None:
    async def main() -> None:
        async with mounted_account() as m:
            await m.store("pages")
            expired = await m.stores.get_or_create(None)
            m.stores.share("theirs", "ann")
            assert await m.names() == [".unnamed", "pages", "ann~theirs"]
            assert await m.names(".unnamed") == [expired.id]

    on_mock_clock(main)


def test_only_stores_that_are_entered_are_listed_inside() -> None:
    async def main() -> None:
        async with mounted_account() as m:
            for number in range(2_500):
                await m.stores.get_or_create(f"store-{number}")
            with m.costs(list_stores=3):
                assert len(await m.names()) == 2_501
                assert len(await m.names()) == 2_501
                for number in range(2_500):
                    await m.walk(f"store-{number}")
            assert m.open_stores == []
            with m.costs(list_keys=1):
                assert await m.names("store-7") == []
            assert m.open_stores == ["store-7"]

    on_mock_clock(main)


def test_a_store_that_is_entered_by_its_name_costs_one_request_and_no_listing() -> None:
    async def main() -> None:
        async with mounted_account() as m:
            await m.store("pages", "a")
            with m.costs(get=1, list_keys=1):
                assert await m.names("pages") == ["a"]

    on_mock_clock(main)


def test_unknown_names_cost_a_request_each_until_listing_is_cheaper_and_impossible_ones_none() -> None:
    async def main() -> None:
        async with mounted_account() as m:
            with m.costs():
                for name in (".Trash-1000", "a_b", "x" * 64, "-a", "memory~own", ".unnamed/x", "\N{SNOWMAN}"):
                    with failing(errno.ENOENT):
                        await m.walk(name)
            with m.costs(get=4, list_stores=1):
                for number in range(100):
                    with failing(errno.ENOENT):
                        await m.walk(f"absent-{number}")

    on_mock_clock(main)


def test_what_others_share_by_name_or_id_alone_is_found_when_it_is_named() -> None:
    async def main() -> None:
        async with mounted_account() as m:
            await m.names()
            public = m.stores.share("public", "ann")
            hidden = m.stores.share(None, "ann")
            assert (await m.walk("ann~public")).number == (await m.walk("ann~public")).number
            await m.walk(f".unnamed/{hidden.id}")
            with m.costs(get=1), failing(errno.ENOENT):
                await m.walk("ann~none")
            assert public.name == "public"

    on_mock_clock(main)


def test_a_store_that_may_not_be_read_is_not_absent() -> None:
    async def main() -> None:
        async with mounted_account() as m:
            m.hooks.fail("get", PermissionDenied("not yours", status=403))
            with pytest.raises(PermissionDenied):
                await m.walk("ann~secret")

    on_mock_clock(main)


def test_times_are_those_of_the_store() -> None:
    async def main() -> None:
        async with mounted_account() as m:
            other = await m.store("pages", "a")
            info = await other.store.get()
            assert info is not None
            inode = await m.walk("pages")
            assert (inode.ctime_ns, inode.mtime_ns, inode.atime_ns) == (
                ns(info.created_at),
                ns(info.modified_at),
                ns(info.accessed_at),
            )
            await m.unlink("pages/a")  # known here before the API's list tells
            assert (await m.fs.getattr(inode.number)).mtime_ns > ns(info.modified_at)

    on_mock_clock(main)


def test_modes_and_owners_last_as_long_as_the_mount() -> None:
    async def main() -> None:
        async with mounted_account() as m:
            folder = await m.mkdir("pages")
            with m.costs():
                changed = await m.fs.setattr(folder.number, Changes(mode=0o700, uid=7, mtime_ns=1), None)
            assert (changed.mode, changed.uid) == (0o40700, 7)
            assert changed.mtime_ns > 1
            with failing(errno.EISDIR):
                await m.fs.setattr(folder.number, Changes(size=0), None)

    on_mock_clock(main)


def test_a_store_deleted_or_renamed_elsewhere_disappears() -> None:
    async def main() -> None:
        async with mounted_account() as m:
            gone, renamed = await m.store("gone"), await m.store("old", "a")
            number = (await m.walk("old")).number
            await m.names()
            await gone.store.delete()
            await renamed.store.update(name="new")
            await trio.sleep(OLD)
            assert sorted(await m.names()) == [".unnamed", "new"]
            assert (await m.walk("new")).number == number
            assert {(ROOT, b"gone"), (ROOT, b"old")} <= {entry[:2] for entry in m.kernel.gone}

    on_mock_clock(main)


def test_a_store_that_does_not_answer_to_its_id_is_looked_for_again() -> None:
    async def main() -> None:
        async with mounted_account() as m:
            other = await m.store("pages")
            await m.names()
            await other.store.delete()
            with pytest.raises(StoreNotFound):
                await m.names("pages")
            with failing(errno.ENOENT):
                await m.walk("pages")

    on_mock_clock(main)


def test_an_older_list_stands_in_for_an_api_out_of_reach() -> None:
    async def main() -> None:
        async with mounted_account() as m:
            await m.store("pages")
            before = await m.names()
            await trio.sleep(OLD)
            m.hooks.fail("list_stores", GONE)
            assert await m.names() == before

    on_mock_clock(main)


def test_a_store_that_slips_between_two_pages_is_not_taken_for_deleted() -> None:
    async def main() -> None:
        async with mounted_account() as m:
            others = [await m.store(f"store-{number}") for number in range(1_001)]
            await m.names()
            await trio.sleep(OLD)

            async def delete_first() -> None:
                await others[0].store.delete()

            m.hooks.meanwhile("list_stores", delete_first, after=True)
            await m.names()
            assert "store-1000" in await m.names()

    on_mock_clock(main)


# --- making, renaming, removing ---------------------------------------------------------------------


def test_mkdir_makes_a_store() -> None:
    async def main() -> None:
        async with mounted_account() as m:
            await m.names()
            with m.costs(get=1, get_or_create=1):
                await m.mkdir("pages")
            assert await m.names() == [".unnamed", "pages"]
            await m.write_file("pages/a", b"1")
            info = await m.stores.store("~pages").get()
            assert info is not None

    on_mock_clock(main)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("x" * 64, errno.EINVAL),
        ("no_name", errno.EINVAL),
        ("-a", errno.EINVAL),
        ("memory~own", errno.EINVAL),
        ("ann~hers", errno.EACCES),
        ("taken", errno.EEXIST),
        (".unnamed/x", errno.EPERM),
    ],
)
def test_mkdir_refuses(name: str, number: int) -> None:
    async def main() -> None:
        async with mounted_account() as m:
            await m.names()
            await m.store("taken")  # since the list was asked for
            with failing(number):
                await m.mkdir(name)
            assert m.stores.calls["get_or_create"] == 1

    on_mock_clock(main)


def test_rmdir_deletes_an_empty_store_and_no_other() -> None:
    async def main() -> None:
        async with mounted_account() as m:
            other = await m.store("pages")
            await m.names("pages")  # known to be empty
            await other.put("late", b"1")
            with failing(errno.ENOTEMPTY):
                await m.rmdir("pages")
            assert await m.names("pages") == ["late"]
            await m.unlink("pages/late")
            await m.rmdir("pages")
            assert await other.store.get() is None
            assert await m.names() == [".unnamed"]
            assert m.open_stores == []
            await m.mkdir("pages")
            assert await m.names("pages") == []

    on_mock_clock(main)


def test_rmdir_leaves_what_waits_for_its_upload() -> None:
    async def main() -> None:
        async with mounted_account(tuning=Tuning(write_back=60.0)) as m:
            other = await m.store("pages")
            await m.write_file("pages/a", b"1")
            with failing(errno.ENOTEMPTY):
                await m.rmdir("pages")
            await m.fs.drain()
            assert await other.records() == {"a": b"1"}

    on_mock_clock(main)


def test_a_folder_that_is_not_in_the_store_yet_keeps_it_from_being_removed() -> None:
    async def main() -> None:
        async with mounted_account() as m:
            await m.mkdir("pages")
            await m.mkdir("pages/sub")
            with failing(errno.ENOTEMPTY):
                await m.rmdir("pages")
            await m.rmdir("pages/sub")
            await m.rmdir("pages")
            assert await m.stores.store("~pages").get() is None

    on_mock_clock(main)


def test_mv_renames_a_store_and_what_is_open_in_it_goes_on() -> None:
    async def main() -> None:
        async with mounted_account() as m:
            other = await m.store("old", "a")
            fh = await m.create("old/b")
            number = (await m.walk("old")).number
            with m.costs(get=1, update=1):
                await m.rename("old", "new")
            await m.fs.files.write(fh, 0, b"2")
            await m.close(fh)
            assert await other.read("b") == b"2"
            assert (await m.walk("new")).number == number
            with failing(errno.ENOENT):
                await m.walk("old")
            assert await m.names() == [".unnamed", "new"]

    on_mock_clock(main)


def test_an_unnamed_store_gets_a_name_by_mv_and_never_loses_one() -> None:
    async def main() -> None:
        async with mounted_account() as m:
            expiring = (await m.stores.get_or_create(None)).id
            await m.rename(f".unnamed/{expiring}", "kept")
            assert await m.names() == [".unnamed", "kept"]
            assert await m.names(".unnamed") == []
            with failing(errno.EPERM):
                await m.rename("kept", ".unnamed/kept")

    on_mock_clock(main)


def test_what_mv_refuses_for_stores() -> None:
    async def main() -> None:
        async with mounted_account() as m:
            await m.store("mine", "a")
            await m.store("taken")
            m.stores.share("theirs", "ann")
            for new, number in (("taken", errno.EEXIST), ("no_name", errno.EINVAL), ("x" * 64, errno.EINVAL)):
                with failing(number):
                    await m.rename("mine", new)
            with failing(errno.EACCES):
                await m.rename("ann~theirs", "mine-now")
            with failing(errno.EACCES):
                await m.rmdir("ann~theirs")
            with failing(errno.EBUSY):
                await m.rename(".unnamed", "named")
            with failing(errno.EBUSY):
                await m.rmdir(".unnamed")
            m.hooks.fail("update", RequestRefused("the name is taken", status=400))
            with failing(errno.EEXIST):  # since we asked
                await m.rename("mine", "free")
            assert m.stores.calls["update"] == 1
            assert m.stores.calls["delete"] == 0

    on_mock_clock(main)


def test_between_stores_a_rename_leaves_the_work_to_mv() -> None:
    async def main() -> None:
        async with mounted_account() as m:
            await m.store("one", "a", "sub!2Fb")
            await m.store("two")
            for path, new in (("one/a", "two/a"), ("one/sub", "two/sub"), ("one", "two/one"), ("one/a", "a")):
                with failing(errno.EXDEV):
                    await m.rename(path, new)
            await m.rename("one/a", "one/sub/c")
            assert await m.read_file("one/sub/c") == b"a"

    on_mock_clock(main)


def test_beside_stores_there_are_no_files() -> None:
    async def main() -> None:
        async with mounted_account() as m:
            await m.store("pages")
            with failing(errno.EPERM):
                await m.create("file")
            with failing(errno.EISDIR):
                await m.unlink("pages")
            with failing(errno.ENOENT):
                await m.unlink("none")

    on_mock_clock(main)


def test_a_read_only_account_changes_nothing() -> None:
    async def main() -> None:
        async with mounted_account(tuning=Tuning(read_only=True)) as m:
            await m.store("pages", "a")
            number = (await m.walk("pages")).number
            before = m.stores.calls.copy()
            for change in (
                m.mkdir("new"),
                m.rmdir("pages"),
                m.rename("pages", "new"),
                m.create("pages/b"),
                m.fs.setxattr(number, b"user.apify.title", b"x"),
            ):
                with failing(errno.EROFS):
                    await change
            assert await m.read_file("pages/a") == b"a"
            assert not {"update", "delete", "get_or_create"} & (m.stores.calls - before).keys()

    on_mock_clock(main)


# --- attributes -------------------------------------------------------------------------------------


def test_attributes_of_a_store_cost_a_request_and_do_not_enter_it() -> None:
    async def main() -> None:
        async with mounted_account() as m:
            info = await m.stores.get_or_create("pages")
            number = (await m.walk("pages")).number
            with m.costs(get=1):
                assert await m.fs.getxattr(number, b"user.apify.id") == info.id.encode()
            with m.costs():
                assert await m.fs.listxattr(number) == []
                for name in (b"security.selinux", b"system.posix_acl_access"):
                    with failing(errno.EOPNOTSUPP):
                        await m.fs.getxattr(number, name)
                with failing(errno.ENODATA):
                    await m.fs.getxattr(ROOT, b"user.apify.id")
            assert m.open_stores == []

    on_mock_clock(main)


def test_a_name_that_is_set_as_an_attribute_renames_the_folder() -> None:
    async def main() -> None:
        async with mounted_account() as m:
            await m.store("old")
            number = (await m.walk("old")).number
            await m.fs.setxattr(number, b"user.apify.name", b"new")
            assert await m.names() == [".unnamed", "new"]
            with failing(errno.EPERM):
                await m.fs.setxattr(number, b"user.apify.id", b"x")
            with failing(errno.EOPNOTSUPP):
                await m.fs.setxattr(ROOT, b"user.apify.title", b"x")
            with failing(errno.EPERM):
                await m.fs.removexattr(number, b"user.apify.name")

    on_mock_clock(main)


# --- stores that are open ---------------------------------------------------------------------------


def test_idle_stores_are_closed_and_opened_again_under_new_numbers() -> None:
    async def main() -> None:
        async with mounted_account() as m:
            for number in range(6):
                await m.store(f"s{number}", "a")
            folder, file = await m.known("s0"), await m.known("s0/a")
            for number in range(1, 6):
                assert await m.read_file(f"s{number}/a") == b"a"
            assert m.open_stores == ["s4", "s5"]
            with failing(errno.ESTALE):
                await m.fs.getattr(file.number)
            again = await m.walk("s0/a")
            assert again.number != file.number
            assert place_of(again.number) == place_of(file.number)
            m.fs.inodes.forget(file.number, 1)
            assert (await m.fs.getattr(again.number)) is again
            assert await m.fs.getattr(folder.number) is folder

    with patch.object(entered, "MOST_OPEN", 2):
        on_mock_clock(main)


def test_a_store_in_use_stays_open() -> None:
    async def main() -> None:
        async with mounted_account(tuning=Tuning(write_back=1000.0)) as m:
            for name in ("read", "listed", "cwd", "waits", "s1", "s2", "s3"):
                await m.store(name, "a", "sub!2Fb")
            fh = (await m.fs.open((await m.walk("read/a")).number, 0, 1)).fh
            dh = m.fs.opendir((await m.walk("listed")).number)
            first = await m.fs.readdir(dh, 0)
            await m.known("cwd/sub")
            await m.write_file("waits/new", b"1")
            for name in ("s1", "s2", "s3"):
                await m.read_file(f"{name}/a")
            assert m.open_stores == ["read", "listed", "cwd", "waits", "s3"]
            assert await m.fs.files.read(fh, 0, 10) == b"a"
            assert await m.fs.readdir(dh, first[-1][2]) == []
            m.fs.releasedir(dh)
            await m.fs.files.release(fh)
            await m.names("s1")
            assert m.open_stores == ["cwd", "waits", "s1"]

    with patch.object(entered, "MOST_OPEN", 2):
        on_mock_clock(main)


def test_stores_share_one_cache() -> None:
    async def main() -> None:
        async with mounted_account(tuning=Tuning(cache_bytes=250)) as m:
            for name in ("one", "two"):
                other = await m.store(name)
                await other.put("a", bytes(100))
                await other.put("b", bytes(100))
            for path in ("one/a", "one/b", "two/a"):
                await m.read_file(path)
            assert m.fs.cache_usage().clean_bytes == 200
            with m.costs(get_record=1):  # the oldest had to go
                await m.read_file("one/a")

    on_mock_clock(main)


def test_what_waits_is_told_tried_and_discarded_under_the_mounts_paths() -> None:
    async def main() -> None:
        async with mounted_account(tuning=Tuning(write_back=1000.0)) as m:
            one, two = await m.store("one"), await m.store("two")
            await m.write_file("one/a", b"1")
            await m.write_file("two/b", b"22")
            assert m.fs.unstored.totals().bytes == 3
            assert sorted(u.path for u in m.fs.unstored.report().uploads) == ["one/a", "two/b"]
            steering = m.fs.steering
            assert [p.path for p in steering.pending("two")] == ["two/b"]
            assert [p.path for p in steering.pending("one/a")] == ["one/a"]
            assert steering.pending("on") == []
            await steering.try_now(steering.pending("one"), failed_too=True)
            assert await one.records() == {"a": b"1"}
            (pending,) = steering.pending("")
            await steering.discard(pending)
            assert steering.pending("") == []
            await m.fs.drain()
            assert await two.records() == {}

    on_mock_clock(main)


def test_refresh_finds_what_others_made() -> None:
    async def main() -> None:
        async with mounted_account() as m:
            pages = await m.store("pages")
            assert await m.names() == [".unnamed", "pages"]
            assert await m.names("pages") == []
            await m.store("new")
            await pages.put("a", b"1")
            await m.fs.steering.refresh("")
            assert await m.names() == [".unnamed", "pages", "new"]
            assert await m.names("pages") == ["a"]

    on_mock_clock(main)


# --- crashes ----------------------------------------------------------------------------------------


def test_what_an_earlier_mount_left_in_any_store_is_uploaded_without_entering_it() -> None:
    async def main() -> None:
        async with mounted_account(tuning=Tuning(write_back=5.0)) as m:
            one, two = await m.store("one"), await m.store("two")
            await m.write_file("one/a", b"1")
            await m.write_file("two/b", b"2")
            await m.end()
            assert await one.records() == {}
            await m.mount()
            assert sorted(m.open_stores) == ["one", "two"]
            await m.fs.drain()
            assert await one.records() == {"a": b"1"}
            assert await two.records() == {"b": b"2"}
            await m.remount()
            assert m.open_stores == []  # nothing was left

    on_mock_clock(main)


def test_a_read_only_mount_leaves_it_to_the_next() -> None:
    async def main() -> None:
        async with mounted_account(tuning=Tuning(write_back=5.0)) as m:
            one = await m.store("one")
            await m.write_file("one/a", b"1")
            await m.end()
            writable, m.tuning = m.tuning, Tuning(read_only=True)
            await m.mount()
            assert await m.names("one") == []
            await m.fs.drain()
            await m.end()
            m.tuning = writable
            await m.mount()
            await m.fs.drain()
            assert await one.records() == {"a": b"1"}

    on_mock_clock(main)


def test_what_waits_for_a_store_that_was_deleted_is_kept() -> None:
    async def main() -> None:
        async with mounted_account(tuning=Tuning(write_back=5.0)) as m:
            one = await m.store("one")
            await m.write_file("one/a", b"1")
            await one.store.delete()
            await m.fs.drain()
            assert await m.names() == [".unnamed"]
            for _ in range(2):
                (upload,) = m.fs.unstored.report().uploads
                assert (upload.path, upload.size) == ("one/a", 1)
                assert upload.error is not None
                fd, size = m.fs.steering.bytes_of("one/a")
                assert os.read(fd, size) == b"1"
                os.close(fd)
                (left,) = m.fs.left()
                assert left.startswith("one/a (not uploaded: ")
                await m.remount()
                await m.fs.drain()

    on_mock_clock(main)


def test_a_store_out_of_reach_at_the_mount_is_found_later() -> None:
    async def main() -> None:
        async with mounted_account(tuning=Tuning(write_back=5.0)) as m:
            one = await m.store("one")
            await m.write_file("one/a", b"1")
            await m.end()
            m.hooks.fail("get", GONE)
            await m.mount()
            assert await m.names() == [".unnamed", "one"]
            assert await m.read_file("one/a") == b"1"
            await m.fs.drain()
            assert await one.records() == {"a": b"1"}

    on_mock_clock(main)
