"""What --testing puts around the API."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

from kvsfs.server.access import Gate
from kvsfs.server.observing import Observed, Sink
from kvsfs.server.testing.control import PREFIX, Control
from kvsfs.server.testing.faults import Rules
from kvsfs.server.testing.rates import RateLimited, Rates
from kvsfs.server.testing.validators import Unvalidated
from kvsfs.server.testing.wire import Faulty


@dataclass(frozen=True, slots=True)
class Switches:
    """What the server shall do as the platform may, but need not."""

    rates: Rates | None = None
    page_limit: int | None = None
    """The most keys, or stores, of a page."""
    validators: bool = True
    redirect_above: int | None = None
    """Bytes: larger records are redirected to another port."""


def layered(
    api: ASGIApp,
    objects: tuple[int, ASGIApp] | None,
    gate: Gate,
    switches: Switches,
    *,
    sinks: Sequence[Sink],
    latency: float,
) -> ASGIApp:
    """Put the layers around an API. `objects` is the other application, and the port that it answers at."""
    if not switches.validators:
        api = Unvalidated(api)
    if switches.rates is not None:
        api = RateLimited(api, switches.rates)
    rules = Rules()
    control = Control(rules, gate)
    served = Faulty(_by_port(api, objects), rules)
    return _by_path(Observed(served, [*sinks, control.log], latency), control.application())


def _by_port(api: ASGIApp, objects: tuple[int, ASGIApp] | None) -> ASGIApp:
    if objects is None:
        return api
    port, other = objects

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        await (other if scope["server"][1] == port else api)(scope, receive, send)

    return dispatch


def _by_path(served: ASGIApp, control: ASGIApp) -> ASGIApp:
    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        is_control = scope["path"].startswith(f"{PREFIX}/")
        await (control if is_control else served)(scope, receive, send)

    return dispatch
