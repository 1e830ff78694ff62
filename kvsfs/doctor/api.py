"""What the API says: who we are, what time it is, what a store lets us do, and how fast."""

from __future__ import annotations

import secrets
import time
from dataclasses import replace
from email.utils import parsedate_to_datetime

import trio

from kvsfs import credentials
from kvsfs.doctor.findings import Findings, leaf
from kvsfs.errors import CommandError, ExitCode, NotAuthorized, PermissionDenied, StoreNotFound
from kvsfs.opening import TOKEN_HINT, Opened, account, explained, opened
from kvsfs.options import MountConfig
from kvsfs.store.apify import ApifyStoreCollection
from kvsfs.store.calls import Call
from kvsfs.store.sources import LocalSource, SharedSource, Source, parse_source, shown
from kvsfs.types import RecordKey

SKEW = 60.0
"""Seconds that this clock may differ from the API's: certificates and URLs that expire are read by it."""

SLOW = 1.0
"""Seconds of an answer from which on every `open` is felt."""

ASKED = 5
"""Times, for the latency: the first of them opens a connection and does not count."""


async def look_at(settings: MountConfig, found: Findings) -> None:
    """Ask the API, and the store that the settings name, if they do. Some ten requests; nothing is changed."""
    source: Source | None = None
    if settings.source:
        try:
            source = parse_source(settings.source)
        except CommandError as error:
            found.problem("source", str(error))
            return
    if not isinstance(source, LocalSource | SharedSource):
        await _token(settings, found)
    if isinstance(source, LocalSource):
        await _local(settings, found)
    elif source is not None:
        await _remote(settings, found)


async def _remote(settings: MountConfig, found: Findings) -> None:
    with found.looking_at("store"):
        async with opened(replace(settings, create=False)) as store:
            await _store(settings, store, found)


async def _local(settings: MountConfig, found: Findings) -> None:
    """Ask this machine's own server, which is started for it; a store that is not there yet is not made."""
    with found.looking_at("store"):
        try:
            async with opened(settings, make_local=False) as store:
                await _store(settings, store, found)
        except* CommandError as group:
            if getattr(leaf(group), "exit_code", None) is not ExitCode.NO_SUCH_STORE:
                raise
            found.note("store", f"there is no {settings.source} yet: its first mount makes it")


async def _token(settings: MountConfig, found: Findings) -> None:
    with found.looking_at("token"):
        token = await credentials.find(settings.token_file)
        async with account(settings) as stores:
            if token is None:
                found.note("token", f"there is none, which only public stores do without: {TOKEN_HINT}")
            else:
                with explained(settings.api_url):
                    found.ok("token", f"{token.place} has that of {await stores.username()}")
            if token is not None and not settings.source:
                await _answers(stores, "/v2/users/me", found)


async def _answers(stores: ApifyStoreCollection, path: str, found: Findings) -> None:
    """Ask for the same again and again: how long it takes, and what the time is there."""
    call = Call(operation="doctor", method="GET", path=path, subject="the API", missing=StoreNotFound)
    seconds, skew = [], 0.0
    for _ in range(ASKED):
        begun, begun_at = trio.current_time(), time.time()
        headers = await stores.api.fetch_headers(call)
        seconds.append(trio.current_time() - begun)
        skew = _skew(headers.get("date"), begun_at, time.time())
    if abs(skew) > SKEW:
        ahead = "ahead of" if skew > 0 else "behind"
        text = f"this machine is {abs(skew):.0f} s {ahead} the API: set it by NTP (timedatectl set-ntp true)"
        found.problem("clock", text)
    else:
        found.ok("clock", "agrees with the API's")
    _latency(sorted(seconds[1:]), found)


def _skew(date: str | None, begun: float, ended: float) -> float:
    """Give how far this clock is ahead of a Date header; 0 within what its whole seconds and the way leave open."""
    try:
        there = parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return 0.0
    if ended < there:
        return ended - there
    return max(0.0, begun - (there + 1))


def _latency(seconds: list[float], found: Findings) -> None:
    middle, slowest = seconds[len(seconds) // 2], seconds[-1]
    text = f"{1000 * middle:.0f} ms for an answer, {1000 * slowest:.0f} ms at the most"
    if middle > SLOW:
        text += ": each open and close is felt; --write-back and --revalidate wait less often"
        found.note("latency", text)
    else:
        found.ok("latency", text)


async def _store(settings: MountConfig, mounted: Opened, found: Findings) -> None:
    name = mounted.info.name or mounted.info.id
    found.ok("store", f"{shown(settings.source)} is the store {name} ({mounted.info.id})")
    with found.looking_at("reading"), explained(settings.api_url):
        page = await mounted.store.list_keys(limit=1)
        found.ok("reading", "records can be listed" + ("" if page.items else "; there are none"))
    await _writing(mounted, found)
    source = parse_source(settings.source)
    if not isinstance(source, SharedSource | LocalSource):
        with found.looking_at("clock"):
            async with account(settings) as stores:
                await _answers(stores, f"/v2/key-value-stores/{mounted.info.id}", found)
    _limits(mounted, found)


async def _writing(mounted: Opened, found: Findings) -> None:
    if mounted.read_only:
        found.note("writing", "this source is read-only")
        return
    try:
        await mounted.store.delete_record(
            RecordKey(f"kvsfs-doctor-{secrets.token_hex(16)}")
        )  # there is no such record
    except (PermissionDenied, NotAuthorized):
        text = (
            "the token may read this store and not write to it: mount with --read-only, or use another token"
        )
        found.problem("writing", text)
    else:
        found.ok("writing", "records can be changed")


def _limits(mounted: Opened, found: Findings) -> None:
    limited = mounted.meter.snapshot().rate_limited
    rooms = [
        f"{room.limit} requests a second ({room.kind}), {room.available:.0f} at once"
        for room in mounted.client.headroom()
        if room.limit is not None and room.available is not None
    ]
    if limited:
        text = f"the store answered {limited} requests with 429: somebody else uses up its rate limit; try again later"
        found.problem("rate limit", text)
    else:
        found.ok("rate limit", "; ".join(rooms) or "the store names none")
