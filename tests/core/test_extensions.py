"""Names with the extension of their type: one name a record, both found, and keys that stay what they are."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from kvsfs.core import content_types, names
from kvsfs.core.heads import LONGEST_WAIT
from kvsfs.core.inodes import File
from kvsfs.core.tuning import Tuning
from kvsfs.errors import FileError, RecordNotFound, StoreUnreachable
from kvsfs.types import RecordKey
from tests.support.mounted import Mounted, mounted, on_mock_clock

JSON, TEXT, PNG = "application/json; charset=utf-8", "text/plain", "image/png"
TYPES = [JSON, TEXT, PNG, "text/x-unheard-of", "application/octet-stream"]
KEYS = st.text("ab.!2Fjsontx", min_size=1, max_size=8).filter(
    lambda key: names.decode(RecordKey(key)).isascii()
) | st.sampled_from(
    ["a", "a.json", "a.txt", "a!2Fb", "a.json!2Fb", "a.json.json", ".json", "a.", ".a", "a!2F", "!2F", "a.b"]
)


@asynccontextmanager
async def shown(*, page_size: int = 1000, **options: object) -> AsyncIterator[Mounted]:
    tuning = Tuning(extensions=True, **options)  # type: ignore[arg-type]
    async with mounted(tuning=tuning, page_size=page_size) as m:
        yield m


@pytest.mark.parametrize(
    ("content_type", "extension"),
    [
        (JSON, b"json"),
        ("Text/Plain", b"txt"),
        ("text/html; charset=utf-8", b"html"),
        ("image/jpeg", b"jpg"),
        ("application/octet-stream", b"bin"),
        ("application/x-directory", None),
        ("text/x-unheard-of", None),
    ],
)
def test_the_extensions_of_types(content_type: str, extension: bytes | None) -> None:
    assert content_types.extension(content_type) == extension


def test_an_extension_stands_for_a_type_that_has_it() -> None:
    for extension in content_types.EXTENSIONS:
        named = content_types.by_name(b"name." + extension)
        assert named is not None
        assert content_types.extension(named) == extension


@settings(max_examples=40, deadline=None)
@given(
    records=st.dictionaries(KEYS, st.sampled_from(TYPES), min_size=1, max_size=6),
    page_size=st.integers(1, 3),
    place=st.integers(0, 5),
)
def test_every_record_is_listed_once_and_found_by_both_its_names(
    records: dict[str, str], page_size: int, place: int
) -> None:
    async def main() -> None:
        async with shown(page_size=page_size) as m:
            for key, content_type in records.items():
                await m.other.put(key, key.encode() or b"x", content_type)
            found = await tree(m, "")
            assert sorted(file.key for file in found.values()) == sorted(records)
            for path, file in found.items():
                assert await m.walk(path) is file
                assert file.parent is not None
                own = file.parent.shown_path(file.parent.name_of(file)).decode()
                assert found.get(own, file) is file
                assert await m.walk(own) is file
            m.fs.check_invariants()
        async with shown(page_size=page_size) as m:  # found without a listing, too
            for key, content_type in records.items():
                await m.other.put(key, key.encode() or b"x", content_type)
            path, file = sorted(found.items())[place % len(found)]
            assert (await m.file(path)).key == file.key

    on_mock_clock(main)


async def tree(m: Mounted, path: str) -> dict[str, File]:
    found: dict[str, File] = {}
    listed = await m.names(path)
    assert len(set(listed)) == len(listed)
    for name in listed:
        below = f"{path}{name}"
        inode = await m.walk(below)
        found |= {below: inode} if isinstance(inode, File) else await tree(m, f"{below}/")
    return found


def test_a_listing_asks_once_for_each_type_that_it_does_not_know() -> None:
    async def main() -> None:
        async with shown(page_size=50) as m:
            for number in range(100):
                await m.other.put(f"k{number:02}", b"{}", JSON)
            await m.other.put("x.txt", b"x")
            expected = [*(f"k{number:02}.json" for number in range(100)), "x.txt"]
            with m.costs(list_keys=3, head_record=100):
                assert await m.names() == expected
            with m.costs():
                assert await m.names() == expected
                assert (await m.file("k07")) is (await m.file("k07.json"))
            await trio.sleep(1)
            await m.remount()
            with m.costs(list_keys=3):  # types are kept
                assert await m.names() == expected

    on_mock_clock(main)


def test_a_lookup_asks_for_the_name_and_then_for_the_one_without_extension() -> None:
    async def main() -> None:
        async with shown() as m:
            await m.other.put("INPUT", b"{}", JSON)
            with m.costs(list_keys=1, head_record=1):
                assert (await m.file("INPUT.json")).key == "INPUT"
            with m.costs():
                for absent in ("INPUT.txt", "INPUT.conf", "x.json"):
                    with pytest.raises(FileError) as error:
                        await m.walk(absent)
                    assert error.value.errno == errno.ENOENT
        async with shown() as m:
            await m.other.put("INPUT", b"{}", JSON)
            with m.costs(list_keys=1):
                assert (await m.file("INPUT")).key == "INPUT"

    on_mock_clock(main)


def test_without_the_option_nothing_is_asked_and_nothing_found() -> None:
    async def main() -> None:
        async with mounted() as m:
            await m.other.put("INPUT", b"{}", JSON)
            with m.costs(list_keys=1):
                assert await m.names() == ["INPUT"]
                with pytest.raises(FileError):
                    await m.walk("INPUT.json")

    on_mock_clock(main)


def test_both_names_write_the_one_record() -> None:
    async def main() -> None:
        async with shown() as m:
            await m.other.put("INPUT", b"{}", JSON)
            assert await m.names() == ["INPUT.json"]
            with m.costs(set_record=2):
                await m.write_file("INPUT.json", b"[1]")
                await m.write_file("INPUT", b"[2]")
            assert await m.other.records() == {"INPUT": b"[2]"}
            assert await m.names() == ["INPUT.json"]
            with m.costs(delete_record=1):
                await m.unlink("INPUT.json")
            assert await m.names() == []
            assert (1, b"INPUT") in {(parent, name) for parent, name, _ in m.kernel.gone}

    on_mock_clock(main)


def test_a_record_of_the_longer_name_has_it() -> None:
    async def main() -> None:
        async with shown() as m:
            await m.other.put("INPUT", b"short", JSON)
            await m.other.put("INPUT.json", b"long", JSON)
            assert await m.names() == ["INPUT", "INPUT.json"]
            assert await m.read_file("INPUT") == b"short"
            assert await m.read_file("INPUT.json") == b"long"
            await m.unlink("INPUT.json")
            assert await m.names() == ["INPUT.json"]
            assert await m.read_file("INPUT.json") == b"short"

    on_mock_clock(main)


def test_a_record_beside_a_folder_of_its_name_needs_no_other_mark() -> None:
    async def main() -> None:
        async with shown() as m:
            await m.other.put("a", b"record", JSON)
            await m.other.put("a!2Fb", b"below")
            assert sorted(await m.names()) == ["a", "a.json"]
            assert await m.read_file("a.json") == await m.read_file("a!2F") == b"record"
            assert await m.names("a") == ["b.txt"]

    on_mock_clock(main)


def test_what_is_made_here_gets_the_key_that_it_is_made_under() -> None:
    async def main() -> None:
        async with shown() as m:
            await m.names()
            with m.costs(set_record=3):
                await m.write_file("a", b'{"a": 1}')
                await m.write_file("b.json", b"{}")
                await m.write_file("c.conf", b"x")
            assert sorted(await m.other.records()) == ["a", "b.json", "c.conf"]
            assert sorted(await m.names()) == ["a.json", "b.json", "c.conf"]
            with pytest.raises(FileError) as error:
                await m.mkdir("a.json")
            assert error.value.errno == errno.EEXIST

    on_mock_clock(main)


def test_a_save_by_an_editor_keeps_the_key_and_the_type() -> None:
    """Vim renames to a backup and makes the name anew; others rename a temporary file over it."""

    async def main() -> None:
        async with shown() as m:
            await m.other.put("INPUT", b"<p>", "text/html")
            await m.names()
            await m.read_file("INPUT.html")
            with m.costs(set_record=1):
                await m.rename("INPUT.html", "INPUT.html~")
                await m.write_file("INPUT.html", b"vim")
                await m.unlink("INPUT.html~")
                await trio.sleep(10)
                await m.idle()
            assert await m.other.records() == {"INPUT": b"vim"}
            with m.costs(set_record=1):
                await m.write_file("x.tmp", b"sed")
                await m.rename("x.tmp", "INPUT.html")
            assert await m.other.records() == {"INPUT": b"sed"}
            with m.costs(delete_record=1, set_record=1):
                await m.unlink("INPUT.html")
                await m.write_file("INPUT.html", b"install")
            assert await m.other.records() == {"INPUT": b"install"}
            await m.unlink("INPUT.html")
            await m.write_file("x.tmp", b"{}")
            await m.rename("x.tmp", "INPUT.html")
            assert await m.other.records() == {"INPUT": b"{}"}
            head = await m.other.head("INPUT")
            assert head is not None
            assert head.content_type == "text/html"
            await m.other.put("pic", b"png", PNG)
            await trio.sleep(60)
            await m.unlink("INPUT.html")
            await m.rename("pic.png", "INPUT.html")
            assert await m.other.records() == {"INPUT.html": b"png"}
            assert await m.names() == ["INPUT.html"]

    on_mock_clock(main)


def test_a_rename_keeps_a_key_without_its_extension_so() -> None:
    async def main() -> None:
        async with shown() as m:
            await m.other.put("a", b"{}", JSON)
            await m.other.put("taken", b"x", TEXT)
            for new, key in (("b.json", "b"), ("c.bak", "c.bak"), ("d", "d"), ("taken.json", "taken.json")):
                (old,) = [name for name in await m.names() if name != "taken.txt"]
                await m.rename(old, new)
                await m.idle()
                assert sorted(await m.other.records()) == sorted([key, "taken"])
                assert (await m.file(new)).key == key

    on_mock_clock(main)


def test_another_type_shows_as_another_name() -> None:
    async def main() -> None:
        async with shown() as m:
            await m.other.put("INPUT", b"{}", JSON)
            file = await m.file("INPUT.json")
            await m.fs.setxattr(file.number, b"user.mime_type", b"text/plain")
            assert await m.names() == ["INPUT.txt"]
            assert m.kernel.gone == [(1, b"INPUT.json", file.number)]
            assert await m.file("INPUT.txt") is file
            with pytest.raises(FileError):
                await m.walk("INPUT.json")
            assert await m.other.records() == {"INPUT": b"{}"}

    on_mock_clock(main)


def test_a_type_that_others_changed_shows_after_an_open() -> None:
    async def main() -> None:
        async with shown() as m:
            await m.other.put("INPUT", b"{}", JSON)
            assert await m.names() == ["INPUT.json"]
            await m.other.put("INPUT", b"{}", TEXT)
            await trio.sleep(60)
            assert await m.names() == ["INPUT.json"]
            await m.read_file("INPUT.json")
            assert await m.names() == ["INPUT.txt"]

    on_mock_clock(main)


def test_a_record_that_others_remove_loses_both_names() -> None:
    async def main() -> None:
        async with shown() as m:
            await m.other.put("INPUT", b"{}", JSON)
            number = (await m.file("INPUT.json")).number
            await m.other.delete("INPUT")
            await trio.sleep(Tuning().listing_ttl + 1)
            assert await m.names() == []
            assert m.kernel.gone == [(1, b"INPUT", number), (1, b"INPUT.json", number)]

    on_mock_clock(main)


def test_a_type_that_cannot_be_had_leaves_the_name_as_it_is() -> None:
    async def main() -> None:
        async with shown() as m:
            await m.other.put("INPUT", b"{}", JSON)
            m.hooks.fail("head_record", StoreUnreachable("no network"))
            assert await m.names() == ["INPUT"]
            m.hooks.clear()
            held = m.hooks.hold("head_record")
            await trio.sleep(60)
            started = trio.current_time()
            assert await m.names() == ["INPUT"]
            assert trio.current_time() - started == pytest.approx(LONGEST_WAIT)
            held.open()
            await m.idle()
            assert await m.names() == ["INPUT.json"]

    on_mock_clock(main)


def test_temporary_and_local_only_names_stay_as_they_are() -> None:
    async def main() -> None:
        async with shown() as m:
            await m.write_file("4913", b"{}")
            await m.write_file(".x.swp", b"{}")
            fh = await m.create("sedX", os.O_RDWR | os.O_EXCL)
            await m.fs.files.write(fh, 0, b"{}")
            await m.close(fh)
            assert sorted(await m.names()) == [".x.swp", "4913", "sedX"]

    on_mock_clock(main)


def test_with_exact_sizes_one_question_tells_both() -> None:
    async def main() -> None:
        async with shown(exact_sizes=True) as m:
            await m.other.put("INPUT", b"{}", JSON)
            with m.costs(list_keys=1, head_record=1):
                assert await m.names() == ["INPUT.json"]
                assert (await m.file("INPUT.json")).size_is_exact

    on_mock_clock(main)


def test_names_and_pages_do_not_wait_for_the_whole_listing() -> None:
    async def main() -> None:
        async with shown(page_size=10) as m:
            for number in range(100):
                await m.other.put(f"k{number:02}", b"{}", JSON)
            fh = m.fs.opendir(1)
            with m.costs(list_keys=1, head_record=9):  # the tenth may have a longer name on the next page
                assert len(await m.fs.readdir(fh, 0)) == 9
            m.fs.releasedir(fh)
            assert math.isinf((await m.file("k00")).missed_at)

    on_mock_clock(main)


NAMES = st.sampled_from(["a", "a.json", "a.txt", "b", "b.json", "a.json.tmp", "c.part"])
CONTENTS = st.sampled_from([b"{}", b"text", b"\x89PNG\r\n\x1a\n"])
OPERATIONS = st.one_of(
    st.tuples(st.just("write"), NAMES, CONTENTS),
    st.tuples(st.just("unlink"), NAMES),
    st.tuples(st.just("rename"), NAMES, NAMES),
    st.tuples(st.just("retype"), NAMES, st.sampled_from(TYPES)),
    st.tuples(st.just("put"), NAMES, st.sampled_from(TYPES)),
    st.tuples(st.just("delete"), NAMES),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 3.0, 40.0])),
    st.tuples(st.just("list")),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(OPERATIONS, max_size=12))
def test_after_any_operations_the_names_are_those_of_the_records(operations: list[tuple[str, ...]]) -> None:
    """What was read through a name just before it changes is what was there, and no record is lost or shown twice."""

    async def main() -> None:
        async with shown() as m:
            for operation, *arguments in operations:
                await _do(m, operation, *arguments)
                m.fs.check_invariants()
            await trio.sleep(60)
            await m.idle()
            await trio.sleep(60)
            records = await m.other.records()
            found = await tree(m, "")
            assert sorted(file.key for file in found.values()) == sorted(records)
            for path, file in found.items():
                assert path in {file.key, f"{file.key}.{_extension(file)}"}
                assert await m.read_file(path) == records[file.key]  # tells its type, if others changed that

    on_mock_clock(main)


def _extension(file: File) -> str:
    return (content_types.extension(file.content_type or "") or b"").decode()


async def _do(m: Mounted, operation: str, *arguments: object) -> None:
    match operation, *arguments:
        case "write", str(name), bytes(content):
            await m.write_file(name, content)
            assert await m.read_file(name) == content
        case "put", str(key), str(content_type):
            await m.other.put(key, f"theirs {key}".encode(), content_type)
        case "delete", str(key):
            await m.other.delete(key)
        case "wait", float(seconds):
            await trio.sleep(seconds)
        case ["list"]:
            await m.names()
        case _:
            with suppress(FileError, RecordNotFound):
                await _change(m, operation, *arguments)


async def _change(m: Mounted, operation: str, *arguments: object) -> None:
    match operation, *arguments:
        case "unlink", str(name):
            await m.unlink(name)
        case "rename", str(old), str(new):
            content = await m.read_file(old)
            await m.rename(old, new)
            assert await m.read_file(new) == content
        case "retype", str(name), str(content_type):
            file = await m.file(name)
            await m.fs.setxattr(file.number, b"user.mime_type", content_type.encode())
