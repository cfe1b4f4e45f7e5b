from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headwater import failpoint, ingest
from headwater.canonical.schema import Canonical, from_struct
from headwater.catalog import Connection, Connector, Stream, Webhooks
from headwater.clock import Clock, to_micros
from headwater.connection import KeyRing, encrypt_secrets
from headwater.context import log, secrets
from headwater.delivery import Delivery, DeliveryFilter, DeliveryState, NewDelivery
from headwater.dispatch import BACKOFF, CLAIM_SECONDS, IDLE_SECONDS, IN_FLIGHT_MAX, Dispatcher, replay
from headwater.endpoint import dedupe_key
from headwater.errors import (
    CredentialsError,
    FencedError,
    ProviderError,
    RateLimitedError,
    StoreUnavailableError,
)
from headwater.intention import CommitResult, DeliveryCommit
from headwater.invoke import LiveConnections
from headwater.log_line import LogFilter
from headwater.project import Project
from headwater.record import Version
from headwater.route import Response, WebhookRequest
from headwater.stores.sqlite.store import SQLiteStore
from headwater.testing.clock import FakeClock

SECRET = "sk_live_canary_0123456789"
EVERYTHING = DeliveryFilter()

Route = Callable[[WebhookRequest], Any]


class Thing(Canonical):
    id: str
    name: str | None = None
    size: int | None = None


def make_project(route: Route | None, *, key: str = "shop", ordered: bool = False) -> Project:
    schema = {"type": "object", "properties": {"api_key": {"type": "string", "x-secret": True}}}
    return Project(
        path=Path(key),
        connector=Connector(
            key=key,
            name=key,
            version="1.0.0",
            connection=Connection(settings=schema),
            webhooks=Webhooks(endpoint=f"/webhooks/{key}", auth="stripe_signature", ordered=ordered),
            streams=[Stream("events", mode="webhook"), Stream("things", mode="poll", schedule="0 * * * *")],
        ),
        content_hash="abcdef0123456789",
        types={"thing": from_struct(Thing)},
        sync_routes={},
        webhook_route=route,
        test_route=None,
    )


def emit(request: WebhookRequest, **payload: Any) -> None:
    ingest.canonical("thing", payload, stream="events", idempotency_key=f"event:{request.provider_id}:{payload['id']}")


class CountingStore(SQLiteStore):
    """The real store, which counts commits and can be told to fail them."""

    def __init__(self, path: str, clock: Clock) -> None:
        super().__init__(path, clock)
        self.commits: list[int] = []
        self.claims: list[int] = []  # that found any
        self.finish_error: Exception | None = None
        self.claim_error: Exception | None = None
        self.pauses = 0

    async def finish_deliveries(self, done: Sequence[DeliveryCommit]) -> Sequence[CommitResult | Exception]:
        self.commits.append(len(done))
        if self.finish_error:
            raise self.finish_error
        return await super().finish_deliveries(done)

    async def claim_deliveries(self, *args: Any, **fields: Any) -> Any:
        if self.claim_error:
            raise self.claim_error
        claimed = await super().claim_deliveries(*args, **fields)
        if claimed:
            self.claims.append(len(claimed))
        return claimed

    async def pause_connection(self, *args: Any, **fields: Any) -> None:
        self.pauses += 1
        await super().pause_connection(*args, **fields)


@dataclass
class World:
    clock: FakeClock
    store: CountingStore
    projects: dict[str, Project]
    connections: LiveConnections
    dispatcher: Dispatcher
    key_ring: KeyRing

    async def connect(self, key: str = "main", connector: str = "shop") -> int:
        stored = await self.store.add_connection(
            key=key, connector=connector, tenant=None, endpoint_id=f"ep-{key}", settings={},
            secrets=encrypt_secrets(self.key_ring, key, {"api_key": SECRET}), at=self.clock.now(),
        )  # fmt: skip
        return stored.id

    async def receive(self, *provider_ids: str, connection_id: int = 1, body: bytes = b'{"id":"t1"}') -> None:
        await self.store.append_deliveries(
            [
                NewDelivery(
                    connection_id=connection_id,
                    received_at=to_micros(self.clock.now()),
                    provider_id=provider_id,
                    dedupe=dedupe_key(connection_id, provider_id),
                    event_type="thing.made",
                    headers=b'{"x-kind":"test"}',
                    body=body,
                )
                for provider_id in provider_ids
            ]
        )

    async def deliveries(self) -> list[Delivery]:
        """All deliveries, oldest first, with headers and body."""
        listed = await self.store.deliveries(EVERYTHING, limit=1000)
        return [found for one in reversed(listed) if (found := await self.store.delivery(one.id))]

    async def only(self) -> Delivery:
        [delivery] = await self.deliveries()
        return delivery

    async def versions(self, source_id: str, connection: str = "main") -> Sequence[Version]:
        return await self.store.versions(connection, "thing", source_id)

    async def until(self, condition: Callable[[], Coroutine[Any, Any, bool]]) -> None:
        """Let the writer's thread and the loop work until the condition holds; no clock is moved."""
        for _ in range(2000):
            if await condition():
                return
            await asyncio.sleep(0.001)
        raise AssertionError("the condition never held")


def run(
    route: Route | None, scenario: Callable[[World], Coroutine[Any, Any, None]], *, ordered: bool = False, **fields: Any
) -> None:
    """Carry out a scenario in a fresh world with one connection, `main`, whose connector has `route`."""

    async def main() -> None:
        clock = FakeClock()
        store = CountingStore(":memory:", clock)
        await store.open()
        projects = {"shop": make_project(route, ordered=ordered)}
        key_ring = KeyRing([b"k" * 32])
        connections = LiveConnections(store, projects, key_ring, clock, lambda **_: NoHttp())
        dispatcher = Dispatcher(store, connections, clock, **{"claim_pause_seconds": 0, **fields})
        world = World(clock, store, projects, connections, dispatcher, key_ring)
        assert await world.connect() == 1
        try:
            await scenario(world)
        finally:
            await store.close()

    asyncio.run(main())


class NoHttp:
    async def request(self, method: str, url: str, **options: Any) -> Any:
        raise AssertionError("no request is expected")


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


@pytest.mark.parametrize("error", [ProviderError("down"), TimeoutError(), ConnectionResetError(), Response(status=503)])
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
        assert {one.state for one in await world.deliveries()} == {DeliveryState.PENDING}
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
    return Response(status=422)


@pytest.mark.parametrize(
    ("route", "code", "words"),
    [
        (raise_value_error, "stop.handler", "ValueError: cannot use ***"),
        (emit_to_nowhere, "stop.emission", "declares no stream `nowhere`"),
        (emit_nonsense, "record.invalid", "thing t1 of stream events"),
        (leave, "stop.handler", "SystemExit"),
        (answer_oddly, "stop.handler", "returned a dict"),
        (refuse, "stop.handler", "answered 422"),
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
        for _ in range(4):
            assert await world.dispatcher.dispatch_batch() == 1
            assert (await world.only()).state is DeliveryState.PENDING
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
        assert (await world.only()).state is DeliveryState.PENDING

    run(None, scenario)


def test_an_ordered_connection_gets_its_deliveries_one_after_the_other() -> None:
    order: list[str] = []
    at_work = 0

    async def post(request: WebhookRequest) -> None:
        nonlocal at_work
        at_work += 1
        assert at_work == 1
        await asyncio.sleep(0)
        at_work -= 1
        order.append(f"{request.provider_id}.{request.attempt}")
        if request.provider_id == "d2" and request.attempt == 1:
            raise ProviderError("down")
        emit(request, id=request.provider_id)

    async def scenario(world: World) -> None:
        await world.receive("d1", "d2", "d3", "d4")
        while await world.dispatcher.dispatch_batch():
            pass
        assert order == ["d1.1", "d2.1"]  # d3 waits for d2's retry
        await world.clock.advance(BACKOFF.ceiling_seconds(1))
        while await world.dispatcher.dispatch_batch():
            pass
        assert order == ["d1.1", "d2.1", "d2.2", "d3.1", "d4.1"]

    run(post, scenario, ordered=True)


def test_an_ordered_backlog_is_served_without_waiting_for_the_clock() -> None:
    async def post(request: WebhookRequest) -> None:
        emit(request, id=request.provider_id)

    async def scenario(world: World) -> None:
        await world.receive("d1", "d2", "d3", "d4")
        serving = asyncio.create_task(world.dispatcher.serve())
        await world.until(lambda: _equal(world.store.pending_deliveries(), 0))
        world.dispatcher.drain()
        await serving

    run(post, scenario, ordered=True)


def test_handlers_run_side_by_side_up_to_their_limit() -> None:
    at_work = most = 0
    together = asyncio.Event()

    async def post(request: WebhookRequest) -> None:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        if at_work == 4:
            together.set()
        await together.wait()
        await asyncio.sleep(0)
        at_work -= 1

    async def scenario(world: World) -> None:
        await world.receive(*(f"d{n}" for n in range(40)))
        assert await world.dispatcher.dispatch_batch() == 40
        assert most == 4
        assert {one.state for one in await world.deliveries()} == {DeliveryState.DONE}

    run(post, scenario, handlers_max=4)


def test_a_delivery_whose_claim_could_lapse_under_way_is_not_begun() -> None:
    begun: list[str] = []
    clocks: list[FakeClock] = []

    async def post(request: WebhookRequest) -> None:
        begun.append(f"{request.provider_id}.{request.attempt}")
        if request.provider_id == "slow":
            await clocks[0].sleep(15)

    async def scenario(world: World) -> None:
        clocks.append(world.clock)
        await world.receive("slow", "next")
        dispatching = asyncio.create_task(world.dispatcher.dispatch_batch())
        await world.until(lambda: _true(bool(begun)))
        await world.clock.advance(15)
        assert await dispatching == 2
        assert begun == ["slow.1"]
        assert await world.dispatcher.dispatch_batch() == 0
        await world.clock.advance(15)
        assert await world.dispatcher.dispatch_batch() == 1
        assert begun == ["slow.1", "next.2"]

    run(post, scenario, handlers_max=1, claim_seconds=30, handler_seconds_max=20)


def test_serving_claims_no_more_than_it_may_hold_and_keeps_to_its_handlers() -> None:
    gate = asyncio.Event()
    at_work = most = 0

    async def post(request: WebhookRequest) -> None:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await gate.wait()
        at_work -= 1

    async def scenario(world: World) -> None:
        count = IN_FLIGHT_MAX + 100
        await world.receive(*(f"d{n}" for n in range(count)))
        serving = asyncio.create_task(world.dispatcher.serve())

        async def claimed() -> int:
            return sum(one.attempts for one in await world.store.deliveries(EVERYTHING, limit=1000))

        await world.until(lambda: _equal(claimed(), IN_FLIGHT_MAX))
        for _ in range(20):
            world.dispatcher.wake()
            await asyncio.sleep(0.001)
        assert await claimed() == IN_FLIGHT_MAX
        assert most == 4
        gate.set()
        await world.until(lambda: _equal(world.store.pending_deliveries(), 0))
        world.dispatcher.drain()
        await serving
        assert most == 4

    run(post, scenario, handlers_max=4)


def test_many_deliveries_are_few_commits() -> None:
    async def post(request: WebhookRequest) -> None:
        emit(request, id=request.provider_id)

    async def scenario(world: World) -> None:
        await world.receive(*(f"d{n}" for n in range(200)))
        assert await world.dispatcher.dispatch_batch() == 200
        assert sum(world.store.commits) == 200
        assert len(world.store.commits) <= 40

    run(post, scenario)


def test_a_claim_that_was_retaken_commits_nothing() -> None:
    gate: list[asyncio.Event] = []

    async def post(request: WebhookRequest) -> None:
        if request.attempt == 1:
            await gate[0].wait()
        emit(request, id=f"t{request.attempt}")

    async def scenario(world: World) -> None:
        gate.append(asyncio.Event())
        await world.receive("d1")
        first = asyncio.create_task(world.dispatcher.dispatch_batch())
        for _ in range(100):
            await asyncio.sleep(0.001)
        rival = Dispatcher(world.store, world.connections, world.clock)
        # Only the claim lapses: the handler's own limit is watched by the clock that stands still for it.
        claims = await world.store.claim_deliveries(
            world.clock.now() + timedelta(seconds=CLAIM_SECONDS), limit=1, lease_seconds=CLAIM_SECONDS
        )
        assert [(claim.attempt, claim.epoch) for claim in claims] == [(2, 2)]
        gate[0].set()
        assert await first == 1
        assert await world.versions("t1") == []
        assert (await world.only()).state is DeliveryState.PENDING
        await world.clock.advance(2 * CLAIM_SECONDS)
        assert await rival.dispatch_batch() == 1
        assert len(await world.versions("t3")) == 1

    run(post, scenario)


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


def test_serving_wakes_at_once_and_drains() -> None:
    started = asyncio.Event()
    gate = asyncio.Event()

    async def post(request: WebhookRequest) -> None:
        if request.provider_id == "held":
            started.set()
            await gate.wait()
        emit(request, id=request.provider_id)

    async def scenario(world: World) -> None:
        async def done(count: int) -> bool:
            return await world.store.count_deliveries(DeliveryFilter(state=DeliveryState.DONE)) == count

        serving = asyncio.create_task(world.dispatcher.serve())
        await world.until(lambda: _true(world.clock.sleepers > 0))
        await world.receive("d1")
        world.dispatcher.wake()
        await world.until(lambda: done(1))
        # What another process stored is found without a word, after a while.
        await world.receive("d2")
        await world.until(lambda: _true(world.clock.sleepers > 0))
        await world.clock.advance(IDLE_SECONDS)
        await world.until(lambda: done(2))
        await world.receive("held")
        world.dispatcher.wake()
        await started.wait()
        world.dispatcher.drain()
        await world.receive("late")
        world.dispatcher.wake()
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert not serving.done()
        gate.set()
        await serving
        assert await done(3)
        assert await world.store.pending_deliveries() == 1

    run(post, scenario)


async def _true(value: bool) -> bool:
    return value


async def _equal(count: Coroutine[Any, Any, int], expected: int) -> bool:
    return await count == expected


def test_serving_takes_a_backlog_beyond_one_claim_and_survives_a_store_that_fails() -> None:
    async def post(request: WebhookRequest) -> None:
        emit(request, id=request.provider_id)

    async def scenario(world: World) -> None:
        count = IN_FLIGHT_MAX * 2
        await world.receive(*(f"d{n}" for n in range(count)))
        world.store.claim_error = StoreUnavailableError("busy")
        serving = asyncio.create_task(world.dispatcher.serve())
        await world.until(lambda: _true(world.clock.sleepers > 0))
        world.store.claim_error = None
        await world.clock.advance(IDLE_SECONDS)

        async def is_empty() -> bool:
            return await world.store.pending_deliveries() == 0

        await world.until(is_empty)
        world.dispatcher.drain()
        await serving
        assert sum(world.store.commits) == count
        assert world.dispatcher._in_flight == 0

    run(post, scenario)


def test_what_arrives_soon_after_a_claim_is_claimed_together() -> None:
    async def post(request: WebhookRequest) -> None:
        emit(request, id=request.provider_id)

    async def scenario(world: World) -> None:
        serving = asyncio.create_task(world.dispatcher.serve())
        await world.until(lambda: _true(world.clock.sleepers > 0))
        for name in ("d1", "d2"):
            await world.receive(name)
            world.dispatcher.wake()
            await asyncio.sleep(0.001)
        assert await world.store.pending_deliveries() == 2
        await world.clock.advance(0.01)
        await world.until(lambda: _equal(world.store.pending_deliveries(), 0))
        assert world.store.claims == [2]
        world.dispatcher.drain()
        await world.clock.advance(0.01)
        await serving

    run(post, scenario, claim_pause_seconds=0.01)


def test_serving_that_is_cancelled_leaves_its_claims_to_lapse() -> None:
    async def post(request: WebhookRequest) -> None:
        if request.attempt == 1:
            await asyncio.get_running_loop().create_future()
        emit(request, id="t1")

    async def scenario(world: World) -> None:
        await world.receive("d1")
        serving = asyncio.create_task(world.dispatcher.serve())

        async def is_claimed() -> bool:
            return (await world.only()).attempts == 1

        await world.until(is_claimed)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        after = Dispatcher(world.store, world.connections, world.clock)
        assert await after.dispatch_batch() == 0
        await world.clock.advance(CLAIM_SECONDS)
        assert await after.dispatch_batch() == 1
        assert (await world.only()).state is DeliveryState.DONE

    run(post, scenario)


def test_the_failpoints_of_dispatch_are_passed_in_their_order() -> None:
    passed: list[str] = []
    names = ("dispatch.claimed", "dispatch.before_commit", "dispatch.after_commit")

    async def post(request: WebhookRequest) -> None:
        passed.append("invoked")

    async def scenario(world: World) -> None:
        await world.receive("d1")
        for name in names:
            failpoint.arm(name, lambda name=name: passed.append(name))  # type: ignore[misc]
        await world.dispatcher.dispatch_batch()
        assert passed == [names[0], "invoked", names[1], names[2]]

    try:
        run(post, scenario)
    finally:
        failpoint.disarm()


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
