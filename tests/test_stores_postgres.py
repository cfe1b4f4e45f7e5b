"""What is PostgreSQL's own: many nodes at once, batches, views."""

import asyncio
import itertools
import re
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from headwater import failpoint
from headwater.errors import FencedError, StoreUnavailableError, UsageError
from headwater.intention import CommitResult, TypeColumn
from headwater.record import Outcome
from headwater.run import RequestLog
from headwater.stores.postgres import commit, database
from headwater.stores.postgres.database import Database, escaped, queries, unescaped
from headwater.testing.clock import START
from headwater.testing.conformance.world import at, broken, done, emission, grave, new_delivery
from postgres_server import asked, connected, nodes
from worlds import opened

FOLDER = Path(database.__file__).parent
DAY = 86_400.0


@pytest.fixture(autouse=True)
def disarmed():
    yield
    failpoint.disarm()


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
