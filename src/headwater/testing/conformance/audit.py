"""The audit: what was done, by whom, to what."""

from __future__ import annotations

from headwater.intention import AuditFilter
from headwater.testing.conformance.world import World, at


async def acts_are_listed_newest_first_and_found_by_who_what_and_when(world: World) -> None:
    """Every filter, together and alone; nothing in a word is a pattern."""
    store = world.store
    acts = [
        ("ann", "keys.create", "ci"),
        ("bob", "keys.revoke", "ci"),
        ("ann", "keysmith", "c%"),
        ("ann", "runs.cancel", "run 7"),
    ]
    for number, (actor, act, target) in enumerate(acts):
        await store.audit(at=at(number), actor=actor, act=act, target=target, detail={"n": number})

    async def found(**words: object) -> list[str]:
        return [one.act for one in await store.audit_log(AuditFilter(**words))]  # type: ignore[arg-type]

    assert await found() == ["runs.cancel", "keysmith", "keys.revoke", "keys.create"]
    assert await found(actor="ann") == ["runs.cancel", "keysmith", "keys.create"]
    assert await found(act="keys") == ["keys.revoke", "keys.create"]
    assert await found(act="keys.create") == ["keys.create"]
    assert await found(target="c") == ["keysmith", "keys.revoke", "keys.create"]
    assert await found(target="c%") == ["keysmith"]
    assert await found(since=at(1), until=at(3)) == ["keysmith", "keys.revoke"]
    assert await found(actor="ann", act="keys", target="ci", since=at()) == ["keys.create"]
    (newest,) = await store.audit_log(limit=1)
    assert (newest.at, newest.actor, newest.target, newest.detail) == (at(3), "ann", "run 7", {"n": 3})
    assert [one.act for one in await store.audit_log(after=newest.id, limit=2)] == ["keysmith", "keys.revoke"]
