from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from headwater import failpoint
from headwater.catalog import Connector, Stream, Webhooks
from headwater.clock import Clock
from headwater.delivery import Appended, DeliveryFilter, NewDelivery
from headwater.endpoint import ENDPOINT_SECONDS, dedupe_key
from headwater.errors import StoreUnavailableError
from headwater.ingress import LINGER_BYTES_MAX, PENDING_SECONDS, Ingress, Limits
from headwater.intention import StoredConnection
from headwater.project import Project
from headwater.redaction import Redactor
from headwater.signature import SignedRequest, Verified
from headwater.signatures import registry
from headwater.stores.sqlite.store import SQLiteStore
from headwater.testing.clock import FakeClock, settle
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


def test_a_delivery_is_stored_before_it_is_answered() -> None:
    async def scenario(world: World) -> None:
        stored_when_answered: list[int] = []

        async def on_start() -> None:
            stored_when_answered.append(await world.count())

        answered = await world.post(on_start=on_start)
        assert (answered.status, answered.body) == (200, b"ok")
        assert answered.headers["content-length"] == "2"
        assert stored_when_answered == [1]
        assert len(world.wakes) == 1
        assert world.ingress.answered == {200: 1}

    run(scenario)


def test_a_delivery_is_stored_as_it_was_received_without_what_unlocks_anything() -> None:
    async def scenario(world: World) -> None:
        headers = [
            ("Authorization", "Bearer hidden"), ("Cookie", "hidden"), ("Proxy-Authorization", "hidden"),
            ("User-Agent", "Stripe/1.0"), ("X-Twice", "a"), ("X-Twice", "b"), ("X-Latin", "caf\xe9"),
        ]  # fmt: skip
        assert (await world.post(headers=headers)).status == 200
        [listed] = await world.store.deliveries(EVERYTHING)
        stored = await world.store.delivery(listed.id)
        assert stored is not None
        assert stored.body == BODY
        assert stored.headers == {
            "content-type": "application/json", "user-agent": "Stripe/1.0", "x-twice": "a, b", "x-latin": "caf\xe9",
        }  # fmt: skip
        assert (stored.provider_id, stored.event_type, stored.connection) == ("evt_1", "customer.updated", "main")
        assert stored.received_at == world.clock.now()

    run(scenario)


def test_a_second_arrival_is_a_visible_duplicate() -> None:
    async def scenario(world: World) -> None:
        for _ in range(3):
            assert (await world.post()).status == 200
        [stored] = await world.store.deliveries(EVERYTHING)
        assert stored.duplicates == 2
        assert len(world.wakes) == 1

    run(scenario)


def test_the_same_id_at_two_connections_is_two_deliveries() -> None:
    async def scenario(world: World) -> None:
        await world.connect("other")
        assert (await world.post()).status == 200
        assert (await world.post("/webhooks/shop/ep-other")).status == 200
        assert {one.connection for one in await world.store.deliveries(EVERYTHING)} == {"main", "other"}
        assert dedupe_key(1, "evt_1") != dedupe_key(2, "evt_1")
        assert len(dedupe_key(1, "evt_1")) == 16

    run(scenario)


def test_a_hundred_arrivals_at_once_are_one_row_and_few_commits() -> None:
    async def scenario(world: World) -> None:
        answers = await asyncio.gather(*(world.post() for _ in range(100)))
        assert {answered.status for answered in answers} == {200}
        [stored] = await world.store.deliveries(EVERYTHING)
        assert stored.duplicates == 99
        assert sum(world.store.appends) == 100
        assert len(world.store.appends) <= 3

    run(scenario)


def test_a_body_without_an_id_is_named_by_its_hash() -> None:
    async def scenario(world: World) -> None:
        for body in (b"not json", b"not json", b"\xff\x00", b'{"a":' + b"[" * 100_000):
            assert (await world.post(body=body)).status == 200
        assert sorted(one.duplicates for one in await world.store.deliveries(EVERYTHING)) == [0, 0, 1]

    run(scenario)


def test_a_bad_signature_is_refused_counted_and_never_stored() -> None:
    async def scenario(world: World) -> None:
        body = b'{"secret":"' + SECRET.encode() + b'","x":"' + b"x" * 5000 + b'"}'
        for _ in range(2):
            answered = await world.post(
                body=body, secret="whsec_wrong", headers={"Authorization": "Bearer tok-hidden", "X-Kept": "kept"}
            )
            assert (answered.status, answered.body) == (401, b"signature refused")
        assert await world.count() == 0
        [rejection] = await world.store.rejections()
        assert (rejection.connection, rejection.count) == ("main", 2)
        assert rejection.reason == "No signature matches a signing secret of this connection."
        assert "x-kept: kept" in rejection.sample
        assert len(rejection.sample) < 1500
        for hidden in (SECRET, "tok-hidden", "v1="):
            assert hidden not in rejection.sample

    run(scenario)


@pytest.mark.parametrize("header", ["", "garbage", "t=1,v1=", "t=\xe9,v1=0", "t=1", "v1=0", "t=1_0,v1=0", "=" * 3000])
def test_a_malformed_signature_header_is_a_401(header: str) -> None:
    async def scenario(world: World) -> None:
        headers = [("Stripe-Signature", header)]
        assert (await request(world.ingress, "/webhooks/shop/ep-main", BODY, headers)).status == 401
        assert (await world.post(headers=headers)).status == 401  # doubled
        assert await world.count() == 0

    run(scenario)


def test_a_scheme_that_stumbles_refuses_the_delivery(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stumbling:
        name = "stumbling"
        headers: frozenset[str] = frozenset()

        def verify(self, request: SignedRequest, secrets: Sequence[str], options: Mapping[str, Any]) -> Verified:
            raise IndexError("list index out of range")

        def sign(self, body: bytes, secret: str, **fields: Any) -> dict[str, str]:
            return {}

    monkeypatch.setattr(registry, "_schemes", {**registry._schemes, "stumbling": Stumbling()})

    async def scenario(world: World) -> None:
        await world.connect("odd", make_project(auth="stumbling"))
        assert (await world.post("/webhooks/shop/ep-odd")).status == 401
        [rejection] = await world.store.rejections()
        assert rejection.reason == "The scheme stumbling failed: IndexError."

    run(scenario)


def test_what_does_not_exist_is_not_told_from_what_does() -> None:
    async def scenario(world: World) -> None:
        no_webhooks = make_project()
        connector = replace(no_webhooks.connector, webhooks=None)
        await world.connect("poller", replace(no_webhooks, connector=connector))
        answers = [
            await world.post(path)
            for path in (
                "/webhooks/shop/unknown", "/webhooks/other/ep-main", "/webhooks/shop/ep-poller", "/webhooks/shop/",
                "/webhooks/shop", "/", "", "/webhooks/shop/ep-main/", "/webhooks/shop/ep-main/x",
                "/x/webhooks/shop/ep-main",
                "/webhooks/shop/\xe9", "/webhooks/shop/" + "a" * 500,
            )
        ]  # fmt: skip
        assert all(answer == answers[0] for answer in answers)
        assert answers[0].status == 404
        assert await world.store.rejections() == []
        got = [await world.post(path, method="GET") for path in ("/webhooks/shop/ep-main", "/webhooks/shop/unknown")]
        assert got[0] == got[1]
        assert (got[0].status, got[0].headers["allow"]) == (405, "POST")

    run(scenario)


def test_an_endpoint_below_a_root_path_is_found() -> None:
    async def scenario(world: World) -> None:
        assert (await world.post("/hw/webhooks/shop/ep-main", root_path="/hw")).status == 200

    run(scenario)


def test_a_body_over_the_limit_is_refused_before_it_is_read() -> None:
    told: list[int] = []

    async def tell() -> None:
        told.append(1)

    async def never() -> dict[str, Any]:
        assert told, "the body was read"
        return {"type": "http.disconnect"}

    async def scenario(world: World) -> None:
        await world.connect("small", make_project(body_bytes_max=100))
        for length, status in (("101", 413), ("9" * 40, 413), ("1e3", 400), ("-1", 400)):
            headers = {"Content-Length": length}
            told.clear()
            answered = await world.post("/webhooks/shop/ep-small", headers=headers, receive=never, on_start=tell)
            assert (answered.status, answered.headers["connection"]) == (status, "close")
        exact = b"x" * 100
        assert (await world.post("/webhooks/shop/ep-small", exact, headers={"Content-Length": "100"})).status == 200
        reasons = {one.reason: one.count for one in await world.store.rejections()}
        assert reasons == {"The body is larger than the limit.": 2, "The header Content-Length is no number.": 2}

    run(scenario)


def test_a_body_in_chunks_is_counted_as_it_comes() -> None:
    async def scenario(world: World) -> None:
        await world.connect("small", make_project(body_bytes_max=100))
        read, before = 0, 0

        async def endless() -> dict[str, Any]:
            nonlocal read
            size = 1000 if before else 30
            read += size
            return {"type": "http.request", "body": b"x" * size, "more_body": True}

        async def tell() -> None:
            nonlocal before
            before = read

        answered = await world.post("/webhooks/shop/ep-small", receive=endless, on_start=tell)
        assert (answered.status, before) == (413, 120)
        assert LINGER_BYTES_MAX <= read <= LINGER_BYTES_MAX + 2000, "what its sender still sends passes by, some of it"
        thirds = [BODY[:20], BODY[20:40], b"", BODY[40:]]
        assert (await world.post("/webhooks/shop/ep-small", chunks=thirds)).status == 200
        assert await world.count() == 1

    run(scenario)


def test_a_slow_body_is_given_up() -> None:
    async def scenario(world: World) -> None:
        async def stalled() -> dict[str, Any]:
            await asyncio.get_running_loop().create_future()
            raise AssertionError

        posting = asyncio.create_task(world.post(receive=stalled))
        await settle()
        await world.clock.advance(9)
        assert not posting.done()
        await world.clock.advance(3)
        for _ in range(100):
            await asyncio.sleep(0.001)
            if posting.done():
                break
        assert (await posting).status == 408
        assert await world.count() == 0
        assert (await world.post()).status == 200

    run(scenario, limits=Limits(body_seconds_max=10))


def test_a_sender_that_goes_away_leaves_nothing() -> None:
    async def scenario(world: World) -> None:
        messages: list[dict[str, Any]] = [
            {"type": "http.request", "body": BODY[:10], "more_body": True},
            {"type": "http.disconnect"},
        ]

        async def leaving() -> dict[str, Any]:
            return messages.pop(0)

        assert (await world.post(receive=leaving)).status == 0
        assert (await world.count(), world.ingress._in_flight, world.ingress._in_flight_bytes) == (0, 0, 0)

    run(scenario)


def test_a_compressed_body_is_refused() -> None:
    async def scenario(world: World) -> None:
        assert (await world.post(headers={"Content-Encoding": "gzip"})).status == 415
        assert (await world.post(headers={"Content-Encoding": "identity"})).status == 200

    run(scenario)


def test_too_many_or_too_large_headers_are_refused() -> None:
    async def scenario(world: World) -> None:
        assert (await world.post(headers=[(f"x-{n}", "1") for n in range(120)])).status == 431
        assert (await world.post(headers={"x-large": "x" * 40_000})).status == 431
        assert await world.count() == 0
        [rejection] = await world.store.rejections()
        assert len(rejection.sample) < 6000

    run(scenario)


@pytest.mark.parametrize("error", [StoreUnavailableError(), RuntimeError("disk")])
def test_what_is_not_committed_is_a_503_and_the_next_try_stores_it(error: Exception) -> None:
    async def scenario(world: World) -> None:
        world.store.append_error = error
        answered = await world.post()
        assert (answered.status, answered.headers["retry-after"]) == (503, "5")
        assert await world.count() == 0
        assert world.wakes == []
        world.store.append_error = None
        assert (await world.post()).status == 200
        assert await world.count() == 1

    run(scenario)


def test_a_delivery_that_cannot_be_stored_does_not_fail_its_neighbours() -> None:
    async def scenario(world: World) -> None:
        gone = await world.connect("gone")
        await world.post()  # both endpoints are looked up
        await world.post("/webhooks/shop/ep-gone")
        await world.store.remove_connection(gone.stored.id)
        other = b'{"id":"evt_2"}'
        first, second = await asyncio.gather(
            world.post("/webhooks/shop/ep-gone", other), world.post("/webhooks/shop/ep-main", other)
        )
        assert (first.status, second.status) == (503, 200)
        assert {one.provider_id for one in await world.store.deliveries(EVERYTHING)} == {"evt_1", "evt_2"}

    run(scenario)


def test_too_much_in_flight_is_shed_and_one_connection_leaves_room_for_others() -> None:
    async def scenario(world: World) -> None:
        await world.connect("other")
        world.store.gate.clear()
        held = [asyncio.create_task(world.post(body=b'{"id":"e%d"}' % n)) for n in range(6)]
        await settle()
        shed = [task.result() for task in held if task.done()]
        assert [(one.status, one.headers["retry-after"]) for one in shed] == [(503, "5")] * 4  # a half of 4 is 2
        others = [asyncio.create_task(world.post("/webhooks/shop/ep-other", b'{"id":"o%d"}' % n)) for n in range(2)]
        await settle()
        assert not any(task.done() for task in others)
        assert (await world.post("/webhooks/shop/ep-other", b'{"id":"o9"}')).status == 503  # all 4 are taken
        world.store.gate.set()
        statuses = [answered.status for answered in await asyncio.gather(*held, *others)]
        assert statuses.count(200) == 4
        assert await world.count() == 4
        assert (await world.post(body=b'{"id":"later"}')).status == 200

    run(scenario, limits=Limits(in_flight_max=4))


def test_bodies_in_memory_are_bounded() -> None:
    async def scenario(world: World) -> None:
        world.store.gate.clear()
        held = asyncio.create_task(world.post(body=b"x" * 900))
        await settle()
        assert not held.done()
        assert (await world.post(chunks=[b"x" * 200, BODY])).status == 503
        world.store.gate.set()
        assert (await held).status == 200
        assert (await world.post(chunks=[BODY[:20], BODY[20:]])).status == 200
        assert world.ingress._in_flight_bytes == 0

    run(scenario, limits=Limits(in_flight_bytes_max=1000))


def test_a_backlog_over_its_limit_sheds_until_it_is_drained() -> None:
    async def counted(world: World) -> None:
        await world.clock.advance(PENDING_SECONDS)
        await world.post(method="POST", body=b"count now", secret="whsec_wrong")
        assert world.ingress._counting is not None
        await world.ingress._counting

    async def scenario(world: World) -> None:
        statuses = [(await world.post(body=b'{"id":"e%d"}' % n)).status for n in range(5)]
        assert statuses == [200, 200, 200, 503, 503]
        assert await world.count() == 3
        await counted(world)
        assert (await world.post()).status == 503
        claims = await world.store.claim_deliveries(world.clock.now(), limit=2, lease_seconds=60)
        assert len(claims) == 2
        await world.store.remove_connection(1)
        await world.connect("main")
        await counted(world)
        assert (await world.post()).status == 200

    run(scenario, limits=Limits(pending_max=3))


def test_a_handshake_is_answered_and_not_stored() -> None:
    async def scenario(world: World) -> None:
        await world.connect("slack", make_project(auth="slack_signature"))
        body = b'{"type":"url_verification","challenge":"c-1"}'
        answered = await world.post("/webhooks/shop/ep-slack", body, scheme="slack_signature")
        assert (answered.status, answered.body) == (200, b"c-1")
        assert answered.headers["content-type"].startswith("text/plain")
        forged = await world.post("/webhooks/shop/ep-slack", body, scheme="slack_signature", secret="wrong")
        assert (forged.status, forged.body) == (401, b"signature refused")
        assert await world.count() == 0

    run(scenario)


def test_a_changed_secret_is_noticed_soon_and_at_once_where_it_is_told() -> None:
    async def scenario(world: World) -> None:
        live = world.receivers.lives["ep-main"]
        assert (await world.post()).status == 200
        live.secrets = ["whsec_new", SECRET]
        assert (await world.post(secret="whsec_new")).status == 401
        await world.clock.advance(ENDPOINT_SECONDS)
        assert (await world.post(secret="whsec_new")).status == 200
        assert (await world.post()).status == 200
        live.secrets = ["whsec_new"]
        world.ingress.forget()
        assert (await world.post()).status == 401
        assert (await world.post(secret="whsec_new")).status == 200

    run(scenario)


def test_an_endpoint_is_looked_up_once_in_a_while() -> None:
    async def scenario(world: World) -> None:
        for _ in range(5):
            await world.post()
        assert world.receivers.looked_up == ["ep-main"]

    run(scenario)


def test_a_look_up_that_fails_asks_for_another_try() -> None:
    async def scenario(world: World) -> None:
        await world.connect("odd", make_project(auth="no_such_scheme"))
        answered = await world.post("/webhooks/shop/ep-odd")
        assert (answered.status, answered.headers["retry-after"]) == (503, "5")

    run(scenario)


def test_a_paused_connection_still_stores_its_deliveries() -> None:
    async def scenario(world: World) -> None:
        stored = world.receivers.lives["ep-main"].stored
        await world.store.pause_connection(stored.id, reason="by hand", needs_attention=False, at=world.clock.now())
        assert (await world.post()).status == 200
        assert await world.count() == 1

    run(scenario)


def test_the_failpoints_of_a_delivery_are_passed_in_their_order() -> None:
    passed: list[str] = []
    names = ("delivery.received", "delivery.before_commit", "delivery.after_commit", "delivery.acked")

    async def scenario(world: World) -> None:
        async def on_start() -> None:
            passed.append("answer")

        for name in names:
            failpoint.arm(name, lambda name=name: passed.append(name))  # type: ignore[misc]
        await world.post(on_start=on_start)
        assert passed == [*names[:3], "answer", names[3]]
        passed.clear()
        await world.post(secret="whsec_wrong")
        assert passed == []

    try:
        run(scenario)
    finally:
        failpoint.disarm()


def test_draining_refuses_what_comes_and_commits_what_was_accepted() -> None:
    async def scenario(world: World) -> None:
        world.store.gate.clear()
        held = asyncio.create_task(world.post())
        await settle()
        draining = asyncio.create_task(world.ingress.drain())
        await settle()
        assert not draining.done()
        assert (await world.post(body=b'{"id":"late"}')).status == 503
        world.store.gate.set()
        await draining
        assert (await held).status == 200

    run(scenario)


def test_a_websocket_is_closed() -> None:
    async def scenario(world: World) -> None:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> dict[str, Any]:
            return {"type": "websocket.connect"}

        await world.ingress({"type": "websocket", "path": "/webhooks/shop/ep-main"}, receive, send)
        assert sent == [{"type": "websocket.close", "code": 1003}]

    run(scenario)


def test_the_generic_schemes_own_header_is_not_stored() -> None:
    async def scenario(world: World) -> None:
        await world.connect("acme", make_project(auth="hmac_sha256", options={"header": "X-Acme-Proof"}))
        proof = signed("hmac_sha256", BODY, SECRET, at=world.clock.now(), options={"header": "X-Acme-Proof"})
        assert (await request(world.ingress, "/webhooks/shop/ep-acme", BODY, list(proof.items()))).status == 200
        [listed] = await world.store.deliveries(EVERYTHING)
        stored = await world.store.delivery(listed.id)
        assert stored is not None
        assert "x-acme-proof" not in json.dumps(dict(stored.headers))
        assert (await request(world.ingress, "/webhooks/shop/ep-acme", b"else", list(proof.items()))).status == 401
        [rejection] = await world.store.rejections()
        assert "x-acme-proof: (64 characters, not kept)" in rejection.sample

    run(scenario)
