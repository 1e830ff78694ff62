"""The contract of `protocol.py` over the Apify API."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from http import HTTPStatus
from types import TracebackType
from typing import Self
from urllib.parse import quote

from kvsfs.config import API_URL
from kvsfs.credentials import Credential, Found
from kvsfs.errors import RecordNotFound, RequestRefused, StoreNotFound
from kvsfs.metrics import StoreMeter
from kvsfs.signatures import sign_record, sign_storage
from kvsfs.store.archive import Take, Wanted, unpack
from kvsfs.store.calls import ApiClient, Call, query_string
from kvsfs.store.decoding import decoded
from kvsfs.store.limit import Headroom
from kvsfs.store.paging import KeyIterator
from kvsfs.store.parsing import (
    parse_encoding,
    parse_head,
    parse_run_id,
    parse_store,
    parse_store_list,
    parse_username,
    parse_validator,
    read_key_page,
)
from kvsfs.store.protocol import RecordBody, RecordStream
from kvsfs.store.reading import ApifyRecordStream, condition, range_header
from kvsfs.store.retry import Deadlines
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
)

_STORES = "/v2/key-value-stores"
_JSON = {"Content-Type": "application/json; charset=utf-8"}


class ApifyStoreCollection:
    """The stores of one account at one API. An async context manager: leaving it closes all connections."""

    def __init__(
        self,
        base_url: str = API_URL,
        *,
        token: str | Credential | None = None,
        deadlines: Deadlines | None = None,
        meter: StoreMeter | None = None,
    ) -> None:
        """Raise NotAuthorized for a token that cannot be one, StoreUnreachable for an unusable proxy."""
        if not isinstance(token, Credential):
            token = Credential(None if token is None else Found(token, "the caller"))
        self._api = ApiClient(
            base_url, token, deadlines=deadlines or Deadlines(), meter=meter or StoreMeter()
        )

    def __repr__(self) -> str:
        return f"ApifyStoreCollection({self._api.base_url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._api.aclose()

    def store(self, store_id: str) -> ApifyStore:
        """Give the client of one store. No request."""
        return ApifyStore(self._api, store_id.replace("/", "~"))

    @property
    def api(self) -> ApiClient:
        """What sends the calls of all its stores."""
        return self._api

    @property
    def answers(self) -> bool:
        """Whether the API answered when it was last asked."""
        return self._api.answers

    def headroom(self) -> list[Headroom]:
        """Tell what the rate limits of calls that are about no single store leave. No checkpoint."""
        return self._api.headroom("")

    async def store_of_run(self, path: str, filters: Mapping[str, str]) -> StoreInfo | None:
        """Describe the default store of the run at `path` below /v2/; None when there is no run, or no store of it.

        The operations are actorRun_keyValueStore_get, and those of an Actor's or a task's last run.
        """
        try:
            return parse_store(await self._api.fetch_json(_run_call(f"{path}/key-value-store", filters)))
        except StoreNotFound:
            return None

    async def run_id(self, path: str, filters: Mapping[str, str]) -> str | None:
        """Give the ID of the run at `path`; None when there is none (actorRun_get)."""
        try:
            return parse_run_id(await self._api.fetch_json(_run_call(path, filters)))
        except StoreNotFound:
            return None

    async def username(self) -> str:
        """Name the token's owner (users_me_get)."""
        call = Call(
            operation="username",
            method="GET",
            path="/v2/users/me",
            subject="the token's owner",
            missing=StoreNotFound,
        )
        return parse_username(await self._api.fetch_json(call))

    async def get_or_create(
        self, name: str | None = None, *, schema: Mapping[str, object] | None = None
    ) -> StoreInfo:
        """Return the named store, made if need be (keyValueStores_post).

        A retry after a lost answer may leave an unnamed store behind: it is empty and expires by itself.
        """
        content = b"" if schema is None else _json({"schema": schema})
        call = Call(
            operation="get_or_create",
            method="POST",
            path=_STORES,
            subject=f"store {name}" if name else "a new store",
            missing=StoreNotFound,
            query={"name": name},
            headers=_JSON if content else {},
            content=content,
        )
        return parse_store(await self._api.fetch_json(call))

    async def list_stores(
        self,
        *,
        limit: int | None = None,
        offset: int | None = None,
        desc: bool = False,
        unnamed: bool = False,
    ) -> StoreList:
        """One page of stores, by creation time (keyValueStores_get)."""
        call = Call(
            operation="list_stores",
            method="GET",
            path=_STORES,
            subject="the list of stores",
            missing=StoreNotFound,
            query={"limit": limit, "offset": offset, "desc": desc or None, "unnamed": unnamed or None},
        )
        return parse_store_list(await self._api.fetch_json(call))


class ApifyStore:
    """One store at the API."""

    def __init__(self, api: ApiClient, safe_id: str, signature: str | None = None) -> None:
        """`signature` is that of the keys' URL, where it stands for a token."""
        self._api = api
        self._safe_id = safe_id
        self._path = f"{_STORES}/{_segment(safe_id)}"
        self._signer: StoreInfo | None = None
        self._signature = signature

    def __repr__(self) -> str:
        return f"ApifyStore({self._safe_id!r})"

    @property
    def answers(self) -> bool:
        """Whether the API answered when it was last asked."""
        return self._api.answers

    def headroom(self) -> list[Headroom]:
        """Tell what the store's rate limits leave just now. No checkpoint."""
        return self._api.headroom(self._safe_id)

    async def get(self) -> StoreInfo | None:
        """Describe the store; None when there is none (keyValueStore_get)."""
        try:
            return parse_store(await self._api.fetch_json(self._store_call("get", "GET")))
        except StoreNotFound:
            return None

    async def update(
        self,
        *,
        name: str | None = None,
        title: str | None = None,
        general_access: GeneralAccess | None = None,
    ) -> StoreInfo:
        """Change what is not None (keyValueStore_put)."""
        wanted = {"name": name, "title": title, "generalAccess": general_access}
        changes = {field: value for field, value in wanted.items() if value is not None}
        call = replace(self._store_call("update", "PUT"), headers=_JSON, content=_json(changes))
        return parse_store(await self._api.fetch_json(call))

    async def delete(self) -> None:
        """Delete the store with all its records; no error when there is none (keyValueStore_delete)."""
        try:
            await self._api.fetch_headers(self._store_call("delete", "DELETE"))
        except StoreNotFound:
            return

    async def list_keys(
        self,
        *,
        limit: int | None = None,
        exclusive_start_key: str | None = None,
        prefix: str | None = None,
        collection: str | None = None,
    ) -> KeyPage:
        """One page of keys (keyValueStore_keys_get)."""
        query = {
            "limit": limit,
            "exclusiveStartKey": exclusive_start_key,
            "prefix": prefix,
            "collection": collection,
            "signature": self._signature,
        }
        call = replace(self._store_call("list_keys", "GET"), path=f"{self._path}/keys", query=query)
        return await self._api.fetch(call, read_key_page)

    def iter_keys(
        self, *, prefix: str | None = None, collection: str | None = None, page_size: int | None = None
    ) -> AsyncIterator[KeyEntry]:
        """All keys in order, page after page."""
        return KeyIterator(self.list_keys, prefix=prefix, collection=collection, page_size=page_size)

    async def record_exists(self, key: RecordKey) -> bool:
        """Whether the record is there (keyValueStore_record_head)."""
        return await self._head("record_exists", key) is not None

    async def head_record(self, key: RecordKey) -> RecordHead | None:
        """Give the record's headers; None when it is not there (keyValueStore_record_head)."""
        return await self._head("head_record", key)

    async def _head(self, operation: str, key: RecordKey) -> RecordHead | None:
        try:
            call = replace(self._record_call(operation, "HEAD", key), query=await self._proof(key))
            return parse_head(await self._api.fetch_headers(call))
        except RecordNotFound:
            return None

    @asynccontextmanager
    async def get_record(
        self, key: RecordKey, *, byte_range: ByteRange | None = None, if_none_match: RecordHead | None = None
    ) -> AsyncIterator[RecordStream | None]:
        """Read a record (keyValueStore_record_get).

        Retries end where the headers are in the caller's hands: a body that breaks off raises, and the caller
        resumes with a range.
        """
        call = replace(
            self._record_call("get_record", "GET", key),
            query={"attachment": True, **await self._proof(key)},  # without it the API may alter HTML
            headers=range_header(byte_range) | condition(if_none_match),
            accepted=frozenset({200, 206, 304}),
            follows_redirects=True,
            streamed=True,
        )
        async with self._api.stream(call) as answer:
            if answer.status == HTTPStatus.NOT_MODIFIED:
                yield None
                return
            async with aclosing(ApifyRecordStream(answer, byte_range)) as stream:
                yield stream

    async def read_records(
        self,
        take: Take,
        wanted: Wanted,
        *,
        prefix: str | None = None,
        collection: str | None = None,
    ) -> None:
        """Read all records below a prefix in one answer (keyValueStore_records_get); unpacked in a thread."""
        call = replace(
            self._store_call("read_records", "GET"),
            path=f"{self._path}/records",
            query={"prefix": prefix, "collection": collection, "signature": self._signature},
            accepted=frozenset({200}),
            follows_redirects=True,
            streamed=True,
        )
        async with (
            self._api.stream(call) as answer,
            aclosing(decoded(answer, parse_encoding(answer.headers))) as chunks,
        ):
            await unpack(chunks, parse_validator(answer.headers.get("date")), wanted, take)

    async def set_record(
        self,
        key: RecordKey,
        body: RecordBody,
        *,
        content_type: str,
        content_encoding: ContentEncoding | None = None,
    ) -> RecordHead:
        """Store a record, replacing what was there (keyValueStore_record_put).

        The body is read again from its start for each attempt. An OSError of reading it passes through.
        """
        if not (content_type.isascii() and content_type.isprintable()):
            raise RequestRefused(f"record {key}: its content type holds characters that a header cannot")
        headers = {"Content-Type": content_type}
        if content_encoding is not None:
            headers["Content-Encoding"] = content_encoding
        call = replace(
            self._record_call("set_record", "PUT", key), missing=StoreNotFound, headers=headers, body=body
        )
        answered = await self._api.fetch_headers(call)
        return RecordHead(
            content_type=content_type,
            content_encoding=content_encoding,
            length=body.length if content_encoding is None else None,
            etag=parse_validator(answered.get("etag")),
            last_modified=parse_validator(answered.get("last-modified")),
        )

    async def delete_record(self, key: RecordKey) -> None:
        """Delete a record; no error when there is none (keyValueStore_record_delete)."""
        try:
            await self._api.fetch_headers(self._record_call("delete_record", "DELETE", key))
        except RecordNotFound:
            return

    async def record_public_url(self, key: RecordKey) -> str:
        """Give a URL that reads the record, signed where the token may sign. One request per store."""
        signer = await self._signing()
        secret = signer.url_signing_secret_key
        signature = sign_record(secret, key) if secret else None
        return self._public_url(signer.id, f"/records/{_segment(key)}", {"signature": signature})

    async def keys_public_url(
        self,
        *,
        expires_in: timedelta | None = None,
        limit: int | None = None,
        prefix: str | None = None,
        collection: str | None = None,
    ) -> str:
        """Give a URL that lists the keys, signed where the token may sign. One request per store."""
        signer = await self._signing()
        secret = signer.url_signing_secret_key
        signature = sign_storage(secret, signer.id, _expiry_ms(expires_in)) if secret else None
        query = {"signature": signature, "limit": limit, "prefix": prefix, "collection": collection}
        return self._public_url(signer.id, "/keys", query)

    async def _proof(self, key: RecordKey) -> Mapping[str, str]:  # noqa: ARG002 - for those who have no token
        """Give what a record's query says beside the token."""
        return {}

    async def _signing(self) -> StoreInfo:
        # The ID and the secret of a store never change: of two concurrent askers either may be the last.
        if self._signer is None:
            self._signer = await self.get()
        if self._signer is None:
            raise StoreNotFound(f"store {self._safe_id}: there is none", status=404)
        return self._signer

    def _public_url(self, store_id: str, path: str, query: Mapping[str, str | int | bool | None]) -> str:
        return f"{self._api.base_url}{_STORES}/{_segment(store_id)}{path}{query_string(query)}"

    def _store_call(self, operation: str, method: str) -> Call:
        return Call(
            operation=operation,
            method=method,
            path=self._path,
            subject=f"store {self._safe_id}",
            missing=StoreNotFound,
            store=self._safe_id,
        )

    def _record_call(self, operation: str, method: str, key: RecordKey) -> Call:
        return Call(
            operation=operation,
            method=method,
            path=f"{self._path}/records/{_segment(key)}",
            subject=f"record {key}",
            missing=RecordNotFound,
            store=self._safe_id,
            kind="record",
        )


def _run_call(path: str, filters: Mapping[str, str]) -> Call:
    return Call(
        operation="get",
        method="GET",
        path=f"/v2/{quote(path, safe='/~')}",
        subject="the run",
        missing=StoreNotFound,
        query=filters,
    )


def _expiry_ms(expires_in: timedelta | None) -> int | None:
    if expires_in is None:
        return None
    return int((time.time() + expires_in.total_seconds()) * 1000)


def _segment(name: str) -> str:
    # "." and ".." are legal keys. Bare they are steps through the path, and any HTTP library takes them.
    escaped = quote(name, safe="~!'()")
    return escaped.replace(".", "%2E") if name in (".", "..") else escaped


def _json(value: object) -> bytes:
    return json.dumps(value).encode()
