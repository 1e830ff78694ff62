"""The numbers that a mount is tuned by."""

from __future__ import annotations

from dataclasses import dataclass

from kvsfs.options import CACHE_BYTES, DEFAULTS
from kvsfs.types import ContentEncoding

GRACE = 2.0
"""Seconds that a folder stays empty, a temporary file keeps its name, or a removed record's key stays unwritten
before it costs a request. `cp -r`, `rm -r` and programs that save by renaming are through within milliseconds; on a
loaded machine a second was seen."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """How far what is known is trusted, and how long a process waits. Seconds and bytes."""

    listing_ttl: float = DEFAULTS.listing_ttl
    revalidate: float = DEFAULTS.revalidate
    close_timeout: float = DEFAULTS.close_timeout
    cache_bytes: int = CACHE_BYTES
    write_back: float | None = None
    """How long a closed file may wait on disk; None: its close waits for the store."""
    uploads: int = 8
    """Uploads in the background at a time: of the client's 32 connections most stay for what somebody waits for."""
    keep_both: bool = False
    """Look before each upload whether somebody else has written the record since it was read."""
    grace: float = GRACE
    read_only: bool = False
    strict_names: bool = False
    exact_sizes: bool = False
    """Ask for the headers of what is listed: one request a file, and all of it where they tell no length."""
    poll: float | None = None
    """Seconds between two looks at the store's counters; None: nobody looks."""
    compress: ContentEncoding | None = None
    """None: listed sizes are then those that a reader sees, and Range works."""
    deferred: tuple[str, ...] = ()
    """Patterns of names beside the built-in ones: files that are made to be renamed or removed."""
    local_only: tuple[str, ...] = ()
    """Patterns of names beside the built-in ones: what no store is to have."""
