"""A store that remembers how often it was changed through this client."""

from __future__ import annotations

from dataclasses import dataclass

from kvsfs.store.protocol import RecordBody, Store
from kvsfs.types import ContentEncoding, RecordHead, RecordKey


@dataclass(frozen=True, slots=True)
class Changes:
    """Writes and deletions, of one client or of all: what a store's own counters count."""

    writes: int = 0
    deletes: int = 0

    def since(self, earlier: Changes) -> Changes:
        """Give what came after an earlier count."""
        return Changes(self.writes - earlier.writes, self.deletes - earlier.deletes)


class CountingStore:
    """A store as it is, that counts the changes which it has confirmed to us.

    Of a request without an answer nobody knows whether it changed anything: it is not counted.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.changes = Changes()
        self.get = store.get
        self.update = store.update
        self.delete = store.delete
        self.list_keys = store.list_keys
        self.iter_keys = store.iter_keys
        self.record_exists = store.record_exists
        self.head_record = store.head_record
        self.get_record = store.get_record
        self.read_records = store.read_records
        self.record_public_url = store.record_public_url
        self.keys_public_url = store.keys_public_url

    async def set_record(
        self,
        key: RecordKey,
        body: RecordBody,
        *,
        content_type: str,
        content_encoding: ContentEncoding | None = None,
    ) -> RecordHead:
        """Store a record, replacing what was there."""
        head = await self._store.set_record(
            key, body, content_type=content_type, content_encoding=content_encoding
        )
        self.changes = Changes(self.changes.writes + 1, self.changes.deletes)
        return head

    async def delete_record(self, key: RecordKey) -> None:
        """Delete a record; no error when there is none."""
        await self._store.delete_record(key)
        self.changes = Changes(self.changes.writes, self.changes.deletes + 1)
