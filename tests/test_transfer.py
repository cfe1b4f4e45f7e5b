"""An installation carried from SQLite to PostgreSQL: nothing lost, nothing twice, and the work goes on there."""

import asyncio
import subprocess
import sys
import urllib.request
from urllib.parse import urlencode

import apsw
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

import installation
import postgres_server as postgres
from acceptance.served import LIMIT_SECONDS, Answer, environment, headwater, serving
from headwater import failpoint
from headwater.delivery import DeliveryFilter
from headwater.errors import SchemaError, StartError
from headwater.record import Outcome
from headwater.stores.postgres import target
from headwater.stores.sqlite import source
from headwater.testing.clock import FakeClock
from headwater.testing.conformance.world import at, done, emission, new_delivery
from headwater.transfer import MismatchError, transfer

EXTRA = "CREATE TABLE extra (id INTEGER PRIMARY KEY, note TEXT) STRICT"


@pytest.fixture(autouse=True)
def disarmed():
    yield
    failpoint.disarm()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    path = tmp_path_factory.mktemp("installation") / "headwater.db"
    installation.build(path)
    return path.read_bytes()


@pytest.fixture
def path(built, tmp_path):
    path = tmp_path / ".headwater" / "headwater.db"
    path.parent.mkdir()
    path.write_bytes(built)
    return path


@pytest.fixture
def empty_url(postgres_server, tmp_path_factory):
    """The URL of a database with nothing in it."""
    name = f"headwater_empty_{tmp_path_factory.mktemp('empty').name}_{postgres_server.template[-6:]}"
    postgres_server.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
    yield url_of(postgres_server.url(name))
    postgres_server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def url_of(conninfo):
    return "postgresql:///?" + urlencode({key: value for key, value in conninfo_to_dict(conninfo).items() if value})


async def copied(path, url, report=lambda *_: None):
    with source.opened(path) as ours:
        async with target.opened(url) as theirs:
            return await transfer(ours, theirs, clock=FakeClock(), report=report)


def sql(url, statement):
    with psycopg.connect(url, autocommit=True) as db:
        cursor = db.execute(statement)
        return cursor.fetchall() if cursor.description else None


async def same(path, url):
    async with installation.opened(path) as ours, postgres.opened(url) as theirs:
        expected, found = await installation.told(ours.store), await installation.told(theirs.store)
    for name, answer in expected.items():
        assert list_of(found[name]) == list_of(answer), name


def list_of(answer):
    return list(answer) if isinstance(answer, (list, tuple)) else answer


# What comes over


@pytest.mark.parametrize("rows", [1, 3, 5_000])
def test_the_copy_answers_as_its_source(path, empty_url, monkeypatch, rows):
    monkeypatch.setattr(source, "BATCH_ROWS", rows)
    done = asyncio.run(copied(path, empty_url))
    # A table that stood empty would prove nothing: each has rows.
    assert [one.table for one in done.tables if not one.rows] == []
    asyncio.run(same(path, empty_url))


def test_a_batch_ends_early_where_its_rows_are_large(path, empty_url, monkeypatch):
    monkeypatch.setattr(source, "BATCH_BYTES_MAX", 100)
    asyncio.run(copied(path, empty_url))
    asyncio.run(same(path, empty_url))


def test_a_migrated_database_without_rows_is_as_good_as_an_empty_one(path, postgres_url):
    asyncio.run(copied(path, postgres_url))
    asyncio.run(same(path, postgres_url))


def test_the_hashes_are_the_same_whatever_the_batches(path, empty_url, postgres_url, monkeypatch):
    first = asyncio.run(copied(path, empty_url))
    second = asyncio.run(copied(path, postgres_url))
    assert first.tables == second.tables


class Ticking(FakeClock):
    """A clock that a second passes on whenever it is looked at."""

    def monotonic(self):
        self._elapsed += 1.0
        return super().monotonic()


def test_progress_says_how_far_how_fast_and_how_long(path, empty_url):
    told = []

    async def main():
        clock = Ticking()

        def report(*given):
            told.append(given)

        with source.opened(path) as ours:
            async with target.opened(empty_url) as theirs:
                return await transfer(ours, theirs, clock=clock, report=report)

    result = asyncio.run(main())
    copying = [one for one in told if one[2].startswith("copying")]
    assert copying[-1][:2] == (result.rows, result.rows)
    assert "rows/s" in copying[1][2]
    assert copying[1][2].endswith(" s left")
    assert told[-1][2].startswith("verifying windows")


# The work goes on


def test_after_the_move_polls_go_on_and_nothing_takes_effect_twice(path, empty_url):
    asyncio.run(copied(path, empty_url))

    async def main():
        async with postgres.opened(empty_url) as world:
            feed = await world.store.changes(after=0, limit=200)
            highest = feed.high_water
            state = await world.state()
            assert state.cursor == "c2"
            ((epoch,),) = sql(empty_url, f"SELECT epoch FROM streams WHERE id = {state.id}")
            # An old emission is still stale, an old key still a duplicate, a known object still known.
            await world.store.resume_connection(2, at=at(1000))
            # Its run was under way at the source: here it goes on, with a token of its own.
            (ref,) = [one for one in (await world.tick(at(1000))).admitted if one.run_id == state.running_run_id]
            assert ref.cursor == "c2"
            assert ref.epoch > epoch
            assert await world.commit(
                ref, emission("r01", "old", 15), emission("r05", "x" * 5, 30), emission("r06", "new", 30), cursor="c3"
            ) == [Outcome.STALE, Outcome.DUPLICATE, Outcome.UPDATED]
            await world.end(ref, now=at(1001))
            (again,) = await world.store.append_deliveries([new_delivery(2, "d100", 1100)])
            known = {one.provider_id: one.id for one in await world.store.deliveries(DeliveryFilter())}
            assert (again.id, again.duplicate) == (known["d100"], True)
            (fresh,) = await world.deliver(2, "new", seconds=1200)
            assert fresh not in known.values()
            claims = {one.provider_id: one for one in await world.claim(at(1300))}
            result = await world.store.finish_delivery(
                done(claims["new"], emission("e1", "x", 50, key="evt_1"), now=at(1300))
            )
            assert list(result.outcomes) == [Outcome.DUPLICATE]
            rest = await world.store.changes(after=feed.position)
            assert [change.source_id for change in rest.changes] == ["r06"]
            assert all(change.sequence > highest for change in rest.changes)

    asyncio.run(main())


def test_no_number_of_the_source_is_given_out_again(path, empty_url):
    with source.opened(path) as ours:
        newest = ours.newest()
    asyncio.run(copied(path, empty_url))

    async def main():
        async with postgres.opened(empty_url) as world:
            assert (await world.connect("next")).id > newest["connections"]
            await world.ingest(emission("a", "x"), connection="next")
            (run, *_) = await world.store.runs(connection="next")
            assert run.id > newest["runs"]
            assert (await world.current("a", "next")).current.sequence > newest["versions"]
            (fresh,) = await world.deliver(2, "fresh")
            assert fresh & (1 << source.NUMBER_BITS) - 1 > newest["deliveries"]

    asyncio.run(main())
    assert newest["versions"] == sql(empty_url, "SELECT floor FROM feed")[0][0]


# Restarted


ONCE = ("copy.begun", "copy.numbered", "copy.before_end_commit", "copy.after_end_commit")
EACH_BATCH = ("copy.before_batch_commit", "copy.after_batch_commit")
IN_SMALL_BATCHES = [
    sys.executable,
    "-c",
    "from headwater.stores.sqlite import source; source.BATCH_ROWS = 3\nfrom headwater.cli.main import main; main()",
]


def run_copy(path, url, name=""):
    done = subprocess.run(
        [*IN_SMALL_BATCHES, "db", "copy", "--to", url, "--json"],
        cwd=path.parent.parent,
        env=environment(HEADWATER_FAILPOINT=name),
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    return Answer(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("name", [*ONCE, *EACH_BATCH])
def test_killed_at_every_failpoint_and_given_again_it_comes_to_the_same(path, empty_url, name):
    # Each start gets some batches further, and dies at the next: ten of them are more than there are.
    nth = f"{name}:10" if name in EACH_BATCH else name
    kills = 0
    while (answer := run_copy(path, empty_url, nth)).code == -9:
        kills += 1
        if name in EACH_BATCH:
            assert kills < 20, "it does not get further"
        else:
            nth = ""
    assert kills
    assert answer.code == 0, answer.err
    assert answer.json["copy"]["already"] is (name == "copy.after_end_commit")
    asyncio.run(same(path, empty_url))


def test_a_complete_copy_is_left_alone(path, empty_url):
    assert run_copy(path, empty_url).json["copy"]["already"] is False
    sql(empty_url, "DELETE FROM audit")
    again = headwater(path.parent.parent, "db", "copy", "--to", empty_url)
    assert again.code == 0
    assert "complete before" in again.out
    assert sql(empty_url, "SELECT count(*) FROM audit") == [(0,)]


# Refused


def test_a_store_refuses_a_copy_that_is_not_finished(path, empty_url):
    class Stopped(Exception):
        pass

    def stop():
        raise Stopped

    failpoint.arm("copy.after_batch_commit", stop)
    with pytest.raises(Stopped):
        asyncio.run(copied(path, empty_url))
    with pytest.raises(StartError, match="not finished") as refused:
        asyncio.run(same(path, empty_url))
    assert "db copy" in refused.value.hint
    failpoint.disarm()
    asyncio.run(copied(path, empty_url))
    asyncio.run(same(path, empty_url))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("UPDATE versions SET payload = payload || '\\x00'::bytea WHERE sequence = 5", "table versions .* at \\(5\\)"),
        ("DELETE FROM records WHERE source_id = 'r07'", "table records .* at \\(1, 1, r07\\)"),
        ("UPDATE runs SET has_more = NOT has_more WHERE id = 2", "table runs .* at \\(2\\)"),
        ("INSERT INTO sinks VALUES ('zz', 1, 1)", "sinks has a row that its source has not: \\(zz\\)"),
        ("UPDATE secrets SET ciphertext = ciphertext || chr(1) || chr(1)", "table secrets"),
    ],
)
def test_a_row_that_differs_is_named_and_the_copy_is_refused_for_good(path, empty_url, change, words):
    failpoint.arm("copy.numbered", lambda: sql(empty_url, change))
    with pytest.raises(MismatchError, match=words):
        asyncio.run(copied(path, empty_url))
    failpoint.disarm()
    for again in (copied(path, empty_url), same(path, empty_url)):
        with pytest.raises(StartError, match="not usable"):
            asyncio.run(again)


@pytest.mark.parametrize(
    ("made", "name"),
    [
        ("CREATE TABLE theirs (id int)", "public.theirs"),
        ("CREATE VIEW theirs AS SELECT 1", "public.theirs"),
        ("CREATE SCHEMA other; CREATE TABLE other.runs (id int)", "other.runs"),
        ("CREATE SEQUENCE theirs", "public.theirs"),
    ],
)
@pytest.mark.parametrize("kind", ["empty_url", "postgres_url"])
def test_a_database_with_what_is_not_ours_is_refused(path, request, kind, made, name):
    url = request.getfixturevalue(kind)
    sql(url, made)
    with pytest.raises(StartError, match=f"not ours: {name}"):
        asyncio.run(copied(path, url))
    assert sql(url, "SELECT count(*) FROM pg_class WHERE relname = 'store_copy'") == [(0,)]


def test_a_database_in_use_is_refused(path, postgres_url):
    async def use():
        async with postgres.opened(postgres_url) as world:
            await world.store.set_position("warehouse", 1, at=at(0))

    asyncio.run(use())
    with pytest.raises(StartError, match="table sinks has rows"):
        asyncio.run(copied(path, postgres_url))


def test_a_source_that_changed_meanwhile_is_another_one(path, empty_url):
    asyncio.run(copied(path, empty_url))

    async def work():
        async with installation.opened(path) as world:
            await world.deliver(2, "later", seconds=700)

    asyncio.run(work())
    with pytest.raises(StartError, match="another installation"):
        asyncio.run(copied(path, empty_url))


def test_two_copies_at_once_are_one(path, empty_url):
    async def main():
        async with target.opened(empty_url) as first, target.opened(empty_url) as second:
            assert await first.begin("a") == "new"
            with pytest.raises(StartError, match="Another process copies"):
                await second.begin("a")

    asyncio.run(main())


def test_nothing_is_written_to_the_source_meanwhile(path, monkeypatch):
    monkeypatch.setattr(source, "BUSY_TIMEOUT_MILLISECONDS", 1)
    other = apsw.Connection(str(path))
    with source.opened(path), pytest.raises(apsw.BusyError):
        other.execute("UPDATE sinks SET position = 1")
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StartError, match="Another process writes"), source.opened(path):
        pass
    other.close()


@pytest.mark.parametrize(("number", "words"), [(999, "knows"), (None, "brings it up to date")])
def test_a_source_of_another_schema_is_refused(path, empty_url, number, words):
    db = apsw.Connection(str(path))
    db.execute("DELETE FROM migrations" if number is None else f"INSERT INTO migrations VALUES ({number}, 'x')")
    db.close()
    with pytest.raises(SchemaError) as refused:
        asyncio.run(copied(path, empty_url))
    assert words in f"{refused.value.message} {refused.value.hint}"


@pytest.mark.parametrize("change", [EXTRA, "ALTER TABLE runs ADD COLUMN extra TEXT"])
def test_what_the_copy_does_not_know_is_never_left_behind(path, empty_url, change):
    """Whoever adds a table or a column to one store alone meets this at once, here and in the tests above."""
    db = apsw.Connection(str(path))
    db.execute(change)
    db.close()
    with pytest.raises(SchemaError, match=r"extra"):
        asyncio.run(copied(path, empty_url))
    with pytest.raises(StartError, match="not finished"):
        asyncio.run(same(path, empty_url))


# The command


def test_the_command_refuses_while_the_source_is_served(tmp_path, empty_url):
    with serving(tmp_path) as server:
        refused = headwater(tmp_path, "db", "copy", "--to", empty_url)
    assert refused.code == 1
    assert server.url in refused.err
    assert "Stop it" in refused.err


def test_the_command_speaks_of_the_key_and_of_what_was_copied(path, empty_url):
    answer = headwater(path.parent.parent, "db", "copy", "--to", empty_url)
    assert answer.code == 0, answer.err
    assert "the same key, " in answer.out
    assert "headwater.key" in answer.out
    assert "verified" in answer.out
    assert "verifying windows" in answer.err


def test_the_copy_is_served_and_half_a_copy_is_not(path, empty_url):
    folder, key = path.parent.parent, {"HEADWATER_KEY": installation.KEY}
    assert run_copy(path, empty_url, "copy.before_end_commit").code == -9
    half = headwater(folder, "streams", "--database", empty_url, **key)
    assert half.code == 1
    assert "`headwater db copy` given again" in half.err
    assert run_copy(path, empty_url).code == 0
    with serving(folder, "--database", empty_url, **key) as server:
        with urllib.request.urlopen(f"{server.url}/readyz", timeout=LIMIT_SECONDS) as answer:
            assert answer.status == 200
        moved = headwater(folder, "records", "--connection", "acme", "--database", empty_url, "--json", **key)
    assert moved.json == headwater(folder, "records", "--connection", "acme", "--json", **key).json


def test_the_command_makes_the_typed_views(path, empty_url):
    assert headwater(path.parent.parent, "init", "shop").code == 0
    assert headwater(path.parent.parent, "db", "copy", "--to", empty_url).code == 0
    assert sql(empty_url, "SELECT name FROM customer WHERE id = 'r01'") == [("new",)]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--to", "mysql://x"), 2, "a URL such as postgresql://"),
        (("--to", "a.db"), 2, "copied to PostgreSQL"),
        (("--to", "postgresql:///x", "--database", "postgresql:///y"), 2, "Only the embedded database"),
        (("--to", "postgresql:///?host=/nowhere"), 1, "cannot be reached"),
        (("--to", "postgresql:///x", "--database", "none.db"), 2, "There is no database"),
    ],
)
def test_the_command_says_what_is_wrong(path, words, code, said):
    answer = headwater(path.parent.parent, "db", "copy", *words)
    assert answer.code == code
    assert said in answer.err
