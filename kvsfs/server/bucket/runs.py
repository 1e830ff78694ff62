"""The runs in a bucket: an object each, and an empty one whose name is its place in their order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from kvsfs.server.bucket import places
from kvsfs.server.bucket.objects import Bucket
from kvsfs.server.moments import from_ms, to_ms
from kvsfs.server.storage import Run, RunFilter

KNOWN_RUNS = 10_000
"""Runs kept in memory: they never change."""


class BucketRuns:
    """The runs. Coroutines raise BucketUnavailable."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._known: dict[str, Run] = {}

    async def enter(self, run: Run) -> None:
        """Enter a run: the last one from now on."""
        started_ms = to_ms(run.started_at)
        value = {
            "id": run.id,
            "username": run.username,
            "actorId": run.actor_id,
            "taskId": run.task_id,
            "status": run.status,
            "origin": run.origin,
            "storeId": run.store_id,
            "startedAt": started_ms,
        }
        await self._bucket.write(places.run(run.id), value)
        await self._bucket.write(places.last_run(started_ms, run.id), None)

    async def get(self, run_id: str) -> Run | None:
        """Describe a run."""
        known = self._known.get(run_id)
        if known is not None:
            return known
        register = await self._bucket.read(places.run(run_id))
        if register is None:
            return None
        if len(self._known) >= KNOWN_RUNS:
            self._known.clear()
        self._known[run_id] = _run(register.value)
        return self._known[run_id]

    async def last(self, wanted: RunFilter) -> Run | None:
        """Give the run that was made last among those wanted: a walk back from the newest."""
        async for run in self.newest_first():
            if _is_wanted(run, wanted):
                return run
        return None

    async def newest_first(self) -> AsyncIterator[Run]:
        """Yield all runs."""
        async for page in self._bucket.pages("last"):
            for meta in page:
                run = await self.get(meta["path"].rpartition(".")[2])
                if run is not None:
                    yield run


def _run(value: Mapping[str, Any]) -> Run:
    return Run(
        id=value["id"],
        username=value["username"],
        actor_id=value["actorId"],
        task_id=value["taskId"],
        status=value["status"],
        origin=value["origin"],
        store_id=value["storeId"],
        started_at=from_ms(value["startedAt"]),
    )


def _is_wanted(run: Run, wanted: RunFilter) -> bool:
    fields = ("actor_id", "task_id", "username", "status", "origin")
    return all(getattr(wanted, field) in (None, getattr(run, field)) for field in fields)
