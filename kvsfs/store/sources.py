"""Which store the user means."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kvsfs.errors import CommandError, ExitCode

FORMS = "a store's ID, ~name or name (your own), user/name, or local:[name]"

_ID = re.compile(r"[a-zA-Z0-9]{17}")
_NAME = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"  # the API's: 63 characters, dashes within
_OWN = re.compile(rf"~?({_NAME})")
_OTHERS = re.compile(rf"([a-zA-Z0-9][a-zA-Z0-9._-]*)[/~]({_NAME})")

DEFAULT_LOCAL_NAME = "default"


@dataclass(frozen=True, slots=True)
class RemoteSource:
    """A store at the API, by the path segment that names it there."""

    store_id: str


@dataclass(frozen=True, slots=True)
class LocalSource:
    """A store of the embedded server, by name; made when it is missing."""

    name: str


Source = RemoteSource | LocalSource


def parse_source(text: str) -> Source:
    """Read a source as the user wrote it. Raises CommandError with the forms there are."""
    scheme, colon, rest = text.partition(":")
    if colon and scheme == "local" and (not rest or re.fullmatch(_NAME, rest)):
        return LocalSource(rest or DEFAULT_LOCAL_NAME)
    if _ID.fullmatch(text):
        return RemoteSource(text)
    if match := _OWN.fullmatch(text):
        return RemoteSource(f"~{match[1]}")
    if match := _OTHERS.fullmatch(text):
        return RemoteSource(f"{match[1]}~{match[2]}")
    raise CommandError(ExitCode.INVALID_SOURCE, f"{text!r} is not a store: give {FORMS}")
