"""The handlers of stores: the collection, one store, its keys, and the user who asks."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, get_args

from starlette.requests import Request
from starlette.responses import Response

from kvsfs.server.access import Gate, opens_keys
from kvsfs.server.answers import (
    ApiError,
    enveloped,
    invalid_input,
    key_json,
    store_json,
    store_not_found,
    store_url,
)
from kvsfs.server.storage import NameTaken, Storage, StoreField
from kvsfs.server.users import user_id
from kvsfs.types import GeneralAccess

MAX_PAGE = 1000
"""Items in a page, of keys and of stores: the API's maximum and default."""

MAX_JSON_BYTES = 1024 * 1024
"""The JSON body of a store call: a schema of many collections has some 10 KiB."""

NAME = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?")

MAX_TITLE_LENGTH = 1000
"""Characters: so that a listing of stores stays small."""


class Stores:
    """The handlers."""

    def __init__(self, storage: Storage, gate: Gate) -> None:
        self._storage = storage
        self._gate = gate

    async def list(self, request: Request) -> Response:
        """Answer keyValueStores_get."""
        username = self._gate.require_user(request)
        offset, limit = _integer(request, "offset", 0, least=0), _integer(request, "limit", MAX_PAGE, least=1)
        limit = min(limit, MAX_PAGE)
        desc, unnamed = _flag(request, "desc"), _flag(request, "unnamed")
        stores, total = await self._storage.list_stores(
            username, offset=offset, limit=limit, desc=desc, unnamed=unnamed
        )
        if _ownership(request) == "sharedWithMe":  # nobody can share a store with a user here
            stores, total = (), 0
        page = {"total": total, "offset": offset, "limit": limit, "desc": desc, "count": len(stores)}
        items = [store_json(request, store, writer=True) for store in stores]
        return enveloped({**page, "unnamed": unnamed, "items": items})

    async def create(self, request: Request) -> Response:
        """Answer keyValueStores_post."""
        username = self._gate.require_user(request)
        name = request.query_params.get("name")
        if name is not None:
            _check_name(name)
        schema = (await _json_object(request)).get("schema")
        if not isinstance(schema, dict | None):
            raise invalid_input("The schema must be an object.")
        store, made = await self._storage.get_or_create_store(username, name, schema)
        headers = {"Location": store_url(request, store.id)} if made else None
        return enveloped(store_json(request, store, writer=True), 201 if made else 200, headers)

    async def get(self, request: Request) -> Response:
        """Answer keyValueStore_get."""
        grant = await self._gate.reading(request)
        return enveloped(store_json(request, grant.store, writer=grant.writer))

    async def update(self, request: Request) -> Response:
        """Answer keyValueStore_put."""
        store = await self._gate.writing(request)
        changes = _changes(await _json_object(request))
        try:
            changed = await self._storage.update_store(store.id, changes)
        except NameTaken:
            raise ApiError(400, "name-not-unique", "Another key-value store has this name.") from None
        if changed is None:
            raise store_not_found()
        return enveloped(store_json(request, changed, writer=True))

    async def delete(self, request: Request) -> Response:
        """Answer keyValueStore_delete."""
        store = await self._gate.writing(request)
        await self._storage.delete_store(store.id)
        return Response(status_code=204)

    async def keys(self, request: Request) -> Response:
        """Answer keyValueStore_keys_get."""
        grant = await self._gate.reading(request, opens_keys)
        limit = min(_integer(request, "limit", MAX_PAGE, least=1), MAX_PAGE)
        after = request.query_params.get("exclusiveStartKey") or None
        prefix = request.query_params.get("prefix", "")
        if "collection" in request.query_params:
            raise ApiError(400, "invalid-collection", "The key-value store has no such collection.")
        # One more than asked for tells whether there is a next page.
        found = await self._storage.list_keys(grant.store.id, after=after, prefix=prefix, limit=limit + 1)
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

    async def me(self, request: Request) -> Response:
        """Answer users_me_get."""
        username = self._gate.require_user(request)
        return enveloped({"id": user_id(username), "username": username})


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


def _integer(request: Request, name: str, default: int, *, least: int) -> int:
    text = request.query_params.get(name, "")
    if not text:
        return default
    # int() would take "1_000" and digits of other scripts; SQLite's integers end at 18 digits.
    if not (text.isascii() and text.isdigit() and len(text) <= 15 and int(text) >= least):
        raise invalid_input(f"{name} must be a whole number of at least {least}.")
    return int(text)


def _flag(request: Request, name: str) -> bool:
    return request.query_params.get(name, "").lower() in ("true", "1")


def _ownership(request: Request) -> str | None:
    ownership = request.query_params.get("ownership")
    if ownership not in (None, "ownedByMe", "sharedWithMe"):
        raise invalid_input("ownership must be ownedByMe or sharedWithMe.")
    return ownership


async def _json_object(request: Request) -> dict[str, Any]:
    """Give the body, a JSON object or nothing. Raises ApiError."""
    received = bytearray()
    async for chunk in request.stream():
        received += chunk
        if len(received) > MAX_JSON_BYTES:
            raise ApiError(
                413, "request-too-large", f"The payload is too large (limit: {MAX_JSON_BYTES} bytes)."
            )
    try:
        body = json.loads(received or b"{}")
    except (ValueError, RecursionError):
        raise invalid_input("The payload is not JSON.") from None
    if not isinstance(body, dict):
        raise invalid_input("The payload must be a JSON object.")
    return body
