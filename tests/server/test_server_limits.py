"""The size at which a record is refused, tried in process with a small one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx

from kvsfs.server.app import build
from kvsfs.server.local import open_storage
from kvsfs.server.users import Tokens
from tests.support.specification import check_answer


def test_records_past_the_limit_are_refused(tmp_path: Path) -> None:
    async def chunked(content: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(content), 10):
            yield content[start : start + 10]

    async def scenario() -> None:
        storage = open_storage(str(tmp_path))
        transport = httpx.ASGITransport(build(storage, Tokens({}), max_record_bytes=100))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            made = await client.post("/v2/key-value-stores")
            path = f"/v2/key-value-stores/{made.json()['data']['id']}/records/a"
            for body in (bytes(101), chunked(bytes(101))):
                answer = await client.put(path, content=body)
                check_answer(answer)
                assert (answer.status_code, answer.json()["error"]["type"]) == (413, "record-too-large")
                assert (await client.head(path)).status_code == 404
            for exact in (bytes(100), chunked(bytes(100))):
                assert (await client.put(path, content=exact)).status_code == 201
        await storage.close()

    asyncio.run(scenario())
