"""A store that can fail, live connections, and the ingress before them: what the tests of ingress work with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headwater.catalog import Connector, Stream, Webhooks
from headwater.clock import Clock
from headwater.delivery import Appended, DeliveryFilter, NewDelivery
from headwater.ingress import Ingress, Limits
from headwater.intention import StoredConnection
from headwater.project import Project
from headwater.redaction import Redactor
from headwater.stores.sqlite.store import SQLiteStore
from headwater.testing.clock import FakeClock
from headwater.testing.signer import signed

SECRET = "whsec_0123456789abcdef"
BODY = b'{"id":"evt_1","object":"event","type":"customer.updated"}'
EVERYTHING = DeliveryFilter()


def make_project(**overrides: Any) -> Project:
    webhooks = Webhooks(**({"endpoint": "/webhooks/shop", "auth": "stripe_signature"} | overrides))
    return Project(
        path=Path("shop"),
        connector=Connector(
            key="shop", name="Shop", version="1.0.0", webhooks=webhooks, streams=[Stream("events", mode="webhook")]
        ),
        content_hash="0" * 32,
        types={},
        sync_routes={},
        webhook_route=None,
        test_route=None,
    )


@dataclass
class Live:
    stored: StoredConnection
    project: Project
    secrets: list[str]

    @property
    def redactor(self) -> Redactor:
        return Redactor(self.secrets)

    def webhook_secrets(self) -> Sequence[str]:
        return self.secrets


class Receivers:
    def __init__(self) -> None:
        self.lives: dict[str, Live] = {}
        self.looked_up: list[str] = []

    async def by_endpoint(self, endpoint_id: str) -> Live | None:
        self.looked_up.append(endpoint_id)
        return self.lives.get(endpoint_id)


class FaultyStore(SQLiteStore):
    """The real store, which can be told to fail or to hold its appends."""

    def __init__(self, path: str, clock: Clock) -> None:
        super().__init__(path, clock)
        self.append_error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.appends: list[int] = []

    async def append_deliveries(self, deliveries: Sequence[NewDelivery]) -> Sequence[Appended]:
        self.appends.append(len(deliveries))
        await self.gate.wait()
        if self.append_error:
            raise self.append_error
        return await super().append_deliveries(deliveries)


@dataclass
class Answered:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class World:
    clock: FakeClock
    store: FaultyStore
    receivers: Receivers
    ingress: Ingress
    wakes: list[int] = field(default_factory=list)

    async def connect(
        self, key: str = "main", project: Project | None = None, secrets: Sequence[str] = (SECRET,)
    ) -> Live:
        stored = await self.store.add_connection(
            key=key,
            connector="shop",
            tenant=None,
            endpoint_id=f"ep-{key}",
            settings={},
            secrets={},
            at=self.clock.now(),
        )
        live = Live(stored, project or make_project(), list(secrets))
        self.receivers.lives[stored.endpoint_id] = live
        return live

    async def post(
        self,
        path: str = "/webhooks/shop/ep-main",
        body: bytes = BODY,
        *,
        secret: str = SECRET,
        scheme: str = "stripe_signature",
        headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        **named: Any,
    ) -> Answered:
        """Post a delivery signed by `secret`, with `headers` besides."""
        proof = signed(scheme, body, secret, at=self.clock.now(), provider_id="d-1")
        more = headers.items() if isinstance(headers, Mapping) else headers
        return await request(self.ingress, path, body, [*proof.items(), *more], **named)

    async def count(self) -> int:
        return await self.store.count_deliveries(EVERYTHING)


async def request(
    app: Ingress,
    path: str,
    body: bytes,
    headers: Sequence[tuple[str, str]] = (),
    *,
    method: str = "POST",
    chunks: Sequence[bytes] | None = None,
    receive: Callable[[], Coroutine[Any, Any, dict[str, Any]]] | None = None,
    on_start: Callable[[], Coroutine[Any, Any, None]] | None = None,
    root_path: str = "",
) -> Answered:
    parts = list(chunks if chunks is not None else [body])
    sent: list[dict[str, Any]] = []

    async def from_body() -> dict[str, Any]:
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start" and on_start is not None:
            await on_start()
        sent.append(dict(message))

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "root_path": root_path,
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
    }
    await app(scope, receive or from_body, send)
    if not sent:
        return Answered(0, {}, b"")
    raw = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answered(sent[0]["status"], raw, sent[1]["body"])


def run(scenario: Callable[[World], Coroutine[Any, Any, None]], *, limits: Limits | None = None) -> None:
    """Carry out a scenario in a fresh world with one connection, `main`."""

    async def main() -> None:
        clock = FakeClock()
        store = FaultyStore(":memory:", clock)
        await store.open()
        receivers = Receivers()
        wakes: list[int] = []
        ingress = Ingress(
            store,
            receivers,
            clock,
            public_url="https://hooks.example.com/",
            limits=limits,
            on_appended=lambda: wakes.append(1),
        )
        world = World(clock, store, receivers, ingress, wakes)
        await world.connect()
        try:
            await scenario(world)
        finally:
            await store.close()

    asyncio.run(main())
