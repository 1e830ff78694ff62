"""Runs a coroutine of a test: on trio, never longer than a test may hang."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

T = TypeVar("T")

LONGEST_TEST = 60.0
"""Seconds: far above the slowest test here, far below a CI job's limit."""


def run_async(test: Callable[[], Awaitable[T]], *, within: float = LONGEST_TEST) -> T:
    """Run `test()` on a fresh loop; TooSlowError after `within` seconds, with the place where it hung."""

    async def bounded() -> T:
        with trio.fail_after(within):
            return await test()

    return trio.run(bounded)
