"""Which stores are shared with which users. Apify's API has no call for that: here the control endpoint does it."""

from __future__ import annotations

from collections.abc import Iterator


class Shares:
    """Kept in memory."""

    def __init__(self) -> None:
        self._stores: dict[str, dict[str, bool]] = {}
        """By user, then by the store's ID: whether the user may write."""

    def add(self, username: str, store_id: str, *, write: bool) -> None:
        """Let a user read a store, and write to it."""
        self._stores.setdefault(username, {})[store_id] = write

    def may_read(self, username: str | None, store_id: str) -> bool:
        """Tell whether a store is shared with a user."""
        return username is not None and store_id in self._stores.get(username, {})

    def may_write(self, username: str | None, store_id: str) -> bool:
        """Tell whether it is, to write."""
        return username is not None and self._stores.get(username, {}).get(store_id, False)

    def with_user(self, username: str) -> Iterator[str]:
        """Give the IDs of the stores that are shared with a user."""
        yield from self._stores.get(username, {})
