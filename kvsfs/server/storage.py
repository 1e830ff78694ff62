"""What the handlers ask of a storage: stores and records, wherever they are kept.

`local.py` keeps this contract with SQLite and files. The handlers know nothing below it, so another storage
may take its place. Every coroutine may be cancelled: what was being written then either happened whole or
not at all, and `put_record` leaves no part of a record behind.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from kvsfs.types import ContentEncoding, StoreInfo

StoreField = Literal["name", "title", "general_access"]
"""What `update_store` can change."""


@dataclass(frozen=True, slots=True)
class RecordEntry:
    """One stored record without its bytes."""

    key: str
    size: int
    """Stored bytes."""
    content_type: str
    content_encoding: ContentEncoding | None
    etag: str
    """Names these bytes with this type and encoding; hexadecimal, without quotes."""
    modified_at: datetime


def described_by(content_type: str, content_encoding: ContentEncoding | None) -> str:
    """Put together what a record's ETag names beside its bytes."""
    return f"{content_type}\0{content_encoding or ''}"


@dataclass(frozen=True, slots=True)
class Run:
    """A run of an Actor, as far as a store needs to know: whose it is, and which store is its default one."""

    id: str
    username: str
    actor_id: str
    task_id: str | None
    status: str
    origin: str
    store_id: str
    started_at: datetime


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which run is meant by "the last one". Of an Actor or of a task; None: any."""

    actor_id: str | None = None
    task_id: str | None = None
    username: str | None = None
    status: str | None = None
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class KeySelection:
    """Which keys of a store are meant: those that begin with `prefix`, or, given `only`, just that one."""

    prefix: str = ""
    only: str | None = None


class StoreGone(Exception):
    """The store was deleted while it was being written to."""


class StorageUnavailable(Exception):
    """The storage cannot answer now: asked again later, it may. The message says why."""


class RecordChanged(StorageUnavailable):
    """It was replaced while it was being read: asked for again, the new one comes whole."""


class NameTaken(Exception):
    """The user has another store of that name."""


class RecordReader(Protocol):
    """One version of a record, opened: it stays readable when it is replaced or deleted meanwhile."""

    @property
    def entry(self) -> RecordEntry:
        """The version that is being read."""

    def chunks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yield the stored bytes from `start` (inclusive) to `stop` (exclusive), in pieces."""

    def read_at_once(self) -> bytes | None:
        """All stored bytes if they are few and at hand without waiting, else None."""

    def close(self) -> None:
        """Let go of the record. May be called twice."""


class Storage(Protocol):
    """Stores and records. Every coroutine may raise StorageUnavailable."""

    async def get_store(self, store_id: str) -> StoreInfo | None:
        """Describe a store by its ID."""

    async def counted(self, store: StoreInfo) -> StoreInfo:
        """Give a store with its counters as they are now: those of the other calls may lag by a second."""

    async def find_store(self, username: str, name: str) -> StoreInfo | None:
        """Describe a store by its owner and name."""

    async def get_or_create_store(
        self, username: str, name: str | None, schema: Mapping[str, object] | None
    ) -> tuple[StoreInfo, bool]:
        """Return the user's store of that name, made if need be, and whether it was made.

        Without a name a new unnamed store. The schema is only looked at when a store is made.
        """

    async def update_store(self, store_id: str, changes: Mapping[StoreField, str | None]) -> StoreInfo | None:
        """Set the fields of `changes`; None when the store is gone. Raises NameTaken."""

    async def delete_store(self, store_id: str) -> None:
        """Delete a store with all its records; it is gone for readers before its files are."""

    async def list_stores(
        self, username: str, *, offset: int, limit: int, desc: bool, unnamed: bool
    ) -> tuple[Sequence[StoreInfo], int]:
        """Give a user's stores by creation time, and how many there are in all. Their counters may lag."""

    async def create_run(
        self, username: str, *, actor_id: str, task_id: str | None, status: str, origin: str
    ) -> Run:
        """Make a run with an unnamed store of its own."""

    async def get_run(self, run_id: str) -> Run | None:
        """Describe a run."""

    async def last_run(self, wanted: RunFilter) -> Run | None:
        """Give the run that was made last among those wanted."""

    async def list_keys(
        self, store_id: str, *, after: str | None, selection: KeySelection, limit: int
    ) -> Sequence[tuple[str, int]]:
        """At most `limit` keys with their stored sizes, after `after`, in UTF-8 binary order."""

    def archive(self, store_id: str, selection: KeySelection) -> AsyncGenerator[bytes, None]:
        """Yield a ZIP archive of records, decoded, each named by its key. Raises UndecodableValue.

        Records written meanwhile may be in it or not; each that is, is whole.
        """

    async def open_record(self, store_id: str, key: str, *, whole: bool = True) -> RecordReader | None:
        """Open a record; the caller closes it. None when it is not there.

        `whole`: whether all of it is likely to be read, which saves a storage elsewhere a request.
        """

    async def head_record(self, store_id: str, key: str) -> RecordEntry | None:
        """Describe a record; None when it is not there."""

    async def put_record(
        self,
        store_id: str,
        key: str,
        chunks: AsyncIterator[bytes],
        *,
        content_type: str,
        content_encoding: ContentEncoding | None,
    ) -> RecordEntry:
        """Store a record: durable, and seen by every reader, when this returns. Raises StoreGone.

        An exception of `chunks` passes through and nothing is stored.
        """

    async def delete_record(self, store_id: str, key: str) -> None:
        """Delete a record, durably. No error when it is not there."""

    async def close(self) -> None:
        """Finish what is under way and let go of everything."""
