"""A run keeps its lease through long pages, and ends when a page or all of it takes too long."""

import asyncio

import pytest

from builders import AT, make_ref, make_stream
from headwater.catalog import PAGE_SECONDS_MAX
from headwater.errors import ProviderError, StoreUnavailableError
from headwater.run import LEASE_SECONDS, RunState
from headwater.testing.clock import FakeClock, settle
from headwater.watch import Watch
from runs import listing, moved, soon, with_runner


def stuck_at(page, pages=4):
    """A listing whose given page never answers; the event tells that it was asked."""
    reached, route = asyncio.Event(), listing(pages)

    async def post(request):
        if int(request.cursor or 0) == page:
            reached.set()
            await asyncio.Event().wait()
        return await route(request)

    return post, reached


def test_a_page_that_takes_too_long_is_tried_again_later():
    post, reached = stuck_at(1)

    async def body(scene):
        begun = scene.clock.monotonic()
        async with scene.under_way(await scene.admit()) as task:
            await soon(reached.wait())
            await moved(scene, 5, task)
            outcome = task.result()
        assert (outcome.state, outcome.pages, outcome.failure.code) == (RunState.RETRYING, 1, "retry.provider")
        assert "longer than 300 s" in outcome.failure.message
        assert PAGE_SECONDS_MAX <= scene.clock.monotonic() - begun - 900 <= PAGE_SECONDS_MAX + LEASE_SECONDS

    with_runner(body, post)


def test_a_run_longer_than_its_limit_ends_with_its_own_error_and_keeps_its_pages():
    post, reached = stuck_at(1)

    async def body(scene):
        async with scene.under_way(await scene.admit()) as task:
            await soon(reached.wait())
            await moved(scene, 5, task)
            outcome = task.result()
        assert (outcome.state, outcome.pages, outcome.failure.code) == (RunState.FAILED, 1, "stop.run_timeout")
        assert outcome.failure.error.message == "The run was longer than its limit of 30 s."
        assert outcome.failure.error.hint == "Its committed pages stay, and the next run goes on from there."
        assert (await scene.state()).cursor == "1"

    with_runner(body, post, stream=make_stream(run_seconds_max=30.0))


def test_many_short_pages_are_a_long_run_too():
    asked = []

    async def body(scene):
        route = listing(99)

        async def post(request):
            asked.append(scene.clock.monotonic())
            await scene.clock.advance(10)
            return await route(request)

        scene.connections.live.project.sync_routes["customers"] = post
        outcome = await scene.poll()
        assert (outcome.state, outcome.failure.code) == (RunState.FAILED, "stop.run_timeout")
        assert outcome.pages == len(asked) == 3, "none is begun at the very limit"

    with_runner(body, listing(1), stream=make_stream(run_seconds_max=30.0))


def test_a_handler_that_swallows_its_cancellation_is_told_again():
    swallowed = []

    async def post(request):
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed.append(request)
                if len(swallowed) == 3:
                    raise

    async def body(scene):
        async with scene.under_way(await scene.admit()) as task:
            await moved(scene, 5, task)
            assert task.result().failure.code == "stop.run_timeout"
        assert len(swallowed) == 3

    with_runner(body, post, stream=make_stream(run_seconds_max=30.0))


def test_a_long_page_keeps_its_lease():
    post, reached = stuck_at(1)

    async def body(scene):
        ref = await scene.admit()
        async with scene.under_way(ref) as task:
            await soon(reached.wait())
            for _ in range(20):
                await scene.clock.advance(LEASE_SECONDS / 6)
                await scene.store.run(ref.run_id)
                assert (await scene.tick()).admitted == []
            task.cancel()
            await asyncio.wait({task})

    with_runner(body, post)


def test_a_lease_that_could_not_be_kept_ends_the_run_quietly():
    post, reached = stuck_at(1)

    async def refuse(ref, **options):
        raise StoreUnavailableError

    async def body(scene):
        ref = await scene.admit()
        async with scene.under_way(ref) as task:
            await soon(reached.wait())
            await scene.clock.advance(LEASE_SECONDS + 1)
            (other,) = (await scene.tick()).admitted
            assert (other.run_id, other.epoch > ref.epoch) == (ref.run_id, True)
            await moved(scene, 5, task)
            assert task.result().state is None
        assert (await scene.run()).state is RunState.RUNNING

    with_runner(body, post, before={"extend_lease": refuse})


def test_a_lost_lease_interrupts_a_long_page():
    post, reached = stuck_at(1)

    async def body(scene):
        ref = await scene.admit()
        async with scene.under_way(ref) as task:
            await soon(reached.wait())
            await scene.store.set_checkpoint(ref.stream_id, None, at=scene.clock.now())
            begun = scene.clock.monotonic()
            await moved(scene, 5, task)
            assert scene.clock.monotonic() - begun <= LEASE_SECONDS
            assert (task.result().state, task.result().failure.code) == (None, "ended.fenced")

    with_runner(body, post)


def test_a_lease_is_extended_at_a_third_of_it_unless_a_commit_has_just_done_so():
    extended = []

    class Leases:
        async def extend_lease(self, ref, *, at, lease_seconds):
            extended.append((ref.run_id, (at - AT).total_seconds(), lease_seconds))

    async def main():
        clock = FakeClock(AT)
        watch = Watch(
            make_ref(run_id=4), store=Leases(), clock=clock, lease_seconds=60.0, run_seconds_max=900.0,
            page_seconds_max=100.0,
        )  # fmt: skip
        async with watch:
            page = asyncio.ensure_future(watch.page(asyncio.sleep(3600)))
            await settle()
            await clock.advance(20)
            assert extended == [(4, 20.0, 60.0)]
            await clock.advance(19)
            watch.renewed()
            await clock.advance(41)
            assert extended == [(4, 20.0, 60.0), (4, 60.0, 60.0), (4, 80.0, 60.0)]
            await clock.advance(19)
            assert not page.done()
            await clock.advance(1)
            with pytest.raises(ProviderError, match="One page took longer than 100 s"):
                await page

    asyncio.run(main())
