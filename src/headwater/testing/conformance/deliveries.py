"""The inbox: Invariants 1, 2, 5, 6, 7 and 11."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import msgspec

from headwater.delivery import REPLAY_CANCELLED, ClaimedDelivery, DeliveryFilter, DeliveryState
from headwater.errors import FencedError, NotFoundError
from headwater.intention import CommitResult, DeliveryFailure, StoredConnection
from headwater.record import Outcome
from headwater.signatures.identity import NAME_CHARS_MAX
from headwater.stores import lease
from headwater.testing.clock import START
from headwater.testing.conformance.world import (
    LEASE_SECONDS,
    World,
    at,
    broken,
    declaration,
    done,
    emission,
    new_delivery,
    refused,
)


def _failure(claim: ClaimedDelivery, **overrides: Any) -> DeliveryFailure:
    fields: dict[str, Any] = {
        "at": START, "state": DeliveryState.PENDING, "due_at": at(50), "error_code": "retry.provider", "error": "503",
        "traceback": None,
    }  # fmt: skip
    return DeliveryFailure(claim=claim, **{**fields, **overrides})


async def _receive(world: World, *provider_ids: str) -> StoredConnection:
    connection = await world.connect(streams=())
    declarations = [declaration("events", mode="webhook"), declaration("customers")]
    await world.store.declare_streams(connection.id, declarations, at=START)
    if provider_ids:
        await world.deliver(connection.id, *provider_ids)
    return connection


async def a_delivery_is_stored_as_it_came(world: World) -> None:
    """Bytes, headers and instant; listings leave the body out."""
    connection = await _receive(world)
    body = bytes(range(256))
    (one,) = await world.store.append_deliveries(
        [new_delivery(connection.id, "evt_1", 5, body=body, headers='{"x":"é"}'.encode(), event_type=None)]
    )
    assert not one.duplicate
    stored = await world.store.delivery(one.id)
    assert stored is not None
    assert (stored.body, stored.headers, stored.body_bytes) == (body, {"x": "é"}, 256)
    assert (stored.state, stored.received_at, stored.event_type) == (DeliveryState.PENDING, at(5), None)
    assert (stored.connection, stored.connector, stored.provider_id) == ("acme", "shop", "evt_1")
    (listed,) = await world.store.deliveries(DeliveryFilter())
    assert (listed.body, listed.headers) == (None, {})
    assert await world.store.delivery(999) is None
    assert await world.store.append_deliveries([]) == []
    gone, neighbour = await asyncio.gather(
        world.store.append_deliveries([new_delivery(999, "evt_2")]),
        world.store.append_deliveries([new_delivery(connection.id, "evt_2")]),
        return_exceptions=True,
    )
    assert isinstance(gone, NotFoundError)
    assert isinstance(neighbour, Sequence)
    assert not neighbour[0].duplicate


async def redelivery_is_a_visible_duplicate(world: World) -> None:
    """Within one call and over many, between new ones too; another connection's same id is another delivery."""
    connection = await _receive(world)
    other = await world.connect("other")
    given = [new_delivery(connection.id, name) for name in ("a", "b", "a")]
    first = await world.store.append_deliveries([*given, new_delivery(other.id, "a")])
    assert [one.duplicate for one in first] == [False, False, True, False]
    assert first[2].id == first[0].id
    (again,) = await world.store.append_deliveries([new_delivery(connection.id, "a", 60)])
    assert (again.id, again.duplicate) == (first[0].id, True)
    stored = await world.store.delivery(first[0].id)
    assert stored is not None
    assert (stored.duplicates, stored.last_duplicate_at) == (2, at(60))
    given = [new_delivery(connection.id, name, 90, body=name.encode()) for name in ("c", "a", "d", "c", "b")]
    mixed = await world.store.append_deliveries(given)
    assert [one.duplicate for one in mixed] == [False, True, False, True, True]
    assert [mixed[place].id for place in (1, 3, 4)] == [first[0].id, mixed[0].id, first[1].id]
    for place, repeated in (0, 1), (2, 0):
        stored = await world.store.delivery(mixed[place].id)
        assert stored is not None
        assert (stored.provider_id.encode(), stored.duplicates) == (stored.body, repeated)
    longest = new_delivery(connection.id, "\U0001f600" * NAME_CHARS_MAX)
    assert [one.duplicate for one in await world.store.append_deliveries([longest, longest])] == [False, True]
    assert await world.store.count_deliveries(DeliveryFilter()) == 6


async def a_hundred_at_once_are_one(world: World) -> None:
    """The same delivery on a hundred requests at the same time."""
    connection = await _receive(world)
    results = await asyncio.gather(
        *(world.store.append_deliveries([new_delivery(connection.id, "evt")]) for _ in range(100))
    )
    assert sum(not appended[0].duplicate for appended in results) == 1
    assert len({appended[0].id for appended in results}) == 1
    assert await world.store.pending_deliveries() == 1


async def a_claim_is_exclusive_until_its_lease_ends(world: World) -> None:
    """Oldest first, at most so many; then another may take it, and the first holder is fenced."""
    await _receive(world, "a", "b", "c")
    first = await world.claim(limit=2)
    assert [claim.provider_id for claim in first] == ["a", "b"]
    assert (first[0].attempt, first[0].epoch, first[0].body) == (1, 1, b'{"ok":true}')
    assert first[0].headers == {"content-type": "application/json"}
    assert [claim.provider_id for claim in await world.claim()] == ["c"]
    assert await world.claim(at(59)) == []
    again = await world.claim(at(60))
    assert [claim.provider_id for claim in again] == ["a", "b", "c"]
    assert (again[0].attempt, again[0].epoch) == (2, 2)
    await refused(FencedError, world.store.finish_delivery(done(first[0], emission("x", "x"))))
    await refused(FencedError, world.store.fail_delivery(_failure(first[0])))
    assert await world.store.record("acme", "customer", "x") is None
    await world.store.finish_delivery(done(again[0], emission("x", "x")))


async def what_is_claimed_is_as_it_came(world: World) -> None:
    """Each with its own body and headers, whatever bytes these are."""
    connection = await _receive(world)
    bodies = [b"", bytes(range(256)), b"\x00", "\U0001f600é".encode()[1:], b"", b'{"a":1}', b"\xff\xfe\x00" * 3000]
    given = [
        new_delivery(connection.id, f"d{place}", body=body, headers=f'{{"x":"{place} é"}}'.encode())
        for place, body in enumerate(bodies)
    ]
    await world.store.append_deliveries([*given, new_delivery(connection.id, "untyped", event_type=None)])
    claims = await world.claim()
    assert [claim.body for claim in claims[:-1]] == bodies
    assert [claim.headers["x"] for claim in claims[:-1]] == [f"{place} é" for place in range(len(bodies))]
    assert [claim.provider_id for claim in claims[:-1]] == [one.provider_id for one in given]
    assert (claims[-1].event_type, claims[0].received_at) == (None, START)


async def a_claim_is_bounded_by_the_size_of_its_bodies(world: World) -> None:
    """Those that fit together; one that is larger than that comes alone."""
    connection = await _receive(world)
    sizes = {"a": 40, "b": 60, "c": 1, "d": 101, "e": 1}
    given = [new_delivery(connection.id, name, body=b"." * size) for name, size in sizes.items()]
    await world.store.append_deliveries(given)
    with patch.object(lease, "CLAIM_BYTES_MAX", 100):
        claims = [await world.claim() for _ in range(4)]
    assert [[claim.provider_id for claim in one] for one in claims] == [["a", "b"], ["c"], ["d"], ["e"]]


async def readmitted_claims_may_be_taken_at_once(world: World) -> None:
    """A process that starts after a crash need not wait for the leases of the one before, which is fenced."""
    await _receive(world, "a")
    (before,) = await world.claim()
    assert await world.claim() == []
    await world.store.readmit(at(1))
    (after,) = await world.claim(at(1))
    assert (after.id, after.epoch) == (before.id, 2)
    await refused(FencedError, world.store.finish_delivery(done(before, emission("x", "x"))))


async def deliveries_that_a_clock_ahead_put_off_are_brought_back(world: World) -> None:
    """Those received, those to be tried again and those that were claimed; a claim that ends earlier is left."""
    connection = await _receive(world)
    await world.deliver(connection.id, "failed", "held", seconds=7200)
    failed, held = await world.claim(at(7200))
    await world.deliver(connection.id, "early", seconds=-60)
    (early,) = await world.claim(at(-30))
    await world.store.fail_delivery(_failure(failed, due_at=at(7300)))
    await world.deliver(connection.id, "received", seconds=7200)
    assert await world.claim(at(10)) == []
    await world.store.bring_back(at(10), lease_seconds=LEASE_SECONDS)
    claims = [await world.claim(at(seconds)) for seconds in (10, 30, 69, 70)]
    assert [[claim.provider_id for claim in one] for one in claims] == [
        ["failed", "received"], ["early"], [], ["failed", "held", "received"]
    ]  # fmt: skip
    await refused(FencedError, world.store.finish_delivery(done(held)))
    await refused(FencedError, world.store.finish_delivery(done(early)))


async def racing_claims_share_nothing(world: World) -> None:
    """Each delivery goes to one of them."""
    await _receive(world, *(f"e{number}" for number in range(40)))
    claims = await asyncio.gather(*(world.claim(limit=10) for _ in range(6)))
    taken = [claim.id for batch in claims for claim in batch]
    assert len(taken) == len(set(taken)) == 40


async def a_paused_connection_is_not_dispatched(world: World) -> None:
    """Its deliveries are still stored."""
    connection = await _receive(world, "a")
    await world.store.pause_connection(connection.id, reason="x", needs_attention=True, at=START)
    await world.deliver(connection.id, "b")
    assert await world.claim() == []
    await world.store.resume_connection(connection.id, at=START)
    assert len(await world.claim()) == 2


async def an_ordered_connection_gives_one_at_a_time(world: World) -> None:
    """None while its oldest is claimed or waits for its retry."""
    connection = await _receive(world, "a", "b")
    other = await world.connect("other")
    await world.deliver(other.id, "x", "y")
    first = await world.claim(ordered_connections=[connection.id])
    assert [claim.provider_id for claim in first] == ["a", "x", "y"]
    assert await world.claim(ordered_connections=[connection.id]) == []
    await world.store.fail_delivery(_failure(first[0], due_at=at(50)))
    assert await world.claim(at(49), ordered_connections=[connection.id]) == []
    (again,) = await world.claim(at(50), ordered_connections=[connection.id])
    await world.store.finish_delivery(done(again))
    assert [one.provider_id for one in await world.claim(at(50), ordered_connections=[connection.id])] == ["b"]


async def emissions_and_done_commit_together(world: World) -> None:
    """Over several streams; the versions name their delivery."""
    await _receive(world, "a")
    (claim,) = await world.claim()
    result = await world.store.finish_delivery(
        done(
            claim,
            emission("c1", "x", key="evt"),
            emission("e1", "y", type="event", stream="events"),
            now=at(5),
            quarantined=[broken("bad")],
        )
    )
    assert result.outcomes == [Outcome.CREATED, Outcome.CREATED]
    stored = await world.store.delivery(claim.id)
    assert stored is not None
    assert (stored.state, stored.ignored, stored.finished_at, stored.attempts) == (DeliveryState.DONE, False, at(5), 1)
    assert (stored.counts.created, stored.counts.quarantined, stored.due_at) == (2, 1, None)
    versions = await world.store.versions_of_delivery(claim.id)
    assert [(one.type, one.stream, one.origin) for one in versions] == [
        ("event", "events", "webhook"),
        ("customer", "customers", "webhook"),
    ]
    assert {(one.delivery_id, one.run_id, one.page) for one in versions} == {(claim.id, None, None)}
    states = {state.stream: state for state in await world.store.streams(at=at(10))}
    assert states["customers"].last_record_at == states["events"].last_record_at == at(5)
    assert (states["customers"].last_success_at, states["events"].last_success_at) == (None, at(5))
    assert states["events"].counts_24h.created == 1


async def an_ignored_delivery_is_done(world: World) -> None:
    """No stream wanted it: accepted and told apart."""
    await _receive(world, "a")
    (claim,) = await world.claim()
    await world.store.finish_delivery(done(claim, now=at(3)))
    stored = await world.store.delivery(claim.id)
    assert stored is not None
    assert (stored.state, stored.ignored) == (DeliveryState.DONE, True)
    assert (await world.state(stream="events")).last_success_at == at(3)


async def finishing_many_isolates_each(world: World) -> None:
    """Each all or nothing by itself: a retaken claim does not harm the others."""
    await _receive(world, "a", "b", "c")
    claims = await world.claim()
    (retaken,) = await world.claim(at(60), limit=1)
    commits = [done(claim, emission(claim.provider_id, "x", key=claim.provider_id)) for claim in claims]
    results = await world.store.finish_deliveries(commits)
    assert isinstance(results[0], FencedError)
    assert [isinstance(result, CommitResult) for result in results[1:]] == [True, True]
    assert await world.store.record("acme", "customer", "a") is None
    assert (await world.current("b")).version == (await world.current("c")).version == 1
    assert (await world.state()).counts_24h.created == 2
    again = await world.store.finish_delivery(done(retaken, emission("a", "x", key="a")))
    assert again.outcomes == [Outcome.CREATED]
    assert await world.store.finish_deliveries([]) == []


async def finishing_twice_counts_once(world: World) -> None:
    """The answer was lost: the same commit again changes nothing."""
    await _receive(world, "a")
    (claim,) = await world.claim()
    commit = done(claim, emission("c", "x", key="evt"))
    await world.store.finish_delivery(commit)
    again = await world.store.finish_delivery(commit)
    assert again.outcomes == [Outcome.DUPLICATE]
    stored = await world.store.delivery(claim.id)
    assert stored is not None
    assert (stored.counts.created, stored.counts.duplicate) == (1, 0)


async def a_failed_attempt_waits_or_dies(world: World) -> None:
    """Invariant 5: pending again later, or dead with its traceback."""
    await _receive(world, "a")
    (claim,) = await world.claim()
    await world.store.fail_delivery(_failure(claim, at=at(5)))
    stored, state = await world.store.delivery(claim.id), await world.state(stream="events")
    assert stored is not None
    assert (stored.state, stored.due_at, stored.finished_at) == (DeliveryState.PENDING, at(50), None)
    assert (state.last_attempt_at, state.last_error_code, state.consecutive_failures) == (at(5), "retry.provider", 0)
    assert await world.claim(at(49)) == []
    (again,) = await world.claim(at(50))
    assert (again.attempt, again.is_replay) == (2, False)
    await world.store.fail_delivery(
        _failure(again, state=DeliveryState.DEAD, due_at=None, at=at(51), traceback="line 1", error_code="stop.handler")
    )
    stored = await world.store.delivery(claim.id)
    assert stored is not None
    assert (stored.state, stored.finished_at, stored.attempts) == (DeliveryState.DEAD, at(51), 2)
    assert stored.due_at is None
    assert (stored.error_code, stored.error, stored.traceback) == ("stop.handler", "503", "line 1")
    assert await world.claim(at(9999)) == []
    assert await world.store.pending_deliveries() == 0
    state = await world.state(stream="events")
    assert (state.dead, state.pending, state.last_error, state.consecutive_failures) == (1, 0, "503", 1)


async def replay_changes_nothing_that_was_right(world: World) -> None:
    """Invariant 6: done and dead ones are dispatched anew, with a new budget of attempts and the same effect."""
    await _receive(world, "a", "b")
    claims = await world.claim()
    await world.store.finish_delivery(done(claims[0], emission("c", "x", key="evt")))
    await world.store.fail_delivery(_failure(claims[1], state=DeliveryState.DEAD, due_at=None))
    assert await world.store.replay_deliveries(DeliveryFilter(), at=at(5)) == 2
    again = await world.claim(at(5))
    assert [(claim.attempt, claim.epoch, claim.is_replay) for claim in again] == [(1, 2, True), (1, 2, True)]
    result = await world.store.finish_delivery(done(again[0], emission("c", "x", key="evt"), origin="replay"))
    assert result.outcomes == [Outcome.DUPLICATE]
    assert await world.history("c") == [(1, "x", False)]
    await refused(FencedError, world.store.finish_delivery(done(claims[0], emission("d", "x"))))


async def replay_leaves_a_claimed_delivery_to_its_holder(world: World) -> None:
    """What is being dispatched is not dispatched beside itself."""
    await _receive(world, "a")
    (claim,) = await world.claim()
    assert await world.store.replay_deliveries(DeliveryFilter(), at=at(5)) == 1
    assert await world.claim(at(5)) == []
    await world.store.finish_delivery(done(claim, emission("c", "x")))


async def a_replay_can_be_followed_and_what_waits_put_back(world: World) -> None:
    """What waits is done or dead as before; what was dispatched again, is claimed, or waited before, goes its way."""
    connection = await _receive(world, "done", "ignored", "dead", "again", "claimed")
    claims = {claim.provider_id: claim for claim in await world.claim()}
    for name in ("done", "again", "claimed"):
        await world.store.finish_delivery(done(claims[name], emission(name, "x", key=name)))
    await world.store.finish_delivery(msgspec.structs.replace(done(claims["ignored"]), ignored=True))
    await world.store.fail_delivery(_failure(claims["dead"], state=DeliveryState.DEAD, due_at=None))
    ids = {name: claim.id for name, claim in claims.items()}
    assert await world.store.replay_deliveries(DeliveryFilter(ids=[ids["again"], ids["claimed"]]), at=at(5)) == 2
    first, second = await world.claim(at(6))
    await world.deliver(connection.id, "waiting")
    await world.store.finish_delivery(done(first, emission("again", "x", key="again")))
    assert await world.store.replay_deliveries(DeliveryFilter(), at=at(10)) == 6
    which = DeliveryFilter(replayed_at=at(10))
    assert await world.store.count_deliveries(which) == 6
    assert await world.store.count_deliveries(replace(which, state=DeliveryState.PENDING)) == 6
    assert await world.store.count_deliveries(DeliveryFilter(replayed_at=at(5))) == 0, "the last replay counts"
    assert await world.store.cancel_replay(which, at=at(11)) == 4
    states = {one.provider_id: (one.state, one.ignored) for one in await world.store.deliveries(which)}
    assert states == {
        "done": (DeliveryState.DONE, False),
        "ignored": (DeliveryState.DONE, True),
        "dead": (DeliveryState.DEAD, False),
        "again": (DeliveryState.DONE, False),
        "claimed": (DeliveryState.PENDING, False),
        "waiting": (DeliveryState.PENDING, False),
    }
    found = await world.store.delivery(ids["dead"])
    assert found is not None
    assert (found.error_code, found.error, found.finished_at) == ("ended.cancelled", REPLAY_CANCELLED, at(11))
    assert await world.store.cancel_replay(which, at=at(12)) == 0
    await world.store.finish_delivery(done(second, emission("claimed", "x", key="claimed")))
    assert [one.provider_id for one in await world.claim(at(13))] == ["waiting"]


async def filters_select_the_same_everywhere(world: World) -> None:
    """Listed, counted and replayed by every given field."""
    connection = await _receive(world)
    other = await world.connect("other")
    types = {"a": "created", "b": "updated", "c": None}
    await world.store.append_deliveries(
        [new_delivery(connection.id, name, 10 * index, event_type=types[name]) for index, name in enumerate(types)]
    )
    await world.deliver(other.id, "d", seconds=30)
    (claim,) = await world.claim(limit=1)
    await world.store.fail_delivery(_failure(claim, state=DeliveryState.DEAD, due_at=None, error_code="stop.handler"))
    expected = {
        "": DeliveryFilter(),
        "abc": DeliveryFilter(connection="acme"),
        "d": DeliveryFilter(connection="other"),
        "a": DeliveryFilter(state=DeliveryState.DEAD),
        "bcd": DeliveryFilter(state=DeliveryState.PENDING),
        "b": DeliveryFilter(event_type="updated"),
        "bc": DeliveryFilter(received_from=at(10), received_to=at(30)),
        "ac": DeliveryFilter(ids=[claim.id, claim.id + 2]),
    }
    for names, which in expected.items():
        listed = await world.store.deliveries(which)
        assert sorted(one.provider_id for one in listed) == sorted(names or "abcd")
        assert await world.store.count_deliveries(which) == len(names or "abcd")
    assert await world.store.count_deliveries(DeliveryFilter(ids=[])) == 0
    dead = DeliveryFilter(error_code="stop.handler", state=DeliveryState.DEAD, connection="acme")
    assert await world.store.replay_deliveries(dead, at=START) == 1
    newest = await world.store.deliveries(DeliveryFilter(), limit=2)
    assert [one.provider_id for one in newest] == ["d", "c"]
    assert [one.provider_id for one in await world.store.deliveries(DeliveryFilter(), after=newest[1].id)] == ["b", "a"]


async def rejections_are_counted_by_hour_and_reason(world: World) -> None:
    """Invariant 11: counted with the latest sample, never dispatchable."""
    connection = await _receive(world)
    for seconds, reason in ((0, "bad signature"), (10, "bad signature"), (20, "too old"), (3700, "bad signature")):
        await world.store.reject_delivery(connection.id, reason=reason, at=at(seconds), sample=f"sample {seconds}")
    rejections = await world.store.rejections(connection="acme")
    assert [(one.reason, one.hour, one.count, one.sample) for one in rejections] == [
        ("bad signature", at(3600), 1, "sample 3700"),
        ("too old", START, 1, "sample 20"),
        ("bad signature", START, 2, "sample 10"),
    ]
    assert rejections[2].last_at == at(10)
    assert await world.store.rejections(connection="nobody") == []
    assert await world.store.pending_deliveries() == 0
    assert (await world.state(stream="events", now=at(3800))).rejected_24h == 4
    await refused(NotFoundError, world.store.reject_delivery(999, reason="x", at=START, sample=""))


async def webhook_streams_show_their_connections_deliveries(world: World) -> None:
    """Last one, those of the day, pending and dead."""
    connection = await _receive(world, "a", "b", "a")
    await world.deliver(connection.id, "a", seconds=40)
    state = await world.state(stream="events", now=at(60))
    assert (state.last_delivery_at, state.deliveries_24h, state.pending, state.dead) == (at(40), 2, 2, 0)
    assert (await world.state(stream="customers")).last_delivery_at is None
    assert (await world.state(stream="events", now=at(26 * 3600))).deliveries_24h == 0


async def drift_is_what_polls_found_and_webhooks_missed(world: World) -> None:
    """A share of a day's changes; unknown where no webhook came."""
    await _receive(world, "a")
    await world.ingest(emission("a", "x", 1))
    assert (await world.state(stream="customers")).drift is None
    (claim,) = await world.claim()
    changed = [emission(name, "y", 2, key=name) for name in ("a", "b", "c")]
    await world.store.finish_delivery(done(claim, *changed))
    assert (await world.state(stream="customers", now=at(60))).drift == 0.25
    assert (await world.state(stream="customers", now=at(26 * 3600))).drift is None
