"""What the API's answers look like: errors, the data envelope, stores and pages."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from kvsfs.signatures import sign_record, sign_storage
from kvsfs.types import StoreInfo

logger = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = "1"
"""With a 503. An object store that asks for fewer requests wants seconds; clients go on to back off by themselves."""


class ApiError(Exception):
    """An answer that is an error. `error_type` is one of the specification's ErrorType."""

    def __init__(
        self, status: int, error_type: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error_type = error_type
        self.message = message
        self.headers = headers


def invalid_input(message: str) -> ApiError:
    """Make the error of a parameter or body that makes no sense."""
    return ApiError(400, "invalid-input", message)


def store_not_found() -> ApiError:
    """Make the error of a store that is not there: the API does not tell it from a token that is not."""
    return ApiError(
        404, "record-or-token-not-found", "Key-value store was not found or access token is not valid."
    )


def run_not_found() -> ApiError:
    """Make the error of a run that is not there, or that a token may not see."""
    return ApiError(404, "record-or-token-not-found", "Actor run was not found or access token is not valid.")


def record_not_found() -> ApiError:
    """Make the error of a record that is not there."""
    return ApiError(404, "record-not-found", "Record was not found.")


def error_response(
    status: int, error_type: str, message: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Answer with an error."""
    sendable = message.encode(errors="replace").decode()  # it may quote what the client sent
    return JSONResponse({"error": {"type": error_type, "message": sendable}}, status, headers)


async def on_api_error(_request: Request, error: Exception) -> Response:
    """Answer an ApiError."""
    assert isinstance(error, ApiError)  # how Starlette types handlers
    return error_response(error.status, error.error_type, error.message, error.headers)


async def on_http_error(_request: Request, error: Exception) -> Response:
    """Answer what the router found: an unknown path or method."""
    assert isinstance(error, HTTPException)  # how Starlette types handlers
    if error.status_code == 405:
        methods = (error.headers or {}).get("Allow", "")
        message = f"This API end-point can only be accessed using the following HTTP methods: {methods}"
        return error_response(405, "method-not-allowed", message, error.headers)
    return error_response(404, "page-not-found", "We have bad news: there is no API end-point at this URL.")


async def on_unavailable(_request: Request, error: Exception) -> Response:
    """Answer when the storage cannot: clients shall ask again."""
    logger.warning("the storage cannot answer: %s", error)
    message = "The storage cannot answer now. Try again."
    return error_response(503, "internal-server-error", message, {"Retry-After": RETRY_AFTER_SECONDS})


async def on_failure(_request: Request, _error: Exception) -> Response:
    """Answer a fault of ours. What happened goes to the log, not to the client."""
    return error_response(500, "internal-server-error", "The server failed. Its log tells why.")


def enveloped(
    content: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Answer with `content` in the API's data envelope."""
    return JSONResponse({"data": content}, status, headers)


def iso(moment: datetime) -> str:
    """Write a UTC time as the API does: milliseconds and Z."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03}Z"


def store_url(request: Request, store_id: str) -> str:
    """Give the URL of a store on this server, by the name that the client knows it by."""
    return f"{request.url.scheme}://{request.url.netloc}/v2/key-value-stores/{store_id}"


def store_json(request: Request, store: StoreInfo, *, writer: bool) -> dict[str, Any]:
    """Describe a store (component KeyValueStore). Only a writer gets what can sign, and signed URLs."""
    url = store_url(request, store.id)
    secret = store.url_signing_secret_key
    signature = f"?signature={sign_storage(secret, store.id, None)}" if writer and secret else ""
    described: dict[str, Any] = {
        "id": store.id,
        "name": store.name,
        "title": store.title,
        "userId": store.user_id,
        "username": store.username,
        "createdAt": iso(store.created_at),
        "modifiedAt": iso(store.modified_at),
        "accessedAt": iso(store.accessed_at),
        "actId": store.actor_id,
        "actRunId": store.run_id,
        "consoleUrl": url,
        "keysPublicUrl": f"{url}/keys{signature}",
        "recordsPublicUrl": f"{url}/records{signature}",
        "schema": store.schema,
        "generalAccess": store.general_access,
        "stats": {
            "readCount": store.stats.read_count,
            "writeCount": store.stats.write_count,
            "deleteCount": store.stats.delete_count,
            "listCount": store.stats.list_count,
            "storageBytes": store.stats.storage_bytes,
        },
    }
    if writer:
        described["urlSigningSecretKey"] = secret
    return described


def key_json(url: str, key: str, size: int, secret: str | None) -> dict[str, Any]:
    """Describe a key of a listing (component KeyValueStoreKey); `url` is the store's."""
    signature = f"?signature={sign_record(secret, key)}" if secret else ""
    # No character of a key needs escaping in a path.
    return {"key": key, "size": size, "recordPublicUrl": f"{url}/records/{key}{signature}"}
