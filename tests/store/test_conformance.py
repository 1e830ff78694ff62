"""One suite over both stores: what `protocol.py` promises, kept by client and server and by the twin."""

from __future__ import annotations

import errno
import gzip
import hashlib
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import brotli  # type: ignore[import-untyped]  # the wheel ships no stubs
import httpx
import pytest
import trio

from kvsfs import errors
from kvsfs.errors import FileError
from kvsfs.store.apify import ApifyStoreCollection
from kvsfs.store.archive import Entry, Wanted
from kvsfs.store.bodies import BytesBody, FileBody
from kvsfs.store.following import FollowingStore
from kvsfs.store.memory import MemoryStoreCollection
from kvsfs.store.protocol import Store, StoreCollection
from kvsfs.store.view import KeyGroup, ViewStore
from kvsfs.types import ByteRange, ContentEncoding, RecordHead, RecordKey, StoreInfo
from tests.support.running import run_async
from tests.support.serving import RunningServer, running_server

TOKEN = "conformance-token"
USERNAME = "tester"
ABSENT = RecordKey("no-such-record")
TEXT = "text/plain; charset=utf-8"


@dataclass
class Subject:
    """A kind of store to be tested."""

    name: str
    open: Callable[[], AbstractAsyncContextManager[StoreCollection]]
    open_as_stranger: Callable[[], AbstractAsyncContextManager[StoreCollection]]

    def run(self, test: Callable[[StoreCollection, Store], Awaitable[None]]) -> None:
        """Run a test on a fresh store, which is deleted afterwards."""

        async def main() -> None:
            async with self.open() as stores:
                info = await stores.get_or_create()
                store = stores.store(info.id)
                try:
                    await test(stores, store)
                finally:
                    await store.delete()

        run_async(main)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder: Path = tmp_path_factory.mktemp("conformance")
    with running_server(folder / "data", tokens=[f"{TOKEN}={USERNAME}"]) as running:
        yield running


class Views:
    """Each store of another collection, as a view of it."""

    def __init__(self, stores: StoreCollection) -> None:
        self.list_stores = stores.list_stores
        self._stores = stores

    async def get_or_create(
        self, name: str | None = None, *, schema: Mapping[str, object] | None = None
    ) -> StoreInfo:
        collections = {"collections": {"all": {"keyPrefix": PREFIX}}}
        return await self._stores.get_or_create(name, schema=schema or collections)

    def store(self, store_id: str) -> Store:
        return ViewStore(self._stores.store(store_id), PREFIX, KeyGroup("all", key_prefix=PREFIX))


PREFIX = "view!2F"


class Followed(Views):
    """Each store of another collection, as one that a path leads to."""

    def store(self, store_id: str) -> Store:
        now = datetime.now(UTC)

        async def resolve() -> StoreInfo | None:
            return None

        return FollowingStore(resolve, self._stores.store, StoreInfo(store_id, now, now, now))


VIEWS = {"view": Views, "followed": Followed}


@pytest.fixture(params=["memory", "server", "view", "followed"])
def subject(request: pytest.FixtureRequest) -> Subject:
    if request.param in VIEWS:
        made = VIEWS[request.param]
        return Subject(
            request.param, lambda: viewed(made, authorized=True), lambda: viewed(made, authorized=False)
        )
    if request.param == "memory":
        return Subject("memory", lambda: in_memory(authorized=True), lambda: in_memory(authorized=False))
    url = request.getfixturevalue("server").url
    return Subject(
        "server",
        lambda: ApifyStoreCollection(url, token=TOKEN),
        lambda: ApifyStoreCollection(url, token="a-stranger"),
    )


@asynccontextmanager
async def viewed(made: type[Views], *, authorized: bool) -> AsyncIterator[StoreCollection]:
    yield made(MemoryStoreCollection(username=USERNAME, authorized=authorized))


@asynccontextmanager
async def in_memory(*, authorized: bool) -> AsyncIterator[StoreCollection]:
    yield MemoryStoreCollection(username=USERNAME, authorized=authorized)


async def put(store: Store, key: str, content: bytes, content_type: str = TEXT) -> RecordHead:
    return await store.set_record(RecordKey(key), BytesBody(content), content_type=content_type)


async def read(store: Store, key: str, byte_range: ByteRange | None = None) -> bytes:
    async with store.get_record(RecordKey(key), byte_range=byte_range) as stream:
        assert stream is not None
        content = b"".join([piece async for piece in stream.chunks()])
        if byte_range is None:
            assert stream.start == 0
            assert stream.head.length in (None, len(content))
        return content


async def put_many(store: Store, keys: list[str]) -> None:
    async def worker(mine: list[str]) -> None:
        for key in mine:
            await put(store, key, key.encode())

    async with trio.open_nursery() as nursery:
        for first in range(8):
            nursery.start_soon(worker, keys[first::8])


# Stores


def test_a_store_from_creation_to_deletion(subject: Subject) -> None:
    async def test(stores: StoreCollection, _store: Store) -> None:
        made = await stores.get_or_create("shop-values")
        again = await stores.get_or_create("shop-values")
        assert (made.id, made.name, made.username) == (again.id, "shop-values", USERNAME)
        for name in (made.id, "~shop-values", f"{USERNAME}~shop-values", f"{USERNAME}/shop-values"):
            found = await stores.store(name).get()
            assert found is not None
            assert found.id == made.id
        store = stores.store(made.id)
        await put(store, "a", b"x")
        await store.delete()
        assert await store.get() is None
        await store.delete()

    subject.run(test)


def test_update(subject: Subject) -> None:
    async def test(stores: StoreCollection, store: Store) -> None:
        changed = await store.update(
            name="renamed", title="A title", general_access="ANYONE_WITH_ID_CAN_READ"
        )
        assert (changed.name, changed.title) == ("renamed", "A title")
        assert changed.general_access == "ANYONE_WITH_ID_CAN_READ"
        only_title = await store.update(title="Another")
        assert (only_title.name, only_title.title) == ("renamed", "Another")
        seen = await stores.store("~renamed").get()
        assert seen is not None
        assert (seen.id, seen.title) == (changed.id, "Another")

    subject.run(test)


def test_list_of_stores(subject: Subject) -> None:
    async def test(stores: StoreCollection, _store: Store) -> None:
        made = [(await stores.get_or_create(f"listed-{number}")).id for number in range(5)]
        page = await stores.list_stores()
        assert [info.id for info in page.items if (info.name or "").startswith("listed-")] == made
        newest = await stores.list_stores(limit=2, desc=True)
        assert [info.id for info in newest.items] == made[:2:-1]
        assert (newest.offset, newest.limit, newest.total) == (0, 2, page.total)
        rest = await stores.list_stores(limit=2, offset=1, desc=True)
        assert [info.id for info in rest.items] == made[3:1:-1]
        with_unnamed = await stores.list_stores(unnamed=True)
        assert with_unnamed.total > page.total
        for store_id in made:
            await stores.store(store_id).delete()

    subject.run(test)


def test_absent_stores(subject: Subject) -> None:
    async def test(stores: StoreCollection, _store: Store) -> None:
        absent = stores.store("NoSuchStore")
        assert await absent.get() is None
        assert await absent.head_record(ABSENT) is None
        assert not await absent.record_exists(ABSENT)
        with pytest.raises(errors.StoreNotFound):
            await absent.list_keys()
        with pytest.raises(errors.StoreNotFound):
            await absent.update(title="x")
        with pytest.raises(errors.StoreNotFound):
            await put(absent, "a", b"x")
        with pytest.raises(errors.RecordNotFound):
            await read(absent, "a")
        with pytest.raises(errors.StoreNotFound):
            await absent.record_public_url(ABSENT)

    subject.run(test)


def test_a_wrong_token(subject: Subject) -> None:
    async def main() -> None:
        async with subject.open_as_stranger() as stores:
            store = stores.store("~anything")
            attempts: list[Callable[[], Awaitable[object]]] = [
                stores.get_or_create,
                stores.list_stores,
                store.get,
                store.list_keys,
                lambda: store.head_record(ABSENT),
                lambda: read(store, "a"),
                lambda: put(store, "a", b"x"),
                lambda: store.delete_record(ABSENT),
            ]
            for attempt in attempts:
                with pytest.raises(errors.NotAuthorized) as caught:
                    await attempt()
                assert caught.value.status == 401
                assert "a-stranger" not in str(caught.value)

    run_async(main)


# Keys


def test_2500_keys_are_listed_in_order_page_by_page(subject: Subject) -> None:
    keys = [
        f"{hashlib.sha256(str(number).encode()).hexdigest()[:12]}-{'Aa.'[number % 3]}"
        for number in range(2500)
    ]
    expected = sorted(keys, key=str.encode)

    async def test(_stores: StoreCollection, store: Store) -> None:
        await put_many(store, keys)
        listed = [entry async for entry in store.iter_keys()]
        assert [entry.key for entry in listed] == expected
        assert {entry.size for entry in listed} == {14}
        first = await store.list_keys()
        assert [entry.key for entry in first.items] == expected[:1000]
        assert first.is_truncated
        assert first.next_exclusive_start_key == expected[999]
        last = await store.list_keys(exclusive_start_key=expected[1999])
        assert [entry.key for entry in last.items] == expected[2000:]
        assert not last.is_truncated
        assert [entry.key async for entry in store.iter_keys(page_size=700, prefix="a")] == [
            key for key in expected if key.startswith("a")
        ]

    subject.run(test)


def test_where_a_listing_starts(subject: Subject) -> None:
    async def test(_stores: StoreCollection, store: Store) -> None:
        for key in ("a", "b", "b!2Fx", "b!2Fy", "c", "Z"):
            await put(store, key, b"")

        async def keys(start: str | None = None, prefix: str | None = None) -> list[str]:
            page = await store.list_keys(exclusive_start_key=start, prefix=prefix)
            return [entry.key for entry in page.items]

        assert await keys() == ["Z", "a", "b", "b!2Fx", "b!2Fy", "c"]
        assert await keys("b") == ["b!2Fx", "b!2Fy", "c"]
        assert await keys("b!2F") == ["b!2Fx", "b!2Fy", "c"]  # no key of that name
        assert await keys("b!2F~") == ["c"]  # not even a legal one
        assert await keys("zzz") == []
        assert await keys(prefix="b!2F") == ["b!2Fx", "b!2Fy"]
        assert await keys("b!2Fx", prefix="b!2F") == ["b!2Fy"]
        assert await keys(prefix="nothing") == []

    subject.run(test)


# Records


LEGAL_KEYS = ["a", "INPUT", ".", "..", "...", "!'()-_.", "a!2Fb", "k" * 256, "0", "%".replace("%", "!25")]


@pytest.mark.parametrize("key", LEGAL_KEYS, ids=range(len(LEGAL_KEYS)))
def test_every_legal_key(subject: Subject, key: str) -> None:
    async def test(_stores: StoreCollection, store: Store) -> None:
        await put(store, key, key.encode())
        await put(store, f"{key[:250]}-", b"a neighbour")
        assert await read(store, key) == key.encode()
        assert await store.record_exists(RecordKey(key))
        await store.delete_record(RecordKey(key))
        assert not await store.record_exists(RecordKey(key))
        assert [entry.key for entry in (await store.list_keys()).items] == [f"{key[:250]}-"]

    subject.run(test)


CONTENTS = {
    "empty": b"",
    "every byte": bytes(range(256)) * 3,
    "5 MiB": b"".join(hashlib.sha256(bytes([n % 256, n // 256])).digest() for n in range(65536)) * 2
    + bytes(2**20),
}


@pytest.mark.parametrize("name", sorted(CONTENTS))
def test_contents_come_back_as_they_were(subject: Subject, name: str) -> None:
    content = CONTENTS[name]

    async def test(_stores: StoreCollection, store: Store) -> None:
        head = await put(store, "record", content, "application/x-thing")
        assert (head.content_type, head.content_encoding, head.length) == (
            "application/x-thing",
            None,
            len(content),
        )
        assert await read(store, "record") == content
        seen = await store.head_record(RecordKey("record"))
        assert seen is not None
        assert (seen.content_type, seen.length) == ("application/x-thing", len(content))
        assert (await store.list_keys()).items[0].size == len(content)

    subject.run(test)


def test_a_file_is_stored_from_its_descriptor(subject: Subject, tmp_path: Path) -> None:
    content = CONTENTS["5 MiB"]
    path = tmp_path / "file"
    path.write_bytes(content + b"not this")

    async def test(_stores: StoreCollection, store: Store) -> None:
        with path.open("rb") as file:
            body = FileBody(file.fileno(), len(content))
            await store.set_record(RecordKey("record"), body, content_type=TEXT)
            assert file.tell() == 0
            truncated = FileBody(file.fileno(), len(content) + 100)
            with pytest.raises(errors.RequestRefused, match="truncated"):
                await store.set_record(RecordKey("record"), truncated, content_type=TEXT)
        assert await read(store, "record") == content

    subject.run(test)


def raw_deflate(content: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(content) + compressor.flush()


ENCODED: Mapping[str, tuple[ContentEncoding, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "br": ("br", brotli.compress),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
}


@pytest.mark.parametrize("name", sorted(ENCODED))
def test_encoded_records_are_read_decoded(subject: Subject, name: str) -> None:
    encoding, encode = ENCODED[name]
    content = b"A line that compresses well.\n" * 100_000
    stored = encode(content)

    async def test(_stores: StoreCollection, store: Store) -> None:
        key = RecordKey("record")
        head = await store.set_record(key, BytesBody(stored), content_type=TEXT, content_encoding=encoding)
        assert (head.content_encoding, head.length) == (encoding, None)
        async with store.get_record(key) as stream:
            assert stream is not None
            assert (stream.head.content_encoding, stream.head.content_type) == (encoding, TEXT)
            assert stream.head.length is None
            pieces = [piece async for piece in stream.chunks()]
        assert b"".join(pieces) == content
        assert max(map(len, pieces)) <= 2**20
        seen = await store.head_record(key)
        assert seen is not None
        assert (seen.content_encoding, seen.length) == (encoding, None)
        assert (await store.list_keys()).items[0].size == len(stored)

    subject.run(test)


def test_ranges(subject: Subject) -> None:
    content = CONTENTS["every byte"]

    async def test(_stores: StoreCollection, store: Store) -> None:
        await put(store, "record", content)
        seen = await store.head_record(RecordKey("record"))
        assert seen is not None
        assert seen.accepts_ranges
        for start, stop in ((0, 1), (10, 300), (767, 768), (5, None), (700, 10_000), (0, None)):
            async with store.get_record(RecordKey("record"), byte_range=ByteRange(start, stop)) as stream:
                assert stream is not None
                assert (stream.start, stream.head.length) == (start, len(content))
                assert b"".join([piece async for piece in stream.chunks()]) == content[start:stop]
        with pytest.raises(errors.RequestRefused) as caught:
            await read(store, "record", ByteRange(len(content)))
        assert caught.value.status == 416
        with pytest.raises(ValueError, match="no bytes"):
            await read(store, "record", ByteRange(3, 3))

    subject.run(test)


def test_conditional_reads(subject: Subject) -> None:
    async def test(_stores: StoreCollection, store: Store) -> None:
        key = RecordKey("record")
        await put(store, key, b"one")
        seen = await store.head_record(key)
        assert seen is not None
        assert seen.validator is not None
        async with store.get_record(key, if_none_match=seen) as stream:
            assert stream is None
        written = await put(store, key, b"two")
        async with store.get_record(key, if_none_match=seen) as stream:
            assert stream is not None
            assert b"".join([piece async for piece in stream.chunks()]) == b"two"
            assert written.validator == stream.head.validator != seen.validator
        async with store.get_record(key, if_none_match=RecordHead(TEXT)) as stream:
            assert stream is not None

    subject.run(test)


def test_all_records_below_a_prefix_in_one_answer(subject: Subject) -> None:
    async def test(_stores: StoreCollection, store: Store) -> None:
        kept = {f"img!2F{number:04}": b"%d" % number for number in range(60)} | {"img!2F": b""}
        for key, content in kept.items():
            await put(store, key, content)
        await put(store, "img!2Flarge", bytes(100_001))
        await put(store, "img!2Funwanted", b"x")
        await put(store, "other", b"x")
        packed = BytesBody(gzip.compress(b"text " * 1000))
        await store.set_record(
            RecordKey("img!2Fgz"), packed, content_type="text/plain", content_encoding="gzip"
        )
        keys = [*kept, "img!2Flarge", "img!2Fgz", "other", "absent"]
        wanted = Wanted(frozenset(map(RecordKey, keys)), largest=100_000, at_most=10_000_000)
        found: list[Entry] = []

        async def take(entries: Sequence[Entry]) -> None:
            found.extend(entries)

        await store.read_records(take, wanted, prefix="img!2F")
        expected = kept | {"img!2Flarge": None, "img!2Fgz": b"text " * 1000}
        assert {str(entry.key): entry.content for entry in found} == expected
        assert len(found) == len(expected)
        assert all(parsedate_to_datetime(entry.date or "").tzinfo for entry in found)

        async def refuse(_entries: Sequence[Entry]) -> None:
            raise FileError(errno.EDQUOT)

        with pytest.raises(FileError):
            await store.read_records(refuse, wanted)
        assert await read(store, "other") == b"x"

    subject.run(test)


def test_an_overwrite_replaces_everything(subject: Subject) -> None:
    async def test(_stores: StoreCollection, store: Store) -> None:
        key = RecordKey("record")
        body = BytesBody(gzip.compress(b"one" * 1000))
        await store.set_record(key, body, content_type="text/css", content_encoding="gzip")
        await put(store, key, b"two", "image/png")
        seen = await store.head_record(key)
        assert seen is not None
        assert (seen.content_type, seen.content_encoding, seen.length) == ("image/png", None, 3)
        assert await read(store, key) == b"two"
        assert len((await store.list_keys()).items) == 1

    subject.run(test)


def test_absent_records(subject: Subject) -> None:
    async def test(_stores: StoreCollection, store: Store) -> None:
        assert await store.head_record(ABSENT) is None
        assert not await store.record_exists(ABSENT)
        with pytest.raises(errors.RecordNotFound) as caught:
            await read(store, ABSENT)
        assert caught.value.status == 404
        await store.delete_record(ABSENT)
        await put(store, "a", b"x")
        await store.delete_record(RecordKey("a"))
        await store.delete_record(RecordKey("a"))
        assert (await store.list_keys()).items == ()

    subject.run(test)


def test_a_stream_may_be_left_early(subject: Subject) -> None:
    async def test(_stores: StoreCollection, store: Store) -> None:
        await put(store, "record", CONTENTS["5 MiB"])
        for _ in range(3):
            async with store.get_record(RecordKey("record")) as stream:
                assert stream is not None
                async for piece in stream.chunks():
                    assert CONTENTS["5 MiB"].startswith(piece)
                    break
        assert await read(store, "record") == CONTENTS["5 MiB"]

    subject.run(test)


# Public URLs


def test_public_urls_are_signed_and_name_the_store_by_id(subject: Subject) -> None:
    async def test(stores: StoreCollection, _store: Store) -> None:
        info = await stores.get_or_create("public-urls")
        store = stores.store("~public-urls")
        url = urlsplit(await store.record_public_url(RecordKey("a")))
        prefix, named = (PREFIX, {"collection"}) if subject.name == "view" else ("", set())
        assert url.path == f"/v2/key-value-stores/{info.id}/records/{prefix}a"
        assert parse_qs(url.query).keys() == {"signature"}
        url = urlsplit(await store.keys_public_url(expires_in=timedelta(hours=1), limit=3, prefix="a"))
        assert url.path == f"/v2/key-value-stores/{info.id}/keys"
        assert parse_qs(url.query).keys() == {"signature", "limit", "prefix"} | named
        assert parse_qs(url.query)["prefix"] == [f"{prefix}a"]
        await store.delete()

    subject.run(test)


def test_public_urls_work_without_a_token(server: RunningServer) -> None:
    async def main() -> None:
        async with ApifyStoreCollection(server.url, token=TOKEN) as stores, httpx.AsyncClient() as anyone:
            info = await stores.get_or_create("public")
            store = stores.store(info.id)
            await store.update(general_access="RESTRICTED")
            await put(store, "a!2Fb", b"public content")
            url = await store.record_public_url(RecordKey("a!2Fb"))
            assert (await anyone.get(url)).content == b"public content"
            assert (await anyone.get(url.partition("?")[0])).status_code in (401, 403)
            for life in (None, timedelta(hours=1)):
                listing = await anyone.get(await store.keys_public_url(expires_in=life, prefix="a"))
                assert [item["key"] for item in listing.json()["data"]["items"]] == ["a!2Fb"]
            expired = await anyone.get(await store.keys_public_url(expires_in=timedelta(seconds=-1)))
            assert expired.status_code in (401, 403)
            await store.delete()

    run_async(main)
