"""Durations and sizes as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvsfs.config import parse_duration, parse_size, show_duration, show_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("20ms", 0.02), ("1.5s", 1.5), (" 2 m ", 120.0), ("1h", 3600.0), ("0", 0.0), ("0s", 0.0), (".5s", 0.5)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "20", "-1s", "1d", "ms", "1,5s", "1s1s", "nan", "inf s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@given(st.one_of(st.integers(0, 10**9).map(float), st.floats(0, 1e9)))
def test_a_duration_that_is_shown_reads_as_itself(seconds: float) -> None:
    assert parse_duration(show_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0s"), (0.02, "0.02s"), (90.0, "90s"), (120.0, "2m"), (3600.0, "1h")]
)
def test_durations_are_shown(seconds: float, text: str) -> None:
    assert show_duration(seconds) == text


@given(st.integers(0, 2**63))
def test_a_size_that_is_shown_reads_as_itself(size: int) -> None:
    assert parse_size(show_size(size)) == size
    assert show_size(size * 1024**3) == (f"{size}GiB" if size else "0")
