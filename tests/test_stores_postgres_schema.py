"""Which PostgreSQL server is taken, and how its schema is brought up to date."""

import asyncio
import os
import re
from contextlib import AsyncExitStack

import pytest

from headwater.errors import SchemaError, StartError, StoreUnavailableError
from headwater.stores.postgres import database, migrate
from headwater.stores.postgres.database import Database
from headwater.stores.query import Migration
from headwater.testing.conformance.world import new_delivery
from postgres_server import asked, connected, nodes
from worlds import opened


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


def test_a_delivery_whose_key_was_a_hash_is_known(postgres_url):
    async def append():
        async with opened(postgres_url) as world:
            connection = (await world.store.connections() or [await world.connect()])[0]
            return (await world.store.append_deliveries([new_delivery(connection.id, "evt_é")]))[0]

    async def main():
        first = await append()
        async with connected(postgres_url) as db:  # as the schema before had it
            await db.execute("UPDATE deliveries SET dedupe = sha256(dedupe)")
            await db.execute("UPDATE dedupes SET dedupe = sha256(dedupe)")
            await db.execute("CREATE INDEX dedupes_delivery ON dedupes (delivery_id)")
            await db.execute("DELETE FROM schema WHERE name = '0012_dedupes'")
        again = await append()
        assert (again.id, again.duplicate) == (first.id, True)

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
