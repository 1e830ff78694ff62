"""The control endpoint: fault rules in, the request log out.

    POST   /testing/faults        put a rule in force: {"method", "path", "skip", "count", "action": {...}}
    GET    /testing/faults        the rules in force, and how many requests each has seen
    DELETE /testing/faults[/ID]   lift one or all
    GET    /testing/requests      the requests answered since the start, or since `DELETE`; `since` skips so many
    DELETE /testing/requests      forget them
    POST   /testing/shares        share a store, as Apify's Console does: {"store": ID, "user": NAME, "write": BOOL}

Requests to it are neither logged nor delayed, limited or struck.
"""

from __future__ import annotations

from collections import deque
from dataclasses import asdict

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kvsfs.server import answers
from kvsfs.server.access import Gate
from kvsfs.server.answers import ApiError, enveloped, invalid_input
from kvsfs.server.bodies import json_object
from kvsfs.server.observing import Finished
from kvsfs.server.parameters import integer
from kvsfs.server.testing.faults import Rules, parse_rule

PREFIX = "/testing"

MAX_REQUESTS = 100_000
"""The most that are remembered: 30 MB."""


class Control:
    """The handlers. `log` is the sink that remembers requests."""

    def __init__(self, rules: Rules, gate: Gate) -> None:
        self._rules = rules
        self._gate = gate
        self._requests: deque[Finished] = deque(maxlen=MAX_REQUESTS)
        self.log = self._requests.append

    def application(self) -> Starlette:
        """Assemble the routes."""
        faults, requests = f"{PREFIX}/faults", f"{PREFIX}/requests"
        return Starlette(
            routes=[
                Route(faults, self.add_fault, methods=["POST"]),
                Route(faults, self.list_faults, methods=["GET"]),
                Route(faults, self.lift_faults, methods=["DELETE"]),
                Route(f"{faults}/{{rule:int}}", self.lift_faults, methods=["DELETE"]),
                Route(requests, self.list_requests, methods=["GET"]),
                Route(f"{PREFIX}/shares", self.share, methods=["POST"]),
                Route(requests, self.forget_requests, methods=["DELETE"]),
            ],
            exception_handlers={ApiError: answers.on_api_error},
        )

    async def add_fault(self, request: Request) -> Response:
        """Put a rule in force."""
        self._gate.require_user(request)
        try:
            rule = parse_rule(await json_object(request))
        except ValueError as error:
            raise invalid_input(str(error)) from None
        return enveloped({"id": self._rules.add(rule)}, 201)

    async def list_faults(self, request: Request) -> Response:
        """Give the rules in force."""
        self._gate.require_user(request)
        rules = [{"id": rule_id, **asdict(rule)} for rule_id, rule in self._rules.by_id.items()]
        return enveloped({"items": rules})

    async def lift_faults(self, request: Request) -> Response:
        """Lift one rule or all."""
        self._gate.require_user(request)
        if "rule" in request.path_params:
            self._rules.by_id.pop(request.path_params["rule"], None)
        else:
            self._rules.by_id.clear()
        return Response(status_code=204)

    async def share(self, request: Request) -> Response:
        """Share a store with a user."""
        self._gate.require_user(request)
        wanted = await json_object(request)
        self._gate.shares.add(
            str(wanted.get("user")), str(wanted.get("store")), write=bool(wanted.get("write"))
        )
        return Response(status_code=204)

    async def list_requests(self, request: Request) -> Response:
        """Give the requests that were answered, in order."""
        self._gate.require_user(request)
        answered = list(self._requests)[integer(request, "since", 0) :]
        return enveloped({"count": len(answered), "items": [asdict(finished) for finished in answered]})

    async def forget_requests(self, request: Request) -> Response:
        """Forget them."""
        self._gate.require_user(request)
        self._requests.clear()
        return Response(status_code=204)
