"""Reading the feed by name: nothing missed, whatever is cut off, and a snapshot that joins on without a gap."""

import asyncio

import pytest

from headwater.errors import NotFoundError, UsageError
from headwater.feed import Consumer
from headwater.stores.postgres import records as in_postgres
from headwater.stores.sqlite import records as in_sqlite
from headwater.testing.clock import FakeClock, settle
from headwater.testing.conformance.world import emission
from stored import connect, emit, ingest, open_store
from worlds import opened


def run(story):
    async def main():
        clock = FakeClock()
        async with open_store(clock=clock) as store:
            await story(store, clock)

    asyncio.run(main())


async def gather(slices):
    return [(one.id, one.op) async for part in slices for one in part.changes]


def test_a_consumer_reads_every_change_once_in_order():
    async def story(store, clock):
        await connect(store, clock)
        await ingest(store, clock, *[emit(f"c{n}", clock) for n in range(7)])
        consumer = Consumer(store, "warehouse", clock=clock)
        assert await consumer.lag() == 7
        assert await gather(consumer.slices(limit=3)) == [(f"c{n}", "upsert") for n in range(7)]
        assert await gather(consumer.slices(limit=3)) == []
        assert await consumer.lag() == 0
        await clock.advance(1)
        await ingest(store, clock, emit("c3", clock, deleted=True), emit("c4", clock, name="new"))
        assert await gather(consumer.slices()) == [("c3", "delete"), ("c4", "upsert")]

    run(story)


def test_a_slice_whose_handling_was_cut_off_is_read_again():
    async def story(store, clock):
        await connect(store, clock)
        await ingest(store, clock, *[emit(f"c{n}", clock) for n in range(4)])
        consumer = Consumer(store, "warehouse", clock=clock)
        slices = consumer.slices(limit=2)
        assert [one.id for one in (await anext(slices)).changes] == ["c0", "c1"]
        assert [one.id for one in (await anext(slices)).changes] == ["c2", "c3"]
        await slices.aclose()  # before it came back for more: the second slice was not handled
        again = Consumer(store, "warehouse", clock=clock)
        assert await gather(again.slices(limit=2)) == [("c2", "upsert"), ("c3", "upsert")]

    run(story)


def test_two_consumers_do_not_disturb_each_other():
    async def story(store, clock):
        await connect(store, clock)
        await ingest(store, clock, emit("c1", clock))
        assert await gather(Consumer(store, "a", clock=clock).slices()) == [("c1", "upsert")]
        assert await gather(Consumer(store, "b", clock=clock).slices()) == [("c1", "upsert")]

    run(story)


def test_a_change_carries_where_it_came_from():
    async def story(store, clock):
        await connect(store, clock)
        run_id = await ingest(store, clock, emit("c1", clock, name="Ada"))
        (found,) = (await Consumer(store, "a", clock=clock).read()).changes
        assert (found.connector, found.connection, found.stream, found.type) == (
            "stripe",
            "acme",
            "customers",
            "customer",
        )
        assert (found.run_id, found.page, found.origin, found.version) == (run_id, 1, "poll", 1)
        assert bytes(found.data) == b'{"id":"c1","name":"Ada"}'

    run(story)


def test_a_consumer_of_one_tenant_sees_nothing_of_another():
    async def story(store, clock):
        await connect(store, clock, "one", tenant="north")
        await connect(store, clock, "two", tenant="south")
        await ingest(store, clock, emit("n1", clock), connection="one")
        await ingest(store, clock, emit("s1", clock), connection="two")
        north = Consumer(store, "north", clock=clock, tenant="north")
        assert await gather(north.slices()) == [("n1", "upsert")]
        assert await gather(Consumer(store, "n2", clock=clock, tenant="north").snapshot()) == [("n1", "upsert")]
        with pytest.raises(NotFoundError):
            await gather(Consumer(store, "n3", clock=clock, tenant="north", connection="two").snapshot())

    run(story)


def test_a_snapshot_joins_the_feed_without_a_gap():
    async def story(store, clock):
        await connect(store, clock)
        await ingest(store, clock, *[emit(f"c{n}", clock) for n in range(6)])
        await ingest(store, clock, emit("c5", clock, deleted=True))
        consumer = Consumer(store, "warehouse", clock=clock)
        current = {}
        pages = 0
        async for part in consumer.snapshot(limit=2):
            current |= {one.id: bytes(one.data) for one in part.changes}
            if pages == 0:  # meanwhile: one already seen, one still to come, one new that sorts before both
                await clock.advance(1)
                await ingest(store, clock, emit("c0", clock, name="a"), emit("c4", clock, name="b"), emit("b9", clock))
            pages += 1
        assert pages == 3
        async for part in consumer.slices():
            current |= {one.id: bytes(one.data) for one in part.changes}
        records = await store.records(deleted=False)
        assert current == {one.source_id: bytes(one.current.payload) for one in records}
        assert "c5" not in current

    run(story)


def test_following_waits_for_what_comes():
    async def story(store, clock):
        await connect(store, clock)
        seen = []

        async def follow():
            async for part in Consumer(store, "live", clock=clock).follow():
                seen.extend(one.id for one in part.changes)

        task = asyncio.create_task(follow())
        await settle()
        await ingest(store, clock, emit("c1", clock))
        while not seen:
            await asyncio.sleep(0)
        task.cancel()
        assert seen == ["c1"]

    run(story)


@pytest.mark.parametrize("name", ["", "x" * 101, "a\nb"])
def test_a_consumer_has_a_usable_name(name):
    with pytest.raises(UsageError):
        Consumer(None, name, clock=FakeClock())


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_the_feed_passes_what_its_filter_leaves_out(kind, request, monkeypatch):
    for module in (in_sqlite, in_postgres):
        monkeypatch.setattr(module, "FEED_SCAN_MAX", 4)
    where = request.getfixturevalue("postgres_url") if kind == "postgres" else ":memory:"

    async def main():
        async with opened(where) as world:
            await world.connect()
            await world.connect("other")
            await world.ingest(*[emission(f"r{n}", "x") for n in range(10)])
            await world.ingest(emission("o", "x"), connection="other")
            position, found = 0, []
            for _ in range(3):
                feed = await world.store.changes(after=position, connection="other")
                assert feed.high_water == 11
                position = feed.position
                found += feed.changes
            assert (position, [change.source_id for change in found]) == (11, ["o"])

    asyncio.run(main())
