"""Drives the blocking and the async Python client through one interface, and notes what was called."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any


class Driver:
    """Turns what a client's method gives into what it stands for.

    Without a runner (the blocking client) that is the value itself. With one, coroutines, async iterators and
    async context managers run on its loop, so a test reads the same for both clients.
    """

    def __init__(self, runner: asyncio.Runner | None = None) -> None:
        self._runner = runner

    def drive(self, resource: object) -> Driven:
        """Wrap a client, or one of its resources."""
        return Driven(resource, self.settle)

    def settle(self, outcome: Any) -> Any:
        """Wait for what needs waiting; resources come back wrapped."""
        if type(outcome).__module__.startswith("apify_client._resource_clients"):
            return self.drive(outcome)
        if self._runner is None:
            return outcome
        if inspect.isawaitable(outcome):
            return self._runner.run(_awaited(outcome))
        if isinstance(outcome, AsyncIterator):
            return iter(self._runner.run(_collected(outcome)))
        if isinstance(outcome, AbstractAsyncContextManager):
            return self._entered(outcome)
        return outcome

    def streamed_bytes(self, response: Any) -> bytes:
        """Read a streamed answer to its end, in pieces."""
        pieces = response.iter_bytes() if self._runner is None else self.settle(response.aiter_bytes())
        return b"".join(pieces)

    @contextlib.contextmanager
    def _entered(self, manager: AbstractAsyncContextManager[Any]) -> Iterator[Any]:
        assert self._runner is not None
        value = self._runner.run(_awaited(manager.__aenter__()))
        try:
            yield value
        finally:
            self._runner.run(_awaited(manager.__aexit__(None, None, None)))


class Driven:
    """A client or resource whose methods are driven; `called` has the names of those used so far."""

    def __init__(self, resource: object, settle: Callable[[Any], Any]) -> None:
        self._resource = resource
        self._settle = settle
        self.called: set[str] = set()

    @property
    def methods(self) -> set[str]:
        """The names of all public methods that the resource's own class defines."""
        return {
            name
            for name, value in vars(type(self._resource)).items()
            if inspect.isroutine(value) and not name.startswith("_")
        }

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._resource, name)
        self.called.add(name)
        return lambda *args, **kwargs: self._settle(method(*args, **kwargs))


async def _awaited(outcome: Awaitable[Any]) -> Any:
    return await outcome


async def _collected(iterator: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in iterator]
