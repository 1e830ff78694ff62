"""Rate limits kept on this side: in virtual time, and against a server that has some."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from kvsfs.core.background import Background
from kvsfs.errors import RateLimited
from kvsfs.metrics import StoreMeter
from kvsfs.store.apify import ApifyStoreCollection
from kvsfs.store.bodies import BytesBody
from kvsfs.store.limit import LONGEST_PAUSE, PLATFORM_LIMITS, SLOWEST, Limits, TokenBucket
from kvsfs.store.priority import in_background, is_background
from kvsfs.store.retry import Deadlines
from kvsfs.types import RecordKey
from tests.support.fault_server import answering, fault_server
from tests.support.running import run_async
from tests.support.serving import running_server

PATIENCE = 1000.0


def virtually(test: Callable[[], Awaitable[None]]) -> None:
    trio.run(test, clock=MockClock(autojump_threshold=0))


async def takes(bucket: TokenBucket, count: int) -> list[float]:
    """Take tokens, all asked for at once; when each came."""
    came: list[float] = []
    begun = trio.current_time()

    async def take() -> None:
        await bucket.take(patience=PATIENCE)
        came.append(trio.current_time() - begun)

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(take)
    return came


def most_within(moments: Iterable[float], window: float) -> int:
    ordered = sorted(moments)
    return max(sum(start <= moment < start + window for moment in ordered) for start in ordered)


@pytest.mark.parametrize("limit", [1, 5, 60, 200, 1000])
def test_no_second_sees_more_than_the_limit(limit: int) -> None:
    async def test() -> None:
        bucket = TokenBucket(limit, assumed=True)
        await trio.sleep(100)  # what was not used is not saved up
        came = await takes(bucket, 5 * limit)
        assert most_within(came, 1.0) <= limit + (limit < 10)  # whole tokens: a bucket holds at least one
        assert came[-1] == pytest.approx(5 / 0.9, rel=0.3 if limit < 10 else 0.1)

    virtually(test)


def test_nothing_is_limited_until_the_server_says_so() -> None:
    async def test() -> None:
        bucket = TokenBucket(200, assumed=False)
        assert (await takes(bucket, 1000))[-1] == 0
        bucket.learn("50")
        assert bucket.rate == pytest.approx(45)
        assert (await takes(bucket, 90))[-1] == pytest.approx(2, rel=0.01)

    virtually(test)


def test_a_new_limit_is_taken_over_while_calls_wait() -> None:
    async def test() -> None:
        bucket = TokenBucket(60, assumed=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(takes, bucket, 600)
            await trio.sleep(1)
            bucket.learn("6000")
        assert trio.current_time() < 2

    virtually(test)


@given(st.none() | st.text(max_size=12) | st.integers(-5, 10**12).map(str))
def test_any_header_leaves_a_rate_that_gets_on(header: str | None) -> None:
    async def test() -> None:
        bucket = TokenBucket(60, assumed=True)
        bucket.learn(header)
        assert bucket.rate is not None
        assert bucket.rate >= 0.9
        assert (await takes(bucket, 3))[-1] < 4

    virtually(test)


def test_a_429_makes_all_wait_then_go_slower_then_as_before() -> None:
    async def test() -> None:
        bucket = TokenBucket(200, assumed=True)
        bucket.slow_down(2.0)
        bucket.slow_down(1.0)  # of the same burst: neither shorter nor slower
        assert bucket.rate == pytest.approx(90)
        came = await takes(bucket, 2000)
        assert came[0] >= 2.0
        assert 85 <= most_within([m for m in came if m < 3], 1.0) <= 105
        assert bucket.rate == pytest.approx(180)
        assert 170 <= most_within([m for m in came if m > 8], 1.0) <= 200

    virtually(test)


def test_one_429_after_the_other_never_stops_it() -> None:
    async def test() -> None:
        bucket = TokenBucket(200, assumed=True)
        for _ in range(100):
            bucket.slow_down(1.0)
            await bucket.take(patience=PATIENCE)
        assert bucket.rate is not None
        assert bucket.rate >= 180 * SLOWEST

    virtually(test)


def test_a_429_without_a_limit_known_means_the_platforms() -> None:
    async def test() -> None:
        bucket = TokenBucket(60, assumed=False)
        bucket.slow_down(None)
        assert bucket.rate == pytest.approx(27)

    virtually(test)


def test_a_pause_longer_than_patience_is_told_at_once_and_bounded() -> None:
    async def test() -> None:
        bucket = TokenBucket(60, assumed=True)
        bucket.slow_down(1e9)
        with pytest.raises(RateLimited, match="a pause of 60 s"):
            await bucket.take(patience=30)
        assert trio.current_time() == started
        await trio.sleep(LONGEST_PAUSE)
        await bucket.take(patience=30)

    started = 0.0

    async def main() -> None:
        nonlocal started
        started = trio.current_time()
        await test()

    virtually(main)


def test_a_cancelled_wait_takes_nothing() -> None:
    async def test() -> None:
        bucket = TokenBucket(10, assumed=True)
        await takes(bucket, 1)
        with trio.move_on_after(0.01):
            await takes(bucket, 50)
        assert (await takes(bucket, 1))[0] <= 1 / 9 + 0.001

    virtually(test)


# What nobody waits for


async def take_for_ever(bucket: TokenBucket, came: list[float]) -> None:
    while True:
        await bucket.take(patience=PATIENCE)
        came.append(trio.current_time())


def test_a_foreground_call_finds_a_token_however_busy_the_background_is() -> None:
    async def test() -> None:
        bucket = TokenBucket(200, assumed=True)
        background: list[float] = []
        async with trio.open_nursery() as nursery:
            with in_background():
                for _ in range(50):
                    nursery.start_soon(take_for_ever, bucket, background)
            await trio.sleep(10)
            before = trio.current_time()
            for _ in range(9):
                await bucket.take(patience=PATIENCE)
            assert trio.current_time() == before
            nursery.cancel_scope.cancel()
        assert len(background) == pytest.approx(1800, rel=0.02)  # the reserve costs no speed

    virtually(test)


def test_the_background_waits_for_a_busy_foreground_but_does_not_starve() -> None:
    async def test() -> None:
        bucket = TokenBucket(200, assumed=True)
        background: list[float] = []
        foreground: list[float] = []
        async with trio.open_nursery() as nursery:
            with in_background():
                for _ in range(8):
                    nursery.start_soon(take_for_ever, bucket, background)
            for _ in range(8):
                nursery.start_soon(take_for_ever, bucket, foreground)
            await trio.sleep(20)
            nursery.cancel_scope.cancel()
        assert len(foreground) > 0.95 * 3600
        gaps = [late - early for early, late in itertools.pairwise(background[20:])]
        assert 0 < max(gaps) < 0.5

    virtually(test)


def test_what_background_work_starts_is_in_the_background() -> None:
    found: list[bool] = []

    async def deeper() -> None:
        found.append(is_background())

    async def work() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(deeper)

    async def test() -> None:
        async with trio.open_nursery() as nursery:
            background = Background(nursery)
            background.start(work)
            await background.idle()
            await deeper()

    virtually(test)
    assert found == [True, False]


# Against servers


def test_each_store_and_kind_has_a_bucket_of_its_own() -> None:
    async def test() -> None:
        limits = Limits(assumed=True)
        assert limits.bucket("a", "record") is limits.bucket("a", "record")
        assert len({id(limits.bucket(store, kind)) for store in "ab" for kind in PLATFORM_LIMITS}) == 4
        assert limits.bucket("a", "store").rate == pytest.approx(54)

    virtually(test)


def test_a_busy_client_sees_almost_no_429(tmp_path: Path) -> None:
    """Unlimited, two of three requests would be refused."""
    meter = StoreMeter()
    limit, calls = 40, 120

    async def main() -> float:
        async with ApifyStoreCollection(server.url, meter=meter, token="t") as stores:
            info = await stores.get_or_create()
            store = stores.store(info.id)
            begun = trio.current_time()

            async def put(number: int) -> None:
                await store.set_record(RecordKey(f"k{number}"), BytesBody(b"x"), content_type="text/plain")

            async with trio.open_nursery() as nursery:
                for number in range(calls):
                    nursery.start_soon(put, number)
            assert len([entry async for entry in store.iter_keys()]) == calls
            return trio.current_time() - begun

    arguments = ["--testing", "--rate-limit", str(limit)]
    with running_server(tmp_path, tokens=["t=joe"], arguments=arguments) as server:
        seconds = run_async(main)
    assert meter.snapshot().rate_limited <= 2
    assert meter.snapshot().waited_seconds > seconds - 1  # one at least was waiting nearly always
    assert seconds >= (calls - limit) / limit - 1


def test_a_429_holds_back_the_calls_that_did_not_get_it() -> None:
    async def main() -> tuple[int, float]:
        refusal = answering(429, headers={"Retry-After": "1"})
        page = b'{"data": {"items": [], "isTruncated": false}}'
        async with (
            fault_server(refusal, answering(200, page)) as server,
            ApifyStoreCollection(server.url, deadlines=Deadlines(total=0.5)) as hasty,
        ):
            store, other = hasty.store("s"), hasty.store("other")
            begun = trio.current_time()
            with pytest.raises(RateLimited, match="429"):
                await store.list_keys()
            for _ in range(10):
                with pytest.raises(RateLimited, match="a pause of 1 s more"):
                    await store.list_keys()
            await other.list_keys()
            assert await store.record_exists(RecordKey("a"))
            await trio.sleep_until(begun + 0.9)
            await store.list_keys()
            return len(server.exchanges), trio.current_time() - begun

    requests, seconds = run_async(main)
    assert requests == 4
    assert 1.0 < seconds < 2.0
