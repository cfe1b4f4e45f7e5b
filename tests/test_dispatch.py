"""What comes of a delivery that is dispatched: its records, its retries, its end, its replay."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from dispatching import EVERYTHING, SECRET, Route, World, emit, run
from headwater import ingest
from headwater.context import log, secrets
from headwater.delivery import DeliveryFilter, DeliveryState
from headwater.dispatch import BACKOFF, CLAIM_SECONDS, replay
from headwater.errors import (
    CredentialsError,
    FencedError,
    ProviderError,
    RateLimitedError,
    StoreUnavailableError,
)
from headwater.log_line import LogFilter
from headwater.route import Response, WebhookRequest


def test_emissions_and_done_are_one_commit() -> None:
    async def post(request: WebhookRequest) -> None:
        emit(request, id="t1", name="one")
        emit(request, id="t2", name="two")

    async def scenario(world: World) -> None:
        await world.receive("d1")
        assert await world.dispatcher.dispatch_batch() == 1
        delivery = await world.only()
        assert (delivery.state, delivery.ignored, delivery.counts.created) == (DeliveryState.DONE, False, 2)
        [version] = await world.versions("t1")
        assert (version.origin, version.delivery_id, version.stream) == ("webhook", delivery.id, "events")
        assert version.connector_version == "1.0.0+abcdef01"
        assert msgspec.json.decode(version.payload) == {"id": "t1", "name": "one"}
        assert await world.dispatcher.dispatch_batch() == 0

    run(post, scenario)


def test_the_route_is_given_the_delivery_as_it_was_received() -> None:
    seen: list[WebhookRequest] = []

    async def post(request: WebhookRequest) -> None:
        seen.append(request)
        emit(request, id="t1")

    async def scenario(world: World) -> None:
        received_at = world.clock.now()
        await world.receive("d1", body=b'{"amount":1.10}')
        await world.clock.advance(600)
        await world.dispatcher.dispatch_batch()
        [request] = seen
        assert (request.provider_id, request.event_type, request.attempt) == ("d1", "thing.made", 1)
        assert (request.headers, request.body, request.received_at) == (
            {"x-kind": "test"},
            b'{"amount":1.10}',
            received_at,
        )
        assert str(request.json()["amount"]) == "1.10"  # type: ignore[index, call-overload]
        [version] = await world.versions("t1")
        assert version.as_of == received_at

    run(post, scenario)


def test_a_plain_function_serves_as_well() -> None:
    def post(request: WebhookRequest) -> None:
        emit(request, id="t1")

    async def scenario(world: World) -> None:
        await world.receive("d1")
        await world.dispatcher.dispatch_batch()
        assert (await world.only()).counts.created == 1

    run(post, scenario)


@pytest.mark.parametrize(
    ("response", "emits", "ignored"),
    [
        (None, False, True), (None, True, False),
        (Response(ignored=True), False, True), (Response(ignored=True), True, False),
        (Response(), False, False), (Response(), True, False),
    ],
)  # fmt: skip
def test_a_delivery_that_no_stream_wanted_is_recorded_as_ignored(
    response: Response | None, emits: bool, ignored: bool
) -> None:
    async def post(request: WebhookRequest) -> Response | None:
        if emits:
            emit(request, id="t1")
        return response

    async def scenario(world: World) -> None:
        await world.receive("d1")
        await world.dispatcher.dispatch_batch()
        delivery = await world.only()
        assert (delivery.state, delivery.ignored) == (DeliveryState.DONE, ignored)

    run(post, scenario)


def test_a_quarantined_record_is_set_aside_and_the_delivery_is_done() -> None:
    async def post(request: WebhookRequest) -> None:
        things = [{"id": "t1"}, {"id": "t2", "size": "large"}]
        ingest.batch(
            "thing", things, stream="events", idempotency_key=lambda thing: f"k:{thing['id']}", continue_on_error=True
        )

    async def scenario(world: World) -> None:
        await world.receive("d1")
        await world.dispatcher.dispatch_batch()
        delivery = await world.only()
        assert (delivery.state, delivery.counts.created, delivery.counts.quarantined) == (DeliveryState.DONE, 1, 1)
        [waiting] = await world.store.quarantined()
        assert (waiting.source_id, waiting.delivery_id) == ("t2", delivery.id)

    run(post, scenario)


@pytest.mark.parametrize(
    "error",
    [ProviderError("down"), TimeoutError(), ConnectionResetError(), Response(status=500), Response(status=429)],
)
def test_a_passing_fault_is_tried_again_later(error: Exception | Response) -> None:
    attempts: list[int] = []

    async def post(request: WebhookRequest) -> Response | None:
        attempts.append(request.attempt)
        emit(request, id="t1")
        if len(attempts) > 1:
            return None
        if isinstance(error, Response):
            return error
        raise error

    async def scenario(world: World) -> None:
        await world.receive("d1")
        await world.dispatcher.dispatch_batch()
        delivery = await world.only()
        assert (delivery.state, delivery.attempts) == (DeliveryState.PENDING, 1)
        assert delivery.error_code == "retry.provider"
        if isinstance(error, Response):
            assert delivery.error == f"The webhook route answered {error.status}."
        assert delivery.traceback is not None or isinstance(error, Response | ProviderError)
        assert delivery.due_at is not None
        wait = delivery.due_at - world.clock.now()
        assert timedelta(0) < wait <= timedelta(seconds=BACKOFF.ceiling_seconds(1))
        assert await world.versions("t1") == []
        assert await world.dispatcher.dispatch_batch() == 0
        await world.clock.advance(wait.total_seconds())
        await world.dispatcher.dispatch_batch()
        assert (await world.only()).state is DeliveryState.DONE
        assert attempts == [1, 2]
        assert len(await world.versions("t1")) == 1

    run(post, scenario)


def test_the_providers_own_word_on_when_is_obeyed() -> None:
    async def post(request: WebhookRequest) -> None:
        raise RateLimitedError(retry_after_seconds=120)

    async def scenario(world: World) -> None:
        await world.receive("d1")
        await world.dispatcher.dispatch_batch()
        assert (await world.only()).due_at == world.clock.now() + timedelta(seconds=120)

    run(post, scenario)


def test_a_fault_that_does_not_pass_ends_among_the_dead() -> None:
    async def post(request: WebhookRequest) -> None:
        raise ProviderError("down")

    async def scenario(world: World) -> None:
        await world.receive("d1")
        for attempt in (1, 2, 3):
            assert await world.dispatcher.dispatch_batch() == 1, attempt
            await world.clock.advance(3600)
        delivery = await world.only()
        assert (delivery.state, delivery.attempts, delivery.error) == (DeliveryState.DEAD, 3, "down")
        assert await world.dispatcher.dispatch_batch() == 0

    run(post, scenario, attempts_max=3)


def test_a_handler_that_takes_too_long_is_ended_and_tried_again() -> None:
    async def post(request: WebhookRequest) -> None:
        if request.provider_id == "slow":
            await asyncio.get_running_loop().create_future()
        emit(request, id="t1")

    async def scenario(world: World) -> None:
        await world.receive("slow", "quick")
        dispatching = asyncio.create_task(world.dispatcher.dispatch_batch())

        async def quick_is_done() -> bool:
            return (await world.deliveries())[1].state is DeliveryState.DONE

        # The slow one does not hold back the commit of the quick one.
        await world.until(quick_is_done)
        assert not dispatching.done()
        await world.clock.advance(12)
        assert await dispatching == 2
        slow = (await world.deliveries())[0]
        assert (slow.state, slow.error) == (DeliveryState.PENDING, "The handler took longer than 10 s.")

    run(post, scenario, handler_seconds_max=10)


def test_a_connection_that_needs_its_operator_is_paused_and_its_deliveries_wait() -> None:
    invoked: list[str] = []
    works = False

    async def post(request: WebhookRequest) -> None:
        invoked.append(request.provider_id)
        if not works:
            log.info("asked")
            raise CredentialsError(f"The provider refuses {SECRET}.")
        emit(request, id=request.provider_id)

    async def scenario(world: World) -> None:
        nonlocal works
        await world.receive("d1", "d2", "d3")
        await world.dispatcher.dispatch_batch()
        assert invoked == ["d1"]
        stored = await world.store.connection("main")
        assert stored is not None
        assert stored.needs_attention
        assert stored.paused_reason == "The provider refuses ***."
        waiting = await world.deliveries()
        assert {(one.state, one.error) for one in waiting} == {(DeliveryState.PENDING, "The provider refuses ***.")}
        assert {one.error_code for one in waiting[1:]} == {"operator"}
        assert [line.message for line in await world.store.log_lines(LogFilter())] == ["asked"]
        assert world.store.pauses == 1
        assert await world.dispatcher.dispatch_batch() == 0
        works = True
        await world.store.resume_connection(1, at=world.clock.now())
        assert await world.dispatcher.dispatch_batch() == 3
        assert {one.state for one in await world.deliveries()} == {DeliveryState.DONE}

    run(post, scenario, handlers_max=1)


def test_a_paused_connection_does_not_hold_back_the_others() -> None:
    async def post(request: WebhookRequest) -> None:
        if request.provider_id == "bad":
            raise CredentialsError("refused")
        emit(request, id="t1")

    async def scenario(world: World) -> None:
        other = await world.connect("other")
        await world.receive("bad")
        await world.receive("good", connection_id=other)
        await world.dispatcher.dispatch_batch()
        assert [one.state for one in await world.deliveries()] == [DeliveryState.PENDING, DeliveryState.DONE]
        assert len(await world.versions("t1", "other")) == 1

    run(post, scenario)


def raise_value_error(request: WebhookRequest) -> None:
    key = secrets["api_key"]
    raise ValueError(f"cannot use {key}")


def emit_to_nowhere(request: WebhookRequest) -> None:
    ingest.canonical("thing", {"id": "t1"}, stream="nowhere", idempotency_key="k")


def emit_nonsense(request: WebhookRequest) -> None:
    emit(request, id="t1", size="large")


def leave(request: WebhookRequest) -> None:
    raise SystemExit(1)


def answer_oddly(request: WebhookRequest) -> dict[str, int]:
    return {"status": 200}


def refuse(request: WebhookRequest) -> Response:
    return Response(status=400)


@pytest.mark.parametrize(
    ("route", "code", "words"),
    [
        (raise_value_error, "stop.handler", "ValueError: cannot use ***"),
        (emit_to_nowhere, "stop.emission", "declares no stream `nowhere`"),
        (emit_nonsense, "record.invalid", "thing t1 of stream events"),
        (leave, "stop.handler", "SystemExit"),
        (answer_oddly, "stop.handler", "returned a dict. Return a `Response`, or None."),
        (refuse, "stop.handler", "answered 400"),
    ],
)
@pytest.mark.parametrize("is_async", [False, True])
def test_what_no_retry_would_help_is_dead_with_its_traceback(
    route: Route, code: str, words: str, is_async: bool
) -> None:
    async def asynchronous(request: WebhookRequest) -> Any:
        return route(request)

    async def scenario(world: World) -> None:
        await world.receive("d1")
        await world.dispatcher.dispatch_batch()
        delivery = await world.only()
        assert (delivery.state, delivery.attempts, delivery.error_code) == (DeliveryState.DEAD, 1, code)
        assert delivery.error is not None
        assert words in delivery.error
        assert delivery.traceback is not None
        assert "Traceback" in delivery.traceback
        assert SECRET not in delivery.traceback + delivery.error
        assert await world.versions("t1") == []

    run(asynchronous if is_async else route, scenario)


def test_a_connector_that_is_not_loaded_lets_its_deliveries_wait() -> None:
    async def post(request: WebhookRequest) -> None:
        emit(request, id="t1")

    async def scenario(world: World) -> None:
        await world.receive("d1")
        project = world.projects.pop("shop")
        for attempt in range(1, 5):
            assert await world.dispatcher.dispatch_batch() == 1
            delivery = await world.only()
            assert delivery.state is DeliveryState.PENDING
            assert delivery.due_at is not None
            wait = (delivery.due_at - world.clock.now()).total_seconds()
            assert 0 < wait <= BACKOFF.ceiling_seconds(attempt)
            await world.clock.advance(3600)
        world.projects["shop"] = project
        await world.dispatcher.dispatch_batch()
        assert (await world.only()).state is DeliveryState.DONE

    run(post, scenario, attempts_max=2)


def test_a_connector_without_a_webhook_route_needs_its_operator() -> None:
    async def scenario(world: World) -> None:
        await world.receive("d1")
        await world.dispatcher.dispatch_batch()
        stored = await world.store.connection("main")
        assert stored is not None
        assert stored.needs_attention
        assert stored.paused_reason == "The connector shop has no webhook route any more."
        assert (await world.only()).state is DeliveryState.PENDING

    run(None, scenario)


@pytest.mark.parametrize("error", [StoreUnavailableError("full"), RuntimeError("odd"), FencedError()])
def test_a_commit_that_fails_loses_nothing(error: Exception) -> None:
    async def post(request: WebhookRequest) -> None:
        emit(request, id="t1")

    async def scenario(world: World) -> None:
        await world.receive("d1", "d2")
        world.store.finish_error = error
        await world.dispatcher.dispatch_batch()
        states = {one.state for one in await world.deliveries()}
        dead = {DeliveryState.DEAD} if isinstance(error, RuntimeError) else {DeliveryState.PENDING}
        assert states == dead
        assert await world.versions("t1") == []
        world.store.finish_error = None
        if isinstance(error, RuntimeError):
            await replay(world.store, EVERYTHING, at=world.clock.now())
        await world.clock.advance(CLAIM_SECONDS)
        await world.dispatcher.dispatch_batch()
        assert {one.state for one in await world.deliveries()} == {DeliveryState.DONE}
        assert len(await world.versions("t1")) == 1

    run(post, scenario)


def test_a_replay_asks_first_changes_nothing_that_was_right_and_is_told_apart() -> None:
    name = "first"

    async def post(request: WebhookRequest) -> None:
        emit(request, id="t1", name=name)

    async def scenario(world: World) -> None:
        nonlocal name
        asked: list[int] = []

        async def confirm(count: int) -> bool:
            asked.append(count)
            return len(asked) > 1

        await world.receive("d1")
        await world.dispatcher.dispatch_batch()
        which = DeliveryFilter(state=DeliveryState.DONE)
        assert await replay(world.store, which, at=world.clock.now(), confirm=confirm) == 0
        assert await world.dispatcher.dispatch_batch() == 0
        assert await replay(world.store, which, at=world.clock.now(), confirm=confirm) == 1
        assert asked == [1, 1]
        assert await world.dispatcher.dispatch_batch() == 1
        assert len(await world.versions("t1")) == 1
        assert (await world.only()).counts.duplicate == 1
        name = "mended"
        await replay(world.store, which, at=world.clock.now())
        await world.dispatcher.dispatch_batch()
        newest, oldest = await world.versions("t1")
        assert (newest.origin, oldest.origin) == ("replay", "webhook")
        assert await replay(world.store, DeliveryFilter(ids=[999]), at=world.clock.now(), confirm=confirm) == 0
        assert asked == [1, 1]

    run(post, scenario)


def test_a_dead_delivery_is_replayed_once_its_connector_is_mended() -> None:
    broken = True

    async def post(request: WebhookRequest) -> None:
        if broken:
            raise KeyError("bug")
        emit(request, id=request.provider_id)

    async def scenario(world: World) -> None:
        nonlocal broken
        await world.receive("d1", "d2")
        await world.dispatcher.dispatch_batch()
        assert {one.state for one in await world.deliveries()} == {DeliveryState.DEAD}
        broken = False
        await replay(world.store, DeliveryFilter(state=DeliveryState.DEAD), at=world.clock.now())
        await world.dispatcher.dispatch_batch()
        assert {(one.state, one.error) for one in await world.deliveries()} == {(DeliveryState.DONE, None)}

    run(post, scenario)


def test_a_retry_is_no_replay() -> None:
    async def post(request: WebhookRequest) -> None:
        if request.attempt == 1:
            raise ProviderError
        emit(request, id="t1")

    async def scenario(world: World) -> None:
        await world.receive("d1")
        await world.dispatcher.dispatch_batch()
        await world.clock.advance(10)
        await world.dispatcher.dispatch_batch()
        [version] = await world.versions("t1")
        assert version.origin == "webhook"

    run(post, scenario)
