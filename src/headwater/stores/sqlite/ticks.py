"""The tick: what is due starts, what may run is admitted, in one transaction and set by set.

waiting (scheduled, retrying) ── admitted: epoch + 1, lease ──> running ── lease ran out ──> scheduled
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import apsw

from headwater.clock import from_micros, to_micros
from headwater.errors import NotFoundError, UsageError
from headwater.intention import Decide, DueStream, TickDecision, TickResult
from headwater.run import Priority, RunRef, RunState, Window
from headwater.stores.plan import hour_of
from headwater.stores.row import instant
from headwater.stores.sqlite.database import execute, json_text, queries, table, value

DUE_MAX = 10_000  # streams decided in one tick; the rest follow in the next, which is due at once

_sql = queries("ticks.sql")


def tick(
    db: apsw.Connection,
    at: datetime,
    *,
    decide: Decide,
    admit_max: int,
    per_connection_max: int,
    lease_seconds: float,
) -> TickResult:
    """See `RunStore.tick`."""
    now = to_micros(at)
    execute(db, _sql["expire_leases"], at=now)
    started, skipped = _start_due(db, at, decide)
    execute(db, _sql["insert_window_runs"], at=now, priority=Priority.BACKFILL, per_connection_max=per_connection_max)
    run_ids = table(db, _sql["waiting_runs"], at=now, per_connection_max=per_connection_max, limit=max(admit_max, 0))
    admitted = _admit(db, run_ids, at=at, lease_seconds=lease_seconds)
    return TickResult(
        admitted=admitted,
        started=started,
        skipped=skipped,
        next_due_at=instant(value(db, _sql["next_due"], at=now)),
    )


def readmit(db: apsw.Connection, at: datetime) -> int:
    """See `RunStore.readmit`."""
    execute(db, _sql["readmit_deliveries"])
    return execute(db, _sql["readmit"], at=to_micros(at))


def bring_back(db: apsw.Connection, at: datetime, *, lease_seconds: float) -> None:
    """See `RunStore.bring_back`."""
    now, until = to_micros(at), to_micros(at + timedelta(seconds=lease_seconds))
    execute(db, _sql["bring_back_runs"], at=now)
    execute(db, _sql["bring_back_leases"], lease_until=until)
    execute(db, _sql["bring_back_streams"], at=now)
    execute(db, _sql["bring_back_deliveries"], at=now, lease_until=until)
    execute(db, _sql["bring_back_notifications"], at=now, lease_until=until)


def last_instant(db: apsw.Connection) -> datetime | None:
    """See `RunStore.last_instant`."""
    return instant(value(db, _sql["last_instant"]))


def admit_run(db: apsw.Connection, run_id: int, *, at: datetime, lease_seconds: float) -> RunRef:
    """See `RunStore.admit_run`."""
    state = value(db, "SELECT state FROM runs WHERE id = :run_id", run_id=run_id)
    if state is None:
        raise NotFoundError(f"There is no run {run_id}.")
    if state not in (RunState.SCHEDULED, RunState.RETRYING):
        raise UsageError(f"Run {run_id} is {state}; only a waiting run can be admitted.")
    return _admit(db, [run_id], at=at, lease_seconds=lease_seconds)[0]


def _start_due(db: apsw.Connection, at: datetime, decide: Decide) -> tuple[int, int]:
    due = [_due_stream(row) for row in table(db, _sql["due_streams"], at=to_micros(at), limit=DUE_MAX)]
    if not due:
        return 0, 0
    running = {stream.stream_id for stream in due if stream.is_running}
    decisions = [_row(decision, running) for decision in decide(due, at)]
    rows = json_text(decisions)
    now = to_micros(at)
    execute(db, _sql["insert_tick_runs"], rows=rows, at=now, priority=Priority.POLL)
    execute(db, _sql["count_started"], rows=rows, hour=hour_of(now))
    execute(db, _sql["move_ticks"], rows=rows)
    started = sum(start for _, _, start in decisions)
    return started, len(decisions) - started


def _row(decision: TickDecision, running: set[int]) -> tuple[int, int, int]:
    start = decision.start and decision.stream_id not in running
    return decision.stream_id, to_micros(decision.next_tick_at), int(start)


def _admit(db: apsw.Connection, run_ids: Sequence[int], *, at: datetime, lease_seconds: float) -> list[RunRef]:
    if not run_ids:
        return []
    ids = json_text(run_ids)
    execute(db, _sql["raise_stream_epochs"], run_ids=ids)
    execute(db, _sql["raise_window_epochs"], run_ids=ids, at=to_micros(at))
    execute(db, _sql["admit"], run_ids=ids, lease_until=to_micros(at + timedelta(seconds=lease_seconds)))
    return [_ref(row) for row in table(db, _sql["admitted"], run_ids=ids)]


def _due_stream(row: Sequence[Any]) -> DueStream:
    return DueStream(
        stream_id=row[0],
        connection_id=row[1],
        schedule=row[2] or "",
        timezone=row[3],
        next_tick_at=from_micros(row[4]),
        is_running=bool(row[5]),
    )


def _ref(row: Sequence[Any]) -> RunRef:
    return RunRef(
        run_id=row[0],
        connection_id=row[1],
        stream_id=row[2],
        stream_key=row[3],
        partition=row[4],
        trigger=row[5],
        priority=row[6],
        epoch=row[7],
        attempt=row[8],
        cursor=row[9],
        window=None if row[10] is None else Window(from_micros(row[10]), from_micros(row[11])),
        window_id=row[12],
        page_number=row[13],
        pages_limit=row[14],
        allow_deletes=bool(row[15]),
        checkpoint_at=instant(row[16]),
    )
