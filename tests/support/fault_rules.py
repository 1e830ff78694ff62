"""Faults that a server with --testing plays for the requests of a mount."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from tests.support.store_api import StoreApi


def fault(store: StoreApi, method: str, key: str = "*", **action: Any) -> AbstractContextManager[None]:
    """Strike all requests for records of a store that match, while the block runs: `kind="status", status=503`."""
    return _rule(store, method, f"*/{store.id}/records/{key}", action)


def archive_fault(store: StoreApi, **action: Any) -> AbstractContextManager[None]:
    """Strike the requests for all records of a store at a time."""
    return _rule(store, "GET", f"*/{store.id}/records", action)


@contextmanager
def _rule(store: StoreApi, method: str, path: str, action: dict[str, Any]) -> Iterator[None]:
    rule = {"method": method, "path": path, "action": action}
    number = store.client.post("/testing/faults", json=rule).raise_for_status().json()["data"]["id"]
    try:
        yield
    finally:
        store.client.delete(f"/testing/faults/{number}").raise_for_status()
