"""What a webhook route logs is kept with its delivery, however that ends."""

from __future__ import annotations

from dispatching import SECRET, World, emit, run
from headwater.context import log
from headwater.delivery import DeliveryState
from headwater.dispatch import BACKOFF
from headwater.errors import ProviderError, StoreUnavailableError
from headwater.log_line import LogFilter
from headwater.route import WebhookRequest


def test_what_an_attempt_logs_is_kept_whether_it_fails_or_not() -> None:
    async def post(request: WebhookRequest) -> None:
        log.info("attempt %d with %s", request.attempt, SECRET)
        if request.attempt == 1:
            raise ProviderError("Not now.")
        emit(request, id="t1")

    async def scenario(world: World) -> None:
        await world.receive("d1")
        await world.dispatcher.dispatch_batch()
        await world.clock.advance(BACKOFF.ceiling_seconds(1))
        await world.dispatcher.dispatch_batch()
        delivery = await world.only()
        assert delivery.state is DeliveryState.DONE
        said = await world.store.log_lines(LogFilter(delivery_id=delivery.id))
        assert [line.message for line in said] == ["attempt 2 with ***", "attempt 1 with ***"]
        assert [(line.connection, line.stream, line.run_id) for line in said] == [("main", None, None)] * 2

    run(post, scenario)


def test_what_was_logged_on_the_way_to_a_death_is_kept() -> None:
    async def post(request: WebhookRequest) -> None:
        log.info("about to fail")
        raise ValueError("no")

    async def scenario(world: World) -> None:
        await world.receive("d1")
        await world.dispatcher.dispatch_batch()
        delivery = await world.only()
        assert delivery.state is DeliveryState.DEAD
        said = await world.store.log_lines(LogFilter(delivery_id=delivery.id))
        assert [line.message for line in said] == ["about to fail"]

    run(post, scenario)


def test_what_was_logged_for_a_commit_that_failed_is_kept_with_its_failure() -> None:
    async def post(request: WebhookRequest) -> None:
        log.warning("odd")
        emit(request, id="t1")

    async def scenario(world: World) -> None:
        await world.receive("d1")
        world.store.finish_error = StoreUnavailableError("The disk is slow.")
        await world.dispatcher.dispatch_batch()
        assert (await world.only()).state is DeliveryState.PENDING
        assert [line.message for line in await world.store.log_lines(LogFilter())] == ["odd"]

    run(post, scenario)
