"""The numbers that a mount is tuned by."""

from __future__ import annotations

from dataclasses import dataclass

from kvsfs.types import ContentEncoding

GRACE = 2.0
"""Seconds that a folder stays empty, a temporary file keeps its name, or a removed record's key stays unwritten
before it costs a request. `cp -r`, `rm -r` and programs that save by renaming are through within milliseconds; on a
loaded machine a second was seen."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """How far what is known is trusted, and how long a process waits. Seconds and bytes."""

    listing_ttl: float = 30.0
    """rclone trusts its folders for 300 s, gcsfuse for 60; a run's OUTPUT should not take a minute to show."""
    revalidate: float = 5.0
    """What was validated this long ago is opened without a question: a scan that opens files twice asks once."""
    close_timeout: float = 3600.0
    """A process in close(2) cannot be killed; an hour carries 4.5 GB over a line of 10 Mbit/s. A dead line is
    noticed much earlier, by the store's stall time-out."""
    cache_bytes: int = 10 * 1024**3
    read_only: bool = False
    strict_names: bool = False
    compress: ContentEncoding | None = None
    """None: listed sizes are then those that a reader sees, and Range works."""
    deferred: tuple[str, ...] = ()
    """Patterns of names beside the built-in ones: files that are made to be renamed or removed."""
    local_only: tuple[str, ...] = ()
    """Patterns of names beside the built-in ones: what no store is to have."""
