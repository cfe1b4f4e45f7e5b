"""How runs end: each way has its own state, and none leaves loss, a duplicate or a secret."""

import asyncio
import logging
from datetime import timedelta

import pytest

from builders import AT, make_ref, make_stream, seeded_stream
from headwater import failpoint as failpoints
from headwater import ingest
from headwater.context import current, log
from headwater.errors import (
    CredentialsError,
    NotFoundError,
    ProviderError,
    RateLimitedError,
    UsageError,
)
from headwater.log_line import LogFilter
from headwater.run import Page, RequestLog, RunState, Window
from headwater.runtime import RUN_ATTEMPTS_MAX, RUN_BACKOFF
from runs import SECRET, emit, listing, with_runner


def failing_at(page, error, *, pages=4, times=1):
    """A listing whose given page raises so many times."""
    remaining, route = times, listing(pages)

    async def post(request):
        nonlocal remaining
        if int(request.cursor or 0) == page and remaining:
            remaining -= 1
            raise error
        return await route(request)

    return post


def test_a_run_takes_page_after_page_until_there_are_no_more():
    async def body(scene):
        outcome = await scene.poll()
        assert (outcome.state, outcome.pages, outcome.counts.created) == (RunState.SUCCEEDED, 3, 6)
        await scene.assert_each_once(3)
        run = await scene.run()
        assert (run.state, run.pages, run.cursor_after, run.connector_version) == (
            RunState.SUCCEEDED, 3, "3", "0.1.0+00000000",
        )  # fmt: skip
        state = await scene.state()
        assert (state.cursor, state.last_success_at, state.consecutive_failures) == ("3", scene.clock.now(), 0)

    with_runner(body, listing(3))


def test_the_next_run_begins_where_the_last_one_ended():
    seen = []

    async def body(scene):
        await scene.poll()
        await scene.poll()
        assert [request.cursor for request in seen] == [None, "1", "2"]

    with_runner(body, listing(2, seen=seen))


def test_a_route_is_told_what_its_stream_declares():
    seen = []

    async def body(scene):
        await scene.poll()
        (request,) = seen
        assert (request.stream, request.limit, request.partition, request.window) == ("customers", 7, "", None)
        (version, *_) = await scene.store.versions("acme", "customer", "c0-0")
        assert version.as_of == request.started_at == AT + timedelta(minutes=15)
        assert (version.origin, version.page) == ("poll", 1)

    with_runner(body, listing(1, seen=seen), stream=make_stream(page_records=7))


def test_a_passing_fault_is_tried_again_later_from_the_last_committed_page():
    async def body(scene):
        outcome = await scene.poll()
        assert (outcome.state, outcome.pages, outcome.failure.code) == (RunState.RETRYING, 2, "retry.provider")
        run = await scene.run()
        assert run.error == "The provider failed."
        assert scene.clock.now() < run.due_at <= scene.clock.now() + timedelta(seconds=RUN_BACKOFF.ceiling_seconds(1))
        assert (await scene.state()).cursor == "2"
        ref = await scene.readmit(10)
        assert (ref.attempt, ref.cursor, ref.page_number) == (2, "2", 2)
        assert (await scene.runner.carry_out(ref)).state is RunState.SUCCEEDED
        await scene.assert_each_once(4)

    with_runner(body, failing_at(2, ProviderError("The provider failed.")))


def test_a_run_that_never_gets_anywhere_fails_after_its_attempts():
    async def body(scene):
        outcome = await scene.poll()
        attempts = 1
        while outcome.state is RunState.RETRYING:
            outcome = await scene.runner.carry_out(await scene.readmit(RUN_BACKOFF.wait_max))
            attempts += 1
        assert (outcome.state, attempts) == (RunState.FAILED, RUN_ATTEMPTS_MAX)
        assert (await scene.state()).consecutive_failures == 1

    with_runner(body, failing_at(0, TimeoutError(), times=99), stream=make_stream(schedule="*/15 * * * *"))


def test_an_attempt_that_got_somewhere_is_not_the_last():
    async def body(scene):
        ref = await scene.admit()
        from dataclasses import replace

        outcome = await scene.runner.carry_out(replace(ref, attempt=RUN_ATTEMPTS_MAX + 5))
        assert outcome.state is RunState.RETRYING
        assert outcome.due_at <= scene.clock.now() + timedelta(seconds=RUN_BACKOFF.ceiling_seconds(1))

    with_runner(body, failing_at(1, ProviderError()))


def test_a_rate_limit_silences_the_connection_for_as_long_as_the_provider_asked():
    async def body(scene):
        outcome = await scene.poll()
        until = scene.clock.now() + timedelta(seconds=300)
        assert outcome.due_at == until
        assert (await scene.state()).blocked_until == until

    with_runner(body, failing_at(0, RateLimitedError(retry_after_seconds=300)))


def test_a_rate_limit_of_a_moment_silences_for_that_moment_and_the_run_waits_longer():
    async def body(scene):
        scene.clock.random = lambda: 1.0
        outcome = await scene.poll()
        at = scene.clock.now()
        assert (await scene.state()).blocked_until == at + timedelta(seconds=2)
        assert outcome.due_at == at + timedelta(seconds=RUN_BACKOFF.ceiling_seconds(1))

    with_runner(body, failing_at(0, RateLimitedError(retry_after_seconds=2)))


def test_standing_still_is_waited_for_longer_each_time():
    async def body(scene):
        scene.clock.random = lambda: 1.0
        outcome, waits = await scene.poll(), []
        while outcome.state is RunState.RETRYING:
            waits.append((outcome.due_at - scene.clock.now()).total_seconds())
            outcome = await scene.runner.carry_out(await scene.readmit(waits[-1]))
        assert waits == [RUN_BACKOFF.ceiling_seconds(attempt) for attempt in range(1, RUN_ATTEMPTS_MAX)]
        assert waits[1] > waits[0]

    with_runner(body, failing_at(0, TimeoutError(), times=99))


def test_what_needs_the_operator_pauses_the_connection_with_the_reason():
    async def body(scene):
        outcome = await scene.poll()
        assert (outcome.state, outcome.pages) == (RunState.FAILED, 1)
        connection = await scene.store.connection("acme")
        assert (connection.needs_attention, connection.paused_reason) == (True, "The key was revoked.")
        assert scene.connections.forgotten == [scene.stored.id]
        assert (await scene.run()).traceback is None

    with_runner(body, failing_at(1, CredentialsError("The key was revoked.")))


def test_a_record_that_does_not_fit_fails_its_page_and_is_named():
    async def post(request):
        number = int(request.cursor or 0)
        emit(f"c{number}-0")
        emit(f"c{number}-1", **({"name": 42} if number == 1 else {}))
        return Page(cursor=str(number + 1), has_more=number < 2)

    async def body(scene):
        outcome = await scene.poll()
        assert (outcome.state, outcome.pages, outcome.failure.code) == (RunState.FAILED, 1, "record.invalid")
        assert "customer c1-1 of stream customers" in (await scene.run()).error
        assert sorted(await scene.ids()) == ["c0-0", "c0-1"]
        assert (await scene.state()).cursor == "1"

    with_runner(body, post)


def test_a_bug_of_the_handler_is_kept_with_its_traceback_and_waits_for_the_next_tick():
    async def post(request):
        return {}["missing"]

    async def body(scene):
        assert (await scene.poll()).state is RunState.FAILED
        run = await scene.run()
        assert (run.error_code, "KeyError: 'missing'" in run.error) == ("stop.handler", True)
        assert "in post" in run.traceback
        assert (await scene.tick()).admitted == []

    with_runner(body, post)


def test_no_secret_reaches_the_store_or_the_log(caplog):
    async def post(request):
        raise RuntimeError(f"refused {SECRET}")

    async def body(scene):
        await scene.poll()
        run = await scene.run()
        assert "refused" in run.error
        assert SECRET not in run.error + run.traceback

    with caplog.at_level(logging.DEBUG):
        with_runner(body, post)
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("returned", "code"),
    [
        (None, "stop.handler"),
        (Page(cursor=None, has_more=True), "stop.cursor_stuck"),
    ],
)
def test_a_page_that_leads_nowhere_ends_the_run_with_its_own_error(returned, code):
    async def post(request):
        return returned

    async def body(scene):
        outcome = await scene.poll()
        assert (outcome.state, outcome.failure.code, outcome.pages) == (RunState.FAILED, code, 0)

    with_runner(body, post)


def test_a_provider_that_answers_the_same_page_again_ends_the_run():
    async def post(request):
        emit("c0-0")
        return Page(cursor=str(int(request.cursor or 0) + 1), has_more=True)

    async def body(scene):
        outcome = await scene.poll()
        assert (outcome.state, outcome.failure.code, outcome.pages) == (RunState.FAILED, "stop.repeated_page", 1)

    with_runner(body, post)


def test_the_page_limit_ends_the_run_and_keeps_its_pages():
    async def body(scene):
        outcome = await scene.poll()
        assert (outcome.state, outcome.failure.code, outcome.pages) == (RunState.FAILED, "stop.page_limit", 3)
        assert (await scene.state()).cursor == "3"

    with_runner(body, listing(10), stream=make_stream(pages_max=3))


def test_a_handler_that_exits_ends_its_run_alone():
    async def post(request):
        raise SystemExit(3)

    async def body(scene):
        outcome = await scene.poll()
        assert (outcome.state, outcome.failure.code) == (RunState.FAILED, "stop.handler")
        assert "exit(3)" in outcome.failure.message

    with_runner(body, post)


def test_a_handler_that_cancels_itself_ends_as_a_bug():
    async def post(request):
        raise asyncio.CancelledError

    async def body(scene):
        failure = (await scene.poll()).failure
        assert (failure.code, failure.message) == ("stop.handler", "The handler cancelled itself.")

    with_runner(body, post)


def test_a_stream_without_a_route_says_so():
    async def body(scene):
        outcome = await scene.poll()
        assert outcome.state is RunState.FAILED
        assert "no sync route of the stream `customers`" in outcome.failure.message

    with_runner(body)


def test_a_connection_that_cannot_be_had_fails_the_run():
    async def body(scene):
        ref = await scene.admit()
        scene.connections.get = _refuse
        outcome = await scene.runner.carry_out(ref)
        assert (outcome.state, outcome.failure.code) == (RunState.FAILED, "request.not_found")

    async def _refuse(connection_id):
        raise NotFoundError("There is no connector `fake`.")

    with_runner(body, listing(1))


def test_the_requests_of_a_failed_page_are_kept():
    def asked(name):
        return RequestLog(at=AT, method="GET", url=f"https://x.test/{name}", status=200, milliseconds=1, retries=0)

    async def post(request):
        name = request.cursor or "0"
        current("http").requests.append(asked(name))
        emit(name)
        if name == "1":
            raise ProviderError
        return Page(cursor="1", has_more=True)

    async def body(scene):
        outcome = await scene.poll()
        assert [request.url[-1] for request in await scene.store.requests(outcome.ref.run_id)] == ["0", "1"]

    with_runner(body, post)


def test_the_failpoints_of_a_run_are_passed_in_order():
    passed = []

    async def body(scene):
        for name in ("run.started", "page.fetched", "run.before_finish", "run.before_retry"):
            failpoints.arm(name, lambda name=name: passed.append(name))
        try:
            await scene.poll()
            assert passed == ["run.started", "page.fetched", "run.before_retry"]
            passed.clear()
            await scene.runner.carry_out(await scene.readmit(10))
        finally:
            failpoints.disarm()
        assert passed == ["run.started", "page.fetched", "run.before_finish"]

    with_runner(body, failing_at(1, ProviderError(), pages=2))


def test_one_page_on_demand_leaves_the_checkpoint_where_it_is():
    seen = []

    async def body(scene):
        await scene.poll()
        live = scene.connections.live
        page = await scene.runner.one_page(live, "customers", cursor="1", limit=3)
        assert (page.stream, page.imported, page.unchanged, page.failed) == ("customers", 0, 2, 0)
        assert (page.cursor, page.has_more, seen[-1].limit) == ("2", True, 3)
        assert (await scene.state()).cursor == "3"
        assert (await scene.run()).state is RunState.SUCCEEDED
        window = Window(AT, AT + timedelta(days=1))
        page = await scene.runner.one_page(live, "customers", window=window)
        assert (seen[-1].window, seen[-1].cursor, page.has_more) == (window, None, True)
        assert (await scene.run()).pages == 1

    with_runner(body, listing(3, seen=seen))


def test_one_page_on_demand_counts_what_came_late_as_unchanged():
    async def post(request):
        ingest.canonical(
            "customer", {"id": "kept", "name": str(request.cursor)}, stream="customers",
            idempotency_key=f"named {request.cursor}", as_of=AT + timedelta(days=0 if request.cursor else 1),
        )  # fmt: skip
        emit("same")
        return Page()

    async def body(scene):
        await scene.poll()
        page = await scene.runner.one_page(scene.connections.live, "customers", cursor="old")
        assert (page.imported, page.unchanged, page.failed) == (0, 2, 0)
        assert (await scene.run()).counts.stale == 1

    with_runner(body, post)


def test_one_page_on_demand_raises_what_the_page_raised_and_is_not_tried_again():
    async def body(scene):
        with pytest.raises(ProviderError, match="upstream"):
            await scene.runner.one_page(scene.connections.live, "customers")
        assert (await scene.run()).state is RunState.FAILED

    with_runner(body, failing_at(0, ProviderError("upstream")))


def test_one_page_on_demand_is_refused_while_a_run_is_under_way_or_the_stream_is_unknown():
    async def body(scene):
        await scene.admit()
        live = scene.connections.live
        with pytest.raises(UsageError, match="is under way"):
            await scene.runner.one_page(live, "customers")
        with pytest.raises(NotFoundError) as unknown:
            await scene.runner.one_page(live, "custmers")
        assert unknown.value.message == "The connection acme has no stream `custmers`."
        assert unknown.value.hint == "did you mean `customers`?"
        with pytest.raises(NotFoundError) as unknown:
            await scene.runner.one_page(live, "customers", partition="eu")
        assert unknown.value.message == "The connection acme has no stream `customers` with a partition `eu`."
        assert "customers" not in (unknown.value.hint or "")

    with_runner(body, listing(1))


def test_the_stream_of_another_connection_is_another():
    async def body(scene):
        catalog = scene.connections.live.project.connector
        other = await seeded_stream(scene.store, scene.clock, catalog=catalog, connection="aaron")
        assert [one.connection for one in await scene.store.streams(at=AT)] == ["aaron", "acme"]
        await scene.runner.one_page(scene.connections.live, "customers")
        assert {(await scene.run()).connection, other.key} == {"acme", "aaron"}

    with_runner(body, listing(1))


async def dry(scene, **options):
    return [page async for page in scene.runner.dry_run(scene.connections.live, "customers", **options)]


def test_a_dry_run_tells_the_outcomes_and_writes_nothing():
    async def body(scene):
        pages = await dry(scene)
        assert [[one.source_id for one in page.emissions] for page in pages] == [["c0-0", "c0-1"], ["c1-0", "c1-1"]]
        assert [page.outcomes for page in pages] == [["created"] * 2] * 2
        assert [page.checkpoint for page in pages] == ["1", "2"]
        assert await scene.ids() == []
        assert await scene.store.runs() == []
        assert (await scene.state()).cursor is None

    with_runner(body, listing(2))


def test_a_dry_run_begins_at_the_checkpoint_and_stops_at_its_limit():
    async def body(scene):
        await scene.store.trigger_run((await scene.state()).id, at=scene.clock.now(), pages_limit=1)
        await scene.runner.carry_out(await scene.readmit())
        (page,) = await dry(scene, pages_limit=1)
        assert (page.cursor, page.counts.created) == ("2", 2)
        before = await scene.store.runs()
        window = Window(AT, AT + timedelta(days=1))
        (page,) = await dry(scene, pages_limit=1, window=window)
        assert (page.cursor, page.counts.changed) == ("1", 0)
        assert (seen[-1].window, seen[-1].cursor) == (window, None)
        assert await scene.store.runs() == before

    seen = []
    with_runner(body, listing(3, seen=seen))


def test_a_run_unknown_to_the_store_does_nothing():
    async def body(scene):
        outcome = await scene.runner.carry_out(make_ref(run_id=99))
        assert (outcome.state, outcome.pages) == (None, 0)

    with_runner(body, listing(1))


def test_what_a_page_logs_is_kept_with_it_and_with_the_failure_that_ends_it():
    route = failing_at(1, ProviderError("The provider failed."))

    async def post(request):
        log.info("page %s with %s", request.cursor, SECRET)
        return await route(request)

    async def body(scene):
        await scene.poll()
        run = await scene.run()
        lines = await scene.store.log_lines(LogFilter(run_id=run.id))
        assert [(line.level, line.message) for line in reversed(lines)] == [
            ("info", "page None with ***"), ("info", "page 1 with ***"),
        ]  # fmt: skip
        await scene.runner.carry_out(await scene.readmit(10))
        lines = await scene.store.log_lines(LogFilter(stream="customers"))
        assert [line.message for line in reversed(lines)][2:] == [
            "page 1 with ***", "page 2 with ***", "page 3 with ***",
        ]  # fmt: skip
        assert {line.run_id for line in lines} == {run.id}

    with_runner(body, post)
