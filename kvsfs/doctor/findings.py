"""What was looked at, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from kvsfs.errors import KvsfsError
from kvsfs.logs import redact


class Verdict(StrEnum):
    """How it stands."""

    OK = "ok"
    NOTE = "note"
    """It works, with a limit that somebody may want to know."""
    PROBLEM = "problem"
    """A mount would fail or misbehave; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: no token, no signature in it."""

    name: str
    verdict: Verdict
    text: str


class Findings:
    """Collects them, in order."""

    def __init__(self) -> None:
        self.all: list[Finding] = []

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.all)

    def ok(self, name: str, text: str) -> None:
        """Say that something is as it should be."""
        self.tell(name, Verdict.OK, text)

    def note(self, name: str, text: str) -> None:
        """Say what somebody may want to know."""
        self.tell(name, Verdict.NOTE, text)

    def problem(self, name: str, text: str) -> None:
        """Say what is wrong and what to do."""
        self.tell(name, Verdict.PROBLEM, text)

    def tell(self, name: str, verdict: Verdict, text: str) -> None:
        """Add one."""
        self.all.append(Finding(name, verdict, redact(text)))

    @contextmanager
    def looking_at(self, name: str) -> Iterator[None]:
        """Make a problem of what the block raises, where that is an error for people; a nursery may have wrapped it."""
        try:
            yield
        except* KvsfsError as group:
            self.problem(name, str(leaf(group)))


def leaf(error: BaseException) -> BaseException:
    """Give the first error that is no group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
