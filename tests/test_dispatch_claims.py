"""How deliveries are claimed and carried out beside each other: in order, within limits, until it drains."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

import pytest

from dispatching import EVERYTHING, World, emit, run
from headwater import failpoint
from headwater.delivery import DeliveryFilter, DeliveryState
from headwater.dispatch import BACKOFF, CLAIM_SECONDS, IDLE_SECONDS, IN_FLIGHT_MAX, Dispatcher
from headwater.errors import (
    ProviderError,
    StoreUnavailableError,
)
from headwater.route import WebhookRequest
from headwater.stores import lease
from headwater.testing.clock import FakeClock


def test_an_ordered_connection_gets_its_deliveries_one_after_the_other() -> None:
    order: list[str] = []
    at_work = 0

    async def post(request: WebhookRequest) -> None:
        nonlocal at_work
        at_work += 1
        assert at_work == 1
        await asyncio.sleep(0)
        at_work -= 1
        order.append(f"{request.provider_id}.{request.attempt}")
        if request.provider_id == "d2" and request.attempt == 1:
            raise ProviderError("down")
        emit(request, id=request.provider_id)

    async def scenario(world: World) -> None:
        await world.receive("d1", "d2", "d3", "d4")
        while await world.dispatcher.dispatch_batch():
            pass
        assert order == ["d1.1", "d2.1"]  # d3 waits for d2's retry
        await world.clock.advance(BACKOFF.ceiling_seconds(1))
        while await world.dispatcher.dispatch_batch():
            pass
        assert order == ["d1.1", "d2.1", "d2.2", "d3.1", "d4.1"]

    run(post, scenario, ordered=True)


def test_an_ordered_backlog_is_served_without_waiting_for_the_clock() -> None:
    async def post(request: WebhookRequest) -> None:
        emit(request, id=request.provider_id)

    async def scenario(world: World) -> None:
        await world.receive("d1", "d2", "d3", "d4")
        serving = asyncio.create_task(world.dispatcher.serve())
        await world.until(lambda: _equal(world.store.pending_deliveries(), 0))
        world.dispatcher.drain()
        await serving

    run(post, scenario, ordered=True)


def test_large_bodies_are_served_claim_by_claim_without_waiting_for_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "CLAIM_BYTES_MAX", 250)

    async def post(request: WebhookRequest) -> None:
        emit(request, id=request.provider_id)

    async def scenario(world: World) -> None:
        await world.receive(*(f"d{number}" for number in range(5)), body=b'{"filling":"%s"}' % (b"x" * 100))
        serving = asyncio.create_task(world.dispatcher.serve())
        await world.until(lambda: _equal(world.store.pending_deliveries(), 0))
        world.dispatcher.drain()
        await serving
        assert world.store.claims == [2, 2, 1]

    run(post, scenario)


def test_handlers_run_side_by_side_up_to_their_limit() -> None:
    at_work = most = 0
    together = asyncio.Event()

    async def post(request: WebhookRequest) -> None:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        if at_work == 4:
            together.set()
        await together.wait()
        await asyncio.sleep(0)
        at_work -= 1

    async def scenario(world: World) -> None:
        await world.receive(*(f"d{n}" for n in range(40)))
        assert await world.dispatcher.dispatch_batch() == 40
        assert most == 4
        assert {one.state for one in await world.deliveries()} == {DeliveryState.DONE}

    run(post, scenario, handlers_max=4)


def test_a_delivery_whose_claim_could_lapse_under_way_is_not_begun() -> None:
    begun: list[str] = []
    clocks: list[FakeClock] = []

    async def post(request: WebhookRequest) -> None:
        begun.append(f"{request.provider_id}.{request.attempt}")
        if request.provider_id == "slow":
            await clocks[0].sleep(15)

    async def scenario(world: World) -> None:
        clocks.append(world.clock)
        await world.receive("slow", "next")
        dispatching = asyncio.create_task(world.dispatcher.dispatch_batch())
        await world.until(lambda: _true(bool(begun)))
        await world.clock.advance(15)
        assert await dispatching == 2
        assert begun == ["slow.1"]
        assert await world.dispatcher.dispatch_batch() == 0
        await world.clock.advance(15)
        assert await world.dispatcher.dispatch_batch() == 1
        assert begun == ["slow.1", "next.2"]

    run(post, scenario, handlers_max=1, claim_seconds=30, handler_seconds_max=20)


def test_serving_claims_no_more_than_it_may_hold_and_keeps_to_its_handlers() -> None:
    gate = asyncio.Event()
    at_work = most = 0

    async def post(request: WebhookRequest) -> None:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await gate.wait()
        at_work -= 1

    async def scenario(world: World) -> None:
        count = IN_FLIGHT_MAX + 100
        await world.receive(*(f"d{n}" for n in range(count)))
        serving = asyncio.create_task(world.dispatcher.serve())

        async def claimed() -> int:
            return sum(one.attempts for one in await world.store.deliveries(EVERYTHING, limit=1000))

        await world.until(lambda: _equal(claimed(), IN_FLIGHT_MAX))
        for _ in range(20):
            world.dispatcher.wake()
            await asyncio.sleep(0.001)
        assert await claimed() == IN_FLIGHT_MAX
        assert most == 4
        gate.set()
        await world.until(lambda: _equal(world.store.pending_deliveries(), 0))
        world.dispatcher.drain()
        await serving
        assert most == 4

    run(post, scenario, handlers_max=4)


def test_many_deliveries_are_few_commits() -> None:
    async def post(request: WebhookRequest) -> None:
        emit(request, id=request.provider_id)

    async def scenario(world: World) -> None:
        await world.receive(*(f"d{n}" for n in range(200)))
        assert await world.dispatcher.dispatch_batch() == 200
        assert sum(world.store.commits) == 200
        assert len(world.store.commits) <= 40

    run(post, scenario)


def test_a_claim_that_was_retaken_commits_nothing() -> None:
    gate: list[asyncio.Event] = []

    async def post(request: WebhookRequest) -> None:
        if request.attempt == 1:
            await gate[0].wait()
        emit(request, id=f"t{request.attempt}")

    async def scenario(world: World) -> None:
        gate.append(asyncio.Event())
        await world.receive("d1")
        first = asyncio.create_task(world.dispatcher.dispatch_batch())
        for _ in range(100):
            await asyncio.sleep(0.001)
        rival = Dispatcher(world.store, world.connections, world.clock)
        # Only the claim lapses: the handler's own limit is watched by the clock that stands still for it.
        claims = await world.store.claim_deliveries(
            world.clock.now() + timedelta(seconds=CLAIM_SECONDS), limit=1, lease_seconds=CLAIM_SECONDS
        )
        assert [(claim.attempt, claim.epoch) for claim in claims] == [(2, 2)]
        gate[0].set()
        assert await first == 1
        assert await world.versions("t1") == []
        assert (await world.only()).state is DeliveryState.PENDING
        await world.clock.advance(2 * CLAIM_SECONDS)
        assert await rival.dispatch_batch() == 1
        assert len(await world.versions("t3")) == 1

    run(post, scenario)


def test_serving_wakes_at_once_and_drains() -> None:
    started = asyncio.Event()
    gate = asyncio.Event()

    async def post(request: WebhookRequest) -> None:
        if request.provider_id == "held":
            started.set()
            await gate.wait()
        emit(request, id=request.provider_id)

    async def scenario(world: World) -> None:
        async def done(count: int) -> bool:
            return await world.store.count_deliveries(DeliveryFilter(state=DeliveryState.DONE)) == count

        serving = asyncio.create_task(world.dispatcher.serve())
        await world.until(lambda: _true(world.clock.sleepers > 0))
        await world.receive("d1")
        world.dispatcher.wake()
        await world.until(lambda: done(1))
        # What another process stored is found without a word, after a while.
        await world.receive("d2")
        await world.until(lambda: _true(world.clock.sleepers > 0))
        await world.clock.advance(IDLE_SECONDS)
        await world.until(lambda: done(2))
        await world.receive("held")
        world.dispatcher.wake()
        await started.wait()
        world.dispatcher.drain()
        await world.receive("late")
        world.dispatcher.wake()
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert not serving.done()
        gate.set()
        await serving
        assert await done(3)
        assert await world.store.pending_deliveries() == 1

    run(post, scenario)


async def _true(value: bool) -> bool:
    return value


async def _equal(count: Coroutine[Any, Any, int], expected: int) -> bool:
    return await count == expected


def test_serving_takes_a_backlog_beyond_one_claim_and_survives_a_store_that_fails() -> None:
    async def post(request: WebhookRequest) -> None:
        emit(request, id=request.provider_id)

    async def scenario(world: World) -> None:
        count = IN_FLIGHT_MAX * 2
        await world.receive(*(f"d{n}" for n in range(count)))
        world.store.claim_error = StoreUnavailableError("busy")
        serving = asyncio.create_task(world.dispatcher.serve())
        await world.until(lambda: _true(world.clock.sleepers > 0))
        world.store.claim_error = None
        await world.clock.advance(IDLE_SECONDS)

        async def is_empty() -> bool:
            return await world.store.pending_deliveries() == 0

        await world.until(is_empty)
        world.dispatcher.drain()
        await serving
        assert sum(world.store.commits) == count
        assert world.dispatcher._in_flight == 0

    run(post, scenario)


def test_what_arrives_soon_after_a_claim_is_claimed_together() -> None:
    async def post(request: WebhookRequest) -> None:
        emit(request, id=request.provider_id)

    async def scenario(world: World) -> None:
        serving = asyncio.create_task(world.dispatcher.serve())
        await world.until(lambda: _true(world.clock.sleepers > 0))
        for name in ("d1", "d2"):
            await world.receive(name)
            world.dispatcher.wake()
            await asyncio.sleep(0.001)
        assert await world.store.pending_deliveries() == 2
        await world.clock.advance(0.01)
        await world.until(lambda: _equal(world.store.pending_deliveries(), 0))
        assert world.store.claims == [2]
        world.dispatcher.drain()
        await world.clock.advance(0.01)
        await serving

    run(post, scenario, claim_pause_seconds=0.01)


def test_serving_that_is_cancelled_leaves_its_claims_to_lapse() -> None:
    async def post(request: WebhookRequest) -> None:
        if request.attempt == 1:
            await asyncio.get_running_loop().create_future()
        emit(request, id="t1")

    async def scenario(world: World) -> None:
        await world.receive("d1")
        serving = asyncio.create_task(world.dispatcher.serve())

        async def is_claimed() -> bool:
            return (await world.only()).attempts == 1

        await world.until(is_claimed)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        after = Dispatcher(world.store, world.connections, world.clock)
        assert await after.dispatch_batch() == 0
        await world.clock.advance(CLAIM_SECONDS)
        assert await after.dispatch_batch() == 1
        assert (await world.only()).state is DeliveryState.DONE

    run(post, scenario)


def test_the_failpoints_of_dispatch_are_passed_in_their_order() -> None:
    passed: list[str] = []
    names = ("dispatch.claimed", "dispatch.before_commit", "dispatch.after_commit", "dispatch.before_retry")

    async def post(request: WebhookRequest) -> None:
        passed.append("invoked")
        if request.provider_id == "d2":
            raise ProviderError("it is down")

    async def scenario(world: World) -> None:
        await world.receive("d1")
        for name in names:
            failpoint.arm(name, lambda name=name: passed.append(name))  # type: ignore[misc]
        await world.dispatcher.dispatch_batch()
        assert passed == [names[0], "invoked", names[1], names[2]]
        passed.clear()
        await world.receive("d2")
        await world.dispatcher.dispatch_batch()
        assert passed == [names[0], "invoked", names[3]]

    try:
        run(post, scenario)
    finally:
        failpoint.disarm()
