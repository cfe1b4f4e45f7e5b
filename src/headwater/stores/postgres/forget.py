"""Forgetting records, some at a time: whoever commits to the connection waits for one part of it, never for all."""

from __future__ import annotations

from headwater.errors import NotFoundError
from headwater.stores.postgres.database import Connection, execute, queries, row, value

_sql = queries("forget.sql")


async def forget_records(db: Connection, connection_id: int, *, type: str | None, limit: int) -> int:
    """See `RecordStore.forget_records`."""
    if await row(db, _sql["hold"], connection_id=connection_id) is None:
        raise NotFoundError(f"There is no connection {connection_id}.")
    keys = await execute(db, _sql["keys"], connection_id=connection_id, limit=limit)
    return keys or int(await value(db, _sql["records"], connection_id=connection_id, type=type, limit=limit))
