"""The rows of the index: their columns, and what they are read as."""

from __future__ import annotations

import json
from typing import Any

from kvsfs.server.moments import from_ms
from kvsfs.server.storage import KeySelection, RecordEntry
from kvsfs.server.users import user_id
from kvsfs.types import StoreInfo, StoreStats

STORE_COLUMNS = (
    "id, username, name, title, general_access, signing_key, schema, created_at, modified_at, accessed_at,"
    " read_count, write_count, delete_count, list_count, storage_bytes, actor_id, run_id"
)
RECORD_COLUMNS = "key, size, content_type, content_encoding, etag, modified_at, file"


def selected(store_id: str, selection: KeySelection, after: str | None) -> tuple[str, list[str]]:
    """Write a condition on records, with its values: what is selected, after a key."""
    conditions, values = ["store_id = ?"], [store_id]
    if after is not None:
        conditions.append("key > ?")
        values.append(after)
    if selection.only is not None:
        conditions.append("key = ?")
        values.append(selection.only)
    if selection.prefix:
        # The highest code point ends every UTF-8 string that has the prefix.
        conditions += ["key >= ?", "key < ?"]
        values += [selection.prefix, selection.prefix + "\U0010ffff"]
    return " AND ".join(conditions), values


def store_of(row: tuple[Any, ...]) -> StoreInfo:
    """Read a row of STORE_COLUMNS."""
    return StoreInfo(
        id=row[0],
        user_id=user_id(row[1]),
        username=row[1],
        name=row[2],
        title=row[3],
        general_access=row[4],
        url_signing_secret_key=row[5],
        schema=None if row[6] is None else json.loads(row[6]),
        created_at=from_ms(row[7]),
        modified_at=from_ms(row[8]),
        accessed_at=from_ms(row[9]),
        stats=StoreStats(*row[10:15]),
        actor_id=row[15],
        run_id=row[16],
    )


def record_of(row: tuple[Any, ...]) -> tuple[RecordEntry, str]:
    """Read a row of RECORD_COLUMNS: the record, and the name of its file."""
    key, size, content_type, content_encoding, etag, modified_at, file = row
    return RecordEntry(key, size, content_type, content_encoding, etag, from_ms(modified_at)), file
