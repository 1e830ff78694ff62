"""Parameters of the query."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request

from kvsfs.server.answers import invalid_input


def given(request: Request, name: str) -> str | None:
    """Give a parameter. Most requests have no query: to parse none takes 7 µs."""
    return request.query_params.get(name) if request.scope["query_string"] else None


def integer(request: Request, name: str, default: int) -> int:
    """Give a whole number. Raises ApiError."""
    text = given(request, name)
    if not text:
        return default
    # int() would take "1_000" and digits of other scripts; SQLite's integers end at 18 digits.
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise invalid_input(f"{name} must be a whole number of at least 0.")
    return int(text)


def flag(request: Request, name: str) -> bool:
    """Whether a parameter is `true` or `1`."""
    return (given(request, name) or "").lower() in ("true", "1")


def one_of(request: Request, name: str, known: Sequence[str]) -> str | None:
    """Give one of some words; None without the parameter. Raises ApiError."""
    word = given(request, name)
    if word is not None and word not in known:
        raise invalid_input(f"{name} must be one of {', '.join(known)}.")
    return word
