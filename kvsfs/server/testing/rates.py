"""The platform's rate limits: so many requests a second for each store, those for records apart."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kvsfs.server.answers import error_response

RECORD = re.compile(r"(/v2/.+?)/records/.+")
STORE = re.compile(r"(/v2/.+?)(/keys|/records)?/?")


@dataclass(frozen=True, slots=True)
class Rates:
    """Requests a second, for each store. The platform's are 60 and 200."""

    store: int
    """For the store itself, its keys, and everything that is not a record."""
    record: int

    @classmethod
    def parse(cls, text: str) -> Rates:
        """Read `60,200`, or one number for both. Raises ValueError."""
        numbers = [int(number) for number in text.split(",")]
        if len(numbers) > 2 or min(numbers) < 1:
            raise ValueError(f"{text!r} is not one or two numbers of requests a second")
        return cls(numbers[0], numbers[-1])


class Buckets:
    """Token buckets, one for each name: a second's worth may come at once, then as many as trickle in."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._level: dict[str, tuple[float, float]] = {}

    def take(self, name: str, rate: int) -> float:
        """Take one, or give the seconds until there is one."""
        now = self._clock()
        left, since = self._level.get(name, (float(rate), now))
        left = min(float(rate), left + (now - since) * rate)
        wait = 0.0 if left >= 1 else (1 - left) / rate
        self._level[name] = (left if wait else left - 1, now)
        return wait


class RateLimited:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, rates: Rates) -> None:
        self._app = app
        self._rates = rates
        self._buckets = Buckets()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it with 429."""
        name, rate = self._limit(scope["path"])
        wait = self._buckets.take(name, rate)
        app = self._app if not wait else _refusal(wait)

        async def labelled(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-ratelimit-limit", b"%d" % rate)]
            await send(message)

        await app(scope, receive, labelled)

    def _limit(self, path: str) -> tuple[str, int]:
        record = RECORD.fullmatch(path)
        if record is not None:
            return f"{record[1]} records", self._rates.record
        store = STORE.fullmatch(path)
        return (path if store is None else store[1]), self._rates.store


def _refusal(wait: float) -> ASGIApp:
    return error_response(
        429,
        "rate-limit-exceeded",
        "You have exceeded the rate limit. Please try again later.",
        {"Retry-After": str(math.ceil(wait))},
    )
