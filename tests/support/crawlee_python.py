"""Crawlee for Python as a program: `write STORAGE_DIR` makes two stores, `read STORAGE_DIR NAME` prints one.

A process of its own: Crawlee runs on asyncio, keeps its storages for good and warns on stderr.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from typing import Any

from crawlee.configuration import Configuration
from crawlee.storage_clients import FileSystemStorageClient
from crawlee.storage_clients._base import KeyValueStoreClient

DEFAULT, NAMED = "default", "named-store"

RECORDS: dict[str, tuple[Any, str | None]] = {
    "INPUT": ({"startUrls": ["https://example.com/ä"], "n": 1.5}, None),
    "OUTPUT": ([1, 2, 3], "application/json"),
    "INPUT.json": ({"beside": True}, None),
    "text": ("héllo\n", None),
    "number": (5, None),
    "nothing": (None, None),
    "bytes": (b"\0\xff\x01", None),
    "page.html": ("<p>ü</p>", "text/html; charset=utf-8"),
    "shot.png": (b"\x89PNG\r\n\x1a\n", "image/png"),
    "what's(this)!-_.": ("odd", "text/x-odd"),
    "v1.2": (b"version", "application/x-nobody-knows"),
    "large": (bytes(range(256)) * 12_000, None),
    "empty": (b"", None),
    ".hidden": ("dot", None),
    "k.__metadata__.json": ("not of k", None),
}
"""Value and content type, as they are given to Crawlee."""


async def _open(storage_dir: str, name: str) -> KeyValueStoreClient:
    configuration = Configuration(storage_dir=storage_dir, purge_on_start=False)
    client = FileSystemStorageClient()
    if name == DEFAULT:
        return await client.create_kvs_client(configuration=configuration)
    return await client.create_kvs_client(name=name, configuration=configuration)


async def _write(storage_dir: str) -> None:
    for name in (DEFAULT, NAMED):
        store = await _open(storage_dir, name)
        for key, (value, content_type) in RECORDS.items():
            await store.set_value(key=key, value=value, content_type=content_type)


async def _read(storage_dir: str, name: str) -> dict[str, Any]:
    store = await _open(storage_dir, name)
    found = {}
    for key in [metadata.key async for metadata in store.iterate_keys()]:
        record = await store.get_value(key=key)
        assert record is not None, key
        value = record.value
        shown = {"bytes": base64.b64encode(value).decode()} if isinstance(value, bytes) else {"value": value}
        found[record.key] = {**shown, "type": record.content_type, "size": record.size}
    return found


if __name__ == "__main__":
    command, folder, *names = sys.argv[1:]
    if command == "write":
        asyncio.run(_write(folder))
    else:
        json.dump(asyncio.run(_read(folder, *names)), sys.stdout)
