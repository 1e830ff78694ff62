"""The contract of `protocol.py` in memory: for tests of what stands above it, under trio's MockClock.

Deterministic, nothing expires, nothing is limited. What tests may turn:

    page_size           the most keys that one page holds, whatever was asked for
    validators          off: no ETag and no Last-Modified, as the API may answer
    dates               on: Last-Modified as well
    before              awaited at the start of each operation with its name and key: to hold it, delay it or
                        make it fail; what it raises is what the operation raises
    after               awaited when an operation on one store has done its work, before it answers: an answer
                        that is late, or lost
    piece               awaited with key and offset before each piece of a record's body: a slow body, or one
                        that breaks off
    calls               how often each operation was called, by the name of its method
"""

from __future__ import annotations

import hashlib
import io
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TypeAlias
from urllib.parse import urlencode

import trio

from kvsfs.errors import NotAuthorized, RecordNotFound, RequestRefused, StoreNotFound
from kvsfs.signatures import sign_record, sign_storage
from kvsfs.store.archive import Entry, Take, Wanted
from kvsfs.store.decoding import decoded
from kvsfs.store.paging import KeyIterator
from kvsfs.store.protocol import RecordBody, RecordStream
from kvsfs.store.view import key_groups
from kvsfs.types import (
    ByteRange,
    ContentEncoding,
    GeneralAccess,
    KeyEntry,
    KeyPage,
    RecordHead,
    RecordKey,
    StoreInfo,
    StoreList,
    StoreStats,
)

Before: TypeAlias = Callable[[str, RecordKey | None], Awaitable[None]]
Piece: TypeAlias = Callable[[RecordKey, int], Awaitable[None]]

PAGE_SIZE = 1000
"""Keys: the API's maximum."""

_EPOCH = datetime(2024, 1, 1, tzinfo=UTC)
_CHUNK = 64 * 1024  # bytes: what a socket read gives
_URL = "memory://"


@dataclass(frozen=True, slots=True)
class _Record:
    stored: bytes
    head: RecordHead


@dataclass(slots=True)
class _Contents:
    """One store's contents; `exists` is cleared when it is deleted, so that its clients notice."""

    info: StoreInfo
    records: dict[RecordKey, _Record] = field(default_factory=dict)
    stats: StoreStats = field(default_factory=StoreStats)
    exists: bool = True


class MemoryStoreCollection:
    """Stores in memory. Without `authorized` every operation is refused, as with a token nobody knows."""

    def __init__(
        self,
        *,
        page_size: int = PAGE_SIZE,
        validators: bool = True,
        before: Before | None = None,
        after: Before | None = None,
        piece: Piece | None = None,
        username: str = "memory",
        authorized: bool = True,
    ) -> None:
        self.page_size = page_size
        self.validators = validators
        self.dates = False
        self.before = before
        self.after = after
        self.piece = piece
        self.authorized = authorized
        self.calls: Counter[str] = Counter()
        self._username = username
        self._stores: list[_Contents] = []
        self._ids = itertools.count(1)
        self._ticks = itertools.count(1)

    def store(self, store_id: str) -> MemoryStore:
        """Give the client of one store. No request."""
        return MemoryStore(self, store_id.replace("/", "~"))

    async def get_or_create(
        self, name: str | None = None, *, schema: Mapping[str, object] | None = None
    ) -> StoreInfo:
        """Return the named store, made if need be."""
        await self.enter("get_or_create")
        contents = self.find(f"~{name}") if name is not None else None
        if contents is None:
            contents = self._create(name, schema)
        return contents.info

    async def list_stores(
        self,
        *,
        limit: int | None = None,
        offset: int | None = None,
        desc: bool = False,
        unnamed: bool = False,
    ) -> StoreList:
        """One page of stores, by creation time."""
        await self.enter("list_stores")
        start, count = offset or 0, min(limit or PAGE_SIZE, PAGE_SIZE)
        infos = [c.info for c in self._stores if c.exists and (unnamed or c.info.name is not None)]
        infos = infos[::-1] if desc else infos
        return StoreList(tuple(infos[start : start + count]), total=len(infos), offset=start, limit=count)

    async def enter(self, operation: str, key: RecordKey | None = None) -> None:
        """Begin an operation: count it, checkpoint, let the test interfere."""
        self.calls[operation] += 1
        await trio.lowlevel.checkpoint()
        if self.before is not None:
            await self.before(operation, key)
        if not self.authorized:
            raise NotAuthorized(f"{operation}: the token is not known (401; check the token)", status=401)

    async def leave(self, operation: str, key: RecordKey | None = None) -> None:
        """End an operation: its work is done, the test may keep the answer."""
        if self.after is not None:
            await self.after(operation, key)

    def find(self, safe_id: str) -> _Contents | None:
        """Find a store by ID, `~name` or `username~name`."""
        for contents in self._stores:
            info = contents.info
            names = {info.id, f"{info.username}~{info.name}" if info.name else ""}
            if info.name and info.username == self._username:
                names.add(f"~{info.name}")
            if contents.exists and safe_id in names:
                return contents
        return None

    def share(self, name: str | None, username: str) -> StoreInfo:
        """Make a store of another user, who shares it."""
        return self._create(name, None, username).info

    def now(self) -> datetime:
        """Give a time of its own to each change: a clock would make tests depend on their speed."""
        return _EPOCH + timedelta(seconds=next(self._ticks))

    def _create(
        self, name: str | None, schema: Mapping[str, object] | None, username: str | None = None
    ) -> _Contents:
        number, now = next(self._ids), self.now()
        info = StoreInfo(
            id=f"memory{number:011d}",
            created_at=now,
            modified_at=now,
            accessed_at=now,
            name=name,
            user_id="memory",
            username=username or self._username,
            schema=schema,
            url_signing_secret_key=f"secret-of-{number}",
        )
        contents = _Contents(info)
        self._stores.append(contents)
        return contents


class MemoryStore:
    """One store in memory."""

    def __init__(self, collection: MemoryStoreCollection, safe_id: str) -> None:
        self._collection = collection
        self._safe_id = safe_id

    async def get(self) -> StoreInfo | None:
        """Describe the store; None when there is none."""
        await self._collection.enter("get")
        contents = self._collection.find(self._safe_id)
        if contents is None:
            return None
        size = sum(len(record.stored) for record in contents.records.values())
        return replace(contents.info, stats=replace(contents.stats, storage_bytes=size))

    async def update(
        self,
        *,
        name: str | None = None,
        title: str | None = None,
        general_access: GeneralAccess | None = None,
    ) -> StoreInfo:
        """Change what is not None."""
        await self._collection.enter("update")
        contents, info = self._contents(), self._contents().info
        taken = self._collection.find(f"~{name}")
        if name is not None and taken not in (None, contents):
            raise RequestRefused(f"there is another store of the name {name}", status=400)
        contents.info = replace(
            info,
            name=name or info.name,
            title=title or info.title,
            general_access=general_access or info.general_access,
            modified_at=self._collection.now(),
        )
        return contents.info

    async def delete(self) -> None:
        """Delete the store with all its records; no error when there is none."""
        await self._collection.enter("delete")
        contents = self._collection.find(self._safe_id)
        if contents is not None:
            contents.exists = False

    async def list_keys(
        self,
        *,
        limit: int | None = None,
        exclusive_start_key: str | None = None,
        prefix: str | None = None,
        collection: str | None = None,
    ) -> KeyPage:
        """One page of keys after `exclusive_start_key`."""
        await self._collection.enter("list_keys")
        records = self._of_collection(collection)
        after = (exclusive_start_key or "").encode()
        keys = sorted(
            (key for key in records if key.startswith(prefix or "") and key.encode() > after), key=str.encode
        )
        page = keys[: min(limit or PAGE_SIZE, self._collection.page_size)]
        is_truncated = len(page) < len(keys)
        answer = KeyPage(
            items=tuple(KeyEntry(key, len(records[key].stored)) for key in page),
            is_truncated=is_truncated,
            next_exclusive_start_key=page[-1] if is_truncated else None,
        )
        await self._collection.leave("list_keys")
        return answer

    def iter_keys(
        self, *, prefix: str | None = None, collection: str | None = None, page_size: int | None = None
    ) -> AsyncIterator[KeyEntry]:
        """All keys in order, page after page."""
        return KeyIterator(self.list_keys, prefix=prefix, collection=collection, page_size=page_size)

    async def record_exists(self, key: RecordKey) -> bool:
        """Whether the record is there."""
        await self._collection.enter("record_exists", key)
        return self._record(key) is not None

    async def head_record(self, key: RecordKey) -> RecordHead | None:
        """Give the record's headers; None when it is not there."""
        await self._collection.enter("head_record", key)
        record = self._record(key)
        await self._collection.leave("head_record", key)
        return record.head if record else None

    @asynccontextmanager
    async def get_record(
        self, key: RecordKey, *, byte_range: ByteRange | None = None, if_none_match: RecordHead | None = None
    ) -> AsyncIterator[RecordStream | None]:
        """Read a record; a record stored with an encoding is read whole, whatever the range."""
        await self._collection.enter("get_record", key)
        record = self._record(key)
        if record is None:
            raise RecordNotFound(f"record {key}: Record was not found (404)", status=404)
        await self._collection.leave("get_record", key)
        seen = if_none_match.validator if if_none_match else None
        if seen is not None and seen == record.head.validator:
            yield None
            return
        async with aclosing(MemoryRecordStream(record, byte_range, self._piece_of(key))) as stream:
            yield stream

    async def read_records(
        self,
        take: Take,
        wanted: Wanted,
        *,
        prefix: str | None = None,
        collection: str | None = None,
    ) -> None:
        """Read all records below a prefix, as they are now; `piece` is awaited before each is handed over."""
        await self._collection.enter("read_records")
        date = format_datetime(self._collection.now(), usegmt=True)
        records = self._of_collection(collection).items()
        packed = sorted(
            (item for item in records if item[0].startswith(prefix or "")), key=lambda item: item[0]
        )
        await self._collection.leave("read_records")
        for place, (key, record) in enumerate(packed):
            await self._piece_of(RecordKey(prefix or ""))(place)
            if key in wanted.keys:
                content = await _decoded(record)
                await take([Entry(key, content if len(content) <= wanted.largest else None, date)])

    async def set_record(
        self,
        key: RecordKey,
        body: RecordBody,
        *,
        content_type: str,
        content_encoding: ContentEncoding | None = None,
    ) -> RecordHead:
        """Store a record, replacing what was there; cancelled, it stored nothing."""
        await self._collection.enter("set_record", key)
        self._contents()
        stored = io.BytesIO()
        async for chunk in body.chunks():
            stored.write(chunk)
        record = self._new_record(stored.getvalue(), content_type, content_encoding)
        contents = self._contents()  # it may have been deleted while the body was read
        contents.records[key] = record
        contents.info = replace(contents.info, modified_at=self._collection.now())
        contents.stats = replace(contents.stats, write_count=contents.stats.write_count + 1)
        await self._collection.leave("set_record", key)
        return replace(record.head, accepts_ranges=False)

    async def delete_record(self, key: RecordKey) -> None:
        """Delete a record; no error when there is none."""
        await self._collection.enter("delete_record", key)
        contents = self._collection.find(self._safe_id)
        if contents is not None:
            if contents.records.pop(key, None) is not None:
                contents.info = replace(contents.info, modified_at=self._collection.now())
            contents.stats = replace(contents.stats, delete_count=contents.stats.delete_count + 1)
        await self._collection.leave("delete_record", key)

    async def record_public_url(self, key: RecordKey) -> str:
        """Give a URL that names the record; nothing answers there."""
        await self._collection.enter("record_public_url", key)
        info = self._contents().info
        signature = sign_record(info.url_signing_secret_key or "", key)
        return f"{_URL}/v2/key-value-stores/{info.id}/records/{key}?signature={signature}"

    async def keys_public_url(
        self,
        *,
        expires_in: timedelta | None = None,
        limit: int | None = None,
        prefix: str | None = None,
        collection: str | None = None,
    ) -> str:
        """Give a URL that names the listing; nothing answers there."""
        await self._collection.enter("keys_public_url")
        info = self._contents().info
        expires = (
            None if expires_in is None else int((self._collection.now() + expires_in).timestamp() * 1000)
        )
        query = {
            "signature": sign_storage(info.url_signing_secret_key or "", info.id, expires),
            "limit": limit,
            "prefix": prefix,
            "collection": collection,
        }
        spelled = urlencode({name: value for name, value in query.items() if value is not None})
        return f"{_URL}/v2/key-value-stores/{info.id}/keys?{spelled}"

    def _piece_of(self, key: RecordKey) -> Callable[[int], Awaitable[None]]:
        async def piece(offset: int) -> None:
            if self._collection.piece is not None:
                await self._collection.piece(key, offset)

        return piece

    def _of_collection(self, name: str | None) -> Mapping[RecordKey, _Record]:
        contents = self._contents()
        if name is None:
            return contents.records
        group = key_groups(contents.info.schema).get(name)
        if group is None:
            raise RequestRefused("The key-value store has no such collection.", status=400)
        return {key: record for key, record in contents.records.items() if group.holds(key)}

    def _contents(self) -> _Contents:
        contents = self._collection.find(self._safe_id)
        if contents is None:
            raise StoreNotFound(f"store {self._safe_id}: there is none (404)", status=404)
        return contents

    def _record(self, key: RecordKey) -> _Record | None:
        contents = self._collection.find(self._safe_id)
        return contents.records.get(key) if contents else None

    def _new_record(self, stored: bytes, content_type: str, encoding: ContentEncoding | None) -> _Record:
        written_at = self._collection.now()  # a version of its own even if the bytes are the same
        digest = hashlib.sha256(stored + written_at.isoformat().encode()).hexdigest()[:32]
        head = RecordHead(
            content_type=content_type,
            content_encoding=encoding,
            length=len(stored) if encoding is None else None,
            etag=f'"{digest}"' if self._collection.validators else None,
            last_modified=format_datetime(written_at, usegmt=True) if self._collection.dates else None,
            accepts_ranges=encoding is None,
        )
        return _Record(stored, head)


async def _decoded(record: _Record) -> bytes:
    async with aclosing(MemoryRecordStream(record, None, _nothing)) as stream:
        return b"".join([piece async for piece in stream.chunks()])


async def _nothing(_offset: int) -> None:
    pass


class MemoryRecordStream:
    """A record being read, as it was when the reading began."""

    def __init__(
        self, record: _Record, byte_range: ByteRange | None, piece: Callable[[int], Awaitable[None]]
    ) -> None:
        self.head = record.head
        self.start = 0
        stop: int | None = None
        if byte_range is not None and byte_range.stop is not None and byte_range.stop <= byte_range.start:
            raise ValueError(f"a range of no bytes: {byte_range}")  # as over HTTP, which cannot ask for it
        if byte_range is not None and record.head.content_encoding is None:
            self.start, stop = byte_range.start, byte_range.stop
            if self.start >= len(record.stored):
                raise RequestRefused("the range begins behind the record's end (416)", status=416)
        self._pieces = decoded(
            _Chunks(record.stored[self.start : stop], self.start, piece), record.head.content_encoding
        )

    def chunks(self) -> AsyncIterator[bytes]:
        """Give the bytes from `start`. There is one body: a second call goes on where the first stopped."""
        return self._pieces

    async def aclose(self) -> None:
        """End the decoding."""
        await self._pieces.aclose()


class _Chunks:
    def __init__(self, content: bytes, start: int, piece: Callable[[int], Awaitable[None]]) -> None:
        self._file = io.BytesIO(content)
        self._start = start
        self._piece = piece

    def __aiter__(self) -> _Chunks:
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        await self._piece(self._start + self._file.tell())
        chunk = self._file.read(_CHUNK)
        if not chunk:
            raise StopAsyncIteration
        return chunk
