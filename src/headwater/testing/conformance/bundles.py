"""Bundles, and which of each connector runs."""

from __future__ import annotations

import asyncio
from typing import Any

from headwater.deployment import Deployment, StoredBundle
from headwater.errors import ConflictError, NotFoundError
from headwater.store import Store
from headwater.testing.conformance.world import World, at, refused


def _bundle(hash: str, connector: str = "shop", **overrides: Any) -> StoredBundle:
    fields: dict[str, Any] = {
        "hash": hash, "connector": connector, "version": "0.1.0", "outline": '{"é":1}', "archive": b"HWB1\x00\xff",
        "archive_bytes": 6, "created_at": at(), "actor": "ci",
    }  # fmt: skip
    return StoredBundle(**{**fields, **overrides})


async def _activate(store: Store, hash: str, expected: str | None, **overrides: Any) -> Deployment:
    words: dict[str, Any] = {"act": "deploy", "plan": [], "actor": "ci", "at": at(), **overrides}
    return await store.activate_bundle(hash, expected=expected, **words)


async def bundles_are_kept_by_their_hash(world: World) -> None:
    """Once each, whole alone and without archives in lists, newest first."""
    store = world.store
    assert await store.add_bundle(_bundle("a"))
    assert not await store.add_bundle(_bundle("a", version="9", actor="else"))
    assert await store.add_bundle(_bundle("b", version="0.2.0", created_at=at(1)))
    assert await store.add_bundle(_bundle("c", connector="other", created_at=at(2)))
    assert await store.bundle("a") == _bundle("a")
    assert await store.bundle("x") is None
    assert [(one.hash, one.archive, one.archive_bytes) for one in await store.bundles()] == [
        ("c", b"", 6),
        ("b", b"", 6),
        ("a", b"", 6),
    ]
    audit = await store.audit_log()
    assert [(one.act, one.target, one.actor, one.at) for one in audit] == [
        ("bundles.add", "other", "ci", at(2)),
        ("bundles.add", "shop", "ci", at(1)),
        ("bundles.add", "shop", "ci", at()),
    ]
    assert audit[2].detail == {"bundle": "a", "version": "0.1.0"}
    assert [one.hash for one in await store.bundles(connector="shop", limit=1)] == ["b"]
    assert [one.hash for one in await store.bundles(connector="shop", after="b")] == ["a"]
    assert await store.active_bundles() == {}


async def an_activation_compares_and_sets(world: World) -> None:
    """The history, the audit and what runs change together, or not at all."""
    store = world.store
    for bundle in (_bundle("a"), _bundle("b", version="0.2.0"), _bundle("c", connector="other")):
        await store.add_bundle(bundle)
    first = await _activate(store, "a", None, plan=[{"area": "stream", "name": "é"}], at=at(1))
    assert (first.connector, first.bundle, first.version, first.previous) == ("shop", "a", "0.1.0", None)
    assert (first.act, first.activated_at, first.actor) == ("deploy", at(1), "ci")
    assert first.plan == [{"area": "stream", "name": "é"}]
    await refused(ConflictError, _activate(store, "b", None))
    await refused(ConflictError, _activate(store, "b", "c"))
    await refused(NotFoundError, _activate(store, "x", "a"))
    assert await store.active_bundles() == {"shop": "a"}
    assert await store.deployments() == [first]
    second = await _activate(store, "b", "a", at=at(2), actor="ann")
    other = await _activate(store, "c", None, at=at(3))
    third = await _activate(store, "a", "b", act="rollback", at=at(4))
    assert (second.previous, third.previous, third.act, third.version) == ("a", "b", "rollback", "0.1.0")
    assert await store.active_bundles() == {"shop": "a", "other": "c"}
    assert await store.deployments() == [third, other, second, first]
    assert await store.deployments(connector="shop", limit=2) == [third, second]
    assert await store.deployments(connector="shop", after=second.id) == [first]
    audit = [one for one in await store.audit_log() if one.act != "bundles.add"]
    assert [(one.act, one.target, one.actor, one.at) for one in audit] == [
        ("rollback", "shop", "ci", at(4)),
        ("deploy", "other", "ci", at(3)),
        ("deploy", "shop", "ann", at(2)),
        ("deploy", "shop", "ci", at(1)),
    ]
    assert audit[3].detail == {
        "bundle": "a",
        "version": "0.1.0",
        "previous": None,
        "plan": [{"area": "stream", "name": "é"}],
    }


async def activating_what_is_active_is_no_second_activation(world: World) -> None:
    """Whoever lost the answer asks again, and gets it."""
    store = world.store
    await store.add_bundle(_bundle("a"))
    first = await _activate(store, "a", None)
    assert await _activate(store, "a", None, at=at(5)) == first
    assert await _activate(store, "a", "z", at=at(5)) == first
    assert [one.act for one in await store.audit_log()] == ["deploy", "bundles.add"]


async def of_two_activations_one_wins(world: World) -> None:
    """Both saw the same bundle run; the other is told."""
    store = world.store
    for name in "abc":
        await store.add_bundle(_bundle(name))
    for expected in (None, "a"):
        wanted = "ab" if expected is None else "bc"
        results = await asyncio.gather(*(_activate(store, name, expected) for name in wanted), return_exceptions=True)
        won = [one for one in results if isinstance(one, Deployment)]
        lost = [one for one in results if isinstance(one, ConflictError)]
        assert (len(won), len(lost)) == (1, 1), results
        assert await store.active_bundles() == {"shop": won[0].bundle}
        if won[0].bundle != "a" and expected is None:
            await _activate(store, "a", won[0].bundle)
