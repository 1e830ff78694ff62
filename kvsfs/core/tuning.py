"""The numbers that a mount is tuned by."""

from __future__ import annotations

from dataclasses import dataclass

from kvsfs.core.names import MAX_KEY_LENGTH
from kvsfs.options import CACHE_BYTES, DEFAULTS
from kvsfs.store.layout import Layout
from kvsfs.types import ContentEncoding

GRACE = DEFAULTS.rename_grace
"""Seconds that a folder stays empty, a temporary file keeps its name, or a removed record's key stays unwritten
before it costs a request."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """How far what is known is trusted, and how long a process waits. Seconds and bytes."""

    listing_ttl: float = DEFAULTS.listing_ttl
    revalidate: float = DEFAULTS.revalidate
    close_timeout: float = DEFAULTS.close_timeout
    cache_bytes: int = CACHE_BYTES
    write_back: float | None = None
    """How long a closed file may wait on disk; None: its close waits for the store."""
    uploads: int = DEFAULTS.uploads
    keep_both: bool = False
    """Look before each upload whether somebody else has written the record since it was read."""
    grace: float = GRACE
    max_dirty_age: float = DEFAULTS.max_dirty_age
    read_only: bool = False
    strict_names: bool = False
    longest_key: int = MAX_KEY_LENGTH
    """Characters: less where the mount is a view whose keys lose a prefix."""
    layout: Layout | None = None
    """Which folder each record is in, where that is not told by the slashes in its key."""
    extensions: bool = False
    """Show names without an extension with that of their content type."""
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
