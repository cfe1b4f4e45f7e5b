"""Stream rows: what a catalog declares, what an operator does to them, and their state for whoever looks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import apsw

from headwater.clock import from_micros, to_micros
from headwater.errors import NotFoundError
from headwater.intention import StreamDeclaration
from headwater.run import RunState, StreamState
from headwater.stores.sqlite.connections import existing
from headwater.stores.sqlite.database import Row, execute, json_text, queries, rows
from headwater.stores.sqlite.ingest import HOUR_MICROSECONDS
from headwater.stores.sqlite.rows import counts, instant, micros

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
    return [_state(one) for one in found]


def _found(changed: int, stream_id: int) -> None:
    if not changed:
        raise NotFoundError(f"There is no stream row {stream_id}.")


def _state(found: Row) -> StreamState:
    receives = found["mode"] == "webhook"
    retries = found["run_state"] == RunState.RETRYING
    return StreamState(
        id=found["id"],
        connection_id=found["connection_id"],
        connection=found["connection_key"],
        connector=found["connector"],
        tenant=found["tenant"],
        stream=found["key"],
        partition=found["partition"],
        mode=found["mode"],
        schedule=found["schedule"],
        timezone=found["timezone"],
        expect_within_seconds=found["expect_within_seconds"],
        paused_at=instant(found["paused_at"]),
        connection_paused_reason=None if found["connection_paused_at"] is None else found["paused_reason"],
        connection_needs_attention=bool(found["needs_attention"]),
        next_tick_at=instant(found["next_tick_at"]),
        blocked_until=instant(found["blocked_until"]),
        cursor=found["cursor"],
        checkpoint_at=instant(found["checkpoint_at"]),
        running_run_id=found["run_id"],
        running_state=None if found["run_state"] is None else RunState(found["run_state"]),
        retry_at=instant(found["run_due_at"]) if retries else None,
        registered_at=from_micros(found["registered_at"]),
        last_attempt_at=instant(found["last_attempt_at"]),
        last_success_at=instant(found["last_success_at"]),
        last_record_at=instant(found["last_record_at"]),
        last_error=found["last_error"],
        last_error_code=found["last_error_code"],
        consecutive_failures=found["consecutive_failures"],
        skipped_ticks=found["skipped_ticks"],
        runs_24h=found["runs_24h"] or 0,
        failed_24h=found["failed_24h"] or 0,
        counts_24h=counts(found),
        last_delivery_at=instant(found["last_delivery_at"]) if receives else None,
        rejected_24h=(found["rejected"] or 0) if receives else 0,
        deliveries_24h=(found["deliveries"] or 0) if receives else 0,
        pending=(found["pending"] or 0) if receives else 0,
        dead=(found["dead"] or 0) if receives else 0,
        drift=_drift(found),
    )


def _drift(found: Row) -> float | None:
    polled, pushed = found["poll_changes"] or 0, found["webhook_changes"] or 0
    return polled / (polled + pushed) if pushed else None
