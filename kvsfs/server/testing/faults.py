"""Fault rules: which request is struck by what. Nothing here does I/O."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any


@dataclass(frozen=True, slots=True)
class Status:
    """Answer with a status instead of doing what was asked."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    error_type: str = "testing-error"
    message: str = "A fault rule answers this."


@dataclass(frozen=True, slots=True)
class Stall:
    """Wait: before doing anything, or, with `after`, when so many bytes of the answer's body were sent."""

    seconds: float | None = None
    """None: until the client goes."""
    after: int | None = None


@dataclass(frozen=True, slots=True)
class Reset:
    """Reset the connection when so many bytes of the answer's body were sent, or it ends.

    0: what was asked is done, but nothing is answered. With `received` it is done when so many bytes of the
    request's body were read instead; 0: before anything is done.
    """

    after: int = 0
    received: int | None = None


@dataclass(frozen=True, slots=True)
class Truncate:
    """Close the connection when so many bytes of the answer's body were sent, or just before its end."""

    after: int = 0


@dataclass(frozen=True, slots=True)
class Length:
    """Tell a Content-Length that is wrong by so many bytes."""

    by: int


@dataclass(frozen=True, slots=True)
class Garbage:
    """Answer with bytes that are no HTTP, instead of doing what was asked."""


Action = Status | Stall | Reset | Truncate | Length | Garbage

KINDS: dict[str, type[Action]] = {
    "status": Status,
    "stall": Stall,
    "reset": Reset,
    "truncate": Truncate,
    "length": Length,
    "garbage": Garbage,
}


@dataclass(slots=True)
class Rule:
    """Strikes the requests that match, after the first `skip`, `count` times."""

    action: Action
    method: str | None = None
    """None: any."""
    path: str = "*"
    """As in a shell; `*` takes slashes, too. Without the query."""
    skip: int = 0
    count: int | None = None
    """None: from then on."""
    seen: int = 0

    def strikes(self, method: str, path: str) -> bool:
        """Whether it strikes this request. Counts it if it matches."""
        if self.method not in (None, method) or not fnmatchcase(path, self.path):
            return False
        self.seen += 1
        return self.skip < self.seen and not self.exhausted

    @property
    def exhausted(self) -> bool:
        """Whether it has struck as often as it may."""
        return self.count is not None and self.seen > self.skip + self.count


class Rules:
    """The rules in force, in the order in which they were given: the first one that strikes has it."""

    def __init__(self) -> None:
        self.by_id: dict[int, Rule] = {}
        self._ids = itertools.count(1)

    def add(self, rule: Rule) -> int:
        """Put a rule in force; gives its ID."""
        rule_id = next(self._ids)
        self.by_id[rule_id] = rule
        return rule_id

    def action(self, method: str, path: str) -> Action | None:
        """Give what strikes this request."""
        return next((rule.action for rule in self.by_id.values() if rule.strikes(method, path)), None)


def parse_rule(content: Mapping[str, Any]) -> Rule:
    """Read a rule: the fields of Rule, and of its action beside its `kind`. Raises ValueError."""
    fields = dict(content)
    described = fields.pop("action", None)
    if not isinstance(described, dict) or described.get("kind") not in KINDS:
        raise ValueError(f"action needs a kind: {', '.join(KINDS)}")
    kind = KINDS[described["kind"]]
    try:
        action = kind(**{name: value for name, value in described.items() if name != "kind"})
        fields.pop("seen", None)
        rule = Rule(action, **fields)
    except TypeError as error:
        raise ValueError(f"a rule has other fields: {error}") from None
    _check_numbers(rule)
    return rule


def _check_numbers(rule: Rule) -> None:
    given: list[object] = [rule.skip, 0 if rule.count is None else rule.count]
    if not all(isinstance(number, int) and number >= 0 for number in given):
        raise ValueError("skip and count must be whole numbers")
    if isinstance(rule.action, Status) and rule.action.status not in range(200, 600):
        raise ValueError("status must be a number from 200 to 599")
