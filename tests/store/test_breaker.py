"""The circuit breaker: what opens it, what does not, and that nothing keeps it open."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from kvsfs import errors
from kvsfs.store import retry
from kvsfs.store.apify import ApifyStore, ApifyStoreCollection
from kvsfs.store.breaker import LAST_PROBE, SILENT_SUBJECTS, Breaker
from kvsfs.store.retry import Deadlines
from kvsfs.types import RecordKey
from tests.support.fault_server import (
    Exchange,
    FaultServer,
    Step,
    answering,
    fault_server,
    resetting,
    stalling,
)
from tests.support.running import run_async

QUICK = Deadlines(connect=0.3, stall=0.2, total=0.4)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.05)


def virtually(test: Callable[[Breaker], Awaitable[None]]) -> None:
    trio.run(test, Breaker(), clock=MockClock(autojump_threshold=0))


def fail(breaker: Breaker, subject: str) -> None:
    breaker.check("record x")
    breaker.asked(subject)
    breaker.gave_up(subject)


def opened(breaker: Breaker) -> None:
    for number in range(SILENT_SUBJECTS):
        fail(breaker, f"record {number}")
    assert breaker.is_open


def test_it_opens_when_several_records_failed() -> None:
    async def test(breaker: Breaker) -> None:
        breaker.check("record x")
        await trio.sleep(42)
        opened(breaker)
        with pytest.raises(
            errors.StoreUnreachable,
            match=r"^record x: the store has not answered for 42 s; trying again in 0\.\d s",
        ):
            breaker.check("record x")

    virtually(test)


def test_one_slow_record_does_not_open_it_nor_one_that_waited_for_its_turn() -> None:
    async def test(breaker: Breaker) -> None:
        for _ in range(100):
            fail(breaker, "record slow")
        for number in range(100):
            breaker.gave_up(f"record {number}")
        assert not breaker.is_open

    virtually(test)


def test_an_answer_between_failures_keeps_it_closed() -> None:
    async def test(breaker: Breaker) -> None:
        for number in range(100):
            fail(breaker, f"record {number}")
            if number % 2:
                breaker.answered()
        assert not breaker.is_open

    virtually(test)


def test_a_call_that_never_got_a_connection_opens_it() -> None:
    async def test(breaker: Breaker) -> None:
        for _ in range(2):
            breaker.check("record x")
            breaker.asked("record a")
            breaker.could_not_connect()
        breaker.gave_up("record a")
        assert breaker.is_open

    virtually(test)


def test_probes_come_one_at_a_time_and_further_apart() -> None:
    async def test(breaker: Breaker) -> None:
        opened(breaker)
        begun = trio.current_time()
        probes: list[float] = []
        while len(probes) < 12:
            await trio.sleep(0.01)
            for _ in range(3):
                try:
                    breaker.check("record x")
                except errors.StoreUnreachable:
                    continue
                probes.append(trio.current_time() - begun)
        gaps = [late - early for early, late in zip([0.0, *probes], probes, strict=False)]
        bounds = [min(LAST_PROBE, 0.5 * 2**number) for number in range(12)]
        for gap, bound in zip(gaps, bounds, strict=True):
            assert bound / 2 - 0.02 <= gap <= bound + 0.02

    virtually(test)


@given(st.lists(st.sampled_from(["check", "fail", "connect", "wait", "give up", "answer"])), st.randoms())
def test_nothing_keeps_it_open_longer_than_a_probe_is_apart(
    steps: list[str], randomness: random.Random
) -> None:
    """However the calls before ended, or if they did not: cancelled probes, hanging ones, late failures."""

    async def test(breaker: Breaker) -> None:
        for number, step in enumerate(steps):
            try:
                match step:
                    case "check":
                        breaker.check("record x")
                        breaker.asked(f"record {number}")
                    case "fail":
                        fail(breaker, f"record {number}")
                    case "connect":
                        breaker.could_not_connect()
                    case "give up":
                        breaker.gave_up(f"record {number - 1}")
                    case "wait":
                        await trio.sleep(randomness.uniform(0, 2 * LAST_PROBE))
                    case _:
                        breaker.answered()
                        assert not breaker.is_open
            except errors.StoreUnreachable:
                assert breaker.is_open
        await trio.sleep(LAST_PROBE)
        breaker.check("record x")
        breaker.answered()
        breaker.check("record x")
        breaker.check("record x")

    virtually(test)


# Through the client


async def attempt(store: ApifyStore, key: str) -> errors.StoreError | None:
    try:
        await store.head_record(RecordKey(key))
    except errors.StoreError as error:
        return error
    return None


@pytest.mark.parametrize("step", [stalling, resetting, answering(503)], ids=["stall", "reset", "503"])
def test_calls_fail_at_once_until_the_store_is_back(step: Step) -> None:
    async def main() -> None:
        async with (
            fault_server(step) as server,
            ApifyStoreCollection(server.url, deadlines=QUICK) as stores,
        ):
            store = stores.store("s")
            async with trio.open_nursery() as nursery:
                for key in "abc":
                    nursery.start_soon(attempt, store, key)
            before = len(server.exchanges)
            begun = trio.current_time()
            failed = [await attempt(store, f"k{number}") for number in range(50)]
            assert {type(error) for error in failed} == {errors.StoreUnreachable}
            assert trio.current_time() - begun < QUICK.total
            assert len(server.exchanges) - before <= 1
            server.script[:] = [answering(200)]
            await until_it_works(store, server)

    run_async(main)


async def until_it_works(store: ApifyStore, server: FaultServer) -> None:
    """Try as a user would; the calls that are let through are the probes, and the first one heals."""
    before = len(server.exchanges)
    with trio.fail_after(LAST_PROBE + 1):
        while True:
            if await attempt(store, "again") is None:
                break
            await trio.sleep(0.02)
    assert len(server.exchanges) - before <= 2
    assert await attempt(store, "at once") is None


def test_nobody_listens_then_somebody_does() -> None:
    async def main() -> None:
        async with fault_server(stalling) as gone:
            port = gone.port
        async with ApifyStoreCollection(f"http://127.0.0.1:{port}", deadlines=QUICK) as stores:
            store = stores.store("s")
            assert "cannot be reached" in str(await attempt(store, "a"))
            assert "trying again in" in str(await attempt(store, "a"))
            async with fault_server(answering(200), port=port) as server:
                await until_it_works(store, server)

    run_async(main)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 429])
def test_refusals_do_not_open_it(status: int) -> None:
    async def main() -> int:
        async with (
            fault_server(answering(status)) as server,
            ApifyStoreCollection(server.url, deadlines=QUICK) as stores,
        ):
            store = stores.store("s")
            for number in range(2 * SILENT_SUBJECTS):
                error = await attempt(store, str(number))
                assert "trying again" not in str(error)
            return len(server.exchanges)

    assert run_async(main) >= 2 * SILENT_SUBJECTS


def test_one_slow_record_among_others_does_not_open_it() -> None:
    async def main() -> None:
        async def slow_for_one(exchange: Exchange) -> None:
            await (stalling if exchange.target.endswith("/slow") else answering(200))(exchange)

        async with (
            fault_server(slow_for_one) as server,
            ApifyStoreCollection(server.url, deadlines=QUICK) as stores,
        ):
            store = stores.store("s")
            for _ in range(2 * SILENT_SUBJECTS):
                assert isinstance(await attempt(store, "slow"), errors.StoreTimeout)
            assert await attempt(store, "quick") is None

    run_async(main)


def test_retries_under_way_end_when_it_opens() -> None:
    patient = Deadlines(connect=1, stall=0.1, total=60)

    async def main() -> int:
        async with fault_server(answering(503)) as server:
            async with (
                ApifyStoreCollection(server.url, deadlines=QUICK) as stores,
                trio.open_nursery() as nursery,
            ):
                store = stores.store("s")
                store._api._deadlines = patient
                ended: list[errors.StoreError | None] = []

                async def call(key: str) -> None:
                    ended.append(await attempt(store, key))

                for number in range(20):
                    nursery.start_soon(call, f"patient {number}")
                await trio.sleep(0.05)
                store._api._deadlines = QUICK
                for key in "abc":
                    nursery.start_soon(call, key)
            return len([error for error in ended if isinstance(error, errors.StoreUnreachable)])

    assert run_async(main, within=20) == 23
