"""`Ranges` against a plain set of integers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvsfs.cache.ranges import Ranges

END = 24
places = st.integers(0, END)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("add"), places, places),
        st.tuples(st.just("cut"), places, st.none()),
    )
)


def gap_of(present: set[int], start: int, stop: int) -> tuple[int, int] | None:
    missing = [place for place in range(start, stop) if place not in present]
    if not missing:
        return None
    first = missing[0]
    return first, next(place for place in range(first, stop + 1) if place in present or place == stop)


@given(operations)
def test_ranges_are_a_set_of_integers(ops: list[tuple[str, int, int | None]]) -> None:
    ranges, present = Ranges(), set[int]()
    for name, start, stop in ops:
        if name == "add" and stop is not None:
            ranges.add(start, stop)
            present |= set(range(start, stop))
        else:
            ranges.cut(start)
            present = {place for place in present if place < start}
        ranges.check_invariants()
        for low in range(END + 2):
            for high in range(END + 2):
                assert ranges.gap(low, high) == gap_of(present, low, high), (ranges, low, high)
                assert ranges.covers(low, high) == all(place in present for place in range(low, high))


def test_neighbours_that_touch_are_one_range() -> None:
    ranges = Ranges()
    ranges.add(0, 5)
    ranges.add(10, 15)
    ranges.add(5, 10)
    assert repr(ranges) == "Ranges([(0, 15)])"
