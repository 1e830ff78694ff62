"""Conditional and range requests (RFC 9110, sections 13 and 14), for one version of a record."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime

from starlette.datastructures import Headers

RANGE = re.compile(r"bytes=\s*(\d*)\s*-\s*(\d*)\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Validators:
    """What names the representation that would be served."""

    etag: str
    """As in the header: quoted, with W/ when weak."""
    modified_at: datetime

    @property
    def last_modified(self) -> str:
        """As in the header: whole seconds."""
        return format_datetime(self.modified_at.replace(microsecond=0), usegmt=True)


def not_modified(headers: Headers, validators: Validators) -> bool:
    """Whether 304 is the answer: If-None-Match, or without it If-Modified-Since."""
    tags = headers.get("if-none-match")
    if tags is not None:
        opaque = validators.etag.removeprefix("W/")  # the weak comparison
        return any(tag.strip() in ("*", opaque, f"W/{opaque}") for tag in tags.split(","))
    since = _date(headers.get("if-modified-since"))
    return since is not None and validators.modified_at.replace(microsecond=0) <= since


def range_applies(headers: Headers, validators: Validators) -> bool:
    """Whether Range is to be honoured: If-Range is absent or names this very version."""
    condition = headers.get("if-range")
    if condition is None:
        return True
    if condition.startswith(('"', "W/")):
        return condition == validators.etag and not condition.startswith("W/")
    # Two writes within one second have the same date, so it is a strong validator only once that second is
    # well over (RFC 9110, 8.8.2.2).
    age = datetime.now(UTC) - validators.modified_at
    return condition == validators.last_modified and age.total_seconds() > 1


class RangeNotSatisfiable(Exception):
    """The range starts past the end."""


def requested_range(headers: Headers, size: int) -> tuple[int, int] | None:
    """Give the range asked for as start and (exclusive) stop; None for the whole.

    Several ranges, other units and nonsense are ignored, as the RFC allows. Raises RangeNotSatisfiable.
    """
    match = RANGE.fullmatch(headers.get("range", "").strip())
    if match is None or not any(match.groups()):
        return None
    first, last = match.groups()
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None
    if start >= size or start >= stop:
        raise RangeNotSatisfiable
    return start, stop


def _date(text: str | None) -> datetime | None:
    try:
        moment = None if text is None else parsedate_to_datetime(text)
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment
