"""The handlers of stores: the collection, one store, its keys, all its records."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, get_args

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from kvsfs.server.access import Gate, opens_storage
from kvsfs.server.answers import (
    ApiError,
    enveloped,
    invalid_input,
    key_json,
    store_json,
    store_not_found,
    store_url,
)
from kvsfs.server.bodies import has_body, json_object
from kvsfs.server.encodings import UndecodableValue
from kvsfs.server.parameters import flag, integer, one_of
from kvsfs.server.schemas import SchemaRefused, check_schema, collections_of
from kvsfs.server.storage import KeySelection, NameTaken, Storage, StorageUnavailable, StoreField
from kvsfs.types import GeneralAccess, StoreInfo

logger = logging.getLogger(__name__)

MAX_PAGE = 1000
"""Items in a page, of keys and of stores: the API's maximum and default."""

NAME = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?")

MAX_TITLE_LENGTH = 1000
"""Characters: so that a listing of stores stays small."""


class Stores:
    """The handlers."""

    def __init__(self, storage: Storage, gate: Gate, max_page: int = MAX_PAGE) -> None:
        self._storage = storage
        self._gate = gate
        self._max_page = max_page

    async def list(self, request: Request) -> Response:
        """Answer keyValueStores_get."""
        username = self._gate.require_user(request)
        offset, limit = integer(request, "offset", default=0), self._limit(request)
        desc, unnamed = flag(request, "desc"), flag(request, "unnamed")
        ownership = one_of(request, "ownership", ("ownedByMe", "sharedWithMe"))
        shared = () if ownership == "ownedByMe" else await self._shared(username, unnamed=unnamed)
        own_only = ownership == "ownedByMe" or not shared
        stores: Sequence[StoreInfo] = ()
        total = 0
        if ownership != "sharedWithMe":
            stores, total = await self._storage.list_stores(
                username,
                offset=offset if own_only else 0,
                limit=limit if own_only else offset + limit,
                desc=desc,
                unnamed=unnamed,
            )
        if shared:
            both = sorted([*shared, *stores], key=lambda store: store.created_at, reverse=desc)
            stores, total = both[offset : offset + limit], total + len(shared)
        page = {"total": total, "offset": offset, "limit": limit, "desc": desc, "count": len(stores)}
        items = [self._item(request, username, store) for store in stores]
        return enveloped({**page, "unnamed": unnamed, "items": items})

    def _item(self, request: Request, username: str, store: StoreInfo) -> dict[str, Any]:
        writer = store.username == username or self._gate.shares.may_write(username, store.id)
        return store_json(request, store, writer=writer)

    async def _shared(self, username: str, *, unnamed: bool) -> Sequence[StoreInfo]:
        """Give the stores that others share with a user."""
        shared = self._gate.shares.with_user(username)
        found = [await self._storage.get_store(store_id) for store_id in shared]
        return tuple(store for store in found if store is not None and (unnamed or store.name is not None))

    async def create(self, request: Request) -> Response:
        """Answer keyValueStores_post."""
        username = self._gate.require_user(request)
        name = request.query_params.get("name")
        if name is not None:
            _check_name(name)
        schema = (await json_object(request)).get("schema")
        if not isinstance(schema, dict | None):
            raise invalid_input("The schema must be an object.")
        if schema is not None:
            try:
                check_schema(schema)
            except SchemaRefused as refused:
                raise ApiError(400, "store-schema-invalid", str(refused)) from None
        store, made = await self._storage.get_or_create_store(username, name, schema)
        headers = {"Location": store_url(request, store.id)} if made else None
        return enveloped(
            store_json(request, await self._storage.counted(store), writer=True),
            201 if made else 200,
            headers,
        )

    async def get(self, request: Request) -> Response:
        """Answer keyValueStore_get."""
        grant = await self._gate.reading(request)
        return enveloped(store_json(request, await self._storage.counted(grant.store), writer=grant.writer))

    async def update(self, request: Request) -> Response:
        """Answer keyValueStore_put."""
        store = await self._gate.owning(request)
        if not has_body(request):
            raise invalid_input("The payload is missing.")
        changes = _changes(await json_object(request))
        try:
            changed = await self._storage.update_store(store.id, changes)
        except NameTaken:
            raise ApiError(400, "name-not-unique", "Another key-value store has this name.") from None
        if changed is None:
            raise store_not_found()
        return enveloped(store_json(request, await self._storage.counted(changed), writer=True))

    async def delete(self, request: Request) -> Response:
        """Answer keyValueStore_delete."""
        store = await self._gate.owning(request)
        await self._storage.delete_store(store.id)
        return Response(status_code=204)

    async def keys(self, request: Request) -> Response:
        """Answer keyValueStore_keys_get."""
        grant = await self._gate.reading(request, opens_storage)
        limit = self._limit(request)
        after = request.query_params.get("exclusiveStartKey") or None
        selection = _selection(request, grant.store)
        # One more than asked for tells whether there is a next page.
        found = (
            await self._storage.list_keys(grant.store.id, after=after, selection=selection, limit=limit + 1)
            if selection
            else ()
        )
        page, truncated = found[:limit], len(found) > limit
        url = store_url(request, grant.store.id)
        secret = grant.store.url_signing_secret_key if grant.signs else None
        return enveloped(
            {
                "items": [key_json(url, key, size, secret) for key, size in page],
                "count": len(page),
                "limit": limit,
                "exclusiveStartKey": after,
                "isTruncated": truncated,
                "nextExclusiveStartKey": page[-1][0] if truncated else None,
            }
        )

    async def records(self, request: Request) -> Response:
        """Answer keyValueStore_records_get: all records as one ZIP archive."""
        grant = await self._gate.reading(request, opens_storage)
        selection = _selection(request, grant.store)
        if selection is None:
            selection = KeySelection(only="")  # which no key is
        name = grant.store.name or grant.store.id
        headers = {
            "Content-Disposition": f'attachment; filename="{name}.zip"',
            "Cache-Control": "no-cache",
            "X-Content-Type-Options": "nosniff",
        }
        if request.method == "HEAD":
            described = Response(media_type="application/zip", headers=headers)
            del described.headers["content-length"]  # nobody knows it before the archive is made
            return described
        return ArchiveStream(self._storage.archive(grant.store.id, selection), headers)

    def _limit(self, request: Request) -> int:
        """Give the size of a page. 0 is what both official clients send for "as many as you like"."""
        return min(integer(request, "limit", self._max_page) or self._max_page, self._max_page)


class ArchiveStream(StreamingResponse):
    """Sends an archive, and lets go of its files whatever happens."""

    def __init__(self, pieces: AsyncGenerator[bytes, None], headers: Mapping[str, str]) -> None:
        super().__init__(pieces, 200, headers, "application/zip")
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        except (UndecodableValue, StorageUnavailable) as error:
            # The headers are out: that the connection is cut before the end is what tells the client.
            logger.warning("an archive broke off: %s", error)
        finally:
            await self._pieces.aclose()


def _selection(request: Request, store: StoreInfo) -> KeySelection | None:
    """Give what `prefix` and `collection` leave of a store's keys; None for nothing. Raises ApiError."""
    prefix = request.query_params.get("prefix", "")
    name = request.query_params.get("collection")
    if name is None:
        return KeySelection(prefix)
    collection = collections_of(store.schema).get(name)
    if collection is None:
        raise ApiError(400, "invalid-collection", "The key-value store has no such collection.")
    if collection.key is not None:
        return KeySelection(only=collection.key) if collection.key.startswith(prefix) else None
    shorter, longer = sorted((prefix, collection.key_prefix), key=len)
    return KeySelection(longer) if longer.startswith(shorter) else None


def _changes(body: Mapping[str, Any]) -> dict[StoreField, str | None]:
    changes: dict[StoreField, str | None] = {}
    if "name" in body:
        changes["name"] = None if body["name"] is None else _check_name(body["name"])
    if "title" in body:
        changes["title"] = _check_title(body["title"])
    if "generalAccess" in body:
        if body["generalAccess"] not in get_args(GeneralAccess):
            raise invalid_input(f"generalAccess must be one of {', '.join(get_args(GeneralAccess))}.")
        changes["general_access"] = body["generalAccess"]
    return changes


def _check_name(name: object) -> str:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise invalid_input(
            "A key-value store's name has 1 to 63 letters, digits and hyphens, and no hyphen at its ends."
        )
    return name


def _check_title(title: object) -> str | None:
    if title is not None and not (isinstance(title, str) and len(title) <= MAX_TITLE_LENGTH):
        raise invalid_input(f"The title must be a text of at most {MAX_TITLE_LENGTH} characters.")
    return title
