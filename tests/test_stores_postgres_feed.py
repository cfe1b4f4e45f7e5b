"""The change feed of PostgreSQL: a late commit is not skipped, and waiting ends."""

import asyncio

import pytest

from headwater.stores.postgres import records
from headwater.testing.conformance.world import emission
from postgres_server import asked, connected, nodes
from worlds import opened

LATE = """
INSERT INTO versions SELECT (take_sequences(1))[1], origin_id, connection_id, type_id, stream_id, 'late', 1, false,
    false, NULL, as_of, hash, payload FROM versions WHERE sequence = 1
RETURNING sequence
"""


@pytest.mark.parametrize("ending", ["commit", "rollback"])
def test_the_feed_waits_for_a_late_commit(postgres_url, ending):
    """Two transactions are open; the one with the lower sequence ends last."""

    async def main():
        async with nodes(postgres_url) as (ours, theirs), connected(postgres_url) as db:
            await ours.connect()
            await ours.ingest(emission("first", "x"))
            await db.execute("BEGIN")
            late = await asked(db, LATE)
            await theirs.ingest(emission("early", "x"))
            early = (await theirs.current("early")).current.sequence
            assert early > late
            for world in (ours, theirs):
                feed = await world.store.changes(after=0)
                assert [change.source_id for change in feed.changes] == ["first"]
                assert feed.position == feed.high_water < late
                again = await world.store.changes(after=feed.position)
                assert (list(again.changes), again.position) == ([], feed.position)
            await db.execute(ending)
            rest = await ours.store.changes(after=feed.position)
            expected = ["late", "early"] if ending == "commit" else ["early"]
            assert [change.source_id for change in rest.changes] == expected
            assert rest.position == rest.high_water == early

    asyncio.run(main())


def test_sequences_are_announced_before_they_are_taken(postgres_url):
    """Whoever looks between the taking and the first write sees the lock; others' locks are nobody's business."""

    async def main():
        async with opened(postgres_url) as world, connected(postgres_url) as one, connected(postgres_url) as two:
            await world.connect()
            await world.ingest(emission("a", "x"))
            await one.execute("SELECT pg_advisory_lock(1)")  # a stranger's
            assert await world.store._database.read(records.high_water) == 1
            await one.execute("BEGIN")
            assert await asked(one, "SELECT take_sequences(3)") == [2, 3, 4]
            await two.execute("BEGIN")
            assert await asked(two, "SELECT take_sequences(2)") == [5, 6]
            await one.execute("ROLLBACK")
            await world.ingest(emission("b", "x"))
            assert (await world.current("b")).current.sequence == 7
            assert await world.store._database.read(records.high_water) == 4
            await two.execute("COMMIT")
            assert await world.store._database.read(records.high_water) == 7

    asyncio.run(main())


def test_the_feed_does_not_go_back_for_a_writer_that_was_passed(postgres_url):
    """A writer read the counter, others took sequences and committed, and only then was it announced."""

    async def main():
        async with opened(postgres_url) as world, connected(postgres_url) as db:
            await world.connect()
            await world.ingest(emission("a", "x"), emission("b", "x"))
            feed = await world.store.changes(after=0)
            await db.execute("BEGIN")
            await db.execute("SELECT pg_advisory_xact_lock_shared((5252::bigint << 48) | 1)")
            again = await world.store.changes(after=feed.position)
            assert (list(again.changes), again.position, again.high_water) == ([], feed.position, feed.high_water)
            behind = await world.store.changes(after=0)
            assert (list(behind.changes), behind.position) == ([], 0)
            elsewhere = await world.store.changes(after=99)
            assert (elsewhere.position, elsewhere.high_water) == (99, feed.high_water)
            await db.execute("ROLLBACK")
            assert len((await world.store.changes(after=0)).changes) == 2

    asyncio.run(main())


def test_readers_of_the_feed_miss_nothing_while_two_nodes_write(postgres_url):
    async def main():
        async with nodes(postgres_url) as worlds:
            refs = []
            for index, world in enumerate(worlds):
                await world.connect(f"c{index}")
                refs.append(await world.admit(f"c{index}"))
            seen = []

            async def write(index):
                for number in range(40):
                    emissions = [emission(f"r{number}-{n}", "x") for n in range(number % 3 + 1)]
                    await worlds[index].commit(refs[index], *emissions, has_more=True)

            async def follow():
                position = 0
                while len(seen) < expected:
                    feed = await worlds[0].store.changes(after=position, limit=5)
                    seen.extend(change.sequence for change in feed.changes)
                    assert feed.position >= position
                    position = feed.position

            expected = 2 * sum(number % 3 + 1 for number in range(40))
            await asyncio.gather(follow(), write(0), write(1))
            assert seen == sorted(set(seen))
            assert len(seen) == expected

    asyncio.run(main())


def test_a_commit_of_another_node_ends_the_waiting(postgres_url):
    async def main():
        async with nodes(postgres_url) as (ours, theirs):
            await ours.connect()
            waiting = asyncio.ensure_future(theirs.store.wait_for_changes(0, timeout_seconds=1e9))
            await ours.ingest(emission("a", "x"))
            await waiting

    asyncio.run(main())


def test_waiting_outlives_its_listener(postgres_url):
    """The ear is gone: a commit of this process still ends the waiting, and the next reader listens again."""

    async def main():
        async with nodes(postgres_url) as (ours, theirs):
            await ours.connect()
            ref = await ours.admit()
            first = asyncio.ensure_future(ours.store.wait_for_changes(0, timeout_seconds=1e9))
            while not (listener := ours.store._watch._listener):
                await asyncio.sleep(0)
            async with connected(postgres_url) as db:
                while not await asked(db, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"):
                    await asyncio.sleep(0)
                await db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
            await asyncio.wait([listener])
            await ours.commit(ref, emission("a", "x"), has_more=True)
            await first
            second = asyncio.ensure_future(ours.store.wait_for_changes(1, timeout_seconds=1e9))
            await theirs.store.commit_page(theirs.page(ref, emission("b", "x"), number=2))
            await second
            assert ours.store._watch._listener is not listener

    asyncio.run(main())
