"""The tick: what is due starts once, what may run is admitted in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

from headwater.intention import DueStream, TickDecision
from headwater.run import Priority, RunState
from headwater.testing.clock import START
from headwater.testing.conformance.world import CADENCE, LEASE_SECONDS, World, at, declaration, every_quarter


async def a_due_stream_starts_once(world: World) -> None:
    """Its run is for that tick; the next tick is what was decided."""
    connection = await world.connect(due=at(10))
    stream_id = (await world.state()).id
    seen: list[DueStream] = []

    def decide(due: Sequence[DueStream], now: datetime) -> Sequence[TickDecision]:
        seen.extend(due)
        return every_quarter(due, now)

    before = await world.tick(at(9), decide=decide)
    assert (before.started, before.skipped, before.next_due_at, seen) == (0, 0, at(10), [])
    result = await world.tick(at(11), decide=decide)
    assert seen == [
        DueStream(
            stream_id=stream_id, connection_id=connection.id, schedule="*/15 * * * *", timezone="UTC",
            next_tick_at=at(10), is_running=False,
        )
    ]  # fmt: skip
    assert (result.started, result.skipped, len(result.admitted)) == (1, 0, 1)
    ref = result.admitted[0]
    assert (ref.trigger, ref.priority, ref.epoch, ref.attempt) == ("tick", Priority.POLL, 1, 1)
    run = await world.store.run(ref.run_id)
    assert run is not None
    assert (run.scheduled_at, run.state) == (at(10), RunState.RUNNING)
    assert (await world.state()).next_tick_at == at(11) + CADENCE
    assert (await world.tick(at(12))).started == 0


async def racing_ticks_start_each_occurrence_once(world: World) -> None:
    """Whoever comes second finds nothing due."""
    for number in range(10):
        await world.connect(f"c{number}", due=at(0))
    results = await asyncio.gather(*(world.tick(at(1)) for _ in range(5)))
    assert sum(result.started for result in results) == 10
    admitted = [ref.run_id for result in results for ref in result.admitted]
    assert len(admitted) == len(set(admitted)) == 10


async def a_tick_during_a_run_is_skipped_and_counted(world: World) -> None:
    """Whether it runs, waits or retries; the decision is told so, and cannot start a second."""
    await world.connect(due=at(0))
    seen: list[bool] = []

    def insist(due: Sequence[DueStream], now: datetime) -> Sequence[TickDecision]:
        seen.extend(stream.is_running for stream in due)
        return [TickDecision(stream_id=one.stream_id, start=True, next_tick_at=now + CADENCE) for one in due]

    (ref,) = (await world.tick(at(0), decide=insist)).admitted
    await world.store.extend_lease(ref, at=START, lease_seconds=1e6)
    result = await world.tick(at(900), decide=insist)
    assert (result.started, result.skipped, len(result.admitted)) == (0, 1, 0)
    await world.end(ref, RunState.RETRYING, due_at=at(9000))
    assert (await world.tick(at(1800), decide=insist)).skipped == 1
    assert seen == [False, True, True]
    state = await world.state()
    assert (state.skipped_ticks, state.runs_24h) == (2, 1)


async def paused_streams_and_connections_do_not_start(world: World) -> None:
    """Nor is their time lost: what was missed is due once after the pause."""
    connection = await world.connect(due=at(0))
    state = await world.state()
    await world.store.pause_stream(state.id, at=START)
    assert (await world.state()).paused_at == START
    assert (await world.tick(at(10))).started == 0
    await world.store.resume_stream(state.id, next_tick_at=at(20))
    assert (await world.tick(at(10))).next_due_at == at(20)
    await world.store.pause_connection(connection.id, reason="holiday", needs_attention=False, at=at(15))
    result = await world.tick(at(5000))
    assert (result.started, result.next_due_at) == (0, None)
    await world.store.resume_connection(connection.id, at=at(5000))
    assert (await world.tick(at(5001))).started == 1


async def waiting_runs_of_a_paused_stream_wait_on(world: World) -> None:
    """A pause holds what was triggered before it too."""
    await world.connect()
    state = await world.state()
    run_id = await world.store.trigger_run(state.id, at=START)
    await world.store.pause_stream(state.id, at=START)
    assert not (await world.tick(at(1))).admitted
    await world.store.resume_stream(state.id, next_tick_at=None)
    assert [ref.run_id for ref in (await world.tick(at(1))).admitted] == [run_id]


async def a_connection_has_its_cap(world: World) -> None:
    """Running runs count, whoever admitted them; a finished one makes room."""
    await world.connect(streams=[f"s{number}" for number in range(6)], due=at(0))
    first = (await world.tick(at(0), per_connection_max=2)).admitted
    assert len(first) == 2
    assert not (await world.tick(at(1), per_connection_max=2)).admitted
    await world.end(first[0])
    assert len((await world.tick(at(2), per_connection_max=2)).admitted) == 1


async def connections_take_turns(world: World) -> None:
    """A connection with many streams does not keep the others waiting."""
    await world.connect("big", streams=[f"s{number}" for number in range(20)], due=at(0))
    await world.connect("small", due=at(5))
    await world.connect("tiny", due=at(6))
    admitted = (await world.tick(at(10), admit_max=4, per_connection_max=10)).admitted
    big, small, tiny = [one.id for one in await world.store.connections()]
    assert sorted(ref.connection_id for ref in admitted) == sorted([big, big, small, tiny])
    assert len((await world.tick(at(11), admit_max=3, per_connection_max=10)).admitted) == 3


async def smaller_priority_goes_first(world: World) -> None:
    """What an operator asked for comes before polls, polls before backfills."""
    await world.connect(streams=("a", "b"), due=at(0))
    await world.connect("other", streams=("c",))
    assert (await world.tick(at(1), admit_max=0)).started == 2
    state = await world.state("other", "c")
    run_id = await world.store.trigger_run(state.id, at=at(5))
    order = (await world.tick(at(6), admit_max=1)).admitted
    assert [ref.run_id for ref in order] == [run_id]
    order = (await world.tick(at(7))).admitted
    assert [ref.stream_key for ref in order] == ["a", "b"]


async def nothing_is_admitted_beyond_the_limit(world: World) -> None:
    """Zero admits nothing, yet what is due starts."""
    await world.connect(due=at(0))
    result = await world.tick(at(0), admit_max=0)
    assert (result.started, len(result.admitted)) == (1, 0)
    assert len((await world.tick(at(0))).admitted) == 1


async def the_next_work_is_told(world: World) -> None:
    """The earliest of ticks, retries, silences and leases that may end; None when nothing waits."""
    await world.connect()
    assert (await world.tick(START)).next_due_at is None
    ref = await world.admit()
    assert (await world.tick(at(1))).next_due_at == at(LEASE_SECONDS)
    await world.end(ref, RunState.RETRYING, due_at=at(30))
    assert (await world.tick(at(1))).next_due_at == at(30)
    (ref,) = (await world.tick(at(30))).admitted
    await world.end(ref, RunState.RETRYING, due_at=at(40), blocked_until=at(70))
    assert (await world.tick(at(50))).next_due_at == at(70)


async def a_failing_decision_changes_nothing(world: World) -> None:
    """The tick is one transaction."""
    await world.connect(due=at(0))

    def fail(due: Sequence[DueStream], now: datetime) -> Sequence[TickDecision]:
        raise ZeroDivisionError(f"{len(due)} due at {now}")

    try:
        await world.tick(at(1), decide=fail)
    except ZeroDivisionError:
        pass
    else:
        raise AssertionError("the error of the decision was swallowed")
    assert (await world.tick(at(1))).started == 1


async def declarations_are_brought_in_line(world: World) -> None:
    """A schedule that stays keeps its tick; a changed one takes the new; one that is gone keeps its checkpoint."""
    connection = await world.connect(streams=("a", "b", "c"), due=at(100))
    ref = await world.admit(stream="c")
    await world.commit(ref, cursor="kept")
    await world.end(ref)
    again = [
        declaration("a", next_tick_at=at(999)),
        declaration("b", schedule="0 * * * *", next_tick_at=at(999), expect_within_seconds=60),
    ]
    await world.store.declare_streams(connection.id, again, at=at(50))
    states = {state.stream: state for state in await world.store.streams(at=at(60))}
    assert set(states) == {"a", "b"}
    assert (states["a"].next_tick_at, states["b"].next_tick_at) == (at(100), at(999))
    # The clock was ahead when that tick was written, and was put right.
    earlier = [declaration("a", next_tick_at=at(90)), again[1]]
    await world.store.declare_streams(connection.id, earlier, at=at(80))
    states = {state.stream: state for state in await world.store.streams(at=at(80))}
    assert (states["a"].next_tick_at, states["b"].next_tick_at) == (at(90), at(999))
    assert (states["b"].schedule, states["b"].expect_within_seconds) == ("0 * * * *", 60)
    assert states["a"].registered_at == START
    await world.tick(at(100))
    assert await world.store.runs(stream="c", state=RunState.RUNNING) == []
    await world.store.declare_streams(connection.id, [declaration("c", next_tick_at=at(200))], at=at(150))
    (state,) = await world.store.streams(at=at(160))
    assert (state.stream, state.cursor, state.next_tick_at) == ("c", "kept", at(200))


async def a_run_that_a_clock_ahead_has_made_is_due_once_it_is_put_right(world: World) -> None:
    """It waited for room when the clock was put back: for the instant of the fast clock it waits no longer."""
    await world.connect(due=at(7200))
    assert (await world.tick(at(7200), admit_max=0)).started == 1
    assert (await world.tick(at(10))).admitted == []
    assert await world.store.last_instant() == at(7200), "it tells of the clock, though nothing was tried yet"
    await world.store.bring_back(at(10), lease_seconds=LEASE_SECONDS)
    (ref,) = (await world.tick(at(10))).admitted
    await world.store.bring_back(at(5), lease_seconds=LEASE_SECONDS)
    assert (await world.state()).running_run_id == ref.run_id, "what runs is left to run"


async def what_a_clock_ahead_put_off_is_brought_back(world: World) -> None:
    """A retry and a silence end at once, and a lease as if it began now; what is due earlier stays as it is."""
    await world.connect(streams=("a", "b", "c", "d"), due=at(7200))
    first, second, third, fourth = (await world.tick(at(7200))).admitted
    await world.end(first, RunState.RETRYING, now=at(7201), due_at=at(7300), error_code="retry.provider", error="503")
    await world.end(second, RunState.FAILED, now=at(7201), blocked_until=at(9999), error_code="retry.rate", error="429")
    await world.store.extend_lease(fourth, at=at(-20), lease_seconds=LEASE_SECONDS)
    await world.store.bring_back(at(10), lease_seconds=LEASE_SECONDS)
    states = {state.stream: state for state in await world.store.streams(at=at(10))}
    assert (states["a"].retry_at, states["b"].blocked_until) == (at(10), None)
    ticks = [await world.tick(at(seconds)) for seconds in (10, 40, 69, 70)]
    assert [[ref.run_id for ref in tick.admitted] for tick in ticks] == [
        [first.run_id], [fourth.run_id], [], [first.run_id, third.run_id]
    ]  # fmt: skip


async def the_last_instant_is_of_whatever_was_tried_or_received_last(world: World) -> None:
    """By the clock of then; a retry that is due later tells of no clock."""
    connection = await world.connect(due=at(0))
    assert await world.store.last_instant() is None
    ref = await world.admit(now=at(30))
    assert await world.store.last_instant() == at(30)
    await world.deliver(connection.id, "evt", seconds=40)
    assert await world.store.last_instant() == at(40)
    await world.end(ref, RunState.RETRYING, now=at(50), due_at=at(300), error_code="retry.provider", error="503")
    assert await world.store.last_instant() == at(50)


async def partitions_are_streams_of_their_own(world: World) -> None:
    """One row, one checkpoint, one run each."""
    connection = await world.connect()
    parts = [declaration("sales", partition=name, next_tick_at=at(0)) for name in ("eu", "us")]
    await world.store.declare_streams(connection.id, parts, at=START)
    admitted = (await world.tick(at(0))).admitted
    assert {ref.partition for ref in admitted} == {"eu", "us"}
    for ref in admitted:
        await world.commit(ref, cursor=ref.partition)
    states = await world.store.streams(at=START)
    assert [(state.partition, state.cursor) for state in states] == [("eu", "eu"), ("us", "us")]
