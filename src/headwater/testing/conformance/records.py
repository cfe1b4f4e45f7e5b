"""Records, history, the change feed, quarantine, positions: what readers may rely on."""

from __future__ import annotations

import asyncio

from headwater.errors import NotFoundError, UsageError
from headwater.intention import TypeColumn
from headwater.record import Outcome, record_cursor
from headwater.testing.clock import START
from headwater.testing.conformance.world import World, at, broken, done, emission, grave, refused


async def versions_say_where_they_came_from(world: World) -> None:
    """Stream, origin, run, page, connector version, both instants, and the payload byte for byte."""
    await world.connect()
    ref = await world.admit()
    one = emission("a", "x", 7, payload=b'{"amount":"12.3400000000000000000001","id":"a"}')
    await world.commit(ref, one, connector_version="2.5", at=at(30))
    (version,) = await world.store.versions("acme", "customer", "a")
    assert bytes(version.payload) == one.payload
    assert (version.hash, version.version, version.operation, version.stale) == (one.hash.hex(), 1, "upsert", False)
    assert (version.as_of, version.observed_at) == (at(7), at(30))
    assert (version.stream, version.origin, version.connector_version) == ("customers", "poll", "2.5")
    assert (version.run_id, version.page, version.delivery_id) == (ref.run_id, 1, None)
    record = await world.store.record("acme", "customer", "a")
    assert record is not None
    assert record.current == version
    assert await world.store.record("acme", "customer", "b") is None
    assert await world.store.record("nobody", "customer", "a") is None
    assert await world.store.versions("acme", "nothing", "a") == []


async def records_are_forgotten_some_at_a_time(world: World) -> None:
    """With every version, of one type or of all, of one connection alone; what comes again is created anew."""
    acme = await world.connect()
    await world.connect("other")
    for name in ("acme", "other"):
        await world.ingest(*[emission(f"r{n}", "x", 10) for n in range(5)], connection=name)
        await world.ingest(emission("r0", "y", 20), emission("r1", "late", 5), grave("r2", 20), connection=name)
        await world.ingest(emission("i", "x", type="invoice", key="evt"), connection=name)
    before = (await world.store.changes(after=0)).high_water
    assert await world.store.forget_records(acme.id, type="customer", limit=10) == 1, "the key comes first"
    assert await world.store.forget_records(acme.id, type="customer", limit=3) == 3
    assert ("acme", "customer", 2) in await world.store.populations()
    assert await world.store.forget_records(acme.id, type="customer", limit=3) == 2
    assert await world.store.forget_records(acme.id, type="customer", limit=3) == 0
    assert await world.store.records(connection="acme", type="customer") == []
    assert await world.store.versions("acme", "customer", "r0") == []
    assert [one.source_id for one in await world.store.records(connection="acme")] == ["i"]
    assert len(await world.store.records(connection="other")) == 6
    assert len(await world.history("r0", connection="other")) == 2
    assert await world.store.forget_records(acme.id, type=None, limit=3) == 1
    assert await world.store.forget_records(acme.id, type=None, limit=3) == 0
    assert {count for name, _, count in await world.store.populations() if name == "acme"} == {0}
    feed = await world.store.changes(after=0, connection="acme")
    assert feed.changes == []
    assert await world.ingest(emission("r0", "x", 10), emission("i", "x", type="invoice", key="evt")) == [
        Outcome.CREATED,
        Outcome.CREATED,
    ]
    assert [one.version for one in (await world.store.changes(after=before)).changes] == [1, 1]
    await refused(NotFoundError, world.store.forget_records(999, type=None, limit=3))


async def records_are_listed_page_by_page(world: World) -> None:
    """By connection, type and source id; deleted ones too, unless told otherwise."""
    await world.connect("acme")
    await world.connect("beta")
    for connection in ("acme", "beta"):
        await world.ingest(
            *[emission(name, "x", type=kind) for kind in ("customer", "invoice") for name in ("b", "a", "ab")],
            connection=connection,
        )
    await world.ingest(grave("ab", 5), connection="beta")
    everything = [(record.connection, record.type, record.source_id) for record in await world.store.records()]
    assert everything == sorted(everything)
    assert len(everything) == 12
    paged, after = [], None
    while page := await world.store.records(after=after, limit=5):
        paged += [(record.connection, record.type, record.source_id) for record in page]
        after = record_cursor(page[-1])
    assert paged == everything
    found = await world.store.records(connection="beta", type="customer", search="a")
    assert [record.source_id for record in found] == ["a", "ab"]
    assert [record.source_id for record in await world.store.records(deleted=True)] == ["ab"]
    assert len(await world.store.records(deleted=False)) == 11
    assert await world.store.records(search="zz") == []
    await refused(UsageError, world.store.records(after="nonsense"))


async def the_feed_has_every_change_once(world: World) -> None:
    """In order, tombstones included, stale versions left out; every position resumes."""
    await world.connect("acme", tenant="t1")
    await world.connect("beta", tenant="t2")
    await world.ingest(emission("a", "x", 5), emission("b", "x", 5, type="invoice"))
    await world.ingest(emission("a", "old", 1), emission("a", "y", 6))
    await world.ingest(emission("c", "x", 5), connection="beta")
    await world.ingest(grave("a", 7))
    feed = await world.store.changes(after=0)
    told = [(one.source_id, one.version, one.operation) for one in feed.changes]
    assert told == [("a", 1, "upsert"), ("b", 1, "upsert"), ("a", 3, "upsert"), ("c", 1, "upsert"), ("a", 4, "delete")]
    sequences = [one.sequence for one in feed.changes]
    assert sequences == sorted(set(sequences))
    assert feed.position == feed.high_water == sequences[-1]
    resumed, position = [], 0
    while (slice_ := await world.store.changes(after=position, limit=2)).changes:
        resumed += [one.sequence for one in slice_.changes]
        position = slice_.position
    assert resumed == sequences
    empty = await world.store.changes(after=feed.position)
    assert (list(empty.changes), empty.position) == ([], feed.position)
    assert len((await world.store.changes(after=0, connection="beta")).changes) == 1
    assert [one.source_id for one in (await world.store.changes(after=0, tenant="t1", type="invoice")).changes] == ["b"]


async def concurrent_commits_leave_no_gap(world: World) -> None:
    """A reader that follows the feed while others write sees every change exactly once."""
    for number in range(4):
        await world.connect(f"c{number}")
    refs = [await world.admit(f"c{number}") for number in range(4)]
    seen: list[int] = []

    async def write(index: int) -> None:
        for number in range(20):
            await world.commit(refs[index], emission(f"r{number}", "x"), has_more=True)

    async def follow() -> None:
        position = 0
        while len(seen) < 80:
            feed = await world.store.changes(after=position, limit=7)
            seen.extend(one.sequence for one in feed.changes)
            position = feed.position
            await asyncio.sleep(0)

    await asyncio.gather(follow(), *(write(index) for index in range(4)))
    assert len(seen) == len(set(seen)) == 80
    assert seen == sorted(seen)


async def waiting_ends_with_a_change(world: World) -> None:
    """At once when there is one already, with the next commit, or after the time."""
    await world.connect()
    await world.ingest(emission("a", "x"))
    await world.store.wait_for_changes(0, timeout_seconds=1e9)
    high = (await world.store.changes(after=0)).high_water
    waiting = asyncio.ensure_future(world.store.wait_for_changes(high, timeout_seconds=1e9))
    await world.ingest(emission("a", "x"))
    assert not waiting.done()
    await world.ingest(emission("b", "x"))
    await waiting
    high = (await world.store.changes(after=0)).high_water
    timed = asyncio.ensure_future(world.store.wait_for_changes(high, timeout_seconds=30))
    while not timed.done():
        await world.clock.advance(31)


async def quarantined_records_wait_and_are_released(world: World) -> None:
    """Found again by every poll, one waits once; its release is ingested where it belongs."""
    await world.connect()
    ref = await world.admit()
    await world.commit(ref, quarantined=[broken("a"), broken("b")], at=at(1))
    await world.commit(ref, quarantined=[broken("a", reason="still no name", payload=b"\xff?")], at=at(2))
    second, first = await world.store.quarantined(connection="acme", stream="customers")
    assert (first.source_id, first.reason, first.created_at) == ("a", "still no name", at(1))
    assert (first.payload, first.state, first.run_id, first.idempotency_key) == ("�?", "waiting", ref.run_id, "key-a")
    result = await world.store.release_quarantined(
        [(first.id, emission("a", "mended", 5))], at=at(9), connector_version="2"
    )
    assert result.outcomes == [Outcome.CREATED]
    version = (await world.current("a")).current
    assert (version.origin, version.connector_version) == ("replay", "2")
    assert (version.run_id, version.page, version.delivery_id) == (ref.run_id, 2, None)
    assert await world.store.drop_quarantined([first.id, second.id]) == 1
    assert await world.store.quarantined() == []
    assert [one.state for one in await world.store.quarantined(state=None)] == ["dropped", "released"]
    assert [one.id for one in await world.store.quarantined(state=None, after=second.id)] == [first.id]
    await refused(
        NotFoundError,
        world.store.release_quarantined([(999, emission("z", "x"))], at=START, connector_version="1"),
    )
    assert await world.store.record("acme", "customer", "z") is None


async def a_release_keeps_its_delivery(world: World) -> None:
    """A record that a webhook brought stays that delivery's."""
    connection = await world.connect()
    await world.deliver(connection.id, "evt")
    (claim,) = await world.claim()
    await world.store.finish_delivery(done(claim, quarantined=[broken("a")]))
    (waiting,) = await world.store.quarantined()
    await world.store.release_quarantined([(waiting.id, emission("a", "x"))], at=START, connector_version="1")
    assert [one.source_id for one in await world.store.versions_of_delivery(claim.id)] == ["a"]


async def populations_follow_births_and_deaths(world: World) -> None:
    """Live records by connection and type."""
    await world.connect()
    await world.ingest(emission("a", "x", 1), emission("b", "x", 1), emission("i", "x", 1, type="invoice"))
    await world.ingest(grave("a", 2), grave("nobody", 2))
    assert list(await world.store.populations()) == [("acme", "customer", 1), ("acme", "invoice", 1)]


async def sinks_keep_their_positions(world: World) -> None:
    """Zero at first; each its own."""
    assert await world.store.position("lake") == 0
    await world.store.set_position("lake", 41, at=START)
    await world.store.set_position("lake", 42, at=START)
    assert (await world.store.position("lake"), await world.store.position("other")) == (42, 0)


async def types_may_be_declared_again(world: World) -> None:
    """The same, changed, or named as something of the store's own."""
    columns = [TypeColumn(name="id", kind="text")]
    await world.store.declare_types({"customer": columns, "records": columns, "select": columns})
    await world.store.declare_types({"customer": [*columns, TypeColumn(name="email", kind="text")]})
    await world.store.declare_types({"customer": columns})
    await world.connect()
    assert await world.ingest(emission("a", "x")) == [Outcome.CREATED]
