"""Durations as people write them."""

from __future__ import annotations

import pytest

from kvsfs.config import parse_duration


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
