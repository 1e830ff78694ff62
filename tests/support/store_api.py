"""Another client of a store: what a mount did is looked at, and what it should show is put there, past it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import httpx

STORES = "/v2/key-value-stores"


class StoreApi:
    """One store, through httpx alone."""

    def __init__(self, client: httpx.Client, store_id: str) -> None:
        self.id = store_id
        self.client = client
        self._path = f"{STORES}/{store_id}"

    @classmethod
    def create(cls, client: httpx.Client, name: str | None = None) -> StoreApi:
        answer = client.post(STORES, params={"name": name} if name else None).raise_for_status()
        return cls(client, answer.json()["data"]["id"])

    def put(
        self, key: str, content: bytes, content_type: str = "text/plain", *, encoding: str | None = None
    ) -> None:
        """Store a record; `content` is already encoded."""
        headers = {"Content-Type": content_type} | ({"Content-Encoding": encoding} if encoding else {})
        self.client.put(self._record_path(key), content=content, headers=headers).raise_for_status()

    def record(self, key: str) -> httpx.Response:
        """Read a record; `.content` is decoded."""
        return self.client.get(self._record_path(key), params={"attachment": "true"}).raise_for_status()

    def content(self, key: str) -> bytes:
        return self.record(key).content

    def content_type(self, key: str) -> str:
        return self.record(key).headers["content-type"]

    def sizes(self) -> dict[str, int]:
        """Every key with its stored size, in the API's order."""
        return dict(self._items())

    def keys(self) -> list[str]:
        return [key for key, _ in self._items()]

    def delete_record(self, key: str) -> None:
        self.client.delete(self._record_path(key)).raise_for_status()

    def delete(self) -> None:
        self.client.delete(self._path).raise_for_status()

    def _record_path(self, key: str) -> str:
        # An HTTP client resolves `.` and `..` in a path.
        return f"{self._path}/records/{key.replace('.', '%2E') if key in ('.', '..') else key}"

    def _items(self) -> Iterator[tuple[str, int]]:
        start: str | None = None
        while True:
            parameters = {"limit": "1000"} | ({"exclusiveStartKey": start} if start else {})
            page = self.client.get(f"{self._path}/keys", params=parameters).raise_for_status().json()["data"]
            yield from ((item["key"], item["size"]) for item in page["items"])
            if not page["isTruncated"]:
                return
            start = page["nextExclusiveStartKey"]


def expected_key(name: str) -> str:
    """Give the key of a file path without `!` sequences, by the rule as the README tells it."""
    legal = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!-_.'()"
    return "".join(chr(b) if b in legal else f"!{b:02X}" for b in os.fsencode(name))
