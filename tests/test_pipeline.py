"""Fetch and commit overlap, in order, within bounds; a commit that fails takes what came after it along."""

import asyncio

import pytest

from builders import AT, make_ref, make_stream
from headwater.errors import StoreUnavailableError
from headwater.intention import CommitResult, PageCommit
from headwater.pipeline import GATHERED_SECONDS_MAX, PAGES_IN_FLIGHT_MAX, QUICK_PAGE, RECORDS_IN_FLIGHT_MAX, Pipeline
from headwater.record import Counts
from headwater.run import RunState
from headwater.testing.clock import FakeClock, settle
from runs import listing, soon, with_runner


class Gate:
    """Holds commits back until it is opened."""

    def __init__(self):
        self.opened = asyncio.Event()
        self.reached = []

    async def __call__(self, page):
        self.reached.append(page.number)
        await self.opened.wait()


def test_the_next_page_is_fetched_while_one_commits():
    gate, third_asked, route = Gate(), asyncio.Event(), listing(4)

    async def post(request):
        if request.cursor == "2":
            third_asked.set()
        return await route(request)

    async def body(scene):
        async with scene.under_way(await scene.admit()) as task:
            await soon(third_asked.wait())
            assert await scene.ids() == []
            gate.opened.set()
            assert (await soon(task)).state is RunState.SUCCEEDED
        assert gate.reached == [1, 2, 3, 4]
        await scene.assert_each_once(4)

    with_runner(body, post, before={"commit_page": gate})


@pytest.mark.parametrize(
    ("records", "fetched_max"), [(1, PAGES_IN_FLIGHT_MAX + 1), (2500, RECORDS_IN_FLIGHT_MAX // 2500 + 1)]
)
def test_what_is_in_flight_is_bounded_in_pages_and_in_records(records, fetched_max):
    gate, seen = Gate(), []

    async def body(scene):
        async with scene.under_way(await scene.admit()) as task:
            while len(seen) < fetched_max:
                await asyncio.sleep(0)
            for _ in range(200):
                await asyncio.sleep(0)
            assert (len(seen), len(gate.reached)) == (fetched_max, fetched_max - 1)
            gate.opened.set()
            assert (await soon(task)).pages == fetched_max + 7

    with_runner(body, listing(fetched_max + 7, records=records, seen=seen), before={"commit_page": gate})


def test_quick_pages_are_gathered_and_committed_when_the_next_one_keeps_them_waiting():
    asked, came, route = asyncio.Event(), asyncio.Event(), listing(4)

    async def post(request):
        if request.cursor == "3":
            asked.set()
            await came.wait()
        return await route(request)

    async def body(scene):
        async with scene.under_way(await scene.admit()) as task:
            await soon(asked.wait())
            await scene.clock.advance(GATHERED_SECONDS_MAX / 2)
            assert await scene.ids() == []
            await scene.clock.advance(GATHERED_SECONDS_MAX / 2)
            while len(await scene.ids()) < 6:
                await asyncio.sleep(0)
            assert (await scene.state()).cursor == "3"
            came.set()
            assert (await soon(task)).pages == 4
        await scene.assert_each_once(4)

    with_runner(body, post)


def test_a_page_that_took_its_time_is_committed_at_once():
    asked, route = asyncio.Event(), listing(2)

    async def post(request):
        if request.cursor is None:
            await scene_clock[0].advance(QUICK_PAGE.total_seconds() + 0.01)
        else:
            await asked.wait()
        return await route(request)

    scene_clock = []

    async def body(scene):
        scene_clock.append(scene.clock)
        async with scene.under_way(await scene.admit()) as task:
            while len(await scene.ids()) < 2:
                await asyncio.sleep(0)
            asked.set()
            assert (await soon(task)).pages == 2

    with_runner(body, post)


def test_a_failed_commit_discards_what_came_after_it_and_the_run_resumes_before_it():
    failures = 1

    async def fail(page):
        nonlocal failures
        if page.number == 3 and failures:
            failures -= 1
            raise StoreUnavailableError("The disk is busy.")

    async def body(scene):
        outcome = await scene.poll()
        assert (outcome.state, outcome.pages, outcome.failure.code) == (RunState.RETRYING, 2, "retry.store")
        assert (await scene.state()).cursor == "2"
        outcome = await scene.runner.carry_out(await scene.readmit(60))
        assert (outcome.state, outcome.pages) == (RunState.SUCCEEDED, 6)
        await scene.assert_each_once(8)

    with_runner(body, listing(8), before={"commit_page": fail})


def test_a_commit_that_happened_though_it_raised_is_not_repeated():
    lost = []

    async def body(scene):
        store = scene.runner._store

        async def commit_page(page):
            result = await type(scene.store).commit_page(scene.store, page)
            if page.number == 2 and not lost:
                lost.append(page.number)
                raise StoreUnavailableError("The answer was lost.")
            return result

        store.commit_page = commit_page
        assert (await scene.poll()).state is RunState.RETRYING
        ref = await scene.readmit(60)
        assert ref.page_number >= 2
        assert (await scene.runner.carry_out(ref)).state is RunState.SUCCEEDED
        await scene.assert_each_once(5)
        # The sixth is empty: it was asked for because the end of the run had not been written.
        assert [page.number for page in await scene.store.pages(ref.run_id)] == [1, 2, 3, 4, 5, 6]

    with_runner(body, listing(5))


def test_the_failure_of_an_earlier_commit_is_told_before_that_of_a_later_fetch():
    fetched = asyncio.Event()

    async def fail(page):
        if page.number == 2:
            await fetched.wait()
            raise StoreUnavailableError("The disk is busy.")

    route = listing(9)

    async def post(request):
        if request.cursor == "2":
            fetched.set()
            raise RuntimeError("a bug in page 3")
        return await route(request)

    async def body(scene):
        outcome = await scene.poll()
        assert (outcome.failure.code, outcome.pages) == ("retry.store", 1)

    with_runner(body, post, before={"commit_page": fail})


def test_pages_fetched_before_a_failed_one_are_kept():
    gate, route = Gate(), listing(9)

    async def post(request):
        if request.cursor == "3":
            gate.opened.set()
            raise RuntimeError("a bug in page 4")
        return await route(request)

    async def body(scene):
        outcome = await scene.poll()
        assert (outcome.failure.code, outcome.pages) == ("stop.handler", 3)
        await scene.assert_each_once(3)

    with_runner(body, post, before={"commit_page": gate}, stream=make_stream())


def test_a_cancelled_run_knows_what_became_of_its_commits():
    gate, waiting, route = Gate(), asyncio.Event(), listing(9)

    async def post(request):
        if request.cursor == "2":
            waiting.set()
            await asyncio.Event().wait()
        return await route(request)

    async def body(scene):
        async with scene.under_way(await scene.admit()) as task:
            await soon(waiting.wait())
            task.cancel()
            await asyncio.sleep(0)
            gate.opened.set()
            with pytest.raises(asyncio.CancelledError):
                await soon(task)
        run = await scene.run()
        assert (run.state, run.pages) == (RunState.CANCELLED, 2)

    with_runner(body, post, before={"commit_page": gate})


def test_a_cancelled_run_stays_cancelled_though_a_commit_of_it_fails():
    waiting, route = asyncio.Event(), listing(9)

    async def fail(page):
        await waiting.wait()
        raise StoreUnavailableError("The disk is busy.")

    async def post(request):
        if request.cursor == "1":
            waiting.set()
            await asyncio.Event().wait()
        return await route(request)

    async def body(scene):
        async with scene.under_way(await scene.admit()) as task:
            await soon(waiting.wait())
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await soon(task)
        assert (await scene.run()).state is RunState.CANCELLED

    with_runner(body, post, before={"commit_page": fail})


class Commits:
    """A store of which each commit waits to be told how it ends."""

    def __init__(self):
        self.ends = []

    async def commit_page(self, page):
        end = asyncio.get_running_loop().create_future()
        self.ends.append(end)
        return await end


def a_page(number, *, records=1, has_more=False):
    return PageCommit(
        ref=make_ref(), number=number, emissions=[object()] * records, quarantined=(), cursor=None, has_more=has_more,
        origin="poll", connector_version="1", started_at=AT, at=AT, lease_seconds=60.0,
    )  # fmt: skip


def test_a_failure_is_told_once_every_commit_that_was_under_way_has_ended():
    async def main():
        commits = Commits()
        pipeline = Pipeline(commits, FakeClock())
        for number in (1, 2, 3):
            await pipeline.submit(a_page(number, records=RECORDS_IN_FLIGHT_MAX // 3))
        settling = asyncio.create_task(pipeline.settle())
        await asyncio.sleep(0)
        commits.ends[0].set_exception(StoreUnavailableError("the first"))
        commits.ends[1].set_exception(StoreUnavailableError("the second"))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not settling.done()  # the third may yet be committed
        commits.ends[2].set_result(None)
        with pytest.raises(StoreUnavailableError, match="the first"):
            await soon(settling)
        # What was discarded is in nobody's way: as much as ever may be in flight.
        await soon(pipeline.submit(a_page(1, records=RECORDS_IN_FLIGHT_MAX - 1)))
        await soon(pipeline.submit(a_page(2)))
        assert len(commits.ends) == 5

    asyncio.run(main())


@pytest.mark.parametrize(("first", "second", "is_room"), [(3, 1, True), (1, 3, False)])
def test_what_is_durable_leaves_room_for_as_many_records(first, second, is_room):
    quarter = RECORDS_IN_FLIGHT_MAX // 4

    async def main():
        commits = Commits()
        pipeline = Pipeline(commits, FakeClock())
        await pipeline.submit(a_page(1, records=first * quarter))
        await pipeline.submit(a_page(2, records=second * quarter))
        waiting = asyncio.create_task(pipeline.submit(a_page(3, records=2 * quarter)))
        await settle()
        assert not waiting.done()
        commits.ends[0].set_result(CommitResult(counts=Counts(), outcomes=()))
        await settle()
        assert waiting.done() is is_room
        commits.ends[1].set_result(CommitResult(counts=Counts(), outcomes=()))
        await soon(waiting)

    asyncio.run(main())


def test_pages_that_are_gathered_count_as_in_flight():
    async def main():
        commits = Commits()
        pipeline = Pipeline(commits, FakeClock())
        await pipeline.submit(a_page(1))  # commits at once
        for number in range(2, PAGES_IN_FLIGHT_MAX + 1):
            await soon(pipeline.submit(a_page(number, has_more=True)))
        waiting = asyncio.create_task(pipeline.submit(a_page(PAGES_IN_FLIGHT_MAX + 1, has_more=True)))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiting.done()
        commits.ends[0].set_result(CommitResult(counts=Counts(), outcomes=()))
        await soon(waiting)

    asyncio.run(main())
