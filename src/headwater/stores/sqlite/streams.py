"""Stream rows: what a catalog declares, what an operator does to them, and their state for whoever looks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import apsw

from headwater.clock import to_micros
from headwater.errors import NotFoundError
from headwater.intention import StreamDeclaration
from headwater.run import StreamState
from headwater.stores.plan import HOUR_MICROSECONDS
from headwater.stores.row import as_stream_state, micros
from headwater.stores.sqlite.connections import existing
from headwater.stores.sqlite.database import execute, json_text, queries, rows

_sql = queries("streams.sql")


def declare_streams(
    db: apsw.Connection, connection_id: int, declarations: Sequence[StreamDeclaration], *, at: datetime
) -> None:
    """See `ConnectionStore.declare_streams`."""
    existing(db, connection_id)
    declared = json_text(
        [
            (
                one.stream, one.partition, one.mode, one.schedule, one.timezone, one.expect_within_seconds,
                micros(one.next_tick_at),
            )
            for one in declarations
        ]
    )  # fmt: skip
    execute(db, _sql["undeclare_others"], connection_id=connection_id, rows=declared)
    execute(db, _sql["declare"], connection_id=connection_id, rows=declared, at=to_micros(at))


def pause_stream(db: apsw.Connection, stream_id: int, *, at: datetime) -> None:
    """See `ConnectionStore.pause_stream`."""
    _found(execute(db, _sql["pause"], stream_id=stream_id, at=to_micros(at)), stream_id)


def resume_stream(db: apsw.Connection, stream_id: int, *, next_tick_at: datetime | None) -> None:
    """See `ConnectionStore.resume_stream`."""
    _found(execute(db, _sql["resume"], stream_id=stream_id, next_tick_at=micros(next_tick_at)), stream_id)


def set_checkpoint(db: apsw.Connection, stream_id: int, cursor: str | None, *, at: datetime) -> None:
    """See `ConnectionStore.set_checkpoint`; the fenced run is admitted anew and begins there."""
    _found(execute(db, _sql["set_checkpoint"], stream_id=stream_id, cursor=cursor, at=to_micros(at)), stream_id)
    execute(db, _sql["restart_live_run"], stream_id=stream_id, at=to_micros(at))


def streams(
    db: apsw.Connection,
    *,
    at: datetime,
    connection: str | None = None,
    tenant: str | None = None,
    stream: str | None = None,
) -> Sequence[StreamState]:
    """See `RunStore.streams`; the figures of a day count every hour that reaches into it."""
    since = to_micros(at) - 25 * HOUR_MICROSECONDS
    found = rows(db, _sql["states"], since=since, connection=connection, tenant=tenant, stream=stream)
    return [as_stream_state(one) for one in found]


def _found(changed: int, stream_id: int) -> None:
    if not changed:
        raise NotFoundError(f"There is no stream row {stream_id}.")
