"""OAuth: authorizations that were begun, and the lease under which a token is changed."""

from __future__ import annotations

from datetime import datetime, timedelta

import apsw

from headwater.clock import to_micros
from headwater.grant import Authorization
from headwater.stores.sqlite.connections import drop_secret, put_secret
from headwater.stores.sqlite.database import execute, queries, row

_sql = queries("grants.sql")


def begin_authorization(
    db: apsw.Connection, state: bytes, authorization: Authorization, *, at: datetime, expires_at: datetime
) -> None:
    """See `GrantStore.begin_authorization`."""
    execute(db, _sql["forget"], at=to_micros(at))
    execute(
        db,
        _sql["begin"],
        state=state,
        connection_id=authorization.connection_id,
        sealed=authorization.sealed,
        expires_at=to_micros(expires_at),
    )


def take_authorization(db: apsw.Connection, state: bytes, *, at: datetime) -> Authorization | None:
    """See `GrantStore.take_authorization`."""
    found = row(db, _sql["take"], state=state)
    if found is None or found["expires_at"] <= to_micros(at):
        return None
    return Authorization(connection_id=found["connection_id"], sealed=found["sealed"])


def lease_grant(
    db: apsw.Connection, connection_id: int, *, at: datetime, lease_seconds: float, takes_over: bool = False
) -> int | None:
    """See `GrantStore.lease_grant`."""
    until = to_micros(at + timedelta(seconds=lease_seconds))
    asked = {"connection_id": connection_id, "until": until, "at": to_micros(at), "takes_over": int(takes_over)}
    found = row(db, _sql["lease"], **asked)
    return None if found is None else int(found["epoch"])


def put_grant(db: apsw.Connection, connection_id: int, *, epoch: int, name: str, ciphertext: str | None) -> bool:
    """See `GrantStore.put_grant`."""
    if not execute(db, _sql["release"], connection_id=connection_id, epoch=epoch):
        return False
    if ciphertext is None:
        drop_secret(db, connection_id, name=name)
    else:
        put_secret(db, connection_id, name=name, ciphertext=ciphertext, keep_previous_until=None)
    return True


def release_grant(db: apsw.Connection, connection_id: int, *, epoch: int) -> None:
    """See `GrantStore.release_grant`."""
    execute(db, _sql["release"], connection_id=connection_id, epoch=epoch)
