"""What ingress takes upon itself and no more: sizes, times, requests at once, a store that fails."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from headwater.errors import StoreUnavailableError
from headwater.ingress import LINGER_BYTES_MAX, PENDING_SECONDS, Limits
from headwater.testing.clock import settle
from receiving import (
    BODY,
    EVERYTHING,
    World,
    make_project,
    run,
)


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
