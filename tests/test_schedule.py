"""The pure decision about due streams, and the loop that acts on it."""

import asyncio
import logging
from contextlib import asynccontextmanager
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from builders import AT, make_catalog, make_stream, open_memory_store, seeded_stream
from headwater.engines.local import LocalEngine
from headwater.errors import StoreUnavailableError
from headwater.intention import DueStream
from headwater.run import RunState
from headwater.schedule import (
    DEPTH_PER_SLOT,
    MISSED_TICKS_COUNTED_MAX,
    SLEEP_SECONDS_MAX,
    TICK_SPACING_SECONDS,
    Ticker,
    decide,
)
from headwater.testing.clock import FakeClock, settle

MINUTE = timedelta(minutes=1)


def make_due(**overrides):
    fields = {
        "stream_id": 1, "connection_id": 1, "schedule": "*/15 * * * *", "timezone": "UTC", "next_tick_at": AT,
        "is_running": False,
    }  # fmt: skip
    return DueStream(**(fields | overrides))


def test_a_due_stream_starts_and_gets_its_next_tick():
    (decision,) = decide([make_due()], AT)
    assert (decision.start, decision.next_tick_at, decision.missed) == (True, AT + 15 * MINUTE, 0)


def test_a_stream_whose_run_is_under_way_is_skipped():
    (decision,) = decide([make_due(is_running=True)], AT + MINUTE)
    assert (decision.start, decision.next_tick_at) == (False, AT + 15 * MINUTE)


def test_ticks_missed_in_downtime_coalesce_into_one_start():
    (decision,) = decide([make_due()], AT + timedelta(hours=2))
    assert (decision.start, decision.next_tick_at, decision.missed) == (True, AT + timedelta(hours=2, minutes=15), 8)
    (decision,) = decide([make_due(schedule="* * * * *")], AT + timedelta(days=365))
    assert decision.missed == MISSED_TICKS_COUNTED_MAX


def test_a_schedule_that_is_none_keeps_nobody_else_from_starting():
    broken, sound = decide([make_due(schedule="nonsense"), make_due(stream_id=2)], AT)
    assert (broken.start, broken.next_tick_at > AT) == (False, True)
    assert sound.start


@given(st.integers(0, 10**6), st.booleans(), st.sampled_from(["* * * * *", "7 3 * * *", "*/15 * * * *"]))
def test_the_next_tick_lies_strictly_after_the_instant_of_the_decision(seconds, is_running, line):
    at = AT + timedelta(seconds=seconds)
    (decision,) = decide([make_due(schedule=line, is_running=is_running)], at)
    assert decision.next_tick_at > at
    assert decision.start is not is_running


class WatchedStore:
    """The store's ticks, each announced, and failing as often as it is told to."""

    def __init__(self, store):
        self._store = store
        self.results = asyncio.Queue()
        self.failures = 0
        self.failed = asyncio.Queue()

    async def tick(self, at, **options):
        if self.failures:
            self.failures -= 1
            self.failed.put_nowait(at)
            raise StoreUnavailableError("The disk is full.")
        result = await self._store.tick(at, **options)
        self.results.put_nowait(result)
        return result

    async def readmit(self, at):
        return await self._store.readmit(at)

    async def next_result(self):
        result = await asyncio.wait_for(self.results.get(), 20)
        await settle()
        return result


def with_ticker(body, *, streams=3, slots=1, **options):
    async def main():
        clock = FakeClock()
        async with open_memory_store(clock) as store:
            catalog = make_catalog(*[make_stream(f"stream_{number:02}") for number in range(streams)])
            await seeded_stream(store, clock, catalog=catalog)
            watched, engine = WatchedStore(store), LocalEngine()
            ticker = Ticker(store=watched, engine=engine, clock=clock, slots=slots, per_connection_max=100, **options)
            await body(Scene(clock, store, watched, engine, ticker))

    asyncio.run(main())


class Scene:
    def __init__(self, clock, store, watched, engine, ticker):
        self.clock, self.store, self.watched, self.engine, self.ticker = clock, store, watched, engine, ticker

    @asynccontextmanager
    async def ticking(self):
        task = asyncio.create_task(self.ticker.serve())
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def pass_until(self, holds):
        """Let time pass, however long it takes."""
        async with asyncio.timeout(20):
            while not holds():
                await settle()
                await self.clock.advance(SLEEP_SECONDS_MAX)

    async def skip_to_next_tick(self):
        await self.clock.advance(SLEEP_SECONDS_MAX + TICK_SPACING_SECONDS)
        return await self.watched.next_result()


def test_streams_start_when_their_tick_has_come():
    async def body(scene):
        async with scene.ticking():
            assert (await scene.watched.next_result()).started == 0
            started = 0
            while scene.clock.now() < AT + 15 * MINUTE:
                assert started == 0
                started += (await scene.skip_to_next_tick()).started
            assert started == 3
            assert scene.engine.depth == 3

    with_ticker(body)


def test_the_engine_is_given_no_more_than_keeps_it_busy():
    async def body(scene):
        await scene.clock.advance(15 * 60)
        result = await scene.ticker.tick()
        assert (result.started, len(result.admitted), scene.engine.depth) == (12, DEPTH_PER_SLOT, DEPTH_PER_SLOT)
        assert len((await scene.ticker.tick()).admitted) == 0

    with_ticker(body, streams=12)


def test_more_slots_are_supplied_at_once_and_fewer_from_the_next_tick_on():
    async def body(scene):
        await scene.clock.advance(15 * 60)
        async with scene.ticking():
            assert len((await scene.watched.next_result()).admitted) == DEPTH_PER_SLOT
            scene.ticker.resize(1)
            await settle()
            await scene.clock.advance(TICK_SPACING_SECONDS)
            await settle()
            assert scene.watched.results.empty(), "as many as before are nothing to wake for"
            scene.ticker.resize(2)
            await settle()
            await scene.clock.advance(TICK_SPACING_SECONDS)
            assert len((await scene.watched.next_result()).admitted) == DEPTH_PER_SLOT
            scene.ticker.resize(1)
            assert (await scene.skip_to_next_tick()).admitted == []
            assert scene.engine.depth == 2 * DEPTH_PER_SLOT

    with_ticker(body, streams=12)


def test_a_wake_cuts_the_sleep_short():
    async def body(scene):
        async with scene.ticking():
            await scene.watched.next_result()
            scene.ticker.wake()
            await settle()
            assert scene.watched.results.empty()
            await scene.clock.advance(TICK_SPACING_SECONDS)
            await scene.watched.next_result()
            assert scene.clock.now() - AT < timedelta(seconds=1)

    with_ticker(body)


def test_a_run_that_ends_wakes_the_ticker_even_if_its_handler_raises():
    async def body(scene):
        async def handler(ref):
            raise RuntimeError

        async with scene.ticking():
            await scene.watched.next_result()
            try:
                await scene.ticker.waking(handler)(None)
            except RuntimeError:
                await settle()
            await scene.clock.advance(TICK_SPACING_SECONDS)
            await scene.watched.next_result()

    with_ticker(body)


def test_an_unavailable_store_is_tried_again_with_growing_waits_and_told_once(caplog):
    async def body(scene):
        async with scene.ticking():
            await scene.watched.next_result()
            for outage in (4, 2):
                scene.watched.failures = outage
                for _ in range(outage):
                    await scene.pass_until(lambda: not scene.watched.failed.empty())
                    scene.watched.failed.get_nowait()
                while not scene.watched.results.empty():  # of before
                    scene.watched.results.get_nowait()
                await scene.pass_until(lambda: not scene.watched.results.empty())
                await scene.watched.next_result()

    with caplog.at_level(logging.INFO):
        with_ticker(body)
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    away = ("WARNING", "the store is unavailable, no stream is started: The disk is full.")
    assert told == [
        away, ("INFO", "the store is available again after 4 failed ticks"),
        away, ("INFO", "the store is available again after 2 failed ticks"),
    ]  # fmt: skip


def test_a_drain_ends_the_loop_out_of_its_sleep():
    async def body(scene):
        async with scene.ticking() as task:
            await scene.watched.next_result()
            scene.ticker.drain()
            await asyncio.wait_for(task, 20)

    with_ticker(body)


def test_what_a_dead_process_left_running_waits_again_at_the_start():
    async def body(scene):
        await scene.clock.advance(15 * 60)
        dead = (await scene.ticker.tick()).admitted
        async with scene.ticking():
            await scene.watched.next_result()
            again = (await scene.watched.next_result()).admitted
        assert sorted(ref.run_id for ref in again) == sorted(ref.run_id for ref in dead)
        assert {ref.epoch for ref in again} == {2}
        assert {run.state for run in await scene.store.runs()} == {RunState.RUNNING}

    with_ticker(body, slots=2, readmits=True)


def test_what_this_process_runs_itself_is_left_to_it():
    async def body(scene):
        await scene.clock.advance(15 * 60)
        async with scene.ticking():
            mine = (await scene.watched.next_result()).admitted
            assert len(mine) == 3
            scene.ticker.wake()
            await settle()
            await scene.clock.advance(TICK_SPACING_SECONDS)
            assert (await scene.watched.next_result()).admitted == []
        assert {run.attempt for run in await scene.store.runs()} == {1}

    with_ticker(body, slots=2, readmits=True)
    with_ticker(body, slots=2)


def test_whoever_does_not_say_so_takes_over_no_run():
    async def body(scene):
        await scene.clock.advance(15 * 60)
        await scene.ticker.tick()
        assert len((await scene.watched.next_result()).admitted) == 3
        async with scene.ticking():
            assert (await scene.watched.next_result()).admitted == []

    with_ticker(body, slots=2)
