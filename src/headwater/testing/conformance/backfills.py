"""Backfills: windows beside the live stream, with their own checkpoints and fences."""

from __future__ import annotations

from headwater.errors import FencedError, NotFoundError, UsageError
from headwater.run import Backfill, Priority, RunState, Window
from headwater.testing.clock import START
from headwater.testing.conformance.world import World, at, emission, refused

DAY = 86_400


def _windows(count: int) -> list[Window]:
    return [Window(at(number * DAY), at((number + 1) * DAY)) for number in range(count)]


async def _backfill(world: World, count: int, stream: str = "customers") -> Backfill:
    state = await world.state(stream=stream)
    span = Window(at(0), at(count * DAY))
    return await world.store.add_backfill(state.id, span=span, windows=_windows(count), at=START)


async def windows_become_runs_beside_the_live_stream(world: World) -> None:
    """Oldest first, within the connection's cap, after the polls, each with its own checkpoint."""
    await world.connect(due=at(0))
    backfill = await _backfill(world, 5)
    assert (backfill.state, backfill.windows["todo"], backfill.span) == ("running", 5, Window(at(0), at(5 * DAY)))
    live, *refs = (await world.tick(at(0), per_connection_max=3)).admitted
    assert (live.trigger, live.window_id) == ("tick", None)
    assert [ref.window for ref in refs] == _windows(5)[:2]
    assert {(ref.trigger, ref.priority) for ref in refs} == {("backfill", Priority.BACKFILL)}
    await world.commit(refs[0], emission("a", "x"), cursor="w1", has_more=True, origin="backfill")
    await world.commit(live, emission("b", "x"), cursor="live")
    assert (await world.state()).cursor == "live"
    window = (await world.store.windows(backfill.id))[0]
    assert (window.state, window.cursor, window.pages, window.counts.created) == ("running", "w1", 1, 1)
    assert (window.run_id, window.attempts, window.started_at) == (refs[0].run_id, 1, at(0))


async def a_window_goes_on_where_it_was(world: World) -> None:
    """After a retry and after a lost lease."""
    await world.connect()
    await _backfill(world, 1)
    (ref,) = (await world.tick(at(0))).admitted
    await world.commit(ref, emission("a", "x"), cursor="w", has_more=True)
    await world.end(ref, RunState.RETRYING, due_at=at(5))
    (again,) = (await world.tick(at(5))).admitted
    assert (again.run_id, again.cursor, again.page_number, again.attempt) == (ref.run_id, "w", 1, 2)
    assert (again.checkpoint_at, again.window_id) == (START, ref.window_id)
    (third,) = (await world.tick(at(5000))).admitted
    await refused(FencedError, world.store.commit_page(world.page(again)))
    await world.commit(third, emission("b", "x"))


async def a_backfill_ends_with_its_windows(world: World) -> None:
    """All done: succeeded. One failed and none to do: failed, until it is tried again."""
    await world.connect()
    backfill = await _backfill(world, 3)
    refs = (await world.tick(at(0))).admitted
    await world.end(refs[0])
    await world.end(refs[1], RunState.FAILED, error="boom", now=at(7))
    still = await world.store.backfill(backfill.id)
    assert still is not None
    assert (still.state, still.windows["done"], still.windows["failed"]) == ("running", 1, 1)
    await world.end(refs[2], now=at(8))
    over = await world.store.backfill(backfill.id)
    assert over is not None
    assert (over.state, over.finished_at) == ("failed", at(8))
    failed = next(one for one in await world.store.windows(backfill.id) if one.state == "failed")
    assert (failed.error, failed.finished_at) == ("boom", at(7))
    await world.store.retry_window(failed.id, at=at(9))
    (ref,) = (await world.tick(at(9))).admitted
    assert (ref.window_id, ref.cursor, ref.attempt) == (failed.id, None, 1)
    await world.end(ref, now=at(10))
    over = await world.store.backfill(backfill.id)
    assert over is not None
    assert (over.state, over.finished_at) == ("succeeded", at(10))
    await refused(NotFoundError, world.store.retry_window(999, at=at(9)))


async def a_window_may_be_done_again(world: World) -> None:
    """From its beginning, whatever became of it; whoever still runs it is fenced."""
    await world.connect()
    backfill = await _backfill(world, 1)
    (ref,) = (await world.tick(at(0))).admitted
    await world.commit(ref, emission("a", "x"), cursor="w", has_more=True)
    assert ref.window_id is not None
    await world.store.retry_window(ref.window_id, at=at(1))
    await refused(FencedError, world.store.commit_page(world.page(ref)))
    (window,) = await world.store.windows(backfill.id)
    assert (window.state, window.cursor, window.pages, window.counts.total) == ("todo", None, 0, 0)
    (again,) = (await world.tick(at(1))).admitted
    assert (again.window_id, again.cursor) == (ref.window_id, None)


async def a_pause_lets_windows_finish(world: World) -> None:
    """And starts no further one; what waits for its retry waits on."""
    await world.connect()
    backfill = await _backfill(world, 3)
    refs = (await world.tick(at(0), per_connection_max=2)).admitted
    await world.store.set_backfill_state(backfill.id, "paused", at=at(1))
    await world.commit(refs[0], emission("a", "x"))
    await world.end(refs[0])
    await world.end(refs[1], RunState.RETRYING, due_at=at(2))
    assert not (await world.tick(at(10))).admitted
    await world.store.set_backfill_state(backfill.id, "running", at=at(11))
    assert len((await world.tick(at(11))).admitted) == 2


async def cancelling_cancels_its_runs(world: World) -> None:
    """Running and waiting; a cancelled one is not resumed, only its windows tried again."""
    await world.connect()
    backfill = await _backfill(world, 3)
    ref, other = (await world.tick(at(0), per_connection_max=2)).admitted
    await world.end(other)
    await world.store.set_backfill_state(backfill.id, "cancelled", at=at(1))
    await refused(FencedError, world.store.commit_page(world.page(ref)))
    assert not (await world.tick(at(2))).admitted
    over = await world.store.backfill(backfill.id)
    assert over is not None
    assert (over.state, over.finished_at, over.windows["cancelled"], over.windows["done"]) == ("cancelled", at(1), 2, 1)
    await refused(UsageError, world.store.set_backfill_state(backfill.id, "running", at=at(3)))
    await refused(NotFoundError, world.store.set_backfill_state(999, "paused", at=at(3)))


async def a_cancelled_window_run_settles_its_backfill(world: World) -> None:
    """The last window that an operator gave up ends the backfill."""
    await world.connect()
    backfill = await _backfill(world, 1)
    (ref,) = (await world.tick(at(0))).admitted
    assert await world.store.cancel_run(ref.run_id, at=at(3))
    over = await world.store.backfill(backfill.id)
    assert over is not None
    assert (over.state, over.windows["cancelled"]) == ("failed", 1)
    (window,) = await world.store.windows(backfill.id)
    assert (window.state, window.finished_at) == ("cancelled", at(3))


async def a_window_whose_run_is_cancelled_is_given_up(world: World) -> None:
    """As its worker tells it; one that is tried again later is under way."""
    await world.connect()
    backfill = await _backfill(world, 2)
    given_up, retried = (await world.tick(at(0))).admitted
    await world.end(given_up, RunState.CANCELLED, now=at(4))
    await world.end(retried, RunState.RETRYING, now=at(5), due_at=at(9))
    windows = await world.store.windows(backfill.id)
    assert [(one.state, one.finished_at) for one in windows] == [("cancelled", at(4)), ("running", None)]


async def window_runs_do_not_touch_the_live_streams_health(world: World) -> None:
    """Neither its success nor its failures."""
    await world.connect()
    await _backfill(world, 2)
    ref, other = (await world.tick(at(0))).admitted
    await world.end(ref)
    await world.end(other, RunState.FAILED, error="boom")
    state = await world.state()
    assert (state.last_success_at, state.last_error, state.consecutive_failures) == (None, None, 0)


async def backfills_are_listed_with_their_figures(world: World) -> None:
    """Newest first, by connection and stream."""
    await world.connect(streams=("customers", "invoices"))
    first = await _backfill(world, 1)
    second = await _backfill(world, 1, "invoices")
    refs = (await world.tick(at(0))).admitted
    ref = next(one for one in refs if one.stream_key == "customers")
    await world.commit(ref, emission("a", "x"), emission("b", "x"))
    assert [one.id for one in await world.store.backfills()] == [second.id, first.id]
    (found,) = await world.store.backfills(connection="acme", stream="customers")
    assert (found.pages, found.counts.created, found.windows["running"]) == (1, 2, 1)
    assert [run.backfill_id for run in await world.store.runs(backfill_id=first.id)] == [first.id]
    assert await world.store.backfill(999) is None
    await refused(
        NotFoundError, world.store.add_backfill(999, span=Window(at(0), at(1)), windows=_windows(1), at=START)
    )
