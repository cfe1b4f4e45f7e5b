"""Connections, secrets, keys, the audit and retention."""

from __future__ import annotations

import asyncio

from headwater.delivery import DeliveryFilter
from headwater.errors import NotFoundError, UsageError
from headwater.record import Outcome
from headwater.store import Store
from headwater.testing.clock import START
from headwater.testing.conformance.world import World, at, broken, done, emission, new_delivery, refused


async def connections_are_kept(world: World) -> None:
    """By key, with settings and tenant; a taken key is refused."""
    store = world.store
    added = await store.add_connection(
        key="b", connector="shop", tenant="t", endpoint_id="e1", settings={"a": [1, "é"]}, secrets={"k": "c"}, at=START
    )
    await world.connect("a")
    assert (added.key, added.connector, added.tenant, added.endpoint_id) == ("b", "shop", "t", "e1")
    assert (added.settings, added.created_at, added.paused_at) == ({"a": [1, "é"]}, START, None)
    assert await store.connection("b") == added
    assert await store.connection("c") is None
    assert [one.key for one in await store.connections()] == ["a", "b"]
    await refused(UsageError, world.connect("a"))
    await store.update_settings(added.id, {"z": 1})
    await store.pause_connection(added.id, reason="why", needs_attention=True, at=at(5))
    paused = await store.connection("b")
    assert paused is not None
    assert (paused.settings, paused.paused_at, paused.paused_reason) == ({"z": 1}, at(5), "why")
    assert paused.needs_attention
    for work in (
        store.update_settings(999, {}),
        store.remove_connection(999),
        store.pause_connection(999, reason="", needs_attention=False, at=START),
    ):
        await refused(NotFoundError, work)


async def _fields(store: Store, connection_id: int, seconds: float) -> list[tuple[str, str]]:
    return [(one.field, one.ciphertext) for one in await store.secrets(connection_id, at=at(seconds))]


async def secrets_rotate_with_overlap(world: World) -> None:
    """Newest first; the one before is valid until its end, or goes at once."""
    store, connection = world.store, await world.connect()
    await store.put_secret(connection.id, name="key", ciphertext="one", keep_previous_until=None)
    await store.put_secret(connection.id, name="key", ciphertext="two", keep_previous_until=at(100))
    await store.put_secret(connection.id, name="other", ciphertext="x", keep_previous_until=None)
    assert await _fields(store, connection.id, 99) == [("key", "two"), ("key", "one"), ("other", "x")]
    assert await _fields(store, connection.id, 100) == [("key", "two"), ("other", "x")]
    assert [one.expires_at for one in await store.secrets(connection.id, at=START)] == [None, at(100), None]
    await store.put_secret(connection.id, name="key", ciphertext="three", keep_previous_until=at(500))
    assert ("key", "one") not in await _fields(store, connection.id, 101)
    await store.put_secret(connection.id, name="key", ciphertext="four", keep_previous_until=None)
    assert await _fields(store, connection.id, 0) == [("key", "four"), ("other", "x")]


async def ciphertexts_are_replaced_if_they_still_stand(world: World) -> None:
    """A change of the key ring does not undo a rotation that came between; expired ones are listed too."""
    store, connection = world.store, await world.connect()
    await store.put_secret(connection.id, name="key", ciphertext="one", keep_previous_until=None)
    await store.put_secret(connection.id, name="key", ciphertext="two", keep_previous_until=at(-1))
    listed = [(id, secret.ciphertext) for id, secret in await store.all_secrets()]  # noqa: A001  as the store says
    assert listed == [(connection.id, "two"), (connection.id, "one")]
    changes = [(connection.id, "key", "two", "TWO"), (connection.id, "key", "gone", "GONE")]
    assert await store.replace_ciphertexts(changes) == 1
    assert await _fields(store, connection.id, 0) == [("key", "TWO")]


async def removing_a_connection_removes_what_came_through_it(world: World) -> None:
    """And nothing of another; no sequence of the feed is used twice, and its end does not go back."""
    gone, stays = await world.connect("gone"), await world.connect("stays")
    await world.ingest(emission("a", "x", key="evt"), connection="stays")
    ref = await world.admit("gone")
    await world.commit(ref, emission("a", "x", key="evt"), quarantined=[broken("b")])
    await world.deliver(gone.id, "evt")
    await world.deliver(stays.id, "evt")
    high = (await world.store.changes(after=0)).high_water
    await world.store.remove_connection(gone.id)
    assert [record.connection for record in await world.store.records()] == ["stays"]
    assert [one.connection for one in await world.store.runs()] == ["stays"]
    assert [one.connection for one in await world.store.deliveries(DeliveryFilter())] == ["stays"]
    assert await world.store.quarantined(state=None) == []
    assert list(await world.store.populations()) == [("stays", "customer", 1)]
    feed = await world.store.changes(after=0)
    assert (len(feed.changes), feed.high_water) == (1, high)
    lost, kept = await asyncio.gather(
        world.deliver(gone.id, "late"), world.deliver(stays.id, "late"), return_exceptions=True
    )
    assert isinstance(lost, NotFoundError)
    assert lost.message == "The connection of the delivery is gone."
    assert isinstance(kept, list)
    again = await world.connect("gone")
    assert again.id != gone.id
    assert await world.ingest(emission("a", "x", key="evt"), connection="gone") == [Outcome.CREATED]
    assert (await world.current("a", "gone")).current.sequence > high


async def streams_are_listed_by_connection_tenant_and_key(world: World) -> None:
    """In the order of connection and stream."""
    await world.connect("b", streams=("y", "x"), tenant="t")
    await world.connect("a", streams=("x",))
    store = world.store
    found = [(state.connection, state.stream) for state in await store.streams(at=START)]
    assert found == [("a", "x"), ("b", "x"), ("b", "y")]
    assert [state.connection for state in await store.streams(at=START, tenant="t")] == ["b", "b"]
    assert len(await store.streams(at=START, stream="x")) == 2
    (state,) = await store.streams(at=START, connection="a")
    assert (state.connector, state.tenant, state.mode, state.timezone) == ("shop", None, "poll", "UTC")
    await refused(NotFoundError, store.pause_stream(999, at=START))


async def api_keys_are_found_by_hash_until_they_expire(world: World) -> None:
    """The secret itself is not there."""
    key = await world.store.add_api_key(
        name="ci", hash=b"h" * 32, scopes=["read", "write"], tenant="t", at=START, expires_at=at(100)
    )
    assert (key.name, list(key.scopes), key.tenant, key.created_at) == ("ci", ["read", "write"], "t", START)
    assert await world.store.api_key(b"h" * 32, at=at(99)) == key
    assert await world.store.api_key(b"h" * 32, at=at(100)) is None
    assert await world.store.api_key(b"x" * 32, at=START) is None


async def acts_are_written_down(world: World) -> None:
    """Newest first, page by page."""
    for number in range(3):
        await world.store.audit(at=at(number), actor="ann", act="pause", target=f"s{number}", detail={"n": number})
    log = await world.store.audit_log(limit=2)
    assert [(entry.target, entry.detail, entry.at) for entry in log] == [
        ("s2", {"n": 2}, at(2)),
        ("s1", {"n": 1}, at(1)),
    ]
    assert [entry.target for entry in await world.store.audit_log(after=log[-1].id)] == ["s0"]


async def purging_spares_what_still_waits(world: World) -> None:
    """Finished deliveries go with their keys, old runs with their pages; records, versions and the pending stay."""
    connection = await world.connect()
    await world.deliver(connection.id, "old", "replayed", "fresh")
    claims = {claim.provider_id: claim for claim in await world.claim()}
    for name, seconds in (("old", 10), ("replayed", 10), ("fresh", 500)):
        await world.store.finish_delivery(done(claims[name], emission(name, "x", key=name), now=at(seconds)))
    await world.store.replay_deliveries(DeliveryFilter(ids=[claims["replayed"].id]), at=at(20))
    await world.ingest(emission("polled", "x"), now=at(10))
    running = await world.admit()
    purged = await world.store.purge(deliveries_before=at(100), runs_before=at(100))
    assert (purged.deliveries, purged.runs, purged.keys) == (1, 1, 1)
    left = await world.store.deliveries(DeliveryFilter())
    assert sorted(one.provider_id for one in left) == ["fresh", "replayed"]
    assert [run.id for run in await world.store.runs()] == [running.run_id]
    assert len(await world.store.records()) == 4
    (again,) = await world.claim(at(200))
    result = await world.store.finish_delivery(done(again, emission("replayed", "x", key="replayed")))
    assert result.outcomes == [Outcome.DUPLICATE]
    (appended,) = await world.store.append_deliveries([new_delivery(connection.id, "old")])
    assert not appended.duplicate


async def a_sound_store_finds_itself_sound(world: World) -> None:
    """Every finding is a fact, and all are well."""
    findings = await world.store.examine()
    assert findings
    assert [finding.name for finding in findings if not finding.ok] == []
    assert all(finding.fact for finding in findings)
