"""Where later pages begin: right for counters, near for hashes, and harmless for everything else."""

from __future__ import annotations

import bisect
import hashlib
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvsfs.core.key_guesses import Spread

COUNT, PAGE = 20_000, 1000
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
KEYS = st.lists(st.text("019afzAFZ-_.!'()", min_size=1, max_size=20), min_size=1, max_size=50, unique=True)

EVEN: dict[str, Callable[[int], str]] = {
    "a counter": lambda n: f"page-{n:09}.html",
    "a counter without zeros in front": lambda n: f"item-{n}",
    "a counter in the middle": lambda n: f"run-{n:06}-of-20000.json",
    "hexadecimal": lambda n: f"{n:08x}",
}
NEARLY_EVEN: dict[str, Callable[[int], str]] = {
    "hashes": lambda n: hashlib.sha1(str(n).encode()).hexdigest(),
    "a counter and a hash": lambda n: f"{n:06}-{hashlib.md5(str(n).encode()).hexdigest()}.json",
    "one that ends in words": lambda n: f"item{n}.json",
}


def guessed(keys: list[str], *, pages: int, ahead: int) -> float:
    """Pages that lie between the end of the first ones and a guess."""
    spread = Spread.of(keys[(pages - 1) * PAGE : pages * PAGE])
    assert spread is not None
    before, last = (spread.number(keys[page * PAGE - 1]) for page in (pages - 1, pages))
    assert before is not None
    assert last is not None
    key = spread.key(last + (last - before) * ahead)
    assert key is not None
    return bisect.bisect_right(keys, key) / PAGE - pages


@pytest.mark.parametrize("key", EVEN.values(), ids=EVEN)
@pytest.mark.parametrize("ahead", [1, 2, 7])
def test_the_pages_of_a_counter_are_guessed_to_the_key(key: Callable[[int], str], ahead: int) -> None:
    keys = sorted(map(key, range(COUNT)))
    assert guessed(keys, pages=3, ahead=ahead) == pytest.approx(ahead, abs=0.002)


@pytest.mark.parametrize("key", NEARLY_EVEN.values(), ids=NEARLY_EVEN)
@pytest.mark.parametrize("ahead", [1, 2, 7])
def test_the_pages_of_hashes_are_guessed_to_a_tenth(key: Callable[[int], str], ahead: int) -> None:
    keys = sorted(map(key, range(COUNT)))
    assert guessed(keys, pages=3, ahead=ahead) == pytest.approx(ahead, rel=0.1)


def test_random_ids_of_any_letters_are_guessed_to_a_tenth() -> None:
    chance = random.Random(6)
    letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    keys = sorted("".join(chance.choices(letters, k=17)) for _ in range(COUNT))
    assert guessed(keys, pages=4, ahead=4) == pytest.approx(4, rel=0.1)


def test_times_are_guessed_within_their_hour() -> None:
    keys = [f"{BEGINNING + timedelta(seconds=number):%Y-%m-%dT%H-%M-%S}.json" for number in range(COUNT)]
    spread = Spread.of(keys[:PAGE])
    assert spread is not None
    number = spread.number("2026-01-01T00-30-00.json")
    assert number is not None
    assert spread.key(number) == "2026-01-01T00-30-00.json"


@given(KEYS, KEYS)
def test_numbers_of_any_keys_ascend_with_them_or_are_not_there(keys: list[str], others: list[str]) -> None:
    spread = Spread.of(sorted(keys))
    if spread is None:
        return
    for key in keys + others:
        number = spread.number(key)
        assert (number is None) == (not key.startswith(spread.prefix))
        if number is not None:
            assert spread.key(number) is not None


@given(KEYS, st.integers(0, 10**30))
def test_any_number_is_a_starting_point_or_past_the_last(keys: list[str], number: int) -> None:
    spread = Spread.of(sorted(keys))
    if spread is None:
        return
    key = spread.key(number)
    assert key is None or key.startswith(spread.prefix)


@pytest.mark.parametrize("keys", [["a"], ["same", "same"], ["-", "--"]])
def test_of_keys_that_tell_nothing_there_is_no_spread(keys: list[str]) -> None:
    assert Spread.of(keys) is None
