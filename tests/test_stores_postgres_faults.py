"""A PostgreSQL server that goes away, and nodes that stop or are killed in the middle of their work."""

import asyncio
import itertools

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from headwater import failpoint
from headwater.errors import StartError, StoreUnavailableError, UsageError
from headwater.record import Outcome
from headwater.stores.postgres import connections, database
from headwater.stores.postgres.database import translated
from headwater.testing.clock import START
from headwater.testing.conformance.world import at, emission
from victim import killed_at
from worlds import opened


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
