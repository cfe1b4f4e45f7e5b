"""What a store must show of the lines that routes logged."""

from __future__ import annotations

from dataclasses import replace

from headwater.delivery import DeliveryState
from headwater.errors import FencedError
from headwater.intention import DeliveryFailure
from headwater.log_line import LINES_KEPT, Level, LogFilter, NewLogLine
from headwater.run import RunState
from headwater.testing.conformance.world import World, at, done, emission, refused

ALL = LogFilter()


def _line(message: str, seconds: float = 0, level: Level = "info") -> NewLogLine:
    return NewLogLine(at=at(seconds), level=level, message=message)


async def _messages(world: World, which: LogFilter = ALL) -> list[str]:
    return [line.message for line in reversed(await world.store.log_lines(which, limit=LINES_KEPT))]


async def lines_are_committed_with_what_they_belong_to(world: World) -> None:
    """Of a page, of the attempt that failed, of a delivery's attempts: in the order in which they were logged."""
    connection = await world.connect()
    ref = await world.admit()
    await world.commit(ref, emission("a", "x"), log=[_line("first"), _line("second")], has_more=True)
    await world.end(
        ref, RunState.RETRYING, due_at=at(100), error_code="retry.provider", error="x", log=[_line("third")]
    )
    await world.deliver(connection.id, "d1")
    (claim,) = await world.claim()
    failure = DeliveryFailure(
        claim=claim, at=at(1), state=DeliveryState.PENDING, due_at=at(2), error_code="retry.provider", error="x",
        traceback=None, log=[_line("refused", level="warning")],
    )  # fmt: skip
    await world.store.fail_delivery(failure)
    (again,) = await world.claim(at(2))
    await world.store.finish_delivery(done(again, emission("b", "x"), log=[_line("taken", 3)]))
    assert await _messages(world) == ["first", "second", "third", "refused", "taken"]
    of_run, of_delivery = LogFilter(run_id=ref.run_id), LogFilter(delivery_id=claim.id)
    assert await _messages(world, of_run) == ["first", "second", "third"]
    assert await _messages(world, of_delivery) == ["refused", "taken"]
    (newest, *_, oldest) = await world.store.log_lines(ALL)
    assert (oldest.connection, oldest.stream, oldest.partition) == ("acme", "customers", "")
    assert (oldest.run_id, oldest.delivery_id, oldest.at, oldest.level) == (ref.run_id, None, at(0), "info")
    assert (newest.stream, newest.run_id, newest.delivery_id, newest.at) == (None, None, claim.id, at(3))


async def lines_of_what_is_not_committed_are_not_kept(world: World) -> None:
    """A fenced page, a rehearsal, and an end that is told twice add none."""
    await world.connect()
    ref = await world.admit()
    await world.commit(ref, emission("a", "x"), log=[_line("kept")], has_more=True)
    await world.commit(ref, emission("b", "x"), log=[_line("rehearsed")], dry=True)
    await refused(
        FencedError, world.store.commit_page(replace(world.page(ref, log=[_line("fenced")]), ref=replace(ref, epoch=0)))
    )
    for _ in range(2):
        await world.end(ref, log=[_line("ended")])
    assert await _messages(world) == ["kept", "ended"]


async def lines_are_found_by_what_they_are(world: World) -> None:
    """By connection, stream and level with those above; a page of a list goes on after its last id."""
    await world.connect("acme")
    await world.connect("other")
    levels: tuple[Level, ...] = ("debug", "info", "warning", "error")
    for connection in ("acme", "other"):
        ref = await world.admit(connection)
        await world.commit(ref, log=[_line(f"{connection} {level}", level=level) for level in levels])
        await world.end(ref)
    assert await _messages(world, LogFilter(connection="other", level="warning")) == ["other warning", "other error"]
    assert await _messages(world, LogFilter(stream="customers", level="error")) == ["acme error", "other error"]
    assert await _messages(world, LogFilter(stream="invoices")) == []
    first = await world.store.log_lines(ALL, limit=3)
    rest = await world.store.log_lines(ALL, after=first[-1].id)
    assert [line.message for line in [*first, *rest]] == [
        f"{name} {level}" for name in ("other", "acme") for level in reversed(levels)
    ]


async def odd_lines_survive(world: World) -> None:
    """Any script, quotes and zero bytes."""
    await world.connect()
    odd = ["a\x00b", "é" * 300, "𝔘", '100% "sure" \'--', "\\u0000", ""]
    ref = await world.admit()
    await world.commit(ref, log=[_line(text) for text in odd])
    assert await _messages(world) == odd


async def the_newest_lines_of_a_run_are_kept(world: World) -> None:
    """Of each run so many; others do not count."""
    await world.connect()
    first = await world.admit()
    await world.commit(first, log=[_line("of another run")])
    await world.end(first)
    ref = await world.admit()
    await world.commit(ref, log=[_line(str(number)) for number in range(LINES_KEPT)], has_more=True)
    await world.commit(ref, log=[_line("more"), _line("and more")])
    kept = await _messages(world, LogFilter(run_id=ref.run_id))
    assert (len(kept), kept[0], kept[-1]) == (LINES_KEPT, "2", "and more")
    assert await _messages(world, LogFilter(run_id=first.run_id)) == ["of another run"]


async def lines_go_with_their_time_and_their_connection(world: World) -> None:
    """A purge removes those that are older; removing a connection removes its lines."""
    await world.connect("acme")
    gone = await world.connect("gone")
    for connection in ("acme", "gone"):
        ref = await world.admit(connection)
        await world.commit(ref, log=[_line(f"{connection} old", 1), _line(f"{connection} new", 500)])
        await world.end(ref)
    assert (await world.store.purge(deliveries_before=at(100), runs_before=at(100))).log_lines == 2
    assert await _messages(world) == ["acme new", "gone new"]
    await world.store.remove_connection(gone.id)
    assert await _messages(world) == ["acme new"]
