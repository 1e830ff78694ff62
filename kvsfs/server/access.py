"""Who may do what: owners, signatures, general access."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import Request

from kvsfs.server.answers import ApiError, run_not_found, store_not_found
from kvsfs.server.moments import now_ms
from kvsfs.server.parameters import given, one_of
from kvsfs.server.shares import Shares
from kvsfs.server.storage import Run, RunFilter, Storage
from kvsfs.server.users import DEFAULT_USERNAME, Tokens, derived_id
from kvsfs.signatures import verify_record, verify_storage
from kvsfs.types import StoreInfo

STATUSES = ("READY", "RUNNING", "SUCCEEDED", "FAILED", "TIMING-OUT", "TIMED-OUT", "ABORTING", "ABORTED")
ORIGINS = (
    "DEVELOPMENT",
    "WEB",
    "API",
    "SCHEDULER",
    "TEST",
    "WEBHOOK",
    "ACTOR",
    "CLI",
    "CI",
    "STANDBY",
    "MCP",
)

Verify = Callable[[StoreInfo, str], bool]
"""Whether a signature opens something of a store."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A store that the request may use."""

    store: StoreInfo
    writer: bool
    signs: bool
    """Whether its answers may hold signed URLs: not for those who read it only because it is public."""


class Gate:
    """Decides for every request."""

    def __init__(self, storage: Storage, tokens: Tokens, shares: Shares | None = None) -> None:
        self._storage = storage
        self._tokens = tokens
        self.shares = Shares() if shares is None else shares

    def user(self, request: Request) -> str | None:
        """Name the user of the request's token; None without one. Raises ApiError 401 for an unknown one."""
        if not self._tokens:
            _refuse_foreign_pages(request)
            return DEFAULT_USERNAME
        token = _token(request)
        if token is None:
            return None
        username = self._tokens.username(token)
        if username is None:
            raise ApiError(401, "invalid-token", "Authentication token is not valid.")
        return username

    def require_user(self, request: Request) -> str:
        """Name the user. Raises ApiError 401 when there is no valid token."""
        username = self.user(request)
        if username is None:
            raise ApiError(401, "token-not-provided", "Authentication token was not provided.")
        return username

    async def writing(self, request: Request) -> StoreInfo:
        """Give the store of the path to someone who may write to it. Raises ApiError."""
        username = self.require_user(request)
        store, _ = await self._addressed(request)
        if store.username != username and not self.shares.may_write(username, store.id):
            raise _insufficient_permissions()
        return store

    async def owning(self, request: Request) -> StoreInfo:
        """Give the store of the path to its owner. Raises ApiError."""
        store = await self.writing(request)
        if store.username != self.user(request):
            raise _insufficient_permissions()
        return store

    async def reading(self, request: Request, verify: Verify | None = None) -> Grant:
        """Give the store of the path to someone who may read it. Raises ApiError.

        `verify` tells whether a signature opens what is asked for: a valid one replaces the token.
        """
        signature = given(request, "signature")
        if verify is not None and signature is not None:
            store, _ = await self._addressed(request)
            if verify(store, signature):
                return Grant(store, writer=False, signs=True)
        username = self.user(request)
        store, by_id = await self._addressed(request)
        if store.username == username:
            return Grant(store, writer=True, signs=True)
        if self.shares.may_read(username, store.id):
            return Grant(store, writer=self.shares.may_write(username, store.id), signs=True)
        if not _is_public(store, by_id=by_id):
            raise _insufficient_permissions()
        return Grant(store, writer=False, signs=False)

    async def addressed_run(self, request: Request) -> Run:
        """Give the run that the path names: by its ID, or as the last one of an Actor or a task.

        The last one is the user's own, or, without a token, anyone's: a signature may still open its store.
        Raises ApiError.
        """
        path = request.path_params
        if "run" in path:
            run = await self._storage.get_run(path["run"])
        else:
            run = await self._storage.last_run(
                RunFilter(
                    actor_id=self.actor_id(request) if "actor" in path else None,
                    task_id=self.task_id(request) if "task" in path else None,
                    username=self.user(request),
                    status=one_of(request, "status", STATUSES),
                    origin=one_of(request, "origin", ORIGINS),
                )
            )
        if run is None:
            raise run_not_found()
        return run

    def actor_id(self, request: Request) -> str:
        """Give the ID of the Actor that the path names."""
        return self._id(request, "actor")

    def task_id(self, request: Request) -> str:
        """Give the ID of the task that the path names."""
        return self._id(request, "task")

    def _id(self, request: Request, kind: str) -> str:
        """Give the ID of what the path names by its ID, `user~name` or `~name`. Raises ApiError."""
        reference: str = request.path_params[kind]
        username, tilde, name = reference.partition("~")
        return derived_id(kind, f"{username or self.require_user(request)}~{name}") if tilde else reference

    async def _addressed(self, request: Request) -> tuple[StoreInfo, bool]:
        """Give the store that the path names, and whether by an ID, its own or that of its run."""
        if "store" not in request.path_params:
            run = await self.addressed_run(request)
            store = await self._storage.get_store(run.store_id)
            if store is None:
                raise store_not_found()
            return store, True
        reference: str = request.path_params["store"]
        username, tilde, name = reference.partition("~")
        if not tilde:
            store = await self._storage.get_store(reference)
        else:
            store = await self._storage.find_store(username or self.require_user(request), name)
        if store is None:
            raise store_not_found()
        return store, not tilde


def opens_record(key: str) -> Verify:
    """Verify the signature of one record."""

    def verify(store: StoreInfo, signature: str) -> bool:
        secret = store.url_signing_secret_key
        return secret is not None and verify_record(secret, key, signature)

    return verify


def opens_storage(store: StoreInfo, signature: str) -> bool:
    """Verify the signature of a store's keys and of all its records at once."""
    secret = store.url_signing_secret_key
    return secret is not None and verify_storage(secret, store.id, signature, now_ms())


def _is_public(store: StoreInfo, *, by_id: bool) -> bool:
    """Whether anyone may read. FOLLOW_USER_SETTING is restricted: there are no user settings here."""
    if store.general_access == "ANYONE_WITH_NAME_CAN_READ":
        return True
    return by_id and store.general_access == "ANYONE_WITH_ID_CAN_READ"


def _insufficient_permissions() -> ApiError:
    return ApiError(
        403,
        "insufficient-permissions",
        "Insufficient permissions for the key-value store."
        " Make sure you're passing a correct API token and that it has the required permissions.",
    )


def _token(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return given(request, "token") or None


def _refuse_foreign_pages(request: Request) -> None:
    """Without tokens, the one guard is that only this machine can connect. Browsers here can, too.

    A web page may send a PUT-like POST across origins (it carries an Origin), or point its own host name at
    127.0.0.1 (it carries that Host). Raises ApiError 403 for both.
    """
    origin = request.headers.get("origin")
    hosts = [request.headers.get("host", "")]
    if origin is not None:
        hosts.append(urlsplit(origin).netloc)
    if not all(_is_loopback(host) for host in hosts):
        raise ApiError(
            403,
            "insufficient-permissions",
            "A server without tokens answers only to clients on its own machine.",
        )


@functools.lru_cache(maxsize=256)  # 5 µs, and it is nearly always the same one
def _is_loopback(netloc: str) -> bool:
    name = urlsplit(f"//{netloc}").hostname
    try:
        return name == "localhost" or ipaddress.ip_address(name or "").is_loopback
    except ValueError:
        return False
