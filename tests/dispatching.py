"""What the tests of dispatch work with: a connector of one route, a store that counts, and the dispatcher over them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headwater import ingest
from headwater.canonical.schema import Canonical, from_struct
from headwater.catalog import Connection, Connector, Stream, Webhooks
from headwater.clock import Clock, to_micros
from headwater.connection import KeyRing, encrypt_secrets
from headwater.delivery import Delivery, DeliveryFilter, NewDelivery
from headwater.dispatch import Dispatcher
from headwater.intention import CommitResult, DeliveryCommit
from headwater.invoke import LiveConnections
from headwater.project import Project
from headwater.record import Version
from headwater.route import WebhookRequest
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
