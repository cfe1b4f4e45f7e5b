"""The tick: what is due starts, what may run is admitted, in one transaction and set by set.

waiting (scheduled, retrying) ── admitted: epoch + 1, lease ──> running ── lease ran out ──> scheduled

Ticks of all nodes follow each other. A tick holds the connections that it may have work for; one that becomes due
meanwhile is the next tick's.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from headwater.clock import from_micros, to_micros
from headwater.errors import NotFoundError, UsageError
from headwater.intention import Decide, DueStream, TickDecision, TickResult
from headwater.node import SharedQueue
from headwater.run import Priority, RunRef, RunState
from headwater.stores.plan import hour_of
from headwater.stores.postgres.connections import hold_all, hold_run
from headwater.stores.postgres.database import Connection, Row, execute, json_text, queries, rows, value
from headwater.stores.row import instant, window

DUE_MAX = 10_000  # streams decided in one tick; the rest follow in the next, which is due at once

_sql = queries("ticks.sql")


async def tick(
    db: Connection,
    at: datetime,
    *,
    decide: Decide,
    admit_max: int,
    per_connection_max: int,
    lease_seconds: float,
) -> TickResult:
    """See `RunStore.tick`."""
    await execute(db, _sql["one_at_a_time"])
    return await _tick(
        db, at, decide=decide, admit_max=admit_max, per_connection_max=per_connection_max, lease_seconds=lease_seconds
    )


async def tick_shared(
    db: Connection,
    at: datetime,
    *,
    decide: Decide,
    queue: SharedQueue,
    under_way_max: int,
    per_connection_max: int,
    lease_seconds: float,
) -> TickResult:
    """See `SharedRunStore.tick_shared`."""
    await execute(db, _sql["one_at_a_time"])
    lease_until, renew_before = (at + timedelta(seconds=seconds) for seconds in (lease_seconds, lease_seconds / 2))
    await execute(
        db,
        _sql["keep_waiting"],
        run_ids=list(await queue.waiting(db)),
        lease_until=to_micros(lease_until),
        renew_before=to_micros(renew_before),
    )
    under_way = int(await value(db, _sql["count_under_way"], at=to_micros(at)))
    result = await _tick(
        db,
        at,
        decide=decide,
        admit_max=under_way_max - under_way,
        per_connection_max=per_connection_max,
        lease_seconds=lease_seconds,
    )
    await queue.submit(db, result.admitted)
    return result


async def _tick(
    db: Connection,
    at: datetime,
    *,
    decide: Decide,
    admit_max: int,
    per_connection_max: int,
    lease_seconds: float,
) -> TickResult:
    now = to_micros(at)
    busy = await rows(db, _sql["busy_connections"], at=now, limit=DUE_MAX)
    held = [found["id"] for found in busy]
    started = skipped = 0
    admitted: list[RunRef] = []
    if held:
        await execute(db, _sql["expire_leases"], at=now, held=held)
        started, skipped = await _start_due(db, at, decide, held)
        await execute(
            db,
            _sql["insert_window_runs"],
            at=now,
            priority=Priority.BACKFILL,
            per_connection_max=per_connection_max,
            held=held,
        )
        active = [found["id"] for found in busy if found["is_active"]]
        kept = [found["id"] for found in await rows(db, _sql["kept_streams"], at=now)]
        asked = {"at": now, "per_connection_max": per_connection_max, "limit": max(admit_max, 0), "active": active}
        waiting = [found["id"] for found in await rows(db, _sql["waiting_runs"], kept=kept, **asked)]
        admitted = await _admit(db, waiting, at=at, lease_seconds=lease_seconds)
    next_due = await value(db, _sql["next_due"], at=now)
    return TickResult(admitted=admitted, started=started, skipped=skipped, next_due_at=instant(next_due))


async def readmit(db: Connection, at: datetime) -> int:
    """See `RunStore.readmit`."""
    await hold_all(db)
    await execute(db, _sql["readmit_deliveries"])
    return await execute(db, _sql["readmit"], at=to_micros(at))


async def bring_back(db: Connection, at: datetime, *, lease_seconds: float) -> None:
    """See `RunStore.bring_back`."""
    now, until = to_micros(at), to_micros(at + timedelta(seconds=lease_seconds))
    await hold_all(db)
    await execute(db, _sql["bring_back_runs"], at=now)
    await execute(db, _sql["bring_back_leases"], lease_until=until)
    await execute(db, _sql["bring_back_streams"], at=now)
    await execute(db, _sql["bring_back_deliveries"], at=now, lease_until=until)
    await execute(db, _sql["bring_back_notifications"], at=now, lease_until=until)


async def last_instant(db: Connection) -> datetime | None:
    """See `RunStore.last_instant`."""
    return instant(await value(db, _sql["last_instant"]))


async def admit_run(db: Connection, run_id: int, *, at: datetime, lease_seconds: float) -> RunRef:
    """See `RunStore.admit_run`."""
    if not await hold_run(db, run_id):
        raise NotFoundError(f"There is no run {run_id}.")
    state = await value(db, _sql["run_state"], run_id=run_id)
    if state not in (RunState.SCHEDULED, RunState.RETRYING):
        raise UsageError(f"Run {run_id} is {state}; only a waiting run can be admitted.")
    return (await _admit(db, [run_id], at=at, lease_seconds=lease_seconds))[0]


async def _start_due(db: Connection, at: datetime, decide: Decide, held: Sequence[int]) -> tuple[int, int]:
    now = to_micros(at)
    due = [_due_stream(found) for found in await rows(db, _sql["due_streams"], at=now, held=held, limit=DUE_MAX)]
    if not due:
        return 0, 0
    running = {stream.stream_id for stream in due if stream.is_running}
    decisions = [_decided(decision, running) for decision in decide(due, at)]
    text = json_text(decisions)
    await execute(db, _sql["insert_tick_runs"], rows=text, at=now, priority=Priority.POLL)
    await execute(db, _sql["count_started"], rows=text, hour=hour_of(now))
    await execute(db, _sql["move_ticks"], rows=text)
    started = sum(decision["start"] for decision in decisions)
    return started, len(decisions) - started


def _decided(decision: TickDecision, running: set[int]) -> dict[str, int]:
    start = decision.start and decision.stream_id not in running
    return {"id": decision.stream_id, "next_tick_at": to_micros(decision.next_tick_at), "start": int(start)}


async def _admit(db: Connection, run_ids: Sequence[int], *, at: datetime, lease_seconds: float) -> list[RunRef]:
    if not run_ids:
        return []
    await execute(db, _sql["raise_stream_epochs"], run_ids=run_ids)
    await execute(db, _sql["raise_window_epochs"], run_ids=run_ids, at=to_micros(at))
    lease_until = to_micros(at + timedelta(seconds=lease_seconds))
    await execute(db, _sql["admit"], run_ids=run_ids, lease_until=lease_until)
    return [_ref(found) for found in await rows(db, _sql["admitted"], run_ids=run_ids)]


def _due_stream(found: Row) -> DueStream:
    return DueStream(
        stream_id=found["id"],
        connection_id=found["connection_id"],
        schedule=found["schedule"] or "",
        timezone=found["timezone"],
        next_tick_at=from_micros(found["next_tick_at"]),
        is_running=found["is_running"],
    )


def _ref(found: Row) -> RunRef:
    return RunRef(
        run_id=found["id"],
        connection_id=found["connection_id"],
        stream_id=found["stream_id"],
        stream_key=found["key"],
        partition=found["partition"],
        trigger=found["trigger"],
        priority=found["priority"],
        epoch=found["epoch"],
        attempt=found["attempt"],
        cursor=found["cursor"],
        window=window(found),
        window_id=found["window_id"],
        page_number=found["pages"],
        pages_limit=found["pages_limit"],
        allow_deletes=found["allow_deletes"],
        checkpoint_at=instant(found["checkpoint_at"]),
    )
