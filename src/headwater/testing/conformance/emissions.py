"""What an emission comes to, and what a page commits: CONTRACT 6 and Invariants 2, 3, 4, 8."""

from __future__ import annotations

import asyncio

from headwater.errors import FencedError, MassDeleteError
from headwater.intention import REQUESTS_KEPT
from headwater.record import Counts, Outcome
from headwater.run import RequestLog
from headwater.testing.clock import START
from headwater.testing.conformance.world import TYPE, World, at, broken, declaration, done, emission, grave, refused

CREATED, UPDATED, UNCHANGED = Outcome.CREATED, Outcome.UPDATED, Outcome.UNCHANGED
DUPLICATE, STALE, DELETED = Outcome.DUPLICATE, Outcome.STALE, Outcome.DELETED


async def an_object_key_tells_new_changed_and_known_content(world: World) -> None:
    """Created, updated, duplicate: nothing is written for the last."""
    await world.connect()
    assert await world.ingest(emission("a", "x", 1)) == [CREATED]
    assert await world.ingest(emission("a", "x", 2)) == [DUPLICATE]
    assert await world.ingest(emission("a", "y", 3)) == [UPDATED]
    assert await world.history("a") == [(1, "x", False), (2, "y", False)]


async def an_event_key_has_effect_once(world: World) -> None:
    """The same key and content again is a duplicate, even after the record moved on."""
    await world.connect()
    assert await world.ingest(emission("a", "x", 1, key="evt_1")) == [CREATED]
    assert await world.ingest(emission("a", "y", 2, key="evt_2")) == [UPDATED]
    assert await world.ingest(emission("a", "x", 1, key="evt_1")) == [DUPLICATE]
    assert await world.ingest(emission("a", "x", 9, key="evt_1")) == [DUPLICATE]
    assert (await world.current("a")).version == 2


async def an_event_key_with_other_content_is_a_new_version(world: World) -> None:
    """Same key, changed content: ordered as any other; the key then stands for the new content."""
    await world.connect()
    await world.ingest(emission("a", "x", 1, key="evt_1"))
    assert await world.ingest(emission("a", "y", 2, key="evt_1")) == [UPDATED]
    assert await world.ingest(emission("a", "y", 2, key="evt_1")) == [DUPLICATE]


async def new_key_and_same_content_is_unchanged(world: World) -> None:
    """Whichever of the two ways came first, the other one finds the content unchanged and writes no version."""
    await world.connect()
    await world.ingest(emission("a", "x", 1))
    assert await world.ingest(emission("a", "x", 2, key="evt_1")) == [UNCHANGED]
    assert await world.ingest(emission("a", "x", 2, key="evt_1")) == [DUPLICATE]
    await world.ingest(emission("b", "x", 1, key="evt_2"))
    assert await world.ingest(emission("b", "x", 2)) == [UNCHANGED]
    assert len(await world.history("a")) == len(await world.history("b")) == 1


async def a_keyed_observation_of_known_content_keeps_an_older_one_out(world: World) -> None:
    """Invariant 8: what was seen again later is as late as its latest sight, where that sight has a key of its own."""
    await world.connect()
    await world.ingest(emission("a", "x", 1, key="evt_1"))
    assert await world.ingest(emission("a", "x", 5, key="evt_3")) == [UNCHANGED]
    assert await world.ingest(emission("a", "y", 3, key="evt_2")) == [STALE]
    assert (await world.current("a")).version == 1


async def an_older_observation_never_overwrites(world: World) -> None:
    """Invariant 8: it is kept in history as stale; one of the same instant overwrites."""
    await world.connect()
    await world.ingest(emission("a", "new", 10))
    assert await world.ingest(emission("a", "old", 9, key="evt_1")) == [STALE]
    assert await world.ingest(emission("a", "older", 8)) == [STALE]
    assert await world.ingest(emission("a", "tie", 10)) == [UPDATED]
    assert await world.history("a") == [(1, "new", False), (2, "old", True), (3, "older", True), (4, "tie", False)]
    current = await world.current("a")
    assert (current.version, bytes(current.current.payload)) == (4, b'{"id":"a","name":"tie"}')
    feed = await world.store.changes(after=0)
    assert [change.version for change in feed.changes] == [1, 4]


async def a_stale_emission_again_writes_nothing(world: World) -> None:
    """Invariant 2: a repeated page does not grow the history."""
    await world.connect()
    await world.ingest(emission("a", "new", 10))
    assert await world.ingest(emission("a", "old", 9), emission("a", "old", 9)) == [STALE, STALE]
    assert await world.ingest(emission("a", "old", 9)) == [STALE]
    assert await world.ingest(emission("a", "old", 9, key="evt")) == [STALE]
    assert await world.ingest(emission("a", "old", 9, key="evt")) == [DUPLICATE]
    assert len(await world.history("a")) == 2


async def a_deletion_is_a_tombstone_and_a_record_may_return(world: World) -> None:
    """Deleted, then created again: one history."""
    await world.connect()
    await world.ingest(emission("a", "x", 1))
    assert await world.ingest(grave("a", 2)) == [DELETED]
    assert await world.ingest(grave("a", 3)) == [DUPLICATE]
    assert await world.ingest(grave("a", 3, key="evt_1")) == [UNCHANGED]
    assert (await world.current("a")).deleted
    assert bytes((await world.current("a")).current.payload) == b"{}"
    assert await world.ingest(emission("a", "late", 1)) == [STALE]
    assert (await world.current("a")).deleted
    assert await world.ingest(emission("a", "x", 5)) == [CREATED]
    versions = await world.store.versions("acme", "customer", "a")
    assert [one.operation for one in versions] == ["upsert", "upsert", "delete", "upsert"]
    assert [one.stale for one in versions] == [False, True, False, False]


async def an_older_deletion_is_stale(world: World) -> None:
    """A tombstone obeys the order of observation as any version."""
    await world.connect()
    await world.ingest(emission("a", "x", 5))
    assert await world.ingest(grave("a", 4)) == [STALE]
    assert not (await world.current("a")).deleted
    assert await world.ingest(grave("b", 4)) == [DELETED]
    assert await world.ingest(emission("b", "x", 3)) == [STALE]
    assert await world.store.populations() == [("acme", "customer", 1)]


async def later_emissions_of_a_page_see_earlier_ones(world: World) -> None:
    """One page is as many pages of one emission."""
    await world.connect()
    outcomes = await world.ingest(
        emission("a", "x", 1),
        emission("a", "x", 1),
        emission("a", "y", 2),
        emission("a", "z", 1),
        emission("a", "y", 2, key="evt"),
        emission("a", "y", 2, key="evt"),
        grave("a", 3),
        emission("a", "y", 4),
    )
    assert outcomes == [CREATED, DUPLICATE, UPDATED, STALE, UNCHANGED, DUPLICATE, DELETED, CREATED]
    assert await world.store.populations() == [("acme", "customer", 1)]
    assert [one[0] for one in await world.history("a")] == [1, 2, 3, 4, 5]


async def outcomes_and_counts_are_told_and_stored(world: World) -> None:
    """In the result, on each emission, in the page's row, in the run and in the stream's figures."""
    await world.connect()
    ref = await world.admit()
    emissions = [emission("a", "x", 2), emission("a", "x", 2), emission("a", "old", 1)]
    page = world.page(ref, *emissions, quarantined=[broken("bad")])
    result = await world.store.commit_page(page)
    assert [one.outcome for one in emissions] == list(result.outcomes) == [CREATED, DUPLICATE, STALE]
    expected = {"created": 1, "duplicate": 1, "stale": 1, "quarantined": 1}
    run = await world.store.run(ref.run_id)
    assert run is not None
    state = await world.state(now=at(3600))
    rows = await world.store.pages(ref.run_id)
    for counts in (result.counts, rows[0].counts, run.counts, state.counts_24h):
        assert {name: count for name in counts.__struct_fields__ if (count := getattr(counts, name))} == expected
    assert state.last_record_at == START
    assert (await world.state(now=at(26 * 3600))).counts_24h.total == 0


async def a_page_moves_the_checkpoint_with_its_records(world: World) -> None:
    """Invariant 4; a page on demand does not move it."""
    await world.connect()
    ref = await world.admit()
    await world.commit(ref, emission("a", "x"), cursor="one", has_more=True, at=at(5))
    state = await world.state()
    assert (state.cursor, state.checkpoint_at) == ("one", at(5))
    await world.commit(ref, emission("b", "x"), cursor="elsewhere", advance=False)
    assert (await world.state()).cursor == "one"
    assert [(page.number, page.cursor, page.has_more) for page in await world.store.pages(ref.run_id)] == [
        (1, "one", True),
        (2, "elsewhere", False),
    ]


async def the_instant_of_a_checkpoint_does_not_go_back(world: World) -> None:
    """A clock was ahead and is put right: what is read from the checkpoint on is no older than it."""
    await world.connect()
    ref = await world.admit()
    await world.commit(ref, cursor="one", has_more=True, at=at(120))
    await world.commit(ref, cursor="two", at=at(5))
    state = await world.state()
    assert (state.cursor, state.checkpoint_at) == ("two", at(120))
    await world.end(ref, keep_cursor=False, checkpoint_cursor="mark", now=at(9))
    state = await world.state()
    assert (state.cursor, state.checkpoint_at) == ("mark", at(120))
    await world.store.set_checkpoint(state.id, None, at=at(10))
    state = await world.state()
    assert (state.cursor, state.checkpoint_at) == (None, at(120))


async def a_dry_page_tells_and_writes_nothing(world: World) -> None:
    """Not a record, not a key, not a counter."""
    await world.connect()
    await world.ingest(emission("a", "x", 1))
    ref = await world.admit()
    outcomes = await world.commit(
        ref, emission("a", "y", 2), emission("b", "x"), emission("b", "x", key="evt"), dry=True, cursor="c"
    )
    assert outcomes == [UPDATED, CREATED, UNCHANGED]
    assert await world.store.record("acme", "customer", "b") is None
    assert (await world.current("a")).version == 1
    assert (await world.state()).cursor is None
    assert await world.store.pages(ref.run_id) == []
    assert await world.commit(ref, emission("b", "x", key="evt")) == [CREATED]


async def a_page_that_fails_leaves_nothing(world: World) -> None:
    """A refused page neither writes nor harms its neighbours, and the pages after it do not commit either."""
    await world.connect()
    await world.connect("other")
    ref, other = await world.admit(), await world.admit("other")
    live = [emission(f"r{number}", "x", 1) for number in range(30)]
    await world.commit(ref, *live)
    graves = [grave(f"r{number}", 2) for number in range(20)]
    braked = world.page(ref, emission("new", "x"), *graves, delete_share_max=0.5)
    after = world.page(ref, emission("later", "x"), number=3)
    good = world.page(other, emission("a", "x"))
    results = await asyncio.gather(
        *(world.store.commit_page(page) for page in (braked, after, good)), return_exceptions=True
    )
    assert isinstance(results[0], MassDeleteError)
    assert isinstance(results[1], FencedError)
    assert not isinstance(results[2], BaseException)
    assert results[2].outcomes == [CREATED]
    assert await world.store.record("acme", "customer", "new") is None
    assert await world.store.record("acme", "customer", "later") is None
    assert len(await world.store.pages(ref.run_id)) == 1


async def the_brake_counts_over_pages_and_can_be_released(world: World) -> None:
    """The share is of the live records, deletions of this run included; an operator may let it pass."""
    await world.connect()
    await world.ingest(*[emission(f"r{number:02}", "x", 1) for number in range(40)])
    ref = await world.admit()
    first = [grave(f"r{number:02}", 2) for number in range(15)]
    await world.commit(ref, *first, delete_share_max=0.5)
    second = world.page(ref, *[grave(f"r{number:02}", 2) for number in range(15, 21)], delete_share_max=0.5)
    await refused(MassDeleteError, world.store.commit_page(second))
    assert ("acme", "customer", 25) in await world.store.populations()
    await world.store.cancel_run(ref.run_id, at=START)
    ref = await world.admit()
    both = [
        world.page(ref, *graves, number=number, delete_share_max=0.5)
        for number, graves in enumerate(
            ([grave(f"r{n:02}", 3) for n in range(15, 26)], [grave(f"r{n:02}", 3) for n in range(26, 29)]), 1
        )
    ]
    waiting = [world.store.commit_page(page) for page in both]
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [isinstance(result, MassDeleteError) for result in results] == [False, True]
    await world.store.cancel_run(ref.run_id, at=START)
    released = await world.admit(allow_deletes=True)
    assert released.allow_deletes
    await world.commit(released, *[grave(f"r{number:02}", 4) for number in range(26, 40)], delete_share_max=0.5)
    assert ("acme", "customer", 0) in await world.store.populations()


async def the_share_itself_may_be_deleted(world: World) -> None:
    """Over two pages; the next deletion is one too many."""
    await world.connect()
    await world.ingest(*[emission(f"r{number:02}", "x", 1) for number in range(40)])
    ref = await world.admit()
    for numbers in (range(15), range(15, 20)):
        await world.commit(ref, *[grave(f"r{number:02}", 2) for number in numbers], delete_share_max=0.5)
    assert ("acme", "customer", 20) in await world.store.populations()
    await refused(MassDeleteError, world.store.commit_page(world.page(ref, grave("r20", 2), delete_share_max=0.5)))


async def a_few_deletions_never_brake(world: World) -> None:
    """Below the minimum the share does not matter; nor do tombstones of the unknown."""
    await world.connect()
    await world.ingest(*[emission(f"r{number}", "x", 1) for number in range(10)])
    unknown = [grave(f"u{number}", 2) for number in range(50)]
    graves = [grave(f"r{number}", 2) for number in range(10)]
    ref = await world.admit()
    assert set(await world.commit(ref, *unknown, *graves, delete_share_max=0.1)) == {DELETED}


async def a_repeated_page_counts_once(world: World) -> None:
    """Its answer was lost: the same page again changes nothing."""
    await world.connect()
    ref = await world.admit()
    page = world.page(ref, emission("a", "x", 1), quarantined=[broken("bad")])
    await world.store.commit_page(page)
    again = await world.store.commit_page(page)
    assert again.outcomes == [DUPLICATE]
    run = await world.store.run(ref.run_id)
    assert run is not None
    assert (run.pages, run.counts.created, run.counts.duplicate) == (1, 1, 0)
    assert len(await world.store.quarantined()) == 1


async def a_page_out_of_turn_is_refused(world: World) -> None:
    """The page before it was lost."""
    await world.connect()
    ref = await world.admit()
    await refused(FencedError, world.store.commit_page(world.page(ref, emission("a", "x"), number=2)))


async def nothing_of_one_connection_reaches_another(world: World) -> None:
    """Invariant 10: the same ids and keys elsewhere are other records."""
    await world.connect("acme")
    await world.connect("other")
    await world.ingest(emission("a", "x", 5, key="evt"), connection="acme")
    assert await world.ingest(emission("a", "x", 1, key="evt"), connection="other") == [CREATED]
    assert await world.ingest(grave("a", 6), connection="other") == [DELETED]
    assert not (await world.current("a", "acme")).deleted


async def requests_of_a_page_are_kept_up_to_a_limit(world: World) -> None:
    """The newest stay."""
    await world.connect()
    ref = await world.admit()
    requests = [
        RequestLog(at=at(number), method="GET", url=f"/{number}", status=200, milliseconds=1, retries=0)
        for number in range(REQUESTS_KEPT + 5)
    ]
    await world.commit(ref, requests=requests[:700])
    await world.commit(ref, requests=requests[700:])
    assert list(await world.store.requests(ref.run_id)) == requests[5:]


async def pages_that_come_together_are_each_their_own(world: World) -> None:
    """Figures add up, requests are kept, each goes to its own partition; a dry one among them writes nothing."""
    connection = await world.connect(streams=())
    parts = [declaration("customers", partition=name, next_tick_at=at(0)) for name in ("eu", "us")]
    await world.store.declare_streams(connection.id, parts, at=START)
    eu, us = sorted((await world.tick(at(0))).admitted, key=lambda ref: ref.partition)

    def asked(url: str) -> RequestLog:
        return RequestLog(at=START, method="GET", url=url, status=200, milliseconds=1, retries=0)

    pages = [
        world.page(eu, emission("a", "x"), requests=[asked("/1")]),
        world.page(us, emission("b", "x"), requests=[asked("/us")]),
        world.page(us, emission("dry", "x"), number=2, dry=True),
        world.page(eu, emission("c", "x"), emission("a", "y", 2), number=2, requests=[asked("/2"), asked("/3")]),
    ]
    results = await asyncio.gather(*(world.store.commit_page(page) for page in pages))
    assert [list(result.outcomes) for result in results] == [
        [CREATED], [CREATED], [CREATED], [CREATED, UPDATED]
    ]  # fmt: skip
    states = {state.partition: state for state in await world.store.streams(at=START)}
    assert (states["eu"].counts_24h, states["us"].counts_24h) == (Counts(created=2, updated=1), Counts(created=1))
    assert (states["eu"].last_record_at, states["us"].last_record_at) == (START, START)
    assert [one.url for one in await world.store.requests(eu.run_id)] == ["/1", "/2", "/3"]
    assert [one.url for one in await world.store.requests(us.run_id)] == ["/us"]
    assert sorted(record.source_id for record in await world.store.records()) == ["a", "b", "c"]
    versions = await world.store.versions("acme", TYPE, "a")
    assert [(one.version, one.run_id, one.page) for one in versions] == [(2, eu.run_id, 2), (1, eu.run_id, 1)]


async def odd_text_survives(world: World) -> None:
    """Zero bytes, any script, and payloads that hold the separators of nobody's packing."""
    await world.connect()
    ids = ["a\x00b", "a", "é" * 200, "𝔘", "%d", " "]
    await world.ingest(
        *[emission(one, "x", payload=b'{"n":"\\u0000 %s ' + one.encode().hex().encode() + b'"}') for one in ids]
    )
    assert await world.ingest(*[emission(one, "y", payload=b'{"v":2}') for one in ids]) == [UPDATED] * len(ids)
    for one in ids:
        assert (await world.current(one)).source_id == one
    assert {record.source_id for record in await world.store.records()} == set(ids)


async def of_a_key_that_comes_twice_in_one_commit_the_later_word_stands(world: World) -> None:
    """Deletion and creation under one key, dispatched together: what comes next is compared with the creation."""
    connection = await world.connect()
    await world.ingest(emission("a", "x", 1))
    await world.deliver(connection.id, "d1", "d2", "d3", "d4")
    first, second, third, fourth = sorted(await world.claim(), key=lambda claim: claim.provider_id)
    results = await world.store.finish_deliveries(
        [done(first, grave("a", 2, key="evt")), done(second, emission("a", "x", 3, key="evt"))]
    )
    assert [result.outcomes for result in results if not isinstance(result, Exception)] == [[DELETED], [CREATED]]
    assert (await world.store.finish_delivery(done(third, emission("a", "x", 3, key="evt")))).outcomes == [DUPLICATE]
    assert (await world.store.finish_delivery(done(fourth, grave("a", 4, key="evt")))).outcomes == [DELETED]
    assert (await world.current("a")).deleted


async def a_stream_that_nobody_has_declared_yet_has_its_records_all_the_same(world: World) -> None:
    """They came by a connector newer than the declaration, which finds them there."""
    connection = await world.connect()
    ref = await world.admit()
    other = broken("b", stream="later")
    await world.commit(ref, emission("a", "x", stream="later"), quarantined=[other], at=at(7))
    assert (await world.current("a")).current.stream == "later"
    assert await world.store.streams(at=at(8), stream="later") == []
    declarations = [declaration(stream, next_tick_at=at(900)) for stream in ("customers", "later")]
    await world.store.declare_streams(connection.id, declarations, at=at(9))
    state = await world.state(stream="later", now=at(10))
    assert (state.registered_at, state.last_record_at, state.counts_24h.created) == (at(7), at(7), 1)
    assert [one.source_id for one in await world.store.quarantined(stream="later")] == ["b"]
