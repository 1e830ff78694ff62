"""A set of byte offsets, as sorted, disjoint, half-open ranges."""

from __future__ import annotations

from bisect import bisect_left, bisect_right


class Ranges:
    """Which bytes of a file are there.

    INVARIANT: `_bounds` strictly increases and has an even length; a range starts at each even place and
    stops before the bound that follows it. Neighbours that touch are one range.
    """

    def __init__(self) -> None:
        self._bounds: list[int] = []

    def __repr__(self) -> str:
        starts, stops = self._bounds[::2], self._bounds[1::2]
        return f"Ranges({list(zip(starts, stops, strict=True))})"

    def add(self, start: int, stop: int) -> None:
        """Put in every byte from `start` to before `stop`."""
        if start >= stop:
            return
        low = bisect_left(self._bounds, start)
        high = bisect_right(self._bounds, stop)
        kept_start = [start] if low % 2 == 0 else []
        kept_stop = [stop] if high % 2 == 0 else []
        self._bounds[low:high] = kept_start + kept_stop

    def cut(self, stop: int) -> None:
        """Take out every byte from `stop` on."""
        low = bisect_left(self._bounds, stop)
        self._bounds[low:] = [stop] if low % 2 else []

    def covers(self, start: int, stop: int) -> bool:
        """Tell whether every byte from `start` to before `stop` is in the set."""
        return self.gap(start, stop) is None

    def gap(self, start: int, stop: int) -> tuple[int, int] | None:
        """Find the first run of missing bytes between `start` and `stop`."""
        place = bisect_right(self._bounds, start)
        first = self._bounds[place] if place % 2 else start
        if first >= stop:
            return None
        after = bisect_right(self._bounds, first)
        last = self._bounds[after] if after < len(self._bounds) else stop
        return first, min(last, stop)

    def check_invariants(self) -> None:
        """For tests."""
        assert len(self._bounds) % 2 == 0
        assert all(a < b for a, b in zip(self._bounds, self._bounds[1:], strict=False))
