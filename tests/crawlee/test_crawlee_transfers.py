"""What ends all copies, and what only its own."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator

import pytest
import trio

from kvsfs.crawlee.transfers import AT_A_TIME, Tally, each
from kvsfs.errors import RecordTooLarge, StoreTimeout

ITEMS = 200


async def items() -> AsyncIterator[int]:
    for number in range(ITEMS):
        yield number


def tried(error: Exception | None, *, but: int = -1) -> tuple[int, Tally, Exception | None]:
    """Copy what always fails so, but one item; how many were begun, and what came out."""
    begun = most = under_way = 0

    async def copy(item: int) -> None:
        nonlocal begun, most, under_way
        begun, under_way = begun + 1, under_way + 1
        most = max(most, under_way)
        await trio.lowlevel.checkpoint()
        under_way -= 1
        if error is not None and item != but:
            raise error
        tally.copied_one(str(item))

    tally = Tally(lambda _: None)
    raised = None
    try:
        trio.run(each, items(), copy, str, tally)
    except (OSError, StoreTimeout) as caught:
        raised = caught
    assert most <= AT_A_TIME
    return begun, tally, raised


def test_all_are_copied_a_few_at_a_time() -> None:
    begun, tally, raised = tried(None)
    assert (begun, tally.copied, tally.failed, raised) == (ITEMS, ITEMS, [], None)


@pytest.mark.parametrize("error", [RecordTooLarge("large"), OSError(errno.EIO, "I/O")], ids=str)
def test_what_one_record_has_is_no_reason_to_end(error: Exception) -> None:
    begun, tally, raised = tried(error, but=7)
    assert (begun, tally.copied, len(tally.failed), raised) == (ITEMS, 1, ITEMS - 1, None)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), OSError(errno.EROFS, "read-only")], ids=str)
def test_a_full_disk_ends_it(error: Exception) -> None:
    begun, tally, raised = tried(error)
    assert raised is error
    assert 1 <= len(tally.failed) <= begun <= 2 * AT_A_TIME


def test_no_answer_to_so_many_in_a_row_ends_it() -> None:
    begun, tally, raised = tried(StoreTimeout("slow"))
    assert isinstance(raised, StoreTimeout)
    assert AT_A_TIME <= len(tally.failed) <= begun <= 3 * AT_A_TIME
