"""The nouns of kvsfs: what the API answers, in frozen typed form.

Field meanings are those of the Apify API specification (components `KeyValueStore`, `KeyValueStoreKey`,
`ListOfKeys`). Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Literal, NewType

from msgspec import Meta, Struct

RecordKey = NewType("RecordKey", str)
"""A record's key as the API knows it: 1 to 256 characters out of a-zA-Z0-9!-_.'()."""

LARGEST_SIZE = 2**63 - 1
"""Bytes: what the kernel's file offsets can count (off_t). No record is larger, and no honest number."""

GeneralAccess = Literal[
    "ANYONE_WITH_ID_CAN_READ", "ANYONE_WITH_NAME_CAN_READ", "FOLLOW_USER_SETTING", "RESTRICTED"
]

ContentEncoding = Literal["gzip", "br", "deflate"]
"""How a record is stored; a record stored as `identity` has none."""


@dataclass(frozen=True, slots=True)
class StoreStats:
    """Counters of a store. Hints only: how far they lag is not documented."""

    read_count: int = 0
    write_count: int = 0
    delete_count: int = 0
    list_count: int = 0
    storage_bytes: int = 0


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """One key-value store, as `GET /v2/key-value-stores/{storeId}` describes it."""

    id: str
    created_at: datetime
    modified_at: datetime
    accessed_at: datetime
    name: str | None = None
    title: str | None = None
    user_id: str | None = None
    username: str | None = None
    general_access: GeneralAccess | None = None
    actor_id: str | None = None
    """Of the run whose default store this is."""
    run_id: str | None = None
    stats: StoreStats = StoreStats()
    schema: Mapping[str, Any] | None = field(default=None, repr=False)
    console_url: str | None = None
    keys_public_url: str | None = field(default=None, repr=False)
    """Carries a signature: never logged."""
    url_signing_secret_key: str | None = field(default=None, repr=False)
    """Only for clients with write permission. Never logged."""


@dataclass(frozen=True, slots=True)
class StoreList:
    """A page of the collection of stores."""

    items: tuple[StoreInfo, ...]
    total: int
    offset: int
    limit: int


class KeyEntry(Struct, frozen=True, gc=False, rename={"record_public_url": "recordPublicUrl"}):
    """One key of a listing. A Struct, as it is read by the thousand: straight from the answer's bytes."""

    key: Annotated[RecordKey, Meta(min_length=1)]
    size: Annotated[int, Meta(ge=0, le=LARGEST_SIZE)]
    """**Stored** bytes: of a record stored with a Content-Encoding the compressed length."""
    record_public_url: str | None = None
    """Carries a signature: never logged."""

    def __repr__(self) -> str:
        return f"KeyEntry({self.key!r}, {self.size})"

    def renamed(self, key: RecordKey) -> KeyEntry:
        """Give the same entry under another key."""
        return KeyEntry(key, self.size, self.record_public_url)


@dataclass(frozen=True, slots=True)
class KeyPage:
    """One page of keys, in UTF-8 binary order."""

    items: tuple[KeyEntry, ...]
    is_truncated: bool
    next_exclusive_start_key: str | None


@dataclass(frozen=True, slots=True)
class RecordHead:
    """What a record's headers tell. Every field but the type may be missing: the API promises none."""

    content_type: str
    content_encoding: ContentEncoding | None = None
    length: int | None = None
    """Bytes as a reader sees them; None when not known before the body was read (a compressed record)."""
    etag: str | None = None
    last_modified: str | None = None
    accepts_ranges: bool = False

    @property
    def validator(self) -> str | None:
        """What names this version of the record: the strong ETag, else Last-Modified, else None."""
        if self.etag is not None and not self.etag.startswith("W/"):
            return self.etag
        return self.last_modified

    @classmethod
    def remembered(
        cls,
        content_type: str,
        validator: str | None,
        *,
        content_encoding: ContentEncoding | None = None,
        length: int | None = None,
    ) -> RecordHead:
        """Give the headers of a version of which only the validator was kept."""
        is_etag = validator is not None and validator.startswith('"')  # RFC 9110, 8.8.3; a date never does
        return cls(
            content_type,
            content_encoding,
            length,
            etag=validator if is_etag else None,
            last_modified=None if is_etag else validator,
        )


@dataclass(frozen=True, slots=True)
class ByteRange:
    """`start` inclusive, `stop` exclusive or None for the end of the record; bytes."""

    start: int
    stop: int | None = None
