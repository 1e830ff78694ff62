"""The application: which path is answered by whom."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kvsfs.server import answers
from kvsfs.server.access import Gate
from kvsfs.server.actors import Runs, Users
from kvsfs.server.records import MAX_RECORD_BYTES, Elsewhere, Records
from kvsfs.server.shares import Shares
from kvsfs.server.storage import Storage, StorageUnavailable
from kvsfs.server.stores import MAX_PAGE, Stores
from kvsfs.server.users import Tokens

Handler = Callable[[Request], Awaitable[Response]]


STORES = (
    "/v2/key-value-stores/{store}",
    "/v2/actor-runs/{run}/key-value-store",
    "/v2/actors/{actor}/runs/last/key-value-store",
    "/v2/acts/{actor}/runs/last/key-value-store",
    "/v2/actor-tasks/{task}/runs/last/key-value-store",
)
"""The ways to name one store."""


def build(
    storage: Storage,
    tokens: Tokens,
    *,
    max_record_bytes: int = MAX_RECORD_BYTES,
    max_page: int = MAX_PAGE,
    elsewhere: Elsewhere | None = None,
    shares: Shares | None = None,
) -> Starlette:
    """Assemble the API over a storage."""
    gate = Gate(storage, tokens, shares)
    stores, records = Stores(storage, gate, max_page), Records(storage, gate, max_record_bytes, elsewhere)
    # Routes are tried one after the other, 1 µs each: the most used ones stand first.
    routes = [route for path in STORES for route in _store(path, stores, records)]
    routes.append(_resource("/v2/key-value-stores", GET=stores.list, POST=stores.create))
    routes += [*_users(tokens, gate), *_runs(storage, gate)]
    app = Starlette(
        routes=routes,
        exception_handlers={
            answers.ApiError: answers.on_api_error,
            HTTPException: answers.on_http_error,
            StorageUnavailable: answers.on_unavailable,
            Exception: answers.on_failure,
        },
    )
    app.router.redirect_slashes = False  # a redirect would lose an upload's body
    return app


def _users(tokens: Tokens, gate: Gate) -> list[Route]:
    users = Users(tokens, gate)
    return [_resource("/v2/users/me", GET=users.me), _resource("/v2/users/{user}", GET=users.get)]


def _runs(storage: Storage, gate: Gate) -> list[Route]:
    runs = Runs(storage, gate)
    routes = [_resource("/v2/actor-runs/{run}", GET=runs.get)]
    for path in ("/v2/actors/{actor}/runs", "/v2/acts/{actor}/runs", "/v2/actor-tasks/{task}/runs"):
        routes += [_resource(path, POST=runs.create), _resource(f"{path}/last", GET=runs.get)]
    return routes


def _store(path: str, stores: Stores, records: Records) -> list[Route]:
    return [
        # `path`: a key with a slash in it is an invalid key, not an unknown path.
        _resource(
            f"{path}/records/{{key:path}}",
            GET=records.get,
            HEAD=records.head,
            PUT=records.put,
            POST=records.put,
            DELETE=records.delete,
        ),
        _resource(f"{path}/keys", GET=stores.keys),
        _resource(f"{path}/records", GET=stores.records),
        _resource(path, GET=stores.get, PUT=stores.update, DELETE=stores.delete),
    ]


def _resource(path: str, **handlers: Handler) -> Route:
    """One route for all methods of a path, so that an unknown method is told of every known one."""

    async def answer(request: Request) -> Response:
        return await handlers.get(request.method, handlers.get("GET", _unreachable))(request)

    return Route(path, answer, methods=list(handlers))


async def _unreachable(request: Request) -> Response:
    raise AssertionError(f"the router let {request.method} through")
