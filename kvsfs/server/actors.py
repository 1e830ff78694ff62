"""The handlers of runs and users: only what it takes to reach a run's default store, and to know who asks.

Nothing is run here. Who wants a run tells the server of one, with the status and the origin that it is to
have; its input becomes the record INPUT of its default store, as on the platform.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from kvsfs.server.access import ORIGINS, STATUSES, Gate
from kvsfs.server.answers import ApiError, enveloped, iso, run_not_found
from kvsfs.server.bodies import MAX_JSON_BYTES, content_encoding, has_body, received
from kvsfs.server.parameters import one_of
from kvsfs.server.records import content_type
from kvsfs.server.storage import Run, Storage
from kvsfs.server.users import Tokens, derived_id, user_id

INPUT_KEY = "INPUT"

UNKNOWN_ACTOR = "unknown"
"""The Actor of a task's run: which one a task runs is not known here."""

MAX_REFERENCE_LENGTH = 128
"""Characters of an Actor's or a task's ID: twice what user~name may have."""


class Runs:
    """The handlers of runs."""

    def __init__(self, storage: Storage, gate: Gate) -> None:
        self._storage = storage
        self._gate = gate

    async def create(self, request: Request) -> Response:
        """Answer act_runs_post and actorTask_runs_post: make a run of an Actor or a task."""
        username = self._gate.require_user(request)
        of_task = "task" in request.path_params
        actor_id = UNKNOWN_ACTOR if of_task else self._gate.actor_id(request)
        task_id = self._gate.task_id(request) if of_task else None
        if len(task_id or actor_id) > MAX_REFERENCE_LENGTH:
            raise ApiError(400, "invalid-id", "The ID is too long.")
        run = await self._storage.create_run(
            username,
            actor_id=actor_id,
            task_id=task_id,
            status=one_of(request, "status", STATUSES) or "SUCCEEDED",
            origin=one_of(request, "origin", ORIGINS) or "API",
        )
        if has_body(request):
            await self._put_input(request, run)
        return enveloped(_run_json(run), 201)

    async def get(self, request: Request) -> Response:
        """Answer actorRun_get, and the last run of an Actor or a task."""
        username = self._gate.require_user(request)
        run = await self._gate.addressed_run(request)
        if run.username != username:
            raise run_not_found()
        return enveloped(_run_json(run))

    async def _put_input(self, request: Request, run: Run) -> None:
        too_large = ApiError(413, "request-too-large", f"The input is too large (limit: {MAX_JSON_BYTES}).")
        async with aclosing(received(request, MAX_JSON_BYTES, too_large)) as body:
            await self._storage.put_record(
                run.store_id,
                INPUT_KEY,
                body,
                content_type=content_type(request),
                content_encoding=content_encoding(request),
            )


class Users:
    """The handlers of users."""

    def __init__(self, tokens: Tokens, gate: Gate) -> None:
        self._tokens = tokens
        self._gate = gate

    async def me(self, request: Request) -> Response:
        """Answer users_me_get."""
        username = self._gate.require_user(request)
        return enveloped({"id": user_id(username), "username": username})

    async def get(self, request: Request) -> Response:
        """Answer user_get: what anyone may know of a user."""
        self._gate.user(request)
        username = self._tokens.known(request.path_params["user"])
        if username is None:
            raise ApiError(404, "record-not-found", "User was not found.")
        return enveloped({"id": user_id(username), "username": username, "profile": {}})


def _run_json(run: Run) -> dict[str, Any]:
    """Describe a run. The Python client refuses one without the fields of what there is not here, from stats on."""
    over = run.status not in ("READY", "RUNNING", "TIMING-OUT", "ABORTING")
    return {
        "id": run.id,
        "actId": run.actor_id,
        "actorTaskId": run.task_id,
        "userId": user_id(run.username),
        "startedAt": iso(run.started_at),
        "finishedAt": iso(run.started_at) if over else None,
        "status": run.status,
        "meta": {"origin": run.origin},
        "defaultKeyValueStoreId": run.store_id,
        "stats": {"restartCount": 0, "resurrectCount": 0, "computeUnits": 0},
        "options": {"build": "latest", "timeoutSecs": 0, "memoryMbytes": 128, "diskMbytes": 0},
        "buildId": derived_id("build", run.actor_id),
        "defaultDatasetId": derived_id("dataset", run.id),
        "defaultRequestQueueId": derived_id("queue", run.id),
    }
