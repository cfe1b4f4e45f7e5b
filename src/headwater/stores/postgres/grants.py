"""OAuth: authorizations that were begun, and the lease under which a token is changed."""

from __future__ import annotations

from datetime import datetime, timedelta

from headwater.clock import to_micros
from headwater.grant import Authorization
from headwater.stores.postgres.connections import drop_secret, put_secret
from headwater.stores.postgres.database import Connection, execute, queries, row

_sql = queries("grants.sql")


async def begin_authorization(
    db: Connection, state: bytes, authorization: Authorization, *, at: datetime, expires_at: datetime
) -> None:
    """See `GrantStore.begin_authorization`."""
    await execute(db, _sql["forget"], at=to_micros(at))
    await execute(
        db,
        _sql["begin"],
        state=state,
        connection_id=authorization.connection_id,
        sealed=authorization.sealed,
        expires_at=to_micros(expires_at),
    )


async def take_authorization(db: Connection, state: bytes, *, at: datetime) -> Authorization | None:
    """See `GrantStore.take_authorization`."""
    found = await row(db, _sql["take"], state=state)
    if found is None or found["expires_at"] <= to_micros(at):
        return None
    return Authorization(connection_id=found["connection_id"], sealed=found["sealed"])


async def lease_grant(
    db: Connection, connection_id: int, *, at: datetime, lease_seconds: float, takes_over: bool = False
) -> int | None:
    """See `GrantStore.lease_grant`."""
    until = to_micros(at + timedelta(seconds=lease_seconds))
    asked = {"connection_id": connection_id, "until": until, "at": to_micros(at), "takes_over": int(takes_over)}
    found = await row(db, _sql["lease"], **asked)
    return None if found is None else int(found["epoch"])


async def put_grant(db: Connection, connection_id: int, *, epoch: int, name: str, ciphertext: str | None) -> bool:
    """See `GrantStore.put_grant`."""
    if not await execute(db, _sql["release"], connection_id=connection_id, epoch=epoch):
        return False
    if ciphertext is None:
        await drop_secret(db, connection_id, name=name)
    else:
        await put_secret(db, connection_id, name=name, ciphertext=ciphertext, keep_previous_until=None)
    return True


async def release_grant(db: Connection, connection_id: int, *, epoch: int) -> None:
    """See `GrantStore.release_grant`."""
    await execute(db, _sql["release"], connection_id=connection_id, epoch=epoch)
