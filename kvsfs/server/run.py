"""The process: address, readiness, limits, signals, the end."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp

from kvsfs.errors import CommandError, ExitCode
from kvsfs.server import app
from kvsfs.server.access import Gate
from kvsfs.server.connection import Limits, limited
from kvsfs.server.observing import Observed, Sink, access_log, request_log
from kvsfs.server.records import MAX_RECORD_BYTES
from kvsfs.server.shares import Shares
from kvsfs.server.storages import Place, ServedStorage, open_storage
from kvsfs.server.stores import MAX_PAGE
from kvsfs.server.testing.layers import Switches, layered
from kvsfs.server.testing.objects import Objects
from kvsfs.server.users import Tokens, read_users
from kvsfs.service_manager import ServiceManager

DESCRIPTORS = 4096
"""Open files asked of the kernel, where it allows as many: each connection may hold a socket and a value."""

HEAD_BYTES = 64 * 1024
"""The request line and headers together. The longest legal key, escaped, has 768 bytes."""

KEEP_ALIVE_SECONDS = 75
"""Longer than clients keep an idle connection (httpx 5 s, browsers 60 s): so it is they who close, and no
request meets a connection that is just being closed."""

GRACE_SECONDS = 8
"""How long requests may go on after SIGTERM: less than the 10 s that a mount gives its server (spawn.py)."""

TICKS_A_SECOND = 10
"""How often uvicorn's main loop turns (uvicorn.Server.main_loop)."""

BACKLOG = 128
"""Connections that the kernel accepts for us while we are busy."""


@dataclass(frozen=True, slots=True)
class Options:
    """What `kvsfs serve` was asked for."""

    place: Place
    host: str
    port: int
    tokens: Sequence[str] = ()
    """As `users.Tokens.parse` reads them."""
    latency: float = 0.0
    """Seconds by which every answer is delayed."""
    request_log: str | None = None
    verbose: bool = False
    exit_with_parent: bool = False
    users: str | None = None
    """A file of further tokens, as `users.read_users` reads it."""
    max_record_bytes: int = MAX_RECORD_BYTES
    testing: Switches | None = None
    """What only tests and benchmarks want, with the control endpoint; None: nothing of it."""


def run(options: Options, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT. `on_ready` gets the URL when it answers. Raises CommandError."""
    manager = ServiceManager()
    os.umask(0o077)  # the index holds the keys that sign URLs; the folder may be one that others can enter
    tokens = Tokens.parse([*options.tokens, *(read_users(options.users) if options.users else ())])
    sinks = _sinks(options)
    _allow_descriptors()
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_listen(options.host, options.port, anyone=not tokens))
        listeners = [listener]
        if options.testing is not None and options.testing.redirect_above is not None:
            listeners.append(stack.enter_context(_listen(options.host, 0, anyone=not tokens)))
        storage = open_storage(options.place)
        application = _application(options, tokens, storage, sinks, listeners)

        def answering() -> None:
            on_ready(_url(listener))
            manager.tell(READY=1, status=f"listening on {_url(listener)}")

        server = _Server(_config(application), storage, answering, manager)
        # uvicorn raises the signal that stopped it again when it is done: it shall find this handler then.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, server.handle_exit)
        if options.exit_with_parent:
            threading.Thread(target=_wait_for_parent, args=(server,), name="parent", daemon=True).start()
        server.run(sockets=listeners)


def _application(
    options: Options,
    tokens: Tokens,
    storage: ServedStorage,
    sinks: Sequence[Sink],
    listeners: Sequence[socket.socket],
) -> ASGIApp:
    switches = options.testing
    if switches is None:
        api = app.build(storage, tokens, max_record_bytes=options.max_record_bytes)
        return Observed(api, sinks, options.latency)
    objects, shares = None, Shares()
    if switches.redirect_above is not None:
        objects = Objects(storage, switches.redirect_above, listeners[1].getsockname()[1])
    api = app.build(
        storage,
        tokens,
        max_record_bytes=options.max_record_bytes,
        max_page=min(MAX_PAGE, switches.page_limit or MAX_PAGE),
        elsewhere=None if objects is None else objects.location,
        shares=shares,
    )
    return layered(
        api,
        None if objects is None else (objects.port, objects),
        Gate(storage, tokens, shares),
        switches,
        sinks=sinks,
        latency=options.latency,
    )


def _allow_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Server(uvicorn.Server):
    """uvicorn, telling when it answers and that it is alive, and closing the storage on the event loop that used it."""

    def __init__(
        self,
        config: uvicorn.Config,
        storage: ServedStorage,
        on_ready: Callable[[], None],
        manager: ServiceManager,
    ) -> None:
        super().__init__(config)
        self._storage = storage
        self._on_ready = on_ready
        self._manager = manager
        self._ticks_each = max(1, int(manager.interval * TICKS_A_SECOND))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()
        self._storage.collect_garbage_in_background()

    async def on_tick(self, counter: int) -> bool:
        if counter % self._ticks_each == 0:
            self._manager.tell(WATCHDOG=1)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._manager.tell(STOPPING=1)
        await super().shutdown(sockets)
        await self._storage.close()


def _config(application: ASGIApp, limits: Limits | None = None) -> uvicorn.Config:
    logging.basicConfig(level=logging.WARNING, format="kvsfs serve: %(levelname)s: %(message)s")
    # uvicorn logs every request that it cut, with a traceback; what went wrong `observing` has told by then.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    return uvicorn.Config(
        application,
        loop="asyncio",
        http=limited(limits or Limits()),
        h11_max_incomplete_event_size=HEAD_BYTES,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


def _sinks(options: Options) -> list[Sink]:
    sinks: list[Sink] = [access_log] if options.verbose else []
    if options.request_log is not None:
        try:
            sinks.append(request_log(options.request_log))
        except OSError as error:
            raise CommandError(
                ExitCode.CACHE_UNUSABLE,
                f"the request log {options.request_log} cannot be written: {error.strerror}",
            ) from error
    return sinks


def _listen(host: str, port: int, *, anyone: bool) -> socket.socket:
    """Bind and listen. With `anyone` (no tokens) only to this machine. Raises CommandError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise CommandError(ExitCode.USAGE, f"the host {host} is not known: {error.strerror}") from error
    if anyone and not ipaddress.ip_address(address[0]).is_loopback:
        raise CommandError(
            ExitCode.USAGE,
            f"{host} can be reached by others: give --token (or KVSFS_SERVE_TOKENS) or --host 127.0.0.1",
        )
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise CommandError(
            ExitCode.ADDRESS_IN_USE,
            f"cannot listen on {host}:{port} ({error.strerror}): choose another --port",
        ) from error
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _wait_for_parent(server: uvicorn.Server) -> None:
    """Stop the server when stdin ends: the parent held the other end of that pipe, and is gone."""
    try:
        while os.read(0, 4096):
            pass
    except OSError:
        pass
    server.should_exit = True
