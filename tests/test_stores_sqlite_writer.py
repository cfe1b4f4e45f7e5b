"""The writer by itself, turn by turn and without its thread: what it refuses, gathers, carries out and tells."""

import asyncio

import apsw
import pytest

from headwater import failpoint
from headwater.errors import StoreUnavailableError
from headwater.stores.sqlite import database
from headwater.stores.sqlite import writer as module
from headwater.stores.sqlite.database import MEMORY, connect_writer
from headwater.stores.sqlite.writer import SINGLE, Kind, Operation, Writer, attempt


@pytest.fixture(autouse=True)
def disarmed():
    yield
    failpoint.disarm()


@pytest.fixture
def loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def committed():
    return []


@pytest.fixture
def writer(committed):
    one = Writer(lambda: connect_writer(MEMORY), committed.append)
    one._db = one._opened()
    one._db.execute("CREATE TABLE words (word)")
    one._thread = object()
    yield one
    one._db.close()


def submitted(writer, loop, *works, kind=SINGLE, **given):
    async def main():
        return [writer.submit(kind, work, **given) for work in works]

    return loop.run_until_complete(main())


def turned(writer, loop):
    """What the next turn answers, once everybody who waited for it is told."""
    answer = writer.turn(writer._queue.get_nowait())
    loop.run_until_complete(asyncio.sleep(0))
    return answer


def said(word):
    return lambda db: db.execute("INSERT INTO words VALUES (?)", (word,)).fetchall() or word


def fails(error):
    def work(db):
        raise error

    return work


def words(writer):
    return [word for (word,) in writer._db.execute("SELECT word FROM words ORDER BY rowid")]


def told(futures):
    return [str(future.exception()) if future.exception() else future.result() for future in futures]


@pytest.mark.parametrize(
    ("state", "message", "hint"),
    [
        ({"broken": "disk I/O error"}, "The store is broken: disk I/O error.", "Free the disk, then restart."),
        ({"_closing": True}, "The store is closed.", ""),
        ({"_thread": None}, "The store is closed.", ""),
        ({"_waiting": module.WAITING_MAX}, f"More than {module.WAITING_MAX} operations wait for the store.", ""),
    ],
)
def test_who_cannot_be_served_is_told_why_and_does_not_wait(writer, loop, state, message, hint):
    for name, value in state.items():
        setattr(writer, name, value)
    with pytest.raises(StoreUnavailableError) as raised:
        submitted(writer, loop, said("a"))
    assert (raised.value.message, raised.value.hint) == (message, hint)
    assert writer._queue.empty()


def test_whoever_was_served_leaves_room_for_another(writer, loop, monkeypatch):
    monkeypatch.setattr(module, "WAITING_MAX", 2)
    for _ in range(3):
        futures = submitted(writer, loop, said("a"), said("b"))
        turned(writer, loop)
        assert told(futures) == ["a", "b"]
    assert writer._waiting == 0


@pytest.mark.parametrize(
    ("weights", "taken"), [((4, 1), 1), ((2, 2, 1), 2), ((1, 1, 1, 2), 3), ((1, 1, 1, 1), 4), ((5, 1), 1), ((1, 4), 1)]
)
def test_a_transaction_takes_what_its_weight_allows(writer, loop, monkeypatch, weights, taken):
    monkeypatch.setattr(module, "BATCH_WEIGHT_MAX", 4)
    futures = [submitted(writer, loop, said(weight), weight=weight)[0] for weight in weights]
    ahead, closing = turned(writer, loop)
    assert [future.done() for future in futures] == [place < taken for place in range(len(weights))]
    assert (ahead.future if ahead else None) is (futures[taken] if taken < len(futures) else None)
    assert closing is False


def test_an_operation_weighs_one_unless_it_says_more(writer, loop, monkeypatch):
    monkeypatch.setattr(module, "BATCH_WEIGHT_MAX", 3)
    futures = submitted(writer, loop, said("a"), said("b"), said("c"), said("d"))
    ahead, _ = turned(writer, loop)
    assert (told(futures[:3]), ahead.future) == (["a", "b", "c"], futures[3])


def test_a_transaction_has_so_many_operations(writer, loop, monkeypatch):
    monkeypatch.setattr(module, "BATCH_OPERATIONS_MAX", 2)
    futures = submitted(writer, loop, said("a"), said("b"), said("c"))
    assert turned(writer, loop) == (None, False)
    assert [future.done() for future in futures] == [True, True, False]
    assert turned(writer, loop) == (None, False)
    assert told(futures) == ["a", "b", "c"]


def test_the_last_turn_says_that_it_is_the_last(writer, loop):
    futures = submitted(writer, loop, said("a"), said("b"))
    writer._queue.put(None)
    assert turned(writer, loop) == (None, True)
    assert told(futures) == ["a", "b"]


def test_who_gave_up_before_the_turn_is_not_carried_out(writer, loop):
    given_up, other = submitted(writer, loop, said("a"), said("b"))
    given_up.cancel()
    turned(writer, loop)
    assert (words(writer), other.result(), writer._waiting) == (["b"], "b", 0)


def test_one_that_fails_takes_back_itself_alone(writer, loop):
    def half(db):
        said("half")(db)
        raise ValueError("of its own")

    futures = submitted(writer, loop, said("a"), half, said("b"), fails(apsw.ConstraintError("twice")))
    turned(writer, loop)
    assert told(futures) == ["a", "of its own", "b", "SQLite refused: twice."]
    assert (words(writer), writer.broken) == (["a", "b"], None)


def test_neighbours_of_a_kind_are_one_work_and_alone_once_that_failed(writer, loop):
    asked = []

    def group(db, works, *, together):
        asked.append((list(works), together))
        if together and "bad" in works:
            said("half")(db)
            raise ValueError("unforeseen")
        return [ValueError("bad") if work == "bad" else said(work)(db) for work in works]

    kind = Kind(group=group)
    good = submitted(writer, loop, "a", "b", kind=kind)
    turned(writer, loop)
    mixed = submitted(writer, loop, "c", "bad", kind=kind) + submitted(writer, loop, said("d"))
    turned(writer, loop)
    assert told(good + mixed) == ["a", "b", "c", "bad", "d"]
    assert asked == [(["a", "b"], True), (["c", "bad"], True), (["c", "bad"], False)]
    assert words(writer) == ["a", "b", "c", "d"]


def test_an_answer_that_is_missing_fails_everybody(writer, loop):
    kind = Kind(group=lambda db, works, *, together: [said(work)(db) for work in works[:-1]])
    futures = submitted(writer, loop, "a", "b", kind=kind)
    turned(writer, loop)
    assert {type(future.exception()) for future in futures} == {StoreUnavailableError}
    assert words(writer) == []


def test_each_kind_passes_its_own_failpoints_and_the_feed_is_told_of_what_feeds_it(writer, loop, committed):
    passed = []
    for name in ("page.before_commit", "page.after_commit", "tick.before_commit", "tick.after_commit"):
        failpoint.arm(name, lambda name=name: passed.append((name, writer._db.in_transaction)))
    page = Kind(before_commit="page.before_commit", after_commit="page.after_commit", feeds=True)
    tick = Kind(before_commit="tick.before_commit", after_commit="tick.after_commit")
    submitted(writer, loop, said("a"), kind=tick)
    turned(writer, loop)
    assert committed == []
    submitted(writer, loop, said("b"), kind=page)
    submitted(writer, loop, said("c"), kind=tick)
    turned(writer, loop)
    assert committed == [writer._db]
    assert passed == [
        ("tick.before_commit", True), ("tick.after_commit", False),
        ("page.before_commit", True), ("tick.before_commit", True),
        ("page.after_commit", False), ("tick.after_commit", False),
    ]  # fmt: skip


def test_a_commit_that_fails_is_told_to_all_with_its_cause(writer, loop):
    error = OSError("lost answer")
    failpoint.arm("tick.before_commit", lambda: fails(error)(None))
    futures = submitted(writer, loop, said("a"), said("b"), kind=Kind(before_commit="tick.before_commit"))
    turned(writer, loop)
    assert told(futures) == ["The commit failed: lost answer."] * 2
    assert futures[0].exception().__cause__ is error
    assert (words(writer), writer._db.in_transaction, writer.broken) == ([], False, None)


def test_a_file_that_cannot_be_written_breaks_the_writer_for_good(writer, loop):
    futures = submitted(writer, loop, said("a"), fails(apsw.FullError("database or disk is full")))
    late = Operation(kind=SINGLE, work=said("b"), weight=1, future=loop.create_future(), loop=loop)
    turned(writer, loop)
    assert told(futures) == ["SQLite refused: database or disk is full."] * 2
    assert writer.broken == "database or disk is full"
    writer.turn(late)
    loop.run_until_complete(asyncio.sleep(0))
    assert told([late.future]) == ["The store is broken: database or disk is full."]
    assert words(writer) == []


def test_what_cannot_be_taken_back_breaks_the_writer(writer):
    class Stuck:
        in_transaction = True

        def execute(self, sql):
            raise apsw.SQLError(f"no {sql.lower()}")

    db, writer._db = writer._db, Stuck()
    writer._roll_back()
    writer._db = db
    assert writer.broken == "no rollback"


@pytest.mark.parametrize("work", [fails(apsw.IOError("lost")), lambda db: db.execute("ROLLBACK") and 1 / 0])
def test_an_error_that_leaves_no_transaction_to_go_on_with_is_everybodys(writer, work):
    writer._db.execute("BEGIN")
    with pytest.raises((apsw.IOError, ZeroDivisionError)):
        attempt(writer._db, work)


def test_a_caller_whose_loop_is_gone_keeps_nobody_from_being_told(writer, loop):
    gone, other = asyncio.new_event_loop(), asyncio.new_event_loop()
    submitted(writer, gone, said("a"))
    gone.close()
    futures = submitted(writer, loop, said("b")) + submitted(writer, other, said("c"))
    turned(writer, loop)
    other.run_until_complete(asyncio.sleep(0))
    other.close()
    assert told(futures) == ["b", "c"]


class Log:
    """A connection whose log is moved into its file, or is not."""

    def __init__(self, error=None):
        self.moved, self._error = [], error

    def wal_checkpoint(self, *, mode):
        self.moved.append(mode)
        if self._error:
            raise self._error


@pytest.mark.parametrize(("pages", "broken", "moves"), [(9, None, 0), (10, None, 1), (11, None, 1), (11, "before", 0)])
def test_the_log_is_moved_into_the_file_once_it_is_long(writer, monkeypatch, pages, broken, moves):
    monkeypatch.setattr(database, "WAL_PAGES", 10)
    log = Log()
    db, writer._db, writer.broken = writer._db, log, broken
    assert writer._note_log(db, "main", pages) == apsw.SQLITE_OK
    writer._shorten_log()
    writer._shorten_log()
    writer._db = db
    assert log.moved == [apsw.SQLITE_CHECKPOINT_PASSIVE] * moves
    assert writer._log_pages == (0 if moves else pages)
    assert writer.broken == broken


@pytest.mark.parametrize(
    ("error", "broken"),
    [(apsw.IOError("no sync"), "no sync (as the log was moved into the file)"), (apsw.BusyError("busy"), None)],
)
def test_a_log_that_cannot_be_moved_breaks_the_writer_unless_it_may_be_later(writer, monkeypatch, error, broken):
    monkeypatch.setattr(database, "WAL_PAGES", 10)
    db, writer._db, writer._log_pages = writer._db, Log(error), 10
    writer._shorten_log()
    writer._db = db
    assert writer.broken == broken
