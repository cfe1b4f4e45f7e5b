"""What is SQLite's own: group commit, schema, views, the life of its file."""

import asyncio
import re
import sqlite3
from pathlib import Path

import apsw
import msgspec
import pytest

from headwater import failpoint
from headwater.delivery import DeliveryFilter
from headwater.errors import SchemaError, StartError, StoreUnavailableError, UsageError
from headwater.intention import TypeColumn
from headwater.record import Outcome
from headwater.stores.sqlite import database, migrate, writer
from headwater.stores.sqlite.database import connect_writer, queries
from headwater.stores.sqlite.examine import examine
from headwater.testing.clock import START
from headwater.testing.conformance.world import emission, grave, new_delivery
from worlds import opened

FOLDER = Path(database.__file__).parent


@pytest.fixture(autouse=True)
def disarmed():
    yield
    failpoint.disarm()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "headwater.db"


def raising(error):
    def action():
        raise error

    return action


class once:
    """A failpoint's action that raises the first time."""

    def __init__(self, error):
        self.error, self.passed = error, 0

    def __call__(self):
        self.passed += 1
        if self.passed == 1:
            raise self.error


def test_a_failing_operation_leaves_its_neighbours_in_the_batch():
    async def main():
        async with opened() as world:
            connection = await world.connect()
            results = await asyncio.gather(
                world.connect("one"),
                world.connect("acme"),
                world.store.set_position("lake", 7, at=START),
                world.store.append_deliveries([new_delivery(connection.id, "evt")]),
                world.store.append_deliveries([new_delivery(999, "evt")]),
                return_exceptions=True,
            )
            assert isinstance(results[1], UsageError)
            assert [isinstance(result, Exception) for result in results] == [False, True, False, False, True]
            assert await world.store.connection("one") is not None
            assert await world.store.position("lake") == 7

    asyncio.run(main())


def test_an_unforeseen_error_in_a_batch_of_pages_fails_one_page_only():
    """The batch is taken back and each page tried alone."""

    async def main():
        async with opened() as world:
            for key in ("a", "b", "c"):
                await world.connect(key)
            refs = [await world.admit(key) for key in ("a", "b", "c")]
            pages = [world.page(ref, emission("r", "x")) for ref in refs]
            pages[1] = world.page(refs[1], msgspec.structs.replace(emission("bad", "x"), as_of=10**20))
            results = await asyncio.gather(*(world.store.commit_page(page) for page in pages), return_exceptions=True)
            assert isinstance(results[1], AssertionError)
            assert results[0].outcomes == results[2].outcomes == [Outcome.CREATED]
            assert sorted(record.connection for record in await world.store.records()) == ["a", "c"]

    asyncio.run(main())


def test_the_key_of_a_page_is_no_delivery_s(path):
    async def main():
        async with opened(path) as world:
            await world.connect()
            await world.ingest(emission("a", "x", key="of its own"))

    asyncio.run(main())
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT delivery_id FROM emission_keys").fetchall() == [(None,)]


def test_what_an_unforeseen_error_takes_back_of_its_neighbours_takes_effect_once():
    async def main():
        async with opened() as world:
            connection = await world.connect()
            ref = await world.admit()
            bad = world.page(ref, msgspec.structs.replace(emission("bad", "x"), as_of=10**20))
            results = await asyncio.gather(
                world.store.append_deliveries([new_delivery(connection.id, "evt")]),
                world.connect("other"),
                world.store.commit_page(bad),
                world.store.append_deliveries([new_delivery(connection.id, "evt")]),
                return_exceptions=True,
            )
            assert isinstance(results[2], AssertionError)
            assert [results[0][0].duplicate, results[3][0].duplicate] == [False, True]
            assert results[1].id == (await world.store.connection("other")).id
            (delivery,) = await world.store.deliveries(DeliveryFilter())
            assert delivery.duplicates == 1

    asyncio.run(main())


def test_an_error_between_records_and_checkpoint_takes_both_back():
    async def main():
        async with opened() as world:
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


def test_pages_that_wait_together_are_written_together(monkeypatch):
    batches = []
    transact = writer.Writer._transact

    def counted(self, batch):
        batches.append(len(batch))
        transact(self, batch)

    monkeypatch.setattr(writer.Writer, "_transact", counted)

    async def main():
        async with opened() as world:
            await world.connect()
            ref = await world.admit()
            batches.clear()
            pages = [world.page(ref, emission(f"r{n}", "x"), number=n) for n in range(1, 51)]
            await asyncio.gather(*(world.store.commit_page(page) for page in pages))
            assert sum(batches) == 50
            assert len(batches) < 25
            assert len(await world.store.pages(ref.run_id)) == 50

    asyncio.run(main())


def test_a_batch_is_bounded_by_its_weight(monkeypatch):
    monkeypatch.setattr(writer, "BATCH_WEIGHT_MAX", 3)

    async def main():
        async with opened() as world:
            await world.connect()
            ref = await world.admit()
            pages = [world.page(ref, emission(f"r{n}", "x"), emission(f"s{n}", "x"), number=n) for n in range(1, 11)]
            await asyncio.gather(*(world.store.commit_page(page) for page in pages))
            assert [page.number for page in await world.store.pages(ref.run_id)] == list(range(1, 11))

    asyncio.run(main())


@pytest.mark.parametrize("name", ["page.before_commit", "page.after_commit"])
def test_a_commit_that_raises_fails_the_batch_and_may_have_happened(name):
    async def main():
        async with opened() as world:
            await world.connect()
            ref = await world.admit()
            failpoint.arm(name, once(OSError("lost answer")))
            with pytest.raises(StoreUnavailableError):
                await world.commit(ref, emission("a", "x"), cursor="c")
            assert world.store.broken is None
            expected = Outcome.CREATED if name == "page.before_commit" else Outcome.DUPLICATE
            assert await world.commit(ref, emission("a", "x"), cursor="c") == [expected]
            assert len(await world.history("a")) == len(await world.store.pages(ref.run_id)) == 1

    asyncio.run(main())


def test_what_was_committed_is_there_after_reopening(path):
    async def main():
        async with opened(path) as world:
            await world.connect()
            await world.ingest(emission("a", "x", 1), grave("b", 1))
        async with opened(path) as world:
            assert [record.source_id for record in await world.store.records()] == ["a", "b"]
            await world.store.wait_for_changes(1, timeout_seconds=1e9)
            assert (await world.state()).last_success_at == START

    asyncio.run(main())


def test_a_newer_schema_is_refused(path):
    async def main():
        async with opened(path):
            pass
        with sqlite3.connect(path) as db:
            db.execute("INSERT INTO migrations VALUES (9999, 'from the future')")
        with pytest.raises(SchemaError, match="9999"):
            async with opened(path):
                pass

    asyncio.run(main())


def test_each_migration_is_recorded_and_a_failing_one_takes_itself_back(path):
    db = connect_writer(str(path))
    first = [migrate.Migration(number=1, name="0001_a", sql="CREATE TABLE a (x)")]
    second = migrate.Migration(number=2, name="0002_b", sql="CREATE TABLE b (x); CREATE TABLE a (x)")
    migrate.migrate(db, first)
    with pytest.raises(StoreUnavailableError, match="0002_b"):
        migrate.migrate(db, [*first, second])
    assert migrate.schema_version(db) == 1
    assert database.value(db, "SELECT count(*) FROM sqlite_schema WHERE name = 'b'") == 0
    third = migrate.Migration(number=2, name="0002_b", sql="CREATE TABLE b (x)")
    migrate.migrate(db, [*first, third])
    migrate.migrate(db, [*first, third])
    assert database.rows(db, "SELECT number, name FROM migrations") == [
        {"number": 1, "name": "0001_a"},
        {"number": 2, "name": "0002_b"},
    ]
    db.close()


def test_a_delivery_whose_key_was_a_hash_is_known(path):
    async def append(open_from):
        async with opened(open_from) as world:
            connection = (await world.store.connections() or [await world.connect()])[0]
            return (await world.store.append_deliveries([new_delivery(connection.id, "evt_é")]))[0]

    first = asyncio.run(append(path))
    with sqlite3.connect(path) as db:  # as the schema before had it
        db.execute("UPDATE deliveries SET dedupe = randomblob(16)")
        db.execute("DELETE FROM migrations WHERE name = '0011_dedupes'")
    again = asyncio.run(append(path))
    assert (again.id, again.duplicate) == (first.id, True)


def test_a_path_that_is_no_database_refuses_to_start(tmp_path):
    async def main(path):
        async with opened(path):
            pass

    (tmp_path / "text.db").write_bytes(b"this is no database, " * 100)
    with pytest.raises(StartError):
        asyncio.run(main(tmp_path / "text.db"))
    with pytest.raises(StartError):
        asyncio.run(main(tmp_path / "no" / "such" / "folder.db"))


def test_a_closed_store_refuses_and_a_full_queue_sheds(monkeypatch):
    async def main():
        async with opened() as world:
            monkeypatch.setattr(writer, "WAITING_MAX", 3)
            works = [world.store.set_position(f"s{n}", n, at=START) for n in range(5)]
            results = await asyncio.gather(*works, return_exceptions=True)
            assert [isinstance(result, StoreUnavailableError) for result in results] == [False] * 3 + [True] * 2
            assert await world.store.position("s2") == 2
        for work in (world.store.position("s"), world.store.set_position("s", 1, at=START)):
            with pytest.raises(StoreUnavailableError, match="closed"):
                await work
        await world.store.close()

    asyncio.run(main())


def test_closing_commits_what_waits(path):
    async def main():
        async with opened(path) as world:
            waiting = [asyncio.ensure_future(world.store.set_position(f"s{n}", n, at=START)) for n in range(20)]
            await asyncio.sleep(0)
        await asyncio.gather(*waiting)
        async with opened(path) as world:
            assert [await world.store.position(f"s{n}") for n in range(20)] == list(range(20))

    asyncio.run(main())


def test_a_caller_that_gave_up_harms_nobody():
    async def main():
        async with opened() as world:
            gone = asyncio.ensure_future(world.store.set_position("gone", 1, at=START))
            await asyncio.sleep(0)
            gone.cancel()
            await world.store.set_position("here", 1, at=START)
            assert await world.store.position("here") == 1

    asyncio.run(main())


COLUMNS = [
    TypeColumn(name="id", kind="text"),
    TypeColumn(name="amount", kind="decimal"),
    TypeColumn(name="count", kind="integer"),
    TypeColumn(name="paid", kind="boolean"),
    TypeColumn(name="lines", kind="json"),
    TypeColumn(name="_version", kind="text"),
    TypeColumn(name="odd 'name'", kind="text"),
    TypeColumn(name='unaddressable"', kind="text"),
]
PAYLOADS = {
    "a": b'{"_version":"own","amount":"0.10000000000000000000000000001","count":9223372036854775807,"id":"a",'
    b'"lines":[{"x":"1.10"}],"odd \'name\'":"yes","paid":true}',
    "b": b'{"amount":12345678901234567890123,"count":98765432109876543210,"id":"b","lines":null,"paid":false}',
    "c": b'{"id":"c"}',
}


def test_views_are_exact_for_any_sqlite_client(path):
    async def main():
        async with opened(path) as world:
            await world.connect()
            await world.store.declare_types({"customer": COLUMNS, "runs": COLUMNS})
            await world.ingest(
                *[emission(name, "x", -1.25, payload=payload) for name, payload in PAYLOADS.items()],
                emission("dead", "x"),
                grave("dead", 1),
            )

    asyncio.run(main())
    with sqlite3.connect(path) as db:
        rows = db.execute("SELECT id, amount, count, paid, lines, _version, \"odd 'name'\" FROM customer").fetchall()
        assert rows == [
            ("a", "0.10000000000000000000000000001", 9223372036854775807, 1, '[{"x":"1.10"}]', "own", "yes"),
            ("b", "12345678901234567890123", "98765432109876543210", 0, None, None, None),
            ("c", None, None, None, None, None, None),
        ]
        fixed = db.execute(
            "SELECT _connection, _source_id, __version, _as_of, _observed_at, _sequence FROM customer LIMIT 1"
        ).fetchone()
        assert fixed == ("acme", "a", 1, "2025-12-31T23:59:58.750000Z", "2026-01-01T00:00:00.000000Z", 1)
        assert db.execute("SELECT count(*) FROM _runs").fetchone() == (0,)


def test_a_view_finds_one_record_by_the_key(path):
    async def main():
        async with opened(path) as world:
            await world.store.declare_types({"customer": COLUMNS})

    asyncio.run(main())
    with sqlite3.connect(path) as db:
        plan = db.execute("EXPLAIN QUERY PLAN SELECT amount FROM customer WHERE _source_id = 'a'").fetchall()
        assert any("source_id=?" in step[3] for step in plan), plan


def test_an_unchanged_view_is_left_alone(path):
    async def main():
        async with opened(path) as world:
            await world.store.declare_types({"customer": COLUMNS})
            version = database.value(world.store._writer._db, "PRAGMA schema_version")
            await world.store.declare_types({"customer": COLUMNS})
            assert database.value(world.store._writer._db, "PRAGMA schema_version") == version

    asyncio.run(main())


def test_the_examination_finds_a_damaged_file(path):
    async def main():
        async with opened(path) as world:
            await world.connect()
            await world.ingest(*[emission(f"r{n}", "x") for n in range(2000)])

    asyncio.run(main())
    with path.open("r+b") as file:
        file.seek(database.PAGE_BYTES * 60)
        file.write(b"\xff" * database.PAGE_BYTES * 4)
    db = apsw.Connection(str(path))
    findings = {finding.name: finding for finding in examine(db, str(path))}
    assert not findings["integrity"].ok
    assert findings["integrity"].hint
    assert not findings["durability"].ok or findings["durability"].fact.startswith("journal wal")
    db.close()


def test_the_file_is_durable_by_its_settings(path):
    db = connect_writer(str(path))
    assert database.value(db, "PRAGMA journal_mode") == "wal"
    assert database.value(db, "PRAGMA synchronous") == 2
    assert database.value(db, "PRAGMA foreign_keys") == 1
    db.close()


def test_a_removed_connection_leaves_no_row_behind(path):
    async def main():
        async with opened(path) as world:
            connection = await world.connect()
            ref = await world.admit()
            await world.commit(ref, emission("a", "x", key="evt"))
            await world.deliver(connection.id, "evt")
            await world.store.reject_delivery(connection.id, reason="bad", at=START, sample="")
            await world.store.remove_connection(connection.id)

    asyncio.run(main())
    db = apsw.Connection(str(path))
    tables = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    kept = {"types", "connector_versions", "migrations"}
    left = {
        name: count
        for name in tables
        if not name.startswith("sqlite_")
        and name not in kept
        and (count := database.value(db, f"SELECT count(*) FROM {name}"))
    }
    db.close()
    assert left == {}


def test_every_table_is_strict():
    db = connect_writer(":memory:")
    migrate.migrate(db, migrate.known())
    tables = database.rows(db, "SELECT name, strict FROM pragma_table_list WHERE type = 'table' AND schema = 'main'")
    assert [table["name"] for table in tables if not table["strict"] and not table["name"].startswith("sqlite_")] == []
    db.close()


@pytest.mark.parametrize("file", sorted(path.name for path in FOLDER.glob("*.sql")))
def test_every_query_says_its_purpose_and_is_used(file):
    code = "".join(path.read_text() for path in FOLDER.glob("*.py"))
    for name, sql in queries(file).items():
        assert re.match(r"-- [A-Z].*[.:;]\n", sql) or re.match(r"-- [A-Z].*\n-- ", sql), f"{file}: {name}"
        assert f'"{name}"' in code or f"'{name}'" in code, f"{file}: {name} is used by nobody"


def test_sqlites_errors_are_translated():
    error = database.translated(apsw.BusyError("locked"))
    assert isinstance(error, StoreUnavailableError)
    assert isinstance(error.__cause__, apsw.BusyError)
    assert isinstance(database.translated(UsageError("mine")), UsageError)
    for fatal in (apsw.IOError, apsw.FullError, apsw.CorruptError, apsw.NotADBError, apsw.ReadOnlyError):
        assert database.is_fatal(fatal("x"))
    assert not database.is_fatal(apsw.BusyError("x"))
    assert not database.is_fatal(apsw.ConstraintError("x"))
