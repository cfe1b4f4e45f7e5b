"""How often a piece of work is carried out on PostgreSQL, and what its errors become."""

import asyncio
import struct
from contextlib import asynccontextmanager

import psycopg
import pytest

from headwater import failpoint
from headwater.errors import NotFoundError, StoreUnavailableError
from headwater.stores.postgres.arrays import Bigints, Byteas, Texts
from headwater.stores.postgres.database import Database, execute, is_spoiled, prepared, row, rows, translated, value


@asynccontextmanager
async def opened(url):
    database = Database(url)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


def works(url, work):
    async def main():
        async with opened(url) as database:
            return await work(database)

    return asyncio.run(main())


class Counted:
    """Work that fails so many times, and counts."""

    def __init__(self, error, failures=99):
        self.error, self.failures, self.times = error, failures, 0

    async def __call__(self, db):
        self.times += 1
        if self.times <= self.failures:
            raise self.error
        return await value(db, "SELECT 7 AS seven")


def lost(state):
    """What psycopg raises when the server goes away, by SQLSTATE."""
    return psycopg.errors.lookup(state)("terminating connection")


@pytest.mark.parametrize("name", ["read", "once"])
@pytest.mark.parametrize("error", [psycopg.OperationalError("gone"), lost("57P01"), lost("08006")])
def test_a_reader_that_loses_its_connection_goes_on_with_another_once(postgres_url, name, error):
    async def work(database):
        asking, failing = Counted(error, failures=1), Counted(error)
        assert await getattr(database, name)(asking) == 7
        assert asking.times == 2
        with pytest.raises(StoreUnavailableError):
            await getattr(database, name)(failing)
        assert failing.times == 2

    works(postgres_url, work)


@pytest.mark.parametrize(
    "error", [psycopg.errors.DivisionByZero("division by zero"), lost("53300"), NotFoundError("not here")]
)
def test_what_the_server_or_the_work_refuses_is_not_asked_again(postgres_url, error):
    async def work(database):
        for name in ("read", "once", "transact"):
            failing = Counted(error)
            with pytest.raises((StoreUnavailableError, NotFoundError)):
                await getattr(database, name)(failing)
            assert failing.times == 1

    works(postgres_url, work)


@pytest.mark.parametrize("state", ["40P01", "40001", "57P02"])
def test_a_transaction_that_was_taken_back_is_carried_out_again_from_its_beginning(postgres_url, state):
    async def work(database):
        await database.transact(lambda db: execute(db, "CREATE TABLE kept (n int)"))

        async def adding(db):
            await execute(db, "INSERT INTO kept VALUES (1)")
            return await again(db)

        again = Counted(lost(state), failures=1)
        assert await database.transact(adding) == 7
        assert again.times == 2
        assert await database.read(lambda db: value(db, "SELECT count(*) FROM kept")) == 1

    works(postgres_url, work)


@pytest.mark.parametrize("name", ["transact", "once"])
def test_the_failpoints_that_are_named_stand_on_both_sides_of_the_commit(postgres_url, name):
    passed = []

    async def work(database):
        async def working(db):
            passed.append("work")

        for place in ("page.before_commit", "page.after_commit"):
            failpoint.arm(place, lambda place=place: passed.append(place))
        try:
            named = {"before_commit": "page.before_commit", "after_commit": "page.after_commit"}
            await getattr(database, name)(working, **named)
            await getattr(database, name)(working)
        finally:
            failpoint.disarm()

    works(postgres_url, work)
    inside = ["work", "page.before_commit"] if name == "transact" else ["page.before_commit", "work"]
    assert passed == [*inside, "page.after_commit", "work"]


def test_an_error_of_the_server_is_told_by_its_words_and_its_name():
    told = translated(psycopg.errors.DivisionByZero(" division by zero\n"))
    assert isinstance(told, StoreUnavailableError)
    assert (told.message, told.detail) == ("PostgreSQL refused: division by zero.", "DivisionByZero")
    assert isinstance(told.__cause__, psycopg.errors.DivisionByZero)
    assert translated(psycopg.errors.DeadlockDetected()).message == "PostgreSQL refused: DeadlockDetected."
    ours = NotFoundError("not here")
    assert translated(ours) is ours
    assert is_spoiled(translated(psycopg.errors.ProgramLimitExceeded("too long")))
    assert not is_spoiled(translated(psycopg.errors.DeadlockDetected()))


def test_rows_come_whole_and_text_that_postgresql_cannot_hold_comes_back(postgres_url):
    async def work(database):
        odd = "a\0b\1c"

        async def asking(db):
            await execute(db, "CREATE TEMPORARY TABLE odd (n int, said text)")
            assert await execute(db, "INSERT INTO odd VALUES (1, %(said)s), (2, 'plain')", said=odd) == 2
            found = await rows(db, "SELECT n, said FROM odd ORDER BY n")
            assert found == [{"n": 1, "said": odd}, {"n": 2, "said": "plain"}]
            assert await row(db, "SELECT said FROM odd WHERE said = %(said)s", said=odd) == {"said": odd}
            assert await row(db, "SELECT said FROM odd WHERE n = 3") is None
            assert await value(db, "SELECT said FROM odd WHERE n = 3") is None
            assert await execute(db, "UPDATE odd SET n = 9 WHERE said = ANY(%(names)s)", names=[odd, "none"]) == 1
            for _ in range(2):
                assert await prepared(db, "SELECT %(n)s::int AS n", n=4) == [{"n": 4}]
            planned = await value(db, "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%%::int AS n'")
            assert planned == 1

        await database.transact(asking)

    works(postgres_url, work)


def test_a_store_that_is_closed_says_so(postgres_url):
    with pytest.raises(StoreUnavailableError, match="The store is closed"):
        asyncio.run(Database(postgres_url).read(Counted(None, failures=0)))


@pytest.mark.parametrize(
    ("kind", "array", "values"),
    [
        (Bigints, "bigint[]", [0, -1, 2**63 - 1, -(2**63)]),
        (Byteas, "bytea[]", [b"", b"\0\xff", b"x" * 70_000]),
        (Texts, "text[]", ["", "é\U0001f600", None, "NULL", "{,}"]),
        (Texts, "text[]", [None]),
        (Bigints, "bigint[]", []),
        (Byteas, "bytea[]", []),
        (Texts, "text[]", []),
    ],
)
def test_a_packed_array_is_the_one_that_psycopg_sends(postgres_url, kind, array, values):
    async def read(db):
        query = f"SELECT %(packed)b AS packed, %(packed)b = %(listed)s::{array} AS are_equal"
        return await prepared(db, query, packed=kind(values), listed=values)

    assert works(postgres_url, lambda database: database.read(read)) == [{"packed": values, "are_equal": True}]


def test_a_number_of_more_than_64_bits_is_not_packed():
    with pytest.raises(struct.error):
        Bigints([2**63])
