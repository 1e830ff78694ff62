"""What a new mount with the same cache folder still knows: times, modes, owners, lengths and types."""

from __future__ import annotations

import gzip
import shutil
import stat

import trio

from kvsfs.core.inodes import File, Folder
from kvsfs.core.requests import Changes
from kvsfs.core.tuning import Tuning
from tests.support.mounted import Mounted, mounted, on_mock_clock

TIME_NS = 1_234_567_890_123_456_789
SET = Changes(mode=0o751, uid=1234, gid=5678, mtime_ns=TIME_NS)
CONTENT = b"the same again, " * 1000
REVALIDATE_ALWAYS = Tuning(revalidate=0.0)


async def set_attributes(m: Mounted, path: str, changes: Changes = SET) -> None:
    await m.fs.setattr((await m.walk(path)).number, changes, None)


def assert_set(inode: File | Folder) -> None:
    found = inode.mtime_ns, stat.S_IMODE(inode.mode), inode.uid, inode.gid
    assert found == (TIME_NS, 0o751, 1234, 5678)


def assert_untouched(m: Mounted, file: File) -> None:
    defaults = m.fs.inodes.ownership
    assert (stat.S_IMODE(file.mode), file.uid, file.gid) == (defaults.file_mode, defaults.uid, defaults.gid)


def test_what_was_set_holds_over_a_remount() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.mkdir("d")
            for path in ("f", "d/f"):
                await m.write_file(path, b"bytes")
            for path in ("f", "d/f", "d", ""):
                await set_attributes(m, path)
            for _ in range(2):  # the second finds what the first has read and not written
                await m.remount()
                for path in ("f", "d/f", "d", ""):
                    assert_set(await m.walk(path))
            await m.rename("f", "d/g")
            await m.remount()
            await m.names("d")
            assert_set(await m.walk("d/g"))
            await m.other.put("f", b"bytes")
            await m.remount()
            assert_untouched(m, await m.file("f"))

    on_mock_clock(main)


def test_the_time_of_a_write_holds_over_a_remount() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.write_file("f", b"bytes")
            written = (await m.file("f")).mtime_ns
            await m.remount()
            assert (await m.file("f")).mtime_ns == written != m.fs.inodes.default_time_ns

    on_mock_clock(main)


def test_what_is_set_before_the_upload_is_kept_by_it() -> None:
    async def main() -> None:
        async with mounted() as m:
            fh = await m.create("f")
            await m.fs.files.write(fh, 0, b"bytes")
            await set_attributes(m, "f")
            await m.close(fh)
            await m.remount()
            assert_set(await m.walk("f"))

    on_mock_clock(main)


def test_what_is_set_on_bytes_that_the_store_never_got_is_not_kept() -> None:
    """Or rsync, after a crash, would take the old bytes for the new ones: size and time would be the same."""

    async def main() -> None:
        async with mounted() as m:
            await m.write_file("f", b"old")
            before = (await m.file("f")).mtime_ns
            fh = await m.open("f", 2)
            await m.fs.files.write(fh, 0, b"new")
            await set_attributes(m, "f")
            await m.remount()
            file = await m.file("f")
            assert file.mtime_ns == before
            assert_untouched(m, file)

    on_mock_clock(main)


def test_a_change_by_others_takes_back_what_was_set() -> None:
    async def main() -> None:
        async with mounted(tuning=REVALIDATE_ALWAYS) as m:
            for remounts in (True, False):
                await m.write_file("f", b"ours")
                await set_attributes(m, "f")
                await m.other.put("f", b"them")
                if remounts:
                    await m.remount()
                assert_set(await m.walk("f"))  # the listing cannot tell: the size is the same
                assert await m.read_file("f") == b"them"
                file = await m.file("f")
                noticed = file.mtime_ns
                assert noticed > TIME_NS
                assert_untouched(m, file)
                assert file.number in m.kernel.attributes
                await m.remount()
                assert (await m.file("f")).mtime_ns == noticed

    on_mock_clock(main)


def test_another_stored_size_takes_back_what_was_kept() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.write_file("f", b"ours")
            await set_attributes(m, "f")
            await m.other.put("f", b"somebody else's")
            await m.remount()
            for _ in range(2):
                file = await m.file("f")
                assert (file.mtime_ns, file.size) == (m.fs.inodes.default_time_ns, 15)
                assert_untouched(m, file)
                await m.other.put("f", b"ours")  # the row is gone, not only passed over
                await m.remount()
                assert (await m.file("f")).mtime_ns == m.fs.inodes.default_time_ns
                await m.other.put("f", b"somebody else's")
                await m.remount()

    on_mock_clock(main)


def test_lengths_types_and_encodings_are_known_after_a_remount() -> None:
    async def main() -> None:
        async with mounted() as m:
            stored = gzip.compress(CONTENT)
            await m.other.put("f", stored, "text/x-log", "gzip")
            assert not (await m.file("f")).size_is_exact
            assert await m.read_file("f") == CONTENT
            await m.remount()
            with m.costs(list_keys=1):
                file = await m.file("f")
                assert (file.size, file.size_is_exact) == (len(CONTENT), True)
                assert await m.mime_type("f") == b"text/x-log"
                assert await m.fs.xattrs.get(file, b"user.apify.content_encoding") == b"gzip"
            assert await m.read_file("f") == CONTENT

    on_mock_clock(main)


def test_a_type_that_was_only_asked_for_is_known_after_a_remount() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("f", b"bytes", "text/x-log")
            with m.costs(list_keys=1, head_record=1):
                assert await m.mime_type("f") == b"text/x-log"
            await m.remount()
            with m.costs(list_keys=1):
                assert await m.mime_type("f") == b"text/x-log"

    on_mock_clock(main)


def test_a_kept_length_that_is_wrong_by_now_is_corrected_by_open() -> None:
    """As many bytes stored, and another length: a listing cannot tell."""

    async def main() -> None:
        async with mounted() as m:
            stored = gzip.compress(CONTENT)
            await m.other.put("f", stored, content_encoding="gzip")
            await m.read_file("f")
            other = bytes(len(stored))
            await m.other.put("f", other)
            await m.remount()
            assert (await m.file("f")).size == len(CONTENT)
            assert await m.read_file("f") == other
            assert (await m.file("f")).size == len(other)

    on_mock_clock(main)


def test_a_removed_file_leaves_nothing_to_one_that_gets_its_name() -> None:
    async def main() -> None:
        async with mounted() as m:
            for remove in (m.unlink, m.other.delete):
                await m.write_file("f", b"ours")
                await set_attributes(m, "f")
                await remove("f")
                await trio.sleep(m.tuning.listing_ttl + 1)
                assert await m.names() == []
                await m.other.put("f", b"them")
                await m.remount()
                assert_untouched(m, await m.file("f"))

    on_mock_clock(main)


def test_a_removed_folder_leaves_nothing_to_one_that_gets_its_name() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.mkdir("d")
            await set_attributes(m, "d")
            await m.rmdir("d")
            await m.other.put("d!2Ff", b"them")
            await m.remount()
            folder = await m.walk("d")
            assert folder.mtime_ns == m.fs.inodes.default_time_ns
            assert stat.S_IMODE(folder.mode) == m.fs.inodes.ownership.folder_mode

    on_mock_clock(main)


def test_swap_files_keep_theirs() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.write_file(".f.swp", b"swap")
            await set_attributes(m, ".f.swp")
            await m.remount()
            assert_set(await m.walk(".f.swp"))
            await m.write_file(".f.swp", b"newer")
            await m.remount()
            file = await m.file(".f.swp")
            assert file.mtime_ns > TIME_NS
            assert stat.S_IMODE(file.mode) == 0o751

    on_mock_clock(main)


def test_what_is_out_of_a_row_s_reach_is_no_error() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.write_file("f", b"bytes")
            await set_attributes(m, "f", Changes(mtime_ns=2**63, mode=0o700))  # the year 2262
            await m.remount()
            file = await m.file("f")
            assert file.mtime_ns == m.fs.inodes.default_time_ns
            assert stat.S_IMODE(file.mode) == 0o700

    on_mock_clock(main)


def test_a_mount_without_its_cache_folder_knows_what_the_store_knows() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.write_file("f", b"bytes")
            await set_attributes(m, "f")
            path = m.blobs.path
            await m.end()
            shutil.rmtree(path)
            await m.mount(path)
            assert (await m.file("f")).mtime_ns == m.fs.inodes.default_time_ns
            assert await m.read_file("f") == b"bytes"

    on_mock_clock(main)
