"""Runs that are taken away, cancelled or drained: each ends once, and keeps what it committed."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from builders import AT
from headwater.context import current, log
from headwater.errors import ProviderError, StoreUnavailableError
from headwater.log_line import LogFilter
from headwater.run import RequestLog, RunState
from headwater.runtime import FINISH_ATTEMPTS_MAX
from runs import listing, moved, soon, with_runner


def held():
    """A listing whose second page waits for the returned event."""
    gate, reached, route = asyncio.Event(), asyncio.Event(), listing(4)

    async def post(request):
        if request.cursor == "1":
            reached.set()
            await gate.wait()
        return await route(request)

    return post, gate, reached


@asynccontextmanager
async def waiting(scene, reached):
    """A run that is under way and waits in its second page: its ref and its task."""
    ref = await scene.admit()
    async with scene.under_way(ref) as task:
        await soon(reached.wait())
        yield ref, task


def test_a_run_that_lost_its_stream_stops_quietly():
    post, gate, reached = held()

    async def body(scene):
        async with waiting(scene, reached) as (ref, task):
            await scene.store.set_checkpoint(ref.stream_id, "3", at=scene.clock.now())
            gate.set()
            outcome = await soon(task)
        assert outcome.state is None
        assert (await scene.state()).cursor == "3"
        assert len(await scene.ids()) <= 2

    with_runner(body, post)


def test_a_cancelled_run_ends_cancelled_and_keeps_its_committed_pages():
    held_post, _, reached = held()

    async def post(request):
        asked = RequestLog(
            at=AT, method="GET", url=f"https://x.test/{request.cursor}", status=200, milliseconds=1, retries=0
        )
        current("http").requests.append(asked)
        log.info("page %s", request.cursor)
        return await held_post(request)

    async def body(scene):
        async with waiting(scene, reached) as (_, task):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await soon(task)
        run = await scene.run()
        assert (run.state, run.pages, run.error_code) == (RunState.CANCELLED, 1, "ended.cancelled")
        assert run.error == "The run was cancelled."
        assert (await scene.state()).cursor == "1"
        assert [one.url for one in await scene.store.requests(run.id)] == ["https://x.test/None", "https://x.test/1"]
        lines = await scene.store.log_lines(LogFilter(run_id=run.id))
        assert [line.message for line in reversed(lines)] == ["page None", "page 1"]

    with_runner(body, post)


def test_a_run_that_an_operator_cancelled_in_the_store_stays_cancelled():
    post, _, reached = held()

    async def body(scene):
        async with waiting(scene, reached) as (ref, task):
            assert await scene.store.cancel_run(ref.run_id, at=scene.clock.now())
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await soon(task)
        assert (await scene.run()).state is RunState.CANCELLED

    with_runner(body, post)


def test_a_drained_run_finishes_its_page_and_waits_again_without_a_failure():
    post, gate, reached = held()

    async def body(scene):
        async with waiting(scene, reached) as (ref, task):
            scene.runner.drain()
            gate.set()
            outcome = await soon(task)
        assert (outcome.state, outcome.pages, outcome.failure) == (RunState.RETRYING, 2, None)
        assert outcome.due_at == scene.clock.now()
        state = await scene.state()
        assert (state.cursor, state.consecutive_failures, state.last_error) == ("2", 0, None)
        again = await scene.readmit()
        assert (again.run_id, again.cursor) == (ref.run_id, "2")

    with_runner(body, post)


def test_a_drained_run_on_its_last_page_succeeds():
    async def body(scene):
        scene.runner.drain()
        assert (await scene.poll()).state is RunState.SUCCEEDED

    with_runner(body, listing(1))


def test_a_run_cancelled_while_draining_is_left_to_be_admitted_anew():
    post, _, reached = held()

    async def body(scene):
        async with waiting(scene, reached) as (_, task):
            scene.runner.drain()
            task.cancel()
            await asyncio.wait({task})
        assert (await scene.run()).state is RunState.RUNNING
        assert await scene.store.readmit(scene.clock.now()) == 1
        assert (await scene.readmit()).cursor == "1"

    with_runner(body, post)


def test_an_end_that_the_store_cannot_take_is_told_again():
    remaining = 2

    async def refuse(end):
        nonlocal remaining
        if remaining:
            remaining -= 1
            raise StoreUnavailableError

    async def body(scene):
        async with scene.under_way(await scene.admit()) as task:
            await moved(scene, 5, task)
            assert task.result().state is RunState.SUCCEEDED
        assert (await scene.run()).state is RunState.SUCCEEDED

    with_runner(body, listing(1), before={"finish_run": refuse})


def test_an_end_that_never_is_taken_leaves_the_run_to_its_lease():
    attempts = []

    async def refuse(end):
        attempts.append(end)
        raise StoreUnavailableError

    async def post(request):
        raise ProviderError

    async def body(scene):
        async with scene.under_way(await scene.admit()) as task:
            await moved(scene, 5, task)
            assert (task.result().state, task.result().failure.code) == (None, "retry.provider")
        assert len(attempts) == FINISH_ATTEMPTS_MAX
        assert (await scene.run()).state is RunState.RUNNING

    with_runner(body, post, before={"finish_run": refuse})
