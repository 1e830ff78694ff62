"""The ZIP call's answer unpacked: what is in it, or an error; never other bytes, never without end."""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

import pytest
import trio

from kvsfs.errors import ProtocolViolation, StoreUnreachable
from kvsfs.store import archive
from kvsfs.store.archive import Entry, Wanted, unpack
from kvsfs.types import RecordKey

MIB = 1024 * 1024
RECORDS = {
    "..": b"a name, and nothing but a name",
    "a": b"",
    "b": b"text " * 50_000,
    "img!2Fa.png": random.Random(1).randbytes(100_000),
}


def zipped(records: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Make an archive as a server streams it: sizes and CRC come behind each entry."""

    class Unseekable(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise OSError

    packed = Unseekable()
    with zipfile.ZipFile(packed, "w", method) as writer:
        for key, content in records.items():
            with writer.open(key, "w") as entry:
                entry.write(content)
    return packed.getvalue()


def unpacked(
    packed: bytes,
    *,
    keys: Sequence[str] = tuple(RECORDS),
    largest: int = MIB,
    at_most: int = 10 * MIB,
    step: int = 64 * 1024,
    then: Exception | None = None,
) -> dict[str, bytes | None]:
    found: dict[str, bytes | None] = {}

    async def take(entries: Sequence[Entry]) -> None:
        await trio.lowlevel.checkpoint()
        found.update({entry.key: entry.content for entry in entries})

    async def chunks() -> AsyncIterator[bytes]:
        for place in range(0, len(packed), step):
            await trio.lowlevel.checkpoint()
            yield packed[place : place + step]
        if then is not None:
            raise then

    async def main() -> None:
        async with aclosing(chunks()) as source:  # type: ignore[type-var]
            wanted = Wanted(frozenset(RecordKey(key) for key in keys), largest, at_most)
            await unpack(source, None, wanted, take)

    trio.run(main)
    return found


@pytest.mark.parametrize("step", [1, 1000, MIB])
def test_every_entry_comes_whole_however_the_archive_is_cut(step: int) -> None:
    records = RECORDS if step > 1 else {"a": b"", "b": b"text " * 10}
    assert unpacked(zipped(records), step=step) == records


def test_what_is_not_wanted_is_left_out_and_what_is_too_large_comes_without_its_bytes() -> None:
    assert unpacked(zipped(RECORDS), keys=["a", "img!2Fa.png"], largest=99_999) == {
        "a": b"",
        "img!2Fa.png": None,
    }


def test_an_archive_that_is_cut_short_keeps_what_came_before() -> None:
    packed = zipped(RECORDS)
    for cut in (len(packed) // 2, 40):
        found: dict[str, bytes | None] = {}
        with pytest.raises(ProtocolViolation, match="damaged"):
            found = unpacked(packed[:cut])
        assert all(RECORDS[key] == content for key, content in found.items())


def test_no_byte_of_a_damaged_entry_is_handed_over() -> None:
    packed = bytearray(zipped({"a": b"sound", "b": random.Random(2).randbytes(5000), "c": b"behind"}))
    packed[2000] ^= 1
    seen: dict[str, bytes | None] = {}
    with pytest.raises(ProtocolViolation, match="damaged"):
        seen.update(unpacked(bytes(packed), keys=["a", "b", "c"], step=100))
    assert "b" not in seen


def test_a_wrong_crc_is_found() -> None:
    content = b"twelve bytes"
    packed = zipped({"a": content}).replace(struct.pack("<I", zlib.crc32(content)), struct.pack("<I", 1))
    with pytest.raises(ProtocolViolation, match="CRC32"):
        unpacked(packed, keys=["a"])


def test_entries_whose_end_cannot_be_known_are_refused() -> None:
    with pytest.raises(ProtocolViolation, match="NotStreamUnzippable"):
        unpacked(zipped({"a": b"stored"}, zipfile.ZIP_STORED))


def test_what_is_no_archive_is_refused() -> None:
    for garbage in (b"<html>a proxy's page</html>" * 100, b"", b"PK\x03\x04"):
        with pytest.raises(ProtocolViolation):
            unpacked(garbage)


def test_a_bomb_goes_off_in_nobodys_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = zipped({"a": b"fine", "b": bytes(20 * MIB)})
    assert unpacked(bomb, at_most=30 * MIB, keys=["a", "b"]) == {"a": b"fine", "b": None}
    with pytest.raises(ProtocolViolation, match="more than can be true"):
        unpacked(bomb, at_most=10 * MIB)
    monkeypatch.setattr(archive, "ONE_ENTRY", 4 * MIB)
    with pytest.raises(ProtocolViolation, match="without end"):
        unpacked(bomb, keys=["a"])


def test_a_connection_that_breaks_is_told_as_that() -> None:
    with pytest.raises(StoreUnreachable):
        unpacked(zipped(RECORDS)[:2000], then=StoreUnreachable("gone"))


def test_who_gives_up_ends_the_thread_as_well() -> None:
    async def main() -> None:
        async def endless() -> AsyncIterator[bytes]:
            yield zipped(RECORDS)[:2000]
            await trio.sleep_forever()

        async def take(_entries: Sequence[Entry]) -> None:
            pass

        async with aclosing(endless()) as source:  # type: ignore[type-var]
            with trio.move_on_after(0.05) as scope:
                await unpack(source, None, Wanted(frozenset(), MIB, MIB), take)
        assert scope.cancelled_caught

    trio.run(main)
