"""A short form of the simulated histories, of which `make simulate` runs the long one; and the simulator itself."""

import asyncio
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "simulation"))

import one_shop
import two_accounts

from headwater.testing.simulation import Plan
from headwater.testing.virtual import Crash, Owner, StillError, VirtualClock, owner, run_virtual

SHORT = Plan(seconds=240.0, pause_seconds=15.0)
SEEDS = range(1, 9)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_promise_is_broken_in_the_history_of(seed):
    told = two_accounts.simulate(seed, plan=SHORT)
    assert not told.violations, str(told)
    assert told.acked > 0
    assert told.records > 0


def test_no_promise_is_broken_in_brief_histories():
    for seed in range(1, 41):
        told = one_shop.simulate(seed)
        assert not told.violations, str(told)
        assert told.records >= one_shop.CUSTOMERS


@pytest.mark.parametrize("seed", [3, 9])
def test_a_clock_that_was_hours_ahead_and_is_put_right_holds_no_stream_up(seed):
    # Both stood still for as long as the clock had been ahead, over restarts too: their next ticks lay there.
    plan = replace(SHORT, clock_seconds_max=7200.0, liveness_seconds=1000.0)
    told = two_accounts.simulate(seed, plan=plan, whole=False)
    assert not told.violations, str(told)


def test_what_waits_for_a_clock_that_was_put_right_between_two_processes_is_due_at_once():
    # A delivery was received by a clock that was ahead by as much as a signature allows; nobody saw it step back.
    async def history(simulation, told):
        shop = one_shop.opened(simulation, told.seed)
        simulation.clock.offset_seconds = 290.0
        simulation.killer.aim_at("dispatch.claimed", 1)
        tasks = [asyncio.create_task(shop.live()), asyncio.create_task(shop.send())]
        serving = asyncio.create_task(simulation.serve())
        while not simulation.kills:
            await asyncio.sleep(0.01)
        simulation.clock.offset_seconds = 0.0
        tasks[0].cancel()
        await simulation.settle(lambda: shop.webhooks.waiting)
        told.records = shop.compare(simulation.auditor.records(), simulation.history.violated)
        tasks[1].cancel()
        await simulation.close()
        await serving

    plan = Plan(killed=0.0, liveness_seconds=150.0)
    told = one_shop.simulate(1, plan=plan, history=history)
    assert not told.violations, str(told)
    assert told.kills == {"dispatch.claimed": 1}
    assert told.records >= one_shop.CUSTOMERS


def test_one_seed_is_one_history_whatever_the_interpreter():
    script = Path(two_accounts.__file__)
    told = [
        subprocess.run(
            [sys.executable, str(script), "--seed", "5", "--seconds", "120"],
            env=os.environ | {"PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True,
        ).stdout.split()[2]
        for hash_seed in ("1", "2")
    ]  # fmt: skip
    assert told[0] == told[1]
    assert told[0] != two_accounts.simulate(6, plan=Plan(seconds=120.0)).hash


def history_of(main, *, seed=1):
    return run_virtual(main, chance=random.Random(seed))


def test_time_jumps_to_the_next_timer():
    async def main(loop):
        clock = VirtualClock(loop, random.Random(1))
        before = clock.now()
        await clock.sleep(86_400)
        return (clock.now() - before).total_seconds()

    assert history_of(main) == 86_400


def test_where_nothing_can_happen_any_more_is_an_error_and_no_wait():
    async def main(loop):
        await loop.create_future()

    with pytest.raises(StillError):
        history_of(main)


def test_the_order_of_what_is_ready_is_the_seeds():
    async def main(loop):
        order = []

        async def one(name):
            await asyncio.sleep(1)
            order.append(name)

        await asyncio.gather(*(one(name) for name in "abcdefgh"))
        return "".join(order)

    assert history_of(main, seed=1) == history_of(main, seed=1)
    assert len({history_of(main, seed=seed) for seed in range(5)}) > 1


def test_a_dead_process_reaches_nothing_outside_and_leaves_no_task():
    async def main(loop):
        clock = VirtualClock(loop, random.Random(1))
        process, ends = Owner("process"), []

        async def work():
            try:
                await clock.sleep(10)
            finally:
                try:
                    await clock.sleep(1)  # as code does that tidies up: in a dead process it cannot
                except Crash:
                    ends.append(owner().name)
                    raise

        task = loop.create_task(work(), context=process.context)
        await clock.sleep(5)
        process.is_dead = True
        await loop.bury(process)
        assert task.done()
        return ends, loop.time()

    assert history_of(main) == (["process"], 5.0)


def test_a_frozen_process_goes_on_where_it_was_stopped():
    async def main(loop):
        process, done = Owner("process"), []

        async def work():
            await asyncio.sleep(1)
            done.append(loop.time())

        loop.create_task(work(), context=process.context)
        await asyncio.sleep(0.5)
        process.is_frozen = True
        await asyncio.sleep(9.5)
        assert done == []
        loop.thaw(process)
        await asyncio.sleep(1)
        return done

    assert history_of(main) == [10.0]
