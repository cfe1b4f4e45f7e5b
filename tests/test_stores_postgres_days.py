"""The days of the inbox: made as they come, dropped whole."""

import asyncio
import re

from headwater.clock import to_micros
from headwater.delivery import DeliveryFilter
from headwater.stores.postgres import partition
from headwater.testing.clock import START
from headwater.testing.conformance.world import at, done, emission, new_delivery
from postgres_server import connected, nodes
from worlds import opened

DAY = 86_400.0


async def days(url):
    async with connected(url) as db:
        sql = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ~ '^(deliveries|bodies)_' ORDER BY relname"
        return [name for (name,) in await (await db.execute(sql)).fetchall()]


def test_a_day_of_the_inbox_is_dropped_whole(postgres_url):
    first = partition.day_of(to_micros(START))

    async def main():
        async with opened(postgres_url) as world:
            connection = await world.connect()
            await world.deliver(connection.id, "a", "b", seconds=10)
            await world.deliver(connection.id, "c", seconds=DAY)
            assert await days(postgres_url) == [f"{t}_{first + n}" for t in ("bodies", "deliveries") for n in (0, 1)]
            for claim in await world.claim(at(2 * DAY)):
                await world.store.finish_delivery(done(claim, emission(claim.provider_id, "x", key=claim.provider_id)))
            kept = at(2 * DAY)
            purged = await world.store.purge(deliveries_before=at(DAY), runs_before=kept)
            assert (purged.deliveries, purged.keys) == (3, 3)
            assert await days(postgres_url) == [f"{t}_{first + 1}" for t in ("bodies", "deliveries")]
            assert await world.store.count_deliveries(DeliveryFilter()) == 0
            assert len(await world.store.records()) == 3
            assert [one.version for one in await world.store.versions("acme", "customer", "a")] == [1]
            (again,) = await world.store.append_deliveries([new_delivery(connection.id, "a", 10)])
            assert not again.duplicate
            assert len(await days(postgres_url)) == 4

    asyncio.run(main())


def test_a_day_with_something_wanted_stays(postgres_url):
    async def main():
        async with opened(postgres_url) as world:
            connection = await world.connect()
            await world.deliver(connection.id, "old", "waits", seconds=10)
            (claim,) = await world.claim(at(20), limit=1)
            await world.store.finish_delivery(done(claim, now=at(30)))
            purged = await world.store.purge(deliveries_before=at(9 * DAY), runs_before=START)
            assert purged.deliveries == 1
            (left,) = await world.store.deliveries(DeliveryFilter())
            assert left.provider_id == "waits"
            assert len(await days(postgres_url)) == 2
            (claim,) = await world.claim(at(9 * DAY))
            await world.store.finish_delivery(done(claim, now=at(9 * DAY)))
            assert (await world.store.purge(deliveries_before=at(10 * DAY), runs_before=START)).deliveries == 1
            assert await days(postgres_url) == []

    asyncio.run(main())


def test_a_busy_inbox_keeps_its_day_for_the_next_time(postgres_url, monkeypatch):
    monkeypatch.setattr("headwater.stores.postgres.retention.WAIT_MILLISECONDS", 1)

    async def main():
        async with opened(postgres_url) as world, connected(postgres_url) as db:
            connection = await world.connect()
            await world.deliver(connection.id, "a")
            (claim,) = await world.claim()
            await world.store.finish_delivery(done(claim))
            await db.execute("BEGIN")
            await db.execute("SELECT count(*) FROM deliveries")
            purged = await world.store.purge(deliveries_before=at(2 * DAY), runs_before=START)
            assert len(await days(postgres_url)) == 2
            await db.execute("COMMIT")
            again = await world.store.purge(deliveries_before=at(2 * DAY), runs_before=START)
            assert (purged.deliveries + again.deliveries, await days(postgres_url)) == (1, [])

    asyncio.run(main())


def test_a_redelivery_on_another_day_is_a_duplicate(postgres_url):
    async def main():
        async with opened(postgres_url) as world:
            connection = await world.connect()
            (first,) = await world.deliver(connection.id, "evt")
            (again,) = await world.store.append_deliveries([new_delivery(connection.id, "evt", 3 * DAY)])
            assert (again.id, again.duplicate) == (first, True)
            stored = await world.store.delivery(first)
            assert (stored.duplicates, stored.last_duplicate_at) == (1, at(3 * DAY))
            assert len(await days(postgres_url)) == 2, "nothing is stored for the other day, and no partition made"

    asyncio.run(main())


def test_nodes_that_meet_a_new_day_at_once_make_it_once(postgres_url):
    async def main():
        async with nodes(postgres_url, 3) as worlds:
            connection = await worlds[0].connect()
            await asyncio.gather(
                *(world.deliver(connection.id, f"e{n}", seconds=5 * DAY) for n, world in enumerate(worlds))
            )
            assert await worlds[0].store.pending_deliveries() == 3
            assert len(await days(postgres_url)) == 2

    asyncio.run(main())


def test_an_id_alone_finds_its_day(postgres_url):
    async def main():
        async with opened(postgres_url) as world, connected(postgres_url) as db:
            connection = await world.connect()
            ids = [(await world.deliver(connection.id, f"e{n}", seconds=n * DAY))[0] for n in range(4)]
            plan = await (
                await db.execute(f"EXPLAIN SELECT * FROM deliveries WHERE id = ANY('{{{ids[2]}}}')")
            ).fetchall()
            touched = set(re.findall(r"deliveries_\d+", " ".join(line for (line,) in plan)))
            assert {name.removesuffix("_pkey") for name in touched} == {f"deliveries_{ids[2] >> partition.NUMBER_BITS}"}

    asyncio.run(main())
