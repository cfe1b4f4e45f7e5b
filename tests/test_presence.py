"""Nodes on one database: each is seen by the others, and hears of the work that they make."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta

import psycopg

from builders import seeded_stream
from headwater.clock import SystemClock
from headwater.errors import StoreUnavailableError
from headwater.node import HERE_SECONDS_MAX, slots_of
from headwater.presence import Presence, this_node
from headwater.stores.postgres.store import PostgresStore
from headwater.testing.clock import FakeClock

ROLES = ("worker", "ticker")
LIMIT_SECONDS = 30.0


@asynccontextmanager
async def store_of(url, clock=None):
    store = PostgresStore(url, clock or SystemClock())
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def presence(store, clock, seen, *, roles=ROLES, slots=4, runs=lambda: 0):
    node = this_node(clock, url="http://127.0.0.1:1", roles=roles, slots=slots)
    return Presence(store, clock, node, runs=runs, on_nodes=seen.append)


def test_each_node_sees_all_and_the_slots_of_those_that_are_here_are_added_up(postgres_url):
    async def main():
        clock, seen = SystemClock(), []
        async with store_of(postgres_url) as first, store_of(postgres_url) as second:
            one = presence(first, clock, seen, runs=lambda: 3)
            other = presence(second, clock, seen, slots=2)
            front = presence(second, clock, seen, roles=("ingress",), slots=9)
            for each in (one, other, front, one):
                await each.beat()
            assert {node.id for node in seen[-1]} == {one.node.id, other.node.id, front.node.id}
            assert slots_of(seen[-1]) == 6
            assert {node.runs for node in seen[-1]} == {0, 3}
            with psycopg.connect(postgres_url, autocommit=True) as db:
                micros = int((HERE_SECONDS_MAX + 1) * 1e6)
                db.execute("UPDATE nodes SET seen_at = seen_at - %s WHERE slots = 2", [micros])
            await one.beat()
            assert slots_of(seen[-1]) == 4
            with psycopg.connect(postgres_url, autocommit=True) as db:
                db.execute("UPDATE nodes SET seen_at = 0 WHERE slots = 2")
            await one.beat()
            assert {node.id for node in seen[-1]} == {one.node.id, front.node.id}

    asyncio.run(main())


def test_a_node_whose_clock_is_wrong_is_named(postgres_url):
    async def main():
        class Late(SystemClock):
            def now(self):
                return super().now() - timedelta(seconds=42)

        async with store_of(postgres_url) as right, store_of(postgres_url, Late()) as wrong:
            await presence(right, SystemClock(), []).beat()
            node = presence(wrong, Late(), [])
            await node.beat()
            findings = {one.name: one for one in await right.examine()}
            assert [one.name for one in findings.values() if not one.ok] == [f"node {node.node.id}"]
            found = findings[f"node {node.node.id}"]
            assert "clock -42." in found.fact
            assert node.node.host in found.hint
            assert findings["leases"].fact == "0 held, 0 lapsed"

    asyncio.run(main())


def test_a_node_that_ends_is_taken_from_the_list_and_one_without_a_database_goes_on(postgres_url):
    class Away:
        def __init__(self, store):
            self._store, self.is_away = store, True

        async def note_node(self, node):
            if self.is_away:
                raise StoreUnavailableError("not there")
            return await self._store.note_node(node)

        def __getattr__(self, name):
            return getattr(self._store, name)

    async def main():
        clock, seen = FakeClock(), []
        async with store_of(postgres_url) as store:
            away = Away(store)
            serving = asyncio.create_task(presence(away, clock, seen).serve())
            for _ in range(3):
                await clock.advance(20)
            assert not seen
            away.is_away = False
            async with asyncio.timeout(LIMIT_SECONDS):
                while not seen:
                    await clock.advance(20)
                    await asyncio.sleep(0.01)
            serving.cancel()
            await asyncio.wait({serving})
            assert not await store.nodes()

    asyncio.run(main())


def test_a_node_hears_of_the_work_of_another_also_after_its_ear_was_cut_off(postgres_url):
    async def main():
        clock = SystemClock()
        async with store_of(postgres_url) as deaf, store_of(postgres_url) as loud:
            stored = await seeded_stream(loud, clock)
            heard: asyncio.Queue[str] = asyncio.Queue()
            hearing = asyncio.create_task(deaf.hear(heard.put_nowait))

            async def next_of(topic):
                async with asyncio.timeout(LIMIT_SECONDS):
                    while await heard.get() != topic:
                        pass

            await next_of("deliveries")  # what may have come before the ear was open
            (stream, *_) = await loud.streams(at=clock.now(), stream="customers")
            await loud.trigger_run(stream.id, at=clock.now())
            await next_of("runs")
            await loud.resume_connection(stored.id, at=clock.now())
            await next_of("deliveries")
            with psycopg.connect(postgres_url, autocommit=True) as db:
                db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
            await next_of("deliveries")
            hearing.cancel()
            await asyncio.wait({hearing})

    asyncio.run(main())
