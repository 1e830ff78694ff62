"""Guesses where later pages of a listing begin, from the keys of earlier ones.

No I/O, and nothing depends on a guess being right. Keys are read as numbers that sort as they do: digit by digit, each
place with the alphabet that the keys seen so far suggest. Counters are then evenly spread, hashes nearly so, and dates
are within an hour: the next page is as far away as the last ones were.
"""

from __future__ import annotations

import itertools
import re
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

PLACES = 10
"""Characters that are looked at from the first one on that differs within a page: 10^10 numbers for its keys."""

SAMPLE = 40
"""Keys of a page that its alphabets are told from."""

_HEX, _CAPITAL_HEX = string.digits + "abcdef", string.digits + "ABCDEF"
_ALPHABETS = (
    string.digits,
    _HEX,
    _CAPITAL_HEX,
    string.ascii_lowercase,
    string.ascii_uppercase,
    string.digits + string.ascii_lowercase,
    string.digits + string.ascii_uppercase,
    string.digits + string.ascii_uppercase + string.ascii_lowercase,
)
"""In the order of their characters' codes; the first one that holds all that was seen is taken."""

_ALPHANUMERIC = re.compile("[0-9A-Za-z]+")

_END = ""
"""Where a key ends, or has a separator where others go on: sorts first, as nearly all of those do."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The keys of a page as numbers."""

    prefix: str
    """What all keys near here begin with."""
    places: tuple[tuple[str, ...], ...]
    """The characters that each place behind it may have, ascending."""
    tail: str
    """What all keys end with, behind the last place; "" where they differ."""

    @classmethod
    def of(cls, keys: Sequence[str]) -> Spread | None:
        """Read ascending keys; None where nothing can be told from them."""
        sample = [*keys[:: max(1, len(keys) // SAMPLE)], keys[-1]]
        varies = _in_common(sample[0], sample[-1])
        columns = list(_columns(sample, varies))
        while columns and len(columns[-1]) == 1:
            columns.pop()
        alphabet = _alphabet({character for key in sample for character in _run(key[varies:])})
        if not alphabet:
            return None
        start = varies
        while start and (sample[0][start - 1] in alphabet or not sample[0][start - 1].isalnum()):
            start -= 1
        above = [_place({character}, alphabet) for character in sample[0][start:varies]]
        tails = {key[varies + len(columns) :] for key in sample}
        return cls(
            prefix=sample[0][:start],
            places=(*above, *(_place(column, alphabet) for column in columns)),
            tail=tails.pop() if len(tails) == 1 else "",
        )

    def number(self, key: str) -> int | None:
        """Give a key's number; None for one that is not near here."""
        if not key.startswith(self.prefix):
            return None
        number = 0
        for place, characters in enumerate(self.places, len(self.prefix)):
            character = key[place : place + 1]
            below = sum(other < character for other in characters)
            number = number * len(characters) + min(below, len(characters) - 1)
        return number

    def key(self, number: int) -> str | None:
        """Give the key with a number, or what sorts just before all that have it; None past the last one."""
        found: list[str] = []
        for characters in reversed(self.places):
            number, digit = divmod(number, len(characters))
            found.append(characters[digit])
        if number:
            return None
        found.reverse()
        if _END in found:
            return self.prefix + "".join(found[: found.index(_END)])
        return self.prefix + "".join(found) + self.tail


def _in_common(first: str, last: str) -> int:
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return sum(1 for _ in same)


def _columns(sample: Sequence[str], start: int) -> Iterator[set[str]]:
    longest = max(map(len, sample))
    for place in range(start, min(start + PLACES, longest)):
        yield {key[place : place + 1] for key in sample}


def _run(text: str) -> str:
    """Give what stands before the first separator: a name's ending is no digit of its number."""
    match = _ALPHANUMERIC.match(text)
    return "" if match is None else match[0]


def _alphabet(seen: set[str]) -> str:
    if not seen:
        return ""
    return next(alphabet for alphabet in _ALPHABETS if seen <= set(alphabet))


def _place(seen: set[str], alphabet: str) -> tuple[str, ...]:
    """Give the characters of a place: one that never changes is kept if it is no digit of the alphabet."""
    if len(seen) == 1 and not seen <= set(alphabet):
        return tuple(seen)
    ends = any(character not in alphabet or not character for character in seen)
    return (_END, *alphabet) if ends else tuple(alphabet)
