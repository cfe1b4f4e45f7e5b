"""Stream rows: what a catalog declares, what an operator does to them, and their state for whoever looks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from headwater.clock import to_micros
from headwater.intention import StreamDeclaration
from headwater.run import StreamState
from headwater.stores.plan import HOUR_MICROSECONDS
from headwater.stores.postgres.connections import hold_one, hold_stream
from headwater.stores.postgres.database import Connection, execute, json_text, queries, rows
from headwater.stores.row import as_stream_state, micros

_sql = queries("streams.sql")


async def declare_streams(
    db: Connection, connection_id: int, declarations: Sequence[StreamDeclaration], *, at: datetime
) -> None:
    """See `ConnectionStore.declare_streams`."""
    await hold_one(db, connection_id)
    declared = json_text(
        [
            {
                "key": one.stream,
                "partition": one.partition,
                "mode": one.mode,
                "schedule": one.schedule,
                "timezone": one.timezone,
                "expect_within_seconds": one.expect_within_seconds,
                "next_tick_at": micros(one.next_tick_at),
            }
            for one in declarations
        ]
    )
    await execute(db, _sql["undeclare_others"], connection_id=connection_id, rows=declared)
    await execute(db, _sql["declare"], connection_id=connection_id, rows=declared, at=to_micros(at))


async def pause_stream(db: Connection, stream_id: int, *, at: datetime) -> None:
    """See `ConnectionStore.pause_stream`."""
    await hold_stream(db, stream_id)
    await execute(db, _sql["pause"], stream_id=stream_id, at=to_micros(at))


async def resume_stream(db: Connection, stream_id: int, *, next_tick_at: datetime | None) -> None:
    """See `ConnectionStore.resume_stream`."""
    await hold_stream(db, stream_id)
    await execute(db, _sql["resume"], stream_id=stream_id, next_tick_at=micros(next_tick_at))


async def set_checkpoint(db: Connection, stream_id: int, cursor: str | None, *, at: datetime) -> None:
    """See `ConnectionStore.set_checkpoint`; the fenced run is admitted anew and begins there."""
    await hold_stream(db, stream_id)
    await execute(db, _sql["set_checkpoint"], stream_id=stream_id, cursor=cursor, at=to_micros(at))
    await execute(db, _sql["restart_live_run"], stream_id=stream_id, at=to_micros(at))


async def streams(
    db: Connection,
    *,
    at: datetime,
    connection: str | None = None,
    tenant: str | None = None,
    stream: str | None = None,
) -> Sequence[StreamState]:
    """See `RunStore.streams`; the figures of a day count every hour that reaches into it."""
    since = to_micros(at) - 25 * HOUR_MICROSECONDS
    found = await rows(db, _sql["states"], since=since, connection=connection, tenant=tenant, stream=stream)
    return [as_stream_state(one) for one in found]
