"""What the official Python client does with a store: list it, or move a folder, with 64 requests in flight.

    python bench/_official_client.py list|get|put URL STORE FOLDER

Prints the seconds that it took, without those of Python's start.
"""

# ruff: noqa: ASYNC240 - the files of this benchmark are small, and in memory

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

from apify_client import ApifyClientAsync

IN_FLIGHT = 64

TOKEN = "bench"
KIND = "application/json"


async def main() -> None:
    what, url, store_id, path = sys.argv[1:]
    folder = Path(path)
    store = ApifyClientAsync(TOKEN, api_url=url).key_value_store(store_id)
    turn = asyncio.Semaphore(IN_FLIGHT)

    async def get(key: str) -> None:
        async with turn:
            record = await store.get_record_as_bytes(key)
        assert record is not None
        write(key, record["value"])

    async def put(path: Path) -> None:
        content = path.read_bytes()
        async with turn:
            # identity: it would compress 4 KiB in vain otherwise, and this is the control
            await store.set_record(path.name, content, content_type=KIND, content_encoding="identity")

    def write(key: str, content: bytes) -> None:
        (folder / key).write_bytes(content)

    started = time.perf_counter()
    if what == "put":
        await asyncio.gather(*map(put, folder.iterdir()))
    else:
        keys = [entry.key async for entry in store.iterate_keys()]
        if what == "get":
            await asyncio.gather(*map(get, keys))
    print(time.perf_counter() - started, flush=True)
    os._exit(0)  # impit 0.15, the client's transport, aborts now and then when Python ends in order


if __name__ == "__main__":
    asyncio.run(main())
