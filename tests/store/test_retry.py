"""Pauses between attempts, and the bound on all of them, in virtual time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from kvsfs.errors import StoreError, StoreTimeout, StoreUnreachable
from kvsfs.store import faults, retry
from kvsfs.store.retry import SLOWEST_UPLOAD, Deadlines, Transient, retrying

LIMITS = Deadlines(connect=10, stall=20, total=30)


def spend(
    attempt: Callable[[], Awaitable[str]], *, body_length: int = 0
) -> tuple[str | StoreError, float, int]:
    """Give the outcome, the virtual seconds it took, and the retries; it is given up where time ran out."""
    retries = 0
    gave_up = 0

    def count() -> None:
        nonlocal retries
        retries += 1

    def count_end() -> None:
        nonlocal gave_up
        gave_up += 1

    async def main() -> tuple[str | StoreError, float]:
        started = trio.current_time()
        try:
            outcome: str | StoreError = await retrying(
                attempt,
                deadlines=LIMITS,
                body_length=body_length,
                subject="it",
                on_retry=count,
                on_give_up=count_end,
            )
        except StoreError as error:
            outcome = error
        return outcome, trio.current_time() - started

    outcome, seconds = trio.run(main, clock=MockClock(autojump_threshold=0))
    assert gave_up == isinstance(outcome, StoreUnreachable)
    return outcome, seconds, retries


def failing(after: float, retry_after: float | None = None) -> Callable[[], Awaitable[str]]:
    async def attempt() -> str:
        await trio.sleep(after)
        raise Transient(StoreUnreachable("down"), retry_after)

    return attempt


@given(st.integers(0, 2000), st.none() | st.floats(0, 100))
def test_pauses_double_with_jitter_up_to_a_bound(tries: int, asked: float | None) -> None:
    pause = retry._pause(tries, asked)
    longest = min(8.0, 0.5 * 2 ** min(tries, 10))
    assert max(longest / 2, asked or 0) <= pause <= max(longest, asked or 0)


def test_quick_failures_are_repeated_until_the_deadline() -> None:
    outcome, seconds, retries = spend(failing(0))
    assert isinstance(outcome, StoreUnreachable)
    assert str(outcome) == "down"
    assert LIMITS.total - retry.LONGEST_PAUSE <= seconds < LIMITS.total
    assert 5 <= retries <= 10


def test_an_attempt_that_hangs_is_cut_off_at_the_deadline() -> None:
    outcome, seconds, retries = spend(failing(1000))
    assert isinstance(outcome, StoreTimeout)
    assert seconds == pytest.approx(30)
    assert retries == 0


def test_a_large_upload_has_its_time_but_no_more() -> None:
    size = 600 * SLOWEST_UPLOAD
    outcome, seconds, _ = spend(failing(100_000), body_length=size)
    assert isinstance(outcome, StoreTimeout)
    assert seconds == pytest.approx(630)


def test_a_large_upload_that_failed_late_is_repeated_and_a_hanging_one_soon_given_up() -> None:
    size = 600 * SLOWEST_UPLOAD
    outcome, seconds, retries = spend(failing(500), body_length=size)
    assert isinstance(outcome, StoreUnreachable)
    assert seconds == pytest.approx(1000.5, abs=0.5)
    assert retries == 1
    outcome, seconds, retries = spend(failing(LIMITS.stall), body_length=size)
    assert isinstance(outcome, StoreUnreachable)
    assert seconds == pytest.approx(40.5, abs=0.5)
    assert retries == 1


def test_errors_that_nothing_heals_are_not_repeated() -> None:
    async def attempt() -> str:
        raise StoreError("no")

    outcome, seconds, retries = spend(attempt)
    assert isinstance(outcome, StoreError)
    assert (str(outcome), seconds, retries) == ("no", 0, 0)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("Mon, 01 Jan 2001 00:00:00 GMT", 0.0),
        ("soon", None),
        ("-3", None),
        ("1e9", None),
        ("", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert faults.parse_retry_after(value) == seconds


@given(st.text(max_size=40))
def test_any_retry_after_is_seconds_or_nothing(value: str) -> None:
    seconds = faults.parse_retry_after(value)
    assert seconds is None or seconds >= 0


DATES = st.builds(
    "{} {} {} {}:{} {}".format,
    st.integers(-1, 40),
    st.sampled_from(["Jan", "Feb", "Dec", "Xxx"]),
    st.integers(-1, 10_001),
    st.integers(-1, 25),
    st.integers(-1, 61),
    st.sampled_from(["", "GMT", "-0000", "+2359", "-9999", "+99999999999999999999"]),
)


@given(DATES)
def test_any_date_is_seconds_or_nothing(value: str) -> None:
    seconds = faults.parse_retry_after(value)
    assert seconds is None or seconds >= 0
