"""Faults that a server with --testing plays for the requests of a mount."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.store_api import StoreApi


@contextmanager
def fault(store: StoreApi, method: str, key: str = "*", **action: Any) -> Iterator[None]:
    """Strike all requests for records of a store that match, while the block runs: `kind="status", status=503`."""
    rule = {"method": method, "path": f"*/{store.id}/records/{key}", "action": action}
    number = store.client.post("/testing/faults", json=rule).raise_for_status().json()["data"]["id"]
    try:
        yield
    finally:
        store.client.delete(f"/testing/faults/{number}").raise_for_status()
