"""What is PostgreSQL's own: many nodes at once, late commits, a server that goes away, settings, days, views."""

import asyncio
import itertools
import os
import re
import signal
import subprocess
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from headwater import failpoint
from headwater.clock import to_micros
from headwater.delivery import DeliveryFilter
from headwater.errors import FencedError, SchemaError, StartError, StoreUnavailableError, UsageError
from headwater.intention import CommitResult, TypeColumn
from headwater.record import Outcome
from headwater.run import RequestLog
from headwater.stores.postgres import commit, connections, database, migrate, partition, records
from headwater.stores.postgres.database import Database, escaped, queries, translated, unescaped
from headwater.stores.query import Migration
from headwater.testing.clock import START
from headwater.testing.conformance.world import at, broken, done, emission, grave, new_delivery
from postgres_server import opened

FOLDER = Path(database.__file__).parent
DAY = 86_400.0


@pytest.fixture(autouse=True)
def disarmed():
    yield
    failpoint.disarm()


@asynccontextmanager
async def nodes(url, count=2):
    """Worlds over stores of their own on one database."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(opened(url)) for _ in range(count)]


@asynccontextmanager
async def connected(url):
    """A plain connection of a stranger."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as db:
        yield db


async def asked(db, sql):
    return (await (await db.execute(sql)).fetchone())[0]


def once(action):
    """The action, the first time only."""
    passed = itertools.count()

    def act():
        if next(passed) == 0:
            action()

    return act


# Many nodes


def test_pages_and_deliveries_of_two_nodes_number_the_versions_of_one_record(postgres_url):
    """A poll page and a webhook for the same record, at the same moment, again and again."""

    async def main():
        async with nodes(postgres_url) as (ours, theirs):
            connection = await ours.connect()
            ref = await ours.admit()
            await theirs.deliver(connection.id, *(f"e{n}" for n in range(30)))
            claims = await theirs.claim()
            for number, claim in enumerate(claims):
                page = ours.page(ref, emission("a", f"poll {number}", 2 * number), number=number + 1)
                event = emission("a", f"event {number}", 2 * number + 1, key=f"evt_{number}")
                await asyncio.gather(
                    ours.store.commit_page(page),
                    theirs.store.finish_delivery(done(claim, event)),
                )
            history = await ours.history("a")
            assert [version for version, _, _ in history] == list(range(1, 61))
            # Whichever came last: the newer observation is current, and what came after it is stale.
            current = (await theirs.current("a")).current
            assert bytes(current.payload) == b'{"id":"a","name":"event 29"}'
            versions = await ours.store.versions("acme", "customer", "a")
            assert [one.sequence for one in versions] == sorted((one.sequence for one in versions), reverse=True)
            assert current == max((one for one in versions if not one.stale), key=lambda one: one.sequence)
            accepted = [one.as_of for one in reversed(versions) if not one.stale]
            assert accepted == sorted(accepted)

    asyncio.run(main())


def test_the_same_event_on_two_nodes_has_effect_once(postgres_url):
    async def main():
        async with nodes(postgres_url) as worlds:
            connection = await worlds[0].connect()
            await worlds[0].deliver(connection.id, *(f"e{n}" for n in range(20)))
            claims = await worlds[0].claim()
            for one, other in zip(claims[::2], claims[1::2], strict=True):
                same = [emission(one.provider_id, "x", key=one.provider_id) for _ in range(2)]
                results = await asyncio.gather(
                    worlds[0].store.finish_delivery(done(one, same[0])),
                    worlds[1].store.finish_delivery(done(other, same[1])),
                )
                outcomes = sorted(result.outcomes[0] for result in results)
                assert outcomes == [Outcome.CREATED, Outcome.DUPLICATE]

    asyncio.run(main())


def test_pages_of_many_connections_in_any_order_never_wait_in_a_circle(postgres_url):
    """Batches of two nodes over the same connections, ticks, leases and deliveries in between: the server saw none."""

    async def main():
        async with nodes(postgres_url) as worlds, connected(postgres_url) as db:
            keys = [f"c{n}" for n in range(6)]
            for key in keys:
                await worlds[0].connect(key, streams=("customers", "invoices"))
            homes = [one.id for one in await worlds[0].store.connections()]
            refs = [
                [await world.admit(key, stream) for key in keys]
                for world, stream in zip(worlds, ("customers", "invoices"), strict=True)
            ]
            for turn in range(1, 16):
                works = []
                for index, world in enumerate(worlds):
                    own = refs[index] if (turn + index) % 2 else refs[index][::-1]
                    works += [
                        world.store.commit_page(
                            world.page(ref, emission("same", f"{index} {turn}", turn), number=turn, cursor=str(turn))
                        )
                        for ref in own
                    ]
                    works += [world.store.extend_lease(own[0], at=START, lease_seconds=1e6), world.tick(at(turn))]
                    works += [world.deliver(home, f"{turn}", f"{turn} {index}") for home in homes]
                works.append(worlds[0].claim(at(turn), limit=20))
                await asyncio.gather(*works)
            assert await asked(db, "SELECT pg_stat_force_next_flush()") is not None
            sql = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
            assert await asked(db, sql) == 0
            assert len(await worlds[0].history("same", "c0")) == 30

    asyncio.run(main())


def test_a_transaction_that_the_server_takes_back_is_begun_again(postgres_url):
    async def main():
        async with opened(postgres_url) as world:
            await world.connect()
            ref = await world.admit()
            failpoint.arm("page.before_commit", once(raising(psycopg.errors.DeadlockDetected("deadlock detected"))))
            assert await world.commit(ref, emission("a", "x"), cursor="c") == [Outcome.CREATED]
            assert [one.number for one in await world.store.pages(ref.run_id)] == [1]
            failpoint.arm("page.before_commit", raising(psycopg.errors.SerializationFailure("again")))
            with pytest.raises(StoreUnavailableError, match="again"):
                await world.commit(ref, emission("b", "x"), cursor="c")

    asyncio.run(main())


def raising(error):
    def act():
        raise error

    return act


def test_racing_nodes_tick_and_claim_each_thing_once(postgres_url):
    async def main():
        async with nodes(postgres_url, 3) as worlds:
            for number in range(8):
                await worlds[0].connect(f"c{number}", due=at(0))
            results = await asyncio.gather(*(world.tick(at(1)) for world in worlds for _ in range(2)))
            assert sum(result.started for result in results) == 8
            assert len({ref.run_id for result in results for ref in result.admitted}) == 8
            (home, *_) = await worlds[0].store.connections()
            await worlds[0].deliver(home.id, *(f"e{n}" for n in range(40)))
            claims = await asyncio.gather(*(world.claim(limit=10) for world in worlds for _ in range(2)))
            taken = [claim.id for batch in claims for claim in batch]
            assert len(taken) == len(set(taken)) == 40

    asyncio.run(main())


def test_a_delivery_to_two_nodes_at_once_is_one(postgres_url):
    async def main():
        async with nodes(postgres_url) as worlds:
            connection = await worlds[0].connect()
            given = [new_delivery(connection.id, f"e{n}") for n in range(20)]
            one, other = await asyncio.gather(
                worlds[0].store.append_deliveries(given), worlds[1].store.append_deliveries(given[::-1])
            )
            assert [first.id for first in one] == [again.id for again in other[::-1]]
            assert sum(not appended.duplicate for appended in [*one, *other]) == 20
            assert await worlds[0].store.pending_deliveries() == 20

    asyncio.run(main())


def test_a_delivery_waits_for_no_page_of_its_connection(postgres_url):
    async def main():
        async with opened(postgres_url) as world, connected(postgres_url) as db:
            connection = await world.connect()
            async with db.transaction():
                await db.execute("SELECT id FROM connections FOR NO KEY UPDATE")
                assert await world.deliver(connection.id, "evt")

    asyncio.run(main())


def test_a_removed_connection_takes_in_nothing_more(postgres_url):
    async def main():
        async with nodes(postgres_url) as (ours, theirs):
            connection = await ours.connect()
            ref = await ours.admit()
            results = await asyncio.gather(
                theirs.store.remove_connection(connection.id),
                *(ours.store.commit_page(ours.page(ref, emission(f"r{n}", "x"), number=n)) for n in range(1, 6)),
                *(ours.deliver(connection.id, f"e{n}") for n in range(5)),
                return_exceptions=True,
            )
            assert results[0] is None
            assert all(isinstance(result, FencedError | CommitResult) for result in results[1:6])

        async with connected(postgres_url) as db:
            await left_is_nothing(db)

    asyncio.run(main())


async def left_is_nothing(db):
    tables = await (
        await db.execute(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
        )
    ).fetchall()
    kept = {"types", "connector_versions", "schema", "feed"}
    left = {name: await asked(db, f"SELECT count(*) FROM {name}") for (name,) in tables if name not in kept}
    assert {name: count for name, count in left.items() if count} == {}


def test_a_removed_connection_leaves_no_row_behind(postgres_url):
    async def main():
        async with opened(postgres_url) as world:
            connection = await world.connect()
            ref = await world.admit()
            await world.commit(ref, emission("a", "x", key="evt"), quarantined=[broken("b")])
            await world.deliver(connection.id, "evt")
            await world.store.reject_delivery(connection.id, reason="bad", at=START, sample="")
            await world.store.remove_connection(connection.id)
        async with connected(postgres_url) as db:
            await left_is_nothing(db)

    asyncio.run(main())


# The change feed

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


# Batches


def test_pages_that_wait_together_are_written_together(postgres_url, monkeypatch):
    transactions = []
    transact = Database.transact

    async def counted(self, work, **names):
        transactions.append(names)
        return await transact(self, work, **names)

    async def main():
        async with opened(postgres_url) as world:
            await world.connect()
            ref = await world.admit()
            await world.commit(ref, has_more=True)
            monkeypatch.setattr(Database, "transact", counted)
            pages = [world.page(ref, emission(f"r{n}", "x"), number=n) for n in range(2, 52)]
            await asyncio.gather(*(world.store.commit_page(page) for page in pages))
            assert len([names for names in transactions if names]) <= 2
            assert len(await world.store.pages(ref.run_id)) == 51

    asyncio.run(main())


def test_a_batch_is_bounded_by_its_weight(postgres_url, monkeypatch):
    monkeypatch.setattr(commit, "WEIGHT_MAX", 3)

    async def main():
        async with opened(postgres_url) as world:
            await world.connect()
            ref = await world.admit()
            pages = [world.page(ref, emission(f"r{n}", "x"), emission(f"s{n}", "x"), number=n) for n in range(1, 11)]
            await asyncio.gather(*(world.store.commit_page(page) for page in pages))
            assert [page.number for page in await world.store.pages(ref.run_id)] == list(range(1, 11))

    asyncio.run(main())


def test_an_unforeseen_error_in_a_batch_fails_one_item_only(postgres_url):
    """The batch is taken back and each item tried alone."""

    async def main():
        async with opened(postgres_url) as world:
            for key in ("a", "b", "c"):
                await world.connect(key)
            refs = [await world.admit(key) for key in ("a", "b", "c")]
            pages = [world.page(ref, emission("r", "x")) for ref in refs]
            asked = RequestLog(at=START, method="GET", url="/x", status=200, milliseconds=2**63, retries=0)
            pages[1] = world.page(refs[1], emission("bad", "x"), requests=[asked])
            results = await asyncio.gather(*(world.store.commit_page(page) for page in pages), return_exceptions=True)
            assert isinstance(results[1], StoreUnavailableError)
            assert results[0].outcomes == results[2].outcomes == [Outcome.CREATED]
            assert sorted(record.connection for record in await world.store.records()) == ["a", "c"]
            (home, *_) = await world.store.connections()
            given = [
                new_delivery(home.id, "good"),
                new_delivery(home.id, "bad", event_type="\ud800"),
                new_delivery(home.id, "fine"),
            ]
            appended = await asyncio.gather(
                *(world.store.append_deliveries([one]) for one in given), return_exceptions=True
            )
            assert [isinstance(one, Exception) for one in appended] == [False, True, False]

    asyncio.run(main())


def test_an_error_between_records_and_checkpoint_takes_both_back(postgres_url):
    async def main():
        async with opened(postgres_url) as world:
            await world.connect()
            ref = await world.admit()
            failpoint.arm("page.before_checkpoint", raising(OSError("crash")))
            with pytest.raises(OSError, match="crash"):
                await world.commit(ref, emission("a", "x"), cursor="c")
            failpoint.disarm()
            assert await world.store.records() == []
            assert (await world.state()).cursor is None
            assert await world.commit(ref, emission("a", "x"), cursor="c") == [Outcome.CREATED]

    asyncio.run(main())


def test_text_is_held_whatever_is_in_it():
    odd = ["\0", "\1", "\0\1\2", "\1\1\2", "a\0\0\1b", "\2", "plain"]
    assert [unescaped(escaped(text)) for text in odd] == odd
    assert [escaped(text) for text in sorted(odd)] == sorted(escaped(text) for text in odd)
    assert not any("\0" in escaped(text) for text in odd)


def test_a_cursor_and_an_error_may_hold_a_zero_byte(postgres_url):
    async def main():
        async with opened(postgres_url) as world:
            await world.connect()
            ref = await world.admit()
            await world.commit(ref, cursor="c\0\1", has_more=True)
            assert (await world.state()).cursor == "c\0\1"
            await world.store.set_checkpoint(ref.stream_id, "d\0", at=START)
            assert (await world.state()).cursor == "d\0"

    asyncio.run(main())


# A server that goes away

TERMINATE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


def test_a_lost_connection_is_a_passing_fault(postgres_url):
    def cut():
        with psycopg.connect(postgres_url, autocommit=True) as db:
            db.execute(TERMINATE)

    async def main():
        async with opened(postgres_url) as world:
            await world.connect()
            ref = await world.admit()
            cut()
            assert (await world.store.connection("acme")).key == "acme"  # an idle one was lost: nobody notices
            failpoint.arm("page.before_commit", once(cut))
            with pytest.raises(StoreUnavailableError):
                await world.commit(ref, emission("a", "x"), cursor="c")
            assert await world.store.records() == []
            assert await world.commit(ref, emission("a", "x"), cursor="c") == [Outcome.CREATED]

    asyncio.run(main())


def test_a_server_that_is_away_is_waited_for_and_found_again(postgres_url, postgres_server, monkeypatch):
    monkeypatch.setattr(database, "CONNECT_SECONDS", 0.3)
    name = conninfo_to_dict(postgres_url)["dbname"]

    async def main():
        async with opened(postgres_url) as world:
            await world.connect()
            postgres_server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            postgres_server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
            for work in (world.store.connections(), world.store.set_position("s", 1, at=START)):
                with pytest.raises(StoreUnavailableError):
                    await work
            postgres_server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
            found = None
            while found is None:
                try:
                    found = await world.store.connections()
                except StoreUnavailableError:
                    continue
            assert [one.key for one in found] == ["acme"]

    asyncio.run(main())


def test_an_address_without_a_server_refuses_to_start(tmp_path):
    async def main(url):
        async with opened(url):
            pass

    for url in (f"postgresql:///headwater?host={tmp_path}", "postgresql://[nonsense"):
        with pytest.raises(StartError, match="cannot be reached"):
            asyncio.run(main(url))


def test_a_closed_store_refuses(postgres_url):
    async def main():
        async with opened(postgres_url) as world:
            waiting = [asyncio.ensure_future(world.deliver((await world.connect()).id, "evt"))]
            await asyncio.sleep(0)
        assert await asyncio.gather(*waiting)
        for work in (world.store.position("s"), world.store.set_position("s", 1, at=START)):
            with pytest.raises(StoreUnavailableError, match="closed"):
                await work
        await world.store.close()

    asyncio.run(main())


def test_a_caller_that_gave_up_harms_nobody(postgres_url):
    async def main():
        async with opened(postgres_url) as world:
            await world.connect()
            ref = await world.admit()
            gone = asyncio.ensure_future(world.store.commit_page(world.page(ref, emission("a", "x"))))
            await asyncio.sleep(0)
            gone.cancel()
            result = await world.store.commit_page(world.page(ref, emission("b", "x"), number=2))
            assert result.outcomes == [Outcome.CREATED]

    asyncio.run(main())


@pytest.mark.parametrize("is_in_pipeline", [False, True])
def test_a_node_that_stops_in_a_transaction_holds_nobody_up(postgres_url, monkeypatch, is_in_pipeline):
    # In the middle of a pipeline it is not idle to the server, and no more so after a stray flush.
    for name in ("idle_in_transaction_session_timeout", "transaction_timeout"):
        monkeypatch.setitem(database._SESSION, name, "1s")
    with psycopg.connect(postgres_url) as db:
        if is_in_pipeline and db.info.server_version < 170000:
            pytest.skip("this server has no transaction_timeout")

    async def main():
        async with opened(postgres_url) as world:
            connection = await world.connect()

            async def work(db):
                await connections.hold(db, [connection.id])
                if not is_in_pipeline:
                    stopped()
                async with db.pipeline():
                    found = await database.begin(db, "SELECT 1 AS one")
                    assert await found.fetchall() == [{"one": 1}]
                    if is_in_pipeline:
                        stopped()

            def stopped():
                """Nothing of this node goes on until somebody else has what it held."""
                with psycopg.connect(postgres_url, autocommit=True) as other:
                    other.execute("SELECT id FROM connections FOR UPDATE")
                    reached.append(True)

            reached = []
            monkeypatch.setattr(database, "ATTEMPTS_MAX", 1)
            with pytest.raises(StoreUnavailableError):
                await world.store._database.transact(work)
            assert reached == [True]

    asyncio.run(main())


def test_a_transaction_that_takes_its_time_is_left_alone(postgres_url, monkeypatch):
    monkeypatch.setitem(database._SESSION, "transaction_timeout", "200ms")

    async def main():
        async with opened(postgres_url) as world:

            async def work(db):
                await database.take_time(db)
                return await database.value(db, "SELECT 1 FROM pg_sleep(0.4)")

            assert await world.store._database.transact(work) == 1
            await world.connect()
            await world.store.remove_connection(1)

    asyncio.run(main())


VICTIM = """
import asyncio, sys
from headwater.testing.clock import FakeClock
from headwater.testing.conformance.world import World, emission
from headwater.stores.postgres.store import PostgresStore

async def main():
    clock = FakeClock()
    store = PostgresStore(sys.argv[1], clock)
    await store.open()
    world = World(store=store, clock=clock)
    await world.connect()
    ref = await world.admit()
    for number in range(9):
        await world.commit(ref, emission(f"r{number}", "x"), cursor=str(number), has_more=True)
        print(number, flush=True)

asyncio.run(main())
"""


def killed_at(name, url):
    """What a node said before it was killed at a failpoint."""
    environment = {**os.environ, "HEADWATER_FAILPOINT": name}
    victim = subprocess.run(
        [sys.executable, "-c", VICTIM, url], env=environment, capture_output=True, text=True, check=False
    )
    assert victim.returncode == -signal.SIGKILL, victim.stderr
    return victim.stdout.split()


@pytest.mark.parametrize(
    "name", ["page.before_records", "page.before_checkpoint", "page.before_commit", "page.after_commit"]
)
def test_a_killed_node_leaves_whole_pages_and_holds_nobody_up(postgres_url, name):
    assert killed_at(f"{name}:4", postgres_url) == ["0", "1", "2"]

    async def main():
        async with opened(postgres_url) as world:
            committed = 4 if name == "page.after_commit" else 3
            (ref,) = (await world.tick(at(3600))).admitted  # waits until the server has taken the rest back
            assert (ref.cursor, ref.page_number, ref.attempt) == (str(committed - 1), committed, 2)
            found = [record.source_id for record in await world.store.records()]
            assert found == [f"r{number}" for number in range(committed)]
            assert await world.commit(ref, emission("r2", "x"), emission("new", "x")) == [
                Outcome.DUPLICATE,
                Outcome.CREATED,
            ]
            feed = await world.store.changes(after=0)
            assert [change.source_id for change in feed.changes] == [*found, "new"]

    asyncio.run(main())


def test_a_node_killed_in_a_migration_leaves_no_half_of_it(postgres_server):
    postgres_server.execute("CREATE DATABASE half_way")
    url = postgres_server.url("half_way")
    assert killed_at("migration.before_commit", url) == []

    async def main():
        async with opened(url) as world:
            await world.connect()

    asyncio.run(main())
    postgres_server.execute("DROP DATABASE half_way WITH (FORCE)")


def test_postgres_errors_are_translated():
    error = translated(psycopg.errors.LockNotAvailable("waited in vain"))
    assert isinstance(error, StoreUnavailableError)
    assert "waited in vain" in str(error)
    assert isinstance(error.__cause__, psycopg.errors.LockNotAvailable)
    assert not database.is_spoiled(error)
    assert database.is_spoiled(translated(psycopg.DataError("no such text")))
    assert isinstance(translated(UsageError("mine")), UsageError)


# Settings and schema


@pytest.mark.parametrize("setting", ["off", "local"])
def test_a_server_that_may_forget_is_refused(postgres_url, setting, caplog):
    async def main():
        async with connected(postgres_url) as db:
            name = await asked(db, "SELECT current_database()")
            await db.execute(f"ALTER DATABASE {name} SET synchronous_commit = {setting}")
        with pytest.raises(StartError, match=f"synchronous_commit is {setting}") as refusal:
            async with opened(postgres_url):
                pass
        assert refusal.value.hint
        async with opened(postgres_url, allow_unsafe=True) as world:
            findings = {finding.name: finding for finding in await world.store.examine()}
            assert not findings["durability"].ok
        assert "no place for real data" in caplog.text

    asyncio.run(main())


@pytest.mark.skipif("HEADWATER_TEST_POSTGRES" in os.environ, reason="a server of others keeps its settings")
@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
def test_a_server_that_does_not_write_through_is_refused(postgres_server, postgres_url, setting):
    def put(value):
        postgres_server.execute(f"ALTER SYSTEM SET {setting} = {value}")
        postgres_server.execute("SELECT pg_reload_conf()")
        while postgres_server.asked(f"SHOW {setting}") != value:
            pass  # the server hears of it in a moment

    async def main():
        async with opened(postgres_url):
            pass

    try:
        put("off")
        with pytest.raises(StartError, match=f"{setting} is off"):
            asyncio.run(main())
    finally:
        put("on")
    asyncio.run(main())


def test_the_databases_clock_is_told_beside_ours(postgres_url):
    async def main():
        async with opened(postgres_url) as world:
            findings = {finding.name: finding for finding in await world.store.examine()}
            clock = findings["database clock"]
            assert re.fullmatch(r"[+-]\d+\.\d{3} s from ours", clock.fact)
            assert clock.hint  # the test's clock stands still in the past

    asyncio.run(main())


def test_nodes_that_start_at_once_migrate_once(postgres_server):
    postgres_server.execute("CREATE DATABASE empty")

    async def main():
        async with nodes(postgres_server.url("empty"), 0), AsyncExitStack() as stack:
            worlds = await asyncio.gather(
                *(stack.enter_async_context(opened(postgres_server.url("empty"))) for _ in range(3))
            )
            await worlds[0].connect()
            assert len(await worlds[2].store.connections()) == 1

    asyncio.run(main())
    postgres_server.execute("DROP DATABASE empty")


def test_each_migration_is_recorded_and_a_failing_one_takes_itself_back(postgres_url):
    newest = migrate.known()[-1].number
    step = Migration(number=newest + 1, name="next_b", sql="CREATE TABLE b (x integer); CREATE TABLE runs (x integer)")
    mended = Migration(number=newest + 1, name="next_b", sql="CREATE TABLE b (x integer)")

    async def main():
        async with Database(postgres_url).alone() as db:
            with pytest.raises(StoreUnavailableError, match="next_b"):
                await migrate.migrate(db, [*migrate.known(), step])
            assert await migrate.schema_version(db) == (newest, max(1, newest - 1))
            assert await database.value(db, "SELECT to_regclass('b')") is None
            await migrate.migrate(db, [*migrate.known(), mended])
            await migrate.migrate(db, [*migrate.known(), mended])
            assert await migrate.schema_version(db) == (newest + 1, newest)

    asyncio.run(main())


def test_old_code_runs_on_a_schema_that_is_one_version_newer_and_no_more(postgres_url, caplog):
    newest = migrate.known()[-1].number

    async def main():
        async with connected(postgres_url) as db:
            await db.execute(f"INSERT INTO schema VALUES ({newest + 1}, 'next', {newest})")
            async with opened(postgres_url) as world:
                await world.connect()
                findings = {finding.name: finding for finding in await world.store.examine()}
                assert not findings["schema"].ok
            assert "may still run on it" in caplog.text
            await db.execute(f"INSERT INTO schema VALUES ({newest + 2}, 'after next', {newest + 1})")
            with pytest.raises(SchemaError, match=str(newest + 2)):
                async with opened(postgres_url):
                    pass

    asyncio.run(main())


# The days of the inbox


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


# Views

COLUMNS = [
    TypeColumn(name="id", kind="text"),
    TypeColumn(name="amount", kind="decimal"),
    TypeColumn(name="count", kind="integer"),
    TypeColumn(name="paid", kind="boolean"),
    TypeColumn(name="lines", kind="json"),
    TypeColumn(name="_version", kind="text"),
    TypeColumn(name="odd 'name\"", kind="text"),
    TypeColumn(name="x" * 64, kind="text"),
]
PAYLOADS = {
    "a": b'{"_version":"own","amount":"0.10000000000000000000000000001","count":9223372036854775807,"id":"a",'
    b'"lines":[{"x":"1.10"}],"odd \'name\\"":"yes","paid":true}',
    "b": b'{"amount":12345678901234567890123,"count":98765432109876543210,"id":"b","lines":null,"paid":false}',
    "c": b'{"id":"c\\u0000\\\\u0000\\\\\\u0000"}',
}


def test_views_are_typed_and_exact(postgres_url):
    async def main():
        async with opened(postgres_url) as world:
            await world.connect()
            await world.store.declare_types({"customer": COLUMNS, "runs": COLUMNS, "Odd\"Name'": COLUMNS[:1]})
            await world.ingest(
                *[emission(name, "x", -1.25, payload=payload) for name, payload in PAYLOADS.items()],
                emission("dead", "x"),
                grave("dead", 1),
            )

    asyncio.run(main())
    with psycopg.connect(postgres_url) as db:
        fields = 'id, amount, count, paid, lines, _version, "odd \'name"""'
        found = db.execute(f"SELECT {fields} FROM customer ORDER BY id").fetchall()
        assert found == [
            ("a", Decimal("0.10000000000000000000000000001"), 9223372036854775807, True, [{"x": "1.10"}], "own", "yes"),
            ("b", Decimal(12345678901234567890123), 98765432109876543210, False, None, None, None),
            ("c\ufffd\\u0000\\\ufffd", None, None, None, None, None, None),
        ]
        fixed = "_connection, _source_id, __version, _as_of, _observed_at, _sequence"
        assert db.execute(f"SELECT {fixed} FROM customer ORDER BY id LIMIT 1").fetchone() == (
            "acme", "a", 1, at(-1.25), START, 1,
        )  # fmt: skip
        assert db.execute("SELECT count(*) FROM _runs").fetchone() == (0,)
        assert db.execute("""SELECT count(*) FROM "Odd""Name'" """).fetchone() == (0,)


def test_an_unchanged_view_is_left_alone_and_one_that_is_built_on_is_not_taken_away(postgres_url):
    async def main():
        async with opened(postgres_url) as world, connected(postgres_url) as db:
            await world.store.declare_types({"customer": COLUMNS})
            before = await asked(db, "SELECT 'customer'::regclass::oid")
            await db.execute("CREATE VIEW mine AS SELECT id FROM customer")
            await world.store.declare_types({"customer": COLUMNS})
            assert await asked(db, "SELECT 'customer'::regclass::oid") == before
            with pytest.raises(UsageError, match="built on it"):
                await world.store.declare_types({"customer": COLUMNS[:2]})
            await db.execute("DROP VIEW mine")
            await world.store.declare_types({"customer": COLUMNS[:2]})

    asyncio.run(main())


def test_the_feed_passes_what_its_filter_leaves_out(postgres_url, monkeypatch):
    monkeypatch.setattr(records, "FEED_SCAN_MAX", 4)

    async def main():
        async with opened(postgres_url) as world:
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


@pytest.mark.parametrize("file", sorted(path.name for path in FOLDER.glob("*.sql")))
def test_every_query_says_its_purpose_and_is_used(file):
    code = "".join(path.read_text() for path in FOLDER.glob("*.py"))
    for name, sql in queries(file).items():
        assert re.match(r"-- [A-Z].*[.:;]\n", sql) or re.match(r"-- [A-Z].*\n-- ", sql), f"{file}: {name}"
        assert f'"{name}"' in code or f"'{name}'" in code, f"{file}: {name} is used by nobody"


def test_every_lock_has_a_number_of_its_own():
    text = "".join(path.read_text() for path in FOLDER.rglob("*.sql"))
    numbers = re.findall(r"pg_advisory_xact_lock\(5252, (\d+)\)", text)
    assert len(numbers) == len(set(numbers))
