"""A provider's silence, told to one node, is kept by all of them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from builders import make_catalog, seeded_stream
from headwater.catalog import Permissions
from headwater.client import HttpClients
from headwater.errors import RateLimitedError
from headwater.redaction import Redactor
from headwater.schedule import decide
from headwater.silence import Silences
from headwater.stores.postgres.store import PostgresStore
from headwater.testing.clock import FakeClock
from headwater.transport import Headers, TransportResponse

LIMIT_SECONDS = 30.0
CATALOG = make_catalog(permissions=Permissions(http=["https://api.example.com/*"]))


class Node:
    """The clients of one node, and how often they asked."""

    def __init__(self, store, clock, retry_after):
        self.store, self.asked = store, 0
        self._retry_after = retry_after
        self.clients = HttpClients(clock, self._answer)
        self.silences = Silences(store, clock, self.clients)

    async def _answer(self, request):
        self.asked += 1
        return TransportResponse(status=429, headers=Headers([("retry-after", self._retry_after)]), body=b"")

    async def ask(self, connection_id):
        client = self.clients.client(
            connection_id=connection_id, connector=CATALOG, settings={}, redactor=Redactor(())
        )  # fmt: skip
        with pytest.raises(RateLimitedError):
            await client.request("POST", "https://api.example.com/x")


@asynccontextmanager
async def two_nodes(url, clock, retry_after):
    stores = [PostgresStore(url, clock), PostgresStore(url, clock)]
    for store in stores:
        await store.open()
    try:
        yield [Node(store, clock, retry_after) for store in stores]
    finally:
        for store in stores:
            await store.close()


async def admitted(store, clock):
    result = await store.tick(clock.now(), decide=decide, admit_max=10, per_connection_max=10, lease_seconds=60)
    return len(result.admitted)


def test_what_one_node_was_told_keeps_the_others_from_asking_and_runs_from_being_admitted(postgres_url):
    async def main():
        clock = FakeClock()
        async with two_nodes(postgres_url, clock, "90") as (first, second):
            stored, other = [await seeded_stream(first.store, clock, connection=key) for key in ("acme", "other")]
            heard = asyncio.Event()

            def on_topic(topic):
                if topic == "silences":
                    second.silences.learn()
                    heard.set()

            hearing = asyncio.create_task(second.store.hear(on_topic))
            async with asyncio.timeout(LIMIT_SECONDS):
                await heard.wait()
                heard.clear()
                await first.ask(stored.id)
                await heard.wait()
                while not second.clients._quota(stored.id).allowance.blocked_until:
                    await asyncio.sleep(0.01)
            await second.ask(stored.id)
            assert (first.asked, second.asked) == (1, 0)
            await second.ask(other.id)
            assert second.asked == 1
            assert await second.store.silences(clock.now()) == {stored.id: clock.now() + timedelta(seconds=90)}
            hearing.cancel()
            await asyncio.wait({hearing})

    asyncio.run(main())


def test_nothing_of_a_silent_connection_is_admitted_until_it_is_over(postgres_url):
    async def main():
        clock = FakeClock()
        async with two_nodes(postgres_url, clock, "90") as (first, _):
            stored = await seeded_stream(first.store, clock)
            (stream, *_) = await first.store.streams(at=clock.now(), stream="customers")
            await first.store.trigger_run(stream.id, at=clock.now())
            await first.store.silence(stored.id, until=clock.now() + timedelta(seconds=90))
            assert await admitted(first.store, clock) == 0
            await clock.advance(91)
            assert await admitted(first.store, clock) == 1

    asyncio.run(main())


def test_a_short_silence_is_kept_to_the_process(postgres_url):
    async def main():
        clock = FakeClock()
        async with two_nodes(postgres_url, clock, "2") as (first, _):
            stored = await seeded_stream(first.store, clock)
            await first.ask(stored.id)
            assert not first.silences._tasks
            assert await first.store.silences(clock.now()) == {}

    asyncio.run(main())
