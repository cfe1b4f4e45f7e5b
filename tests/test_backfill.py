"""Windows partition their span, the map and the figures tell the truth, and acts fit the state they meet."""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import AT, make_catalog, open_memory_store, seeded_stream
from headwater import backfill
from headwater.engines.local import LocalEngine
from headwater.errors import NotFoundError, UsageError
from headwater.record import Counts
from headwater.run import Backfill, BackfillWindow, Window
from headwater.testing.clock import FakeClock

DAY = timedelta(days=1)
SPAN = Window(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 11, tzinfo=UTC))


def make_window(state, number=0, **overrides):
    fields = {
        "id": number, "backfill_id": 1, "window": Window(AT, AT + DAY), "state": state, "run_id": None, "cursor": None,
        "pages": 0, "counts": Counts(), "started_at": None, "finished_at": None, "error": None,
    }  # fmt: skip
    return BackfillWindow(**(fields | overrides))


def make_backfill(**overrides):
    fields = {
        "id": 1, "connection": "acme", "stream": "customers", "partition": "", "span": SPAN, "state": "running",
        "created_at": AT, "finished_at": None, "windows": {}, "counts": Counts(created=500), "pages": 5,
    }  # fmt: skip
    return Backfill(**(fields | overrides))


@given(
    start=st.datetimes(datetime(2000, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),
    length=st.timedeltas(timedelta(microseconds=1), timedelta(days=3000)),
    days=st.integers(1, 400),
)
def test_windows_partition_their_span_exactly(start, length, days):
    windows = backfill.split(Window(start, start + length), days=days)
    assert windows[0].start == start
    assert windows[-1].end == start + length
    assert all(one.end == following.start for one, following in pairwise(windows))
    assert all(window.end - window.start == days * DAY for window in windows[:-1])
    assert timedelta(0) < windows[-1].end - windows[-1].start <= days * DAY


@pytest.mark.parametrize(
    ("span", "days", "part"),
    [
        (Window(SPAN.end, SPAN.start), 7, "is empty"),
        (Window(SPAN.start, SPAN.start), 7, "is empty"),
        (Window(datetime(2024, 1, 1), datetime(2024, 2, 1)), 7, "a time zone"),
        (SPAN, 0, "0 days is none"),
        (Window(datetime(1900, 1, 1, tzinfo=UTC), SPAN.end), 1, "more than 10000"),
    ],
)
def test_a_span_that_makes_no_windows_is_refused(span, days, part):
    with pytest.raises(UsageError, match=part):
        backfill.split(span, days=days)


def test_the_map_has_one_cell_a_window():
    states = ["done", "done", "running", "todo", "failed", "cancelled"]
    assert backfill.interval_map([make_window(state) for state in states]) == "██▶·✗-"
    assert backfill.interval_map([]) == ""


def test_a_folded_map_hides_no_failure():
    states = ["done"] * 100 + ["failed"] + ["done"] * 99 + ["done", "todo"] * 50 + ["todo"] * 100
    folded = backfill.interval_map([make_window(state) for state in states], cells_max=20)
    assert folded == "█" * 5 + "✗" + "█" * 4 + "▒" * 5 + "·" * 5


@given(
    states=st.lists(st.sampled_from(["todo", "running", "done", "failed", "cancelled"]), max_size=300),
    cells_max=st.integers(1, 80),
)
def test_a_map_is_as_wide_as_asked_and_shows_the_ends_as_they_are(states, cells_max):
    text = backfill.interval_map([make_window(state) for state in states], cells_max=cells_max)
    assert len(text) == min(len(states), cells_max)
    assert ("✗" in text) == ("failed" in states)
    assert set(text) <= {"█"} or set(states) != {"done"}


def test_progress_estimates_from_the_time_that_the_done_windows_took():
    windows = [make_window("done", started_at=AT)] * 2 + [make_window("running"), make_window("todo")]
    found = backfill.progress(make_backfill(), windows, AT + timedelta(seconds=100))
    assert (found.done, found.total, found.share) == (2, 4, 0.5)
    assert (found.records, found.records_per_second, found.eta_seconds) == (500, 5.0, 100.0)


def test_progress_without_a_done_window_or_at_rest_estimates_nothing():
    begun = [make_window("running", started_at=AT), make_window("todo")]
    assert backfill.progress(make_backfill(), begun, AT + DAY).eta_seconds is None
    untouched = backfill.progress(make_backfill(counts=Counts()), [make_window("todo")], AT)
    assert (untouched.records_per_second, untouched.eta_seconds, untouched.elapsed_seconds) == (0.0, None, 0.0)
    done = [make_window("done", started_at=AT), make_window("todo")]
    assert backfill.progress(make_backfill(state="paused"), done, AT + DAY).eta_seconds is None


def test_a_finished_backfill_counts_the_time_until_its_end():
    ended = make_backfill(state="succeeded", finished_at=AT + timedelta(seconds=50))
    found = backfill.progress(ended, [make_window("done", started_at=AT)], AT + DAY)
    assert (found.elapsed_seconds, found.records_per_second, found.share) == (50.0, 10.0, 1.0)


def in_store(body):
    async def main():
        clock = FakeClock()
        async with open_memory_store(clock) as store:
            await seeded_stream(store, clock)
            return await body(store, clock)

    return asyncio.run(main())


async def begin(store, clock, **overrides):
    given = {"connector": make_catalog(), "connection": "acme", "stream": "customers", "span": SPAN, "at": clock.now()}
    return await backfill.start(store, **(given | overrides))


def test_a_backfill_is_stored_with_the_windows_of_its_stream():
    async def body(store, clock):
        started = await begin(store, clock)
        windows = await store.windows(started.id)
        assert [window.window.start.day for window in windows] == [1, 8]
        assert {window.state for window in windows} == {"todo"}
        assert len(await store.windows((await begin(store, clock, days=1)).id)) == 10

    in_store(body)


@pytest.mark.parametrize(
    ("overrides", "error", "part"),
    [
        ({"stream": "custmers"}, NotFoundError, "Did you mean `customers`"),
        ({"stream": "events"}, UsageError, "comes by webhook"),
        ({"connection": "nobody"}, NotFoundError, "carries no stream"),
        ({"partition": "eu"}, NotFoundError, "no partition `eu`"),
    ],
)
def test_what_cannot_be_filled_is_refused(overrides, error, part):
    async def body(store, clock):
        with pytest.raises(error, match=part):
            await begin(store, clock, **overrides)
        assert await store.backfills() == []

    in_store(body)


def test_acts_fit_the_state_that_they_meet():
    async def body(store, clock):
        number, at = (await begin(store, clock)).id, clock.now()
        with pytest.raises(UsageError, match="is running: it cannot be resumed"):
            await backfill.resume(store, number, at=at)
        await backfill.pause(store, number, at=at)
        with pytest.raises(UsageError, match="is paused: it cannot be paused"):
            await backfill.pause(store, number, at=at)
        await backfill.resume(store, number, at=at)
        await backfill.cancel(store, number, at=at)
        with pytest.raises(UsageError, match="is cancelled"):
            await backfill.cancel(store, number, at=at)
        with pytest.raises(NotFoundError, match="no backfill 99"):
            await backfill.pause(store, 99, at=at)

    in_store(body)


def test_cancelling_interrupts_the_runs_under_way():
    async def body(store, clock):
        engine, cancelled = LocalEngine(), []

        async def note(run_id):
            cancelled.append(run_id)

        engine.cancel = note
        number = (await begin(store, clock)).id
        result = await store.tick(
            clock.now(), decide=lambda due, at: [], admit_max=1, per_connection_max=9, lease_seconds=60
        )
        await backfill.cancel(store, number, at=clock.now(), engine=engine)
        assert cancelled == [result.admitted[0].run_id]

    in_store(body)


def test_a_window_is_done_again_by_its_number():
    async def body(store, clock):
        number = (await begin(store, clock)).id
        await backfill.cancel(store, number, at=clock.now())
        window = await backfill.retry_window(store, number, 2, at=clock.now())
        assert window.window.start.day == 8
        assert [one.state for one in await store.windows(number)] == ["cancelled", "todo"]
        assert (await store.backfill(number)).state == "running"
        with pytest.raises(NotFoundError, match="windows 1 to 2, and none 3"):
            await backfill.retry_window(store, number, 3, at=clock.now())

    in_store(body)
