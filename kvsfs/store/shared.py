"""A store that is read by the signatures of a shared URL, without a token."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

from cachetools import LRUCache

from kvsfs.errors import NotAuthorized, PermissionDenied, RecordNotFound
from kvsfs.signatures import storage_expiry
from kvsfs.store.apify import ApifyStore
from kvsfs.store.calls import ApiClient
from kvsfs.types import KeyEntry, KeyPage, RecordKey, StoreInfo

REMEMBERED_URLS = 20_000
"""Signatures of records that are kept, some 200 bytes each; those of others are asked for again: one list."""

UNKNOWN_TIME = datetime.fromtimestamp(0, tz=UTC)
"""Of a store that describes itself to nobody without a token: the same at each mount, or rsync would copy anew."""


class SharedStore(ApifyStore):
    """Lists by the signature of the keys' URL, reads by those in the items' `recordPublicUrl`.

    Of such a URL only the signature is taken: where the record stands is known, and a listing shall not send
    anybody to other hosts.
    """

    def __init__(self, api: ApiClient, store_id: str, signature: str | None) -> None:
        super().__init__(api, store_id, signature)
        self._urls: LRUCache[RecordKey, str] = LRUCache(REMEMBERED_URLS)

    async def get(self) -> StoreInfo | None:
        """Describe the store; only by its ID where it tells no more to those without a token."""
        try:
            info = await super().get()
        except (NotAuthorized, PermissionDenied):
            info = None
        if info is not None:
            return info
        await self.list_keys(limit=1)
        return StoreInfo(self._safe_id, UNKNOWN_TIME, UNKNOWN_TIME, UNKNOWN_TIME)

    async def list_keys(
        self,
        *,
        limit: int | None = None,
        exclusive_start_key: str | None = None,
        prefix: str | None = None,
        collection: str | None = None,
    ) -> KeyPage:
        """One page of keys. Raises PermissionDenied that tells of an expired signature."""
        try:
            page = await super().list_keys(
                limit=limit, exclusive_start_key=exclusive_start_key, prefix=prefix, collection=collection
            )
        except (NotAuthorized, PermissionDenied) as error:
            raise PermissionDenied(self._why_refused(), status=error.status) from error
        for entry in page.items:
            self._remember(entry)
        return page

    async def record_public_url(self, key: RecordKey) -> str:
        """Give the URL that the listing gave."""
        if key not in self._urls:
            await self._proof(key)
        return self._urls[key]

    async def keys_public_url(
        self,
        *,
        expires_in: timedelta | None = None,
        limit: int | None = None,
        prefix: str | None = None,
        collection: str | None = None,
    ) -> str:
        """Give the URL of the keys on. Raises PermissionDenied for another expiry: only writers can sign."""
        if expires_in is not None:
            raise PermissionDenied("a URL that expires can be made by those only who may write to the store")
        query = {"signature": self._signature, "limit": limit, "prefix": prefix, "collection": collection}
        return self._public_url(self._safe_id, "/keys", query)

    async def _proof(self, key: RecordKey) -> Mapping[str, str]:
        """Find a record's signature. Raises RecordNotFound."""
        if key not in self._urls:
            await self.list_keys(prefix=key, limit=1)  # it is the first of all keys that begin with it
        url = self._urls.get(key)
        if url is None:
            raise RecordNotFound(f"record {key}: there is none (404)", status=404)
        signature = parse_qs(urlsplit(url).query).get("signature")
        return {"signature": signature[-1]} if signature else {}

    def _remember(self, entry: KeyEntry) -> None:
        path = f"/records/{entry.key}"
        self._urls[entry.key] = entry.record_public_url or self._public_url(self._safe_id, path, {})

    def _why_refused(self) -> str:
        if self._signature is None:
            return "the store is not public: this needs a URL with its signature"
        expires = storage_expiry(self._signature)
        if expires and expires <= time.time() * 1000:
            when = datetime.fromtimestamp(expires / 1000, tz=UTC)
            return f"the signature of the URL expired at {when:%Y-%m-%d %H:%M:%S} UTC: ask for a new one"
        return "the store does not accept the signature of the URL: ask for a new one"
