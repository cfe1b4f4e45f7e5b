"""Leases, fencing and the ends of runs: CONTRACT 4 and Invariant 9."""

from __future__ import annotations

from headwater.clock import to_micros
from headwater.errors import FencedError, NotFoundError, UsageError
from headwater.run import RequestLog, RunState, Window
from headwater.testing.clock import START
from headwater.testing.conformance.world import LEASE_SECONDS, World, at, emission, grave, refused


async def one_run_of_a_stream_is_under_way(world: World) -> None:
    """A second trigger is refused until the first is over; other streams are free."""
    await world.connect(streams=("customers", "invoices"))
    state = await world.state()
    run_id = await world.store.trigger_run(state.id, at=START)
    busy = await refused(UsageError, world.store.trigger_run(state.id, at=START))
    assert (busy.message, busy.hint) == (f"Run {run_id} of customers is under way.", "Wait for it, or cancel it.")
    unknown = await refused(NotFoundError, world.store.trigger_run(999, at=START))
    assert unknown.message == "There is no stream row 999."
    assert (await world.state()).running_run_id == run_id
    await world.admit(stream="invoices")
    assert await world.store.cancel_run(run_id, at=START)
    assert await world.store.trigger_run(state.id, at=START) != run_id


async def a_run_is_admitted_once(world: World) -> None:
    """Its reference says where to go on; an unknown run and one that runs are refused."""
    await world.connect(partition="eu")
    state = await world.state()
    window = Window(at(-3600), at(0))
    run_id = await world.store.trigger_run(state.id, at=START, window=window, pages_limit=3, allow_deletes=True)
    ref = await world.store.admit_run(run_id, at=START, lease_seconds=LEASE_SECONDS)
    assert (ref.run_id, ref.stream_id, ref.stream_key, ref.partition) == (run_id, state.id, "customers", "eu")
    assert (ref.trigger, ref.epoch, ref.attempt, ref.cursor, ref.page_number) == ("operator", 1, 1, None, 0)
    assert (ref.window, ref.pages_limit, ref.allow_deletes) == (window, 3, True)
    running = await refused(UsageError, world.store.admit_run(run_id, at=START, lease_seconds=LEASE_SECONDS))
    assert running.message == f"Run {run_id} is running; only a waiting run can be admitted."
    unknown = await refused(NotFoundError, world.store.admit_run(999, at=START, lease_seconds=LEASE_SECONDS))
    assert unknown.message == "There is no run 999."


async def success_is_noted(world: World) -> None:
    """The run, its stream's health and checkpoint; the same end told twice is told once."""
    await world.connect()
    ref = await world.admit(now=at(10))
    assert (await world.state()).last_attempt_at == at(10)
    await world.commit(ref, emission("a", "x"), cursor="c", at=at(20))
    await world.end(ref, now=at(30))
    await world.end(ref, now=at(30))
    run, state = await world.store.run(ref.run_id), await world.state()
    assert run is not None
    assert (run.state, run.pages, run.cursor_before, run.cursor_after) == (RunState.SUCCEEDED, 1, None, "c")
    assert (run.scheduled_at, run.started_at, run.finished_at) == (at(10), at(10), at(30))
    assert (run.connection, run.connector, run.connector_version, run.error) == ("acme", "shop", "1.0", None)
    assert (state.last_success_at, state.cursor, state.running_run_id) == (at(30), "c", None)
    assert (state.runs_24h, state.failed_24h, state.consecutive_failures) == (1, 0, 0)
    assert (await world.admit()).cursor == "c"


async def a_success_that_left_something_is_not_complete(world: World) -> None:
    """A run that stops at its limit of pages does not make its stream fresh."""
    await world.connect()
    ref = await world.admit(pages_limit=1)
    await world.commit(ref, emission("a", "x"), cursor="c", has_more=True)
    await world.end(ref, now=at(30))
    assert (await world.state()).last_success_at is None


async def the_checkpoint_after_a_success_may_differ(world: World) -> None:
    """An incremental poll begins anew at its own mark, or from the beginning."""
    await world.connect()
    ref = await world.admit()
    await world.commit(ref, cursor="page-9", at=at(5))
    await world.end(ref, keep_cursor=False, checkpoint_cursor="mark", now=at(9))
    again = await world.admit()
    assert (again.cursor, again.checkpoint_at) == ("mark", at(9))
    await world.end(again, keep_cursor=False, checkpoint_cursor=None)
    assert (await world.state()).cursor is None


async def a_failed_attempt_waits_for_its_retry(world: World) -> None:
    """Retrying keeps the run under way and the checkpoint where it is; the next attempt goes on there."""
    await world.connect()
    ref = await world.admit()
    await world.commit(ref, emission("a", "x"), cursor="one", has_more=True)
    asked = RequestLog(at=START, method="GET", url="/x", status=503, milliseconds=3, retries=2, note="gave up")
    await world.end(
        ref, RunState.RETRYING, now=at(40), due_at=at(100), error_code="retry.provider", error="503", requests=[asked]
    )
    run, state = await world.store.run(ref.run_id), await world.state()
    assert run is not None
    assert (run.due_at, run.finished_at, state.last_attempt_at) == (at(100), None, at(40))
    assert (state.running_state, state.retry_at, state.last_error_code) == (
        RunState.RETRYING,
        at(100),
        "retry.provider",
    )
    assert (state.consecutive_failures, state.failed_24h) == (0, 0)
    assert list(await world.store.requests(ref.run_id)) == [asked]
    await refused(FencedError, world.store.commit_page(world.page(ref)))
    assert not (await world.tick(at(99))).admitted
    (again,) = (await world.tick(at(100))).admitted
    assert (again.run_id, again.attempt, again.epoch) == (ref.run_id, 2, ref.epoch + 1)
    assert (again.cursor, again.page_number) == ("one", 1)
    await world.commit(again, emission("b", "x"))
    await world.end(again)
    state = await world.state()
    assert (state.last_error, state.running_run_id) == (None, None)


async def a_failed_run_is_counted(world: World) -> None:
    """With its code, its message and its traceback; success puts the count back."""
    await world.connect()
    for count in (1, 2):
        ref = await world.admit()
        await world.end(ref, RunState.FAILED, error_code="stop.handler", error="bug", traceback="line 1")
        state = await world.state()
        assert (state.consecutive_failures, state.failed_24h, state.last_error) == (count, count, "bug")
    run = await world.store.run(ref.run_id)
    assert run is not None
    assert (run.state, run.error_code, run.traceback) == (RunState.FAILED, "stop.handler", "line 1")
    await world.ingest()
    assert (await world.state()).consecutive_failures == 0


async def a_provider_may_silence_or_pause_a_connection(world: World) -> None:
    """`blocked_until` and `pause_reason` hold the whole account; resuming undoes both."""
    connection = await world.connect(streams=("customers", "invoices"), due=at(0))
    ref = await world.admit()
    await world.end(ref, RunState.RETRYING, due_at=at(1), blocked_until=at(500), error="429")
    assert (await world.state()).blocked_until == at(500)
    assert not (await world.tick(at(100))).admitted
    ref = (await world.tick(at(500), per_connection_max=1)).admitted[0]
    await world.end(ref, RunState.FAILED, pause_reason="The key was revoked.", error="401", now=at(501))
    state = await world.state()
    assert (state.connection_paused_reason, state.connection_needs_attention) == ("The key was revoked.", True)
    assert not (await world.tick(at(2000))).admitted
    await world.store.resume_connection(connection.id, at=at(2000))
    assert (await world.state()).connection_paused_reason is None
    assert (await world.state()).blocked_until is None
    assert (await world.tick(at(2001))).admitted


async def a_lost_lease_fences_its_holder(world: World) -> None:
    """Invariant 9: whoever held it commits, extends, begins and finishes nothing more."""
    await world.connect()
    ref = await world.admit()
    (again,) = (await world.tick(at(LEASE_SECONDS + 1))).admitted
    assert (again.run_id, again.epoch) == (ref.run_id, ref.epoch + 1)
    await refused(FencedError, world.store.commit_page(world.page(ref, emission("a", "x"))))
    await refused(FencedError, world.store.begin_run(ref, at=START, lease_seconds=1))
    await refused(FencedError, world.store.extend_lease(ref, at=START, lease_seconds=1))
    await refused(FencedError, world.end(ref))
    assert await world.store.record("acme", "customer", "a") is None
    await world.commit(again, emission("a", "x"))


async def a_page_and_an_extension_keep_the_lease(world: World) -> None:
    """Each counts from its own instant."""
    await world.connect()
    ref = await world.admit()
    await world.store.extend_lease(ref, at=at(50), lease_seconds=LEASE_SECONDS)
    assert not (await world.tick(at(100))).admitted
    await world.commit(ref, at=at(105))
    assert not (await world.tick(at(160))).admitted
    assert (await world.tick(at(166))).admitted


async def readmission_fences_everything_in_flight(world: World) -> None:
    """After a crash of an embedded engine: all that ran waits again, at once."""
    await world.connect(streams=("customers", "invoices"))
    refs = [await world.admit(stream=stream) for stream in ("customers", "invoices")]
    assert await world.store.readmit(at(1)) == 2
    admitted = (await world.tick(at(1))).admitted
    assert {ref.run_id for ref in admitted} == {ref.run_id for ref in refs}
    for ref in refs:
        await refused(FencedError, world.store.extend_lease(ref, at=at(2), lease_seconds=1))


async def a_cancelled_run_commits_nothing_more(world: World) -> None:
    """Running or waiting; one that is over stays as it was."""
    await world.connect()
    ref = await world.admit()
    assert await world.store.cancel_run(ref.run_id, at=at(5))
    await refused(FencedError, world.store.commit_page(world.page(ref)))
    assert not await world.store.cancel_run(ref.run_id, at=at(6))
    assert not await world.store.cancel_run(999, at=at(6))
    run, state = await world.store.run(ref.run_id), await world.state()
    assert run is not None
    assert (run.state, run.finished_at) == (RunState.CANCELLED, at(5))
    assert (state.running_run_id, state.consecutive_failures) == (None, 0)
    assert (await world.admit()).epoch == ref.epoch + 2, "its epoch is nobody's, between the two"


async def a_moved_checkpoint_fences_the_run_under_way(world: World) -> None:
    """The operator's word stands: what the run still had in hand does not overwrite it."""
    await world.connect()
    ref = await world.admit()
    await world.commit(ref, cursor="far", has_more=True)
    state = await world.state()
    await world.store.set_checkpoint(state.id, "near", at=at(9))
    await refused(FencedError, world.store.commit_page(world.page(ref)))
    (again,) = (await world.tick(at(9))).admitted
    assert (again.run_id, again.cursor, again.checkpoint_at) == (ref.run_id, "near", at(9))
    await world.end(again)
    await world.store.set_checkpoint(state.id, None, at=at(10))
    assert (await world.state()).cursor is None
    await refused(NotFoundError, world.store.set_checkpoint(999, None, at=at(10)))


async def runs_are_listed_newest_first(world: World) -> None:
    """With their filters, and page by page."""
    await world.connect(streams=("customers", "invoices"))
    for _ in range(3):
        await world.ingest()
    failed = await world.admit(stream="invoices", now=at(900))
    await world.end(failed, RunState.FAILED, now=at(901))
    store = world.store
    ids = [run.id for run in await store.runs()]
    assert ids == sorted(ids, reverse=True)
    assert len(ids) == 4
    assert [run.id for run in await store.runs(after=ids[1], limit=1)] == [ids[2]]
    assert [run.id for run in await store.runs(state=RunState.FAILED)] == [failed.run_id]
    assert len(await store.runs(connection="acme", stream="customers")) == 3
    assert await store.runs(connection="nobody") == []
    assert await store.run(999) is None


async def runs_of_ticks_are_told_by_stream(world: World) -> None:
    """Each stream from its own instant on, in the order of their ticks; windows of backfills are none."""
    await world.connect(streams=("customers", "invoices"))
    await world.ingest(emission("a", "x"), emission("b", "x"), grave("c"))
    failed = await world.admit(stream="invoices", now=at(900))
    await world.end(failed, RunState.FAILED, now=at(901))
    later = await world.admit(stream="invoices", now=at(960))
    state = await world.state()
    await world.store.add_backfill(state.id, span=Window(at(0), at(9)), windows=[Window(at(0), at(9))], at=at(961))
    await world.tick(at(961))
    everything = await world.store.tick_runs({state.id: at(0), failed.stream_id: at(0)}, until=at(999))
    (polled,) = everything[state.id]
    assert (polled.state, polled.attempt, polled.scheduled_at, polled.changed) == (
        RunState.SUCCEEDED,
        1,
        to_micros(at(0)),
        3,
    )
    assert [(run.id, run.finished_at) for run in everything[failed.stream_id]] == [
        (failed.run_id, to_micros(at(901))), (later.run_id, None),
    ]  # fmt: skip
    some = await world.store.tick_runs({state.id: at(1), failed.stream_id: at(901)}, until=at(960))
    assert some == {}
    some = await world.store.tick_runs({failed.stream_id: at(900)}, until=at(960))
    assert [run.id for run in some[failed.stream_id]] == [failed.run_id]
    assert await world.store.tick_runs({}, until=at(999)) == {}
