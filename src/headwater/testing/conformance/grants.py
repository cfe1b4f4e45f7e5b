"""OAuth grants: a state is taken once, and of all who would change a token one does."""

from __future__ import annotations

import asyncio

from headwater.grant import Authorization
from headwater.testing.conformance.world import World, at

STATE, NAME = b"s" * 32, "oauth:token"


async def an_authorization_is_taken_once_and_in_time(world: World) -> None:
    """By one of two callbacks; not after its time; not when its connection is gone."""
    acme = await world.connect()
    begun = Authorization(connection_id=acme.id, sealed="v1.sealed")
    await world.store.begin_authorization(STATE, begun, at=at(0), expires_at=at(60))
    both = await asyncio.gather(*[world.store.take_authorization(STATE, at=at(1)) for _ in range(2)])
    assert sorted(one is None for one in both) == [False, True]
    assert next(one for one in both if one) == begun
    await world.store.begin_authorization(STATE, begun, at=at(2), expires_at=at(60))
    assert await world.store.take_authorization(STATE, at=at(60)) is None
    await world.store.begin_authorization(STATE, begun, at=at(61), expires_at=at(120))
    await world.store.remove_connection(acme.id)
    assert await world.store.take_authorization(STATE, at=at(62)) is None


async def a_token_is_changed_by_one_holder_at_a_time(world: World) -> None:
    """Whose lease ran out, or was taken over, changes nothing more."""
    acme = await world.connect()

    async def lease(seconds: float, *, takes_over: bool = False) -> int | None:
        return await world.store.lease_grant(acme.id, at=at(seconds), lease_seconds=30, takes_over=takes_over)

    async def token() -> list[str]:
        return [one.ciphertext for one in await world.store.secrets(acme.id, at=at(0)) if one.field == NAME]

    first, second = await asyncio.gather(lease(0), lease(0))
    epoch = first or second
    assert epoch is not None
    assert None in (first, second)
    assert await world.store.put_grant(acme.id, epoch=epoch, name=NAME, ciphertext="one")
    assert await token() == ["one"]
    slow = await lease(1)
    assert slow is not None
    assert await lease(30) is None
    quick = await lease(31)
    assert quick is not None
    assert not await world.store.put_grant(acme.id, epoch=slow, name=NAME, ciphertext="zombie")
    assert await world.store.put_grant(acme.id, epoch=quick, name=NAME, ciphertext="two")
    assert await token() == ["two"]
    held = await lease(40)
    over = await lease(41, takes_over=True)
    assert held is not None
    assert over is not None
    await world.store.release_grant(acme.id, epoch=held)
    assert await lease(42) is None, "it was another's already"
    assert await world.store.put_grant(acme.id, epoch=over, name=NAME, ciphertext=None)
    assert await token() == []
