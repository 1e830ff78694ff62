"""The numbers of inodes and handles: the kernel's are one space, however many stores a mount shows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

ROOT = 1
"""The kernel's number of a mount's root (FUSE_ROOT_ID)."""

BITS = 40
"""Of a number that tell inodes of one store apart, over the life of a mount: 12,000 new ones a second for three
years. What is above tells the stores apart: 16 million."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """The part of the numbers that one store has. None is given out twice, but the root's, which stays the same.

    So what the kernel still knows of a store that was closed and opened again is nothing else now: it is ESTALE.
    """

    root: int = ROOT
    inodes: Iterator[int] = field(default_factory=lambda: itertools.count(ROOT + 1))
    handles: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @classmethod
    def at(cls, place: int) -> Numbers:
        """Give those of the store at a place; place 0 has the root of the mount."""
        first = place << BITS
        return cls(first + ROOT, itertools.count(first + ROOT + 1), itertools.count(first + 1))


def place_of(number: int) -> int:
    """Tell the place that an inode's or a handle's number belongs to."""
    return number >> BITS
