"""Where runs go: windows and partitions, checkpoints of their own, and those that must not be moved."""

from dataclasses import replace
from datetime import timedelta

import pytest

from builders import AT, make_stream
from headwater import ingest
from headwater.clock import EPOCH
from headwater.context import current
from headwater.course import RECORDS_LIMIT_MAX, plot
from headwater.errors import ProviderError, StopError
from headwater.run import Page, Priority, RunState, Window
from runs import listing, with_runner

WINDOWED = {"windowed": True, "lookback_seconds": 60}
QUARTER = timedelta(minutes=15)


def broken_once(page, route):
    remaining = 1

    async def post(request):
        nonlocal remaining
        if int(request.cursor or 0) == page and remaining:
            remaining -= 1
            raise ProviderError
        return await route(request)

    return post


def test_a_windowed_poll_asks_from_the_last_window_s_end_less_the_lookback_until_now():
    seen = []

    async def body(scene):
        await scene.poll()
        assert (await scene.state()).cursor == "2026-01-01T00:15:00Z"
        await scene.poll()
        assert [request.window for request in seen] == [
            Window(EPOCH, AT + QUARTER),
            Window(AT + QUARTER - timedelta(seconds=60), AT + 2 * QUARTER),
        ]
        assert [request.cursor for request in seen] == [None, None]

    with_runner(body, listing(1, seen=seen), stream=make_stream(**WINDOWED))


def test_a_windowed_poll_that_failed_resumes_the_same_window():
    seen = []

    async def body(scene):
        assert (await scene.poll()).state is RunState.RETRYING
        outcome = await scene.runner.carry_out(await scene.readmit(60))
        assert outcome.state is RunState.SUCCEEDED
        assert {request.window for request in seen} == {Window(EPOCH, AT + QUARTER)}
        assert [request.cursor for request in seen] == [None, "1", "2"]
        assert (await scene.state()).cursor == "2026-01-01T00:15:00Z"
        await scene.assert_each_once(3)

    with_runner(body, broken_once(1, listing(3, seen=seen)), stream=make_stream(**WINDOWED))


def test_a_checkpoint_that_is_no_instant_fails_a_windowed_poll_with_what_to_do():
    async def body(scene):
        await scene.store.set_checkpoint((await scene.state()).id, "cus_1", at=scene.clock.now())
        outcome = await scene.poll()
        assert (outcome.state, outcome.failure.code) == (RunState.FAILED, "stop")
        assert "Set it to an instant" in outcome.failure.message

    with_runner(body, listing(1), stream=make_stream(**WINDOWED))


def test_a_window_of_a_backfill_keeps_its_own_checkpoint_beside_the_live_one():
    seen = []

    async def body(scene):
        await scene.poll()
        state, span = await scene.state(), Window(AT - timedelta(days=2), AT)
        middle = AT - timedelta(days=1)
        windows = [Window(span.start, middle), Window(middle, span.end)]
        backfill = await scene.store.add_backfill(state.id, span=span, windows=windows, at=scene.clock.now())
        seen.clear()
        for ref in (await scene.tick()).admitted:
            assert (ref.trigger, ref.cursor) == ("backfill", None)
            assert (await scene.runner.carry_out(ref)).state is RunState.SUCCEEDED
        assert [(request.window, request.cursor) for request in seen] == [
            (window, cursor) for window in windows for cursor in (None, "1")
        ]
        assert (await scene.state()).cursor == "2"
        assert [window.cursor for window in await scene.store.windows(backfill.id)] == ["2", "2"]
        assert (await scene.store.backfill(backfill.id)).state == "succeeded"
        assert {version.origin for version in await scene.store.versions("acme", "customer", "c0-0")} == {"poll"}

    with_runner(body, listing(2, seen=seen))


def test_a_window_that_failed_resumes_at_its_own_cursor():
    seen = []

    async def body(scene):
        state, window = await scene.state(), Window(AT - timedelta(days=1), AT)
        await scene.store.add_backfill(state.id, span=window, windows=[window], at=scene.clock.now())
        (ref,) = (await scene.tick()).admitted
        assert (await scene.runner.carry_out(ref)).state is RunState.RETRYING
        outcome = await scene.runner.carry_out(await scene.readmit(60))
        assert outcome.state is RunState.SUCCEEDED
        assert [request.cursor for request in seen] == [None, "1", "2"]
        assert {request.window for request in seen} == {window}
        assert (await scene.state()).cursor is None

    with_runner(body, broken_once(1, listing(3, seen=seen)), stream=make_stream(**WINDOWED))


def test_a_window_asked_for_by_an_operator_leaves_the_checkpoint_alone():
    seen = []

    async def body(scene):
        await scene.poll()
        seen.clear()
        window = Window(AT - timedelta(days=1), AT)
        await scene.store.trigger_run((await scene.state()).id, at=scene.clock.now(), window=window)
        outcome = await scene.runner.carry_out(await scene.readmit())
        assert (outcome.state, outcome.pages) == (RunState.SUCCEEDED, 2)
        assert [(request.window, request.cursor) for request in seen] == [(window, None), (window, "1")]
        assert (await scene.state()).cursor == "2"

    with_runner(body, listing(2, seen=seen))


def test_a_run_with_a_limit_of_pages_ends_with_success_and_the_next_goes_on():
    seen = []

    async def body(scene):
        state = await scene.state()
        await scene.store.trigger_run(state.id, at=scene.clock.now(), pages_limit=2)
        outcome = await scene.runner.carry_out(await scene.readmit())
        assert (outcome.state, outcome.pages) == (RunState.SUCCEEDED, 2)
        assert (await scene.state()).cursor == "2"
        await scene.poll()
        assert [request.cursor for request in seen] == [None, "1", "2", "3"]
        await scene.assert_each_once(4)

    with_runner(body, listing(4, seen=seen))


def test_a_route_is_told_where_its_run_stands():
    told, route = [], listing(2)

    async def post(request):
        told.append(current("test"))
        return await route(request)

    async def body(scene):
        first = await scene.admit()
        await scene.runner.carry_out(first)
        await scene.store.trigger_run((await scene.state()).id, at=scene.clock.now())
        second = await scene.readmit()
        await scene.runner.carry_out(second)
        assert [(one.stream, one.cursor) for one in told] == [("customers", cursor) for cursor in (None, "1", "2")]
        assert [one.checkpoint_at for one in told] == [None, None, second.checkpoint_at]
        assert second.checkpoint_at is not None
        assert [one.priority for one in told] == [Priority.POLL, Priority.POLL, second.priority]
        assert second.priority != Priority.POLL
        facts = [one.logger.process("", {})[1]["extra"] for one in told]
        assert [one["headwater_run"] for one in facts] == [first.run_id, first.run_id, second.run_id]

    with_runner(body, post)


def test_pages_before_a_failure_count_towards_the_limit_of_the_run():
    async def body(scene):
        assert (await scene.poll()).state is RunState.RETRYING
        outcome = await scene.runner.carry_out(await scene.readmit(60))
        assert (outcome.state, outcome.pages) == (RunState.FAILED, 1)
        assert "its limit of 3 pages" in outcome.failure.message
        assert (await scene.state()).cursor == "3"

    with_runner(body, broken_once(2, listing(9)), stream=make_stream(pages_max=3))


def test_a_first_page_that_leads_back_to_the_checkpoint_is_an_error():
    async def post(request):
        return Page(cursor=request.cursor or "1", has_more=request.cursor is not None)

    async def body(scene):
        assert (await scene.poll()).state is RunState.SUCCEEDED
        outcome = await scene.poll()
        assert outcome.state is RunState.FAILED
        assert "its cursor stayed at" in outcome.failure.message

    with_runner(body, post)


def test_a_windowed_poll_on_demand_takes_the_cursor_that_it_is_given():
    async def body(scene):
        ref = replace(await scene.admit(), cursor="page-7")
        at = scene.clock.now()
        with pytest.raises(StopError, match="Set it to an instant"):
            plot(scene.connections.live, ref, at=at)
        course = plot(scene.connections.live, ref, at=at, on_demand=True)
        assert (course.cursor, course.window, course.windowed) == ("page-7", Window(EPOCH, at), None)

    with_runner(body, listing(1), stream=make_stream(**WINDOWED))


def test_a_stream_without_a_route_says_which_there_is():
    async def body(scene):
        ref = replace(await scene.admit(), stream_key="customer")
        with pytest.raises(StopError, match="no sync route of the stream `customer`") as caught:
            plot(scene.connections.live, ref, at=scene.clock.now())
        assert "customers" in caught.value.hint

    with_runner(body, listing(1))


def test_a_stream_of_a_partition_is_asked_for_it():
    seen = []

    async def body(scene):
        ref = await scene.admit()
        assert ref.partition == "eu"
        await scene.runner.carry_out(ref)
        assert seen[0].partition == "eu"
        assert (await scene.state()).partition == "eu"

    with_runner(body, listing(1, seen=seen), partition="eu")


@pytest.mark.parametrize(("asked", "given"), [(None, 100), (5, 5), (10**9, RECORDS_LIMIT_MAX)])
def test_the_records_of_a_page_are_limited(asked, given):
    async def body(scene):
        ref = await scene.admit()
        course = plot(scene.connections.live, ref, at=scene.clock.now(), on_demand=True, limit=asked)
        assert (course.limit, course.advance) == (given, False)

    with_runner(body, listing(1))


def test_a_mass_delete_is_held_until_an_operator_allows_it():
    async def post(request):
        for number in range(20):
            ingest.canonical(
                "customer", {"id": f"c{number}"}, stream="customers",
                idempotency_key=f"fake:customer:c{number}", deleted=request.cursor == "all",
            )  # fmt: skip
        return Page(cursor="all")

    async def body(scene):
        await scene.poll()
        outcome = await scene.poll()
        assert (outcome.state, outcome.failure.code, outcome.pages) == (RunState.FAILED, "operator.mass_delete", 0)
        assert "of customers would delete 20 of 20 records (customer)." in outcome.failure.message
        assert "trigger the stream again with deletions allowed" in outcome.failure.message
        assert len(await scene.store.records(deleted=False)) == 20
        await scene.store.resume_connection(scene.stored.id, at=scene.clock.now())
        await scene.store.trigger_run((await scene.state()).id, at=scene.clock.now(), allow_deletes=True)
        outcome = await scene.runner.carry_out(await scene.readmit())
        assert (outcome.state, outcome.counts.deleted) == (RunState.SUCCEEDED, 20)

    with_runner(body, post)
