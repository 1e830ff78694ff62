"""A server without ETag and Last-Modified: the platform's API promises neither."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

VALIDATORS = frozenset({b"etag", b"last-modified"})
CONDITIONS = frozenset({b"if-none-match", b"if-modified-since"})


class Unvalidated:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request as if no version had a name."""
        names = {name for name, _ in scope["headers"]}
        # What If-Range names can then not be what is there: so the whole is served.
        ignored = CONDITIONS | {b"if-range", b"range"} if b"if-range" in names else CONDITIONS
        headers = [header for header in scope["headers"] if header[0] not in ignored]

        async def stripped(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [h for h in message["headers"] if h[0].lower() not in VALIDATORS]
            await send(message)

        await self._app({**scope, "headers": headers}, receive, stripped)
