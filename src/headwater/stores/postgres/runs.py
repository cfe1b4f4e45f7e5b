"""Runs from the trigger to the end of their last attempt, and as they are listed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from headwater.clock import from_micros, to_micros
from headwater.errors import UsageError
from headwater.intention import LIST_LIMIT, LIST_LIMIT_MAX, RunEnd
from headwater.run import PageRow, Priority, RequestLog, Run, RunRef, RunState, TickRun, Trigger, Window
from headwater.stores import log_row
from headwater.stores.lease import check_lease
from headwater.stores.plan import hour_of
from headwater.stores.postgres.backfills import settle_backfill
from headwater.stores.postgres.connections import hold, hold_one, hold_run, hold_stream, pause_connection
from headwater.stores.postgres.database import Connection, execute, queries, row, rows, value
from headwater.stores.postgres.log_lines import add_log_lines
from headwater.stores.postgres.pages import add_requests, guards
from headwater.stores.row import as_page, as_request, as_run, as_tick_runs, micros, window_micros

_sql = queries("runs.sql")
_LIVE = (RunState.SCHEDULED, RunState.RUNNING, RunState.RETRYING)
_PRIORITIES: dict[Trigger, int] = {
    "operator": Priority.OPERATOR, "tick": Priority.POLL, "backfill": Priority.BACKFILL,
}  # fmt: skip


async def trigger_run(
    db: Connection,
    stream_id: int,
    *,
    at: datetime,
    trigger: Trigger = "operator",
    window: Window | None = None,
    pages_limit: int | None = None,
    allow_deletes: bool = False,
) -> int:
    """See `RunStore.trigger_run`."""
    await hold_stream(db, stream_id)
    stream = await row(db, _sql["stream_owner"], stream_id=stream_id)
    assert stream is not None
    if (live := await value(db, _sql["live_run"], stream_id=stream_id)) is not None:
        raise UsageError(f"Run {live} of {stream['key']} is under way.", hint="Wait for it, or cancel it.")
    run_id: int = await value(
        db,
        _sql["insert_operator_run"],
        connection_id=stream["connection_id"],
        stream_id=stream_id,
        trigger=trigger,
        priority=_PRIORITIES[trigger],
        at=to_micros(at),
        pages_limit=pages_limit,
        allow_deletes=allow_deletes,
        **window_micros(window),
    )
    await _count(db, stream_id, at, runs=1)
    return run_id


async def begin_run(db: Connection, ref: RunRef, *, at: datetime, lease_seconds: float) -> None:
    """See `RunStore.begin_run`."""
    await hold(db, [ref.connection_id])
    check_lease((await guards(db, [ref.run_id])).get(ref.run_id), ref)
    await execute(db, _sql["begin"], run_id=ref.run_id, at=to_micros(at), lease_until=_lease(at, lease_seconds))
    if ref.window_id is None:
        await execute(db, _sql["note_attempt"], stream_id=ref.stream_id, at=to_micros(at))


async def extend_lease(db: Connection, ref: RunRef, *, at: datetime, lease_seconds: float) -> None:
    """See `RunStore.extend_lease`."""
    await hold(db, [ref.connection_id])
    check_lease((await guards(db, [ref.run_id])).get(ref.run_id), ref)
    await execute(db, _sql["extend"], run_id=ref.run_id, lease_until=_lease(at, lease_seconds))


async def finish_run(db: Connection, end: RunEnd) -> None:
    """See `RunStore.finish_run`; the same end told twice is told once, and a run that lost its lease is fenced."""
    await hold(db, [end.ref.connection_id])
    guard = (await guards(db, [end.ref.run_id])).get(end.ref.run_id)
    if guard is not None and guard.state == end.state and guard.epoch == end.ref.epoch:
        return
    guard = check_lease(guard, end.ref)
    await add_requests(db, guard, end.requests)
    await add_log_lines(db, log_row.of_run(end.ref, end.log))
    over = end.state is not RunState.RETRYING
    finished = await row(
        db,
        _sql["finish"],
        run_id=end.ref.run_id,
        state=end.state.value,
        at=to_micros(end.at),
        due_at=to_micros(end.due_at or end.at) if not over else None,
        finished_at=to_micros(end.at) if over else None,
        error_code=end.error_code,
        error=end.error,
        traceback=end.traceback,
    )
    assert finished is not None
    if end.ref.window_id is None:
        await _finish_stream(db, end, has_more=finished["has_more"])
    else:
        await _finish_window(db, end, backfill_id=finished["backfill_id"])
    await _heed_provider(db, end)


async def silence(db: Connection, connection_id: int, *, until: datetime) -> None:
    """See `SharedStore.silence`."""
    await hold_one(db, connection_id)
    await execute(db, _sql["block_connection"], connection_id=connection_id, until=to_micros(until))


async def silences(db: Connection, at: datetime) -> Mapping[int, datetime]:
    """See `SharedStore.silences`."""
    return {
        found["connection_id"]: from_micros(found["until"])
        for found in await rows(db, _sql["silences"], at=to_micros(at))
    }


async def cancel_run(db: Connection, run_id: int, *, at: datetime) -> bool:
    """See `RunStore.cancel_run`."""
    if not await hold_run(db, run_id):
        return False
    run = await row(db, _sql["run_owner"], run_id=run_id)
    if run is None or run["state"] not in _LIVE:
        return False
    await execute(db, _sql["cancel"], run_id=run_id, at=to_micros(at))
    if run["window_id"] is None:
        await execute(db, _sql["fence_stream"], stream_id=run["stream_id"])
    else:
        await execute(db, _sql["fence_window"], window_id=run["window_id"], at=to_micros(at))
        await settle_backfill(db, run["backfill_id"], at=at)
    return True


async def runs(
    db: Connection,
    *,
    connection: str | None = None,
    stream: str | None = None,
    state: RunState | None = None,
    backfill_id: int | None = None,
    after: int | None = None,
    limit: int = LIST_LIMIT,
) -> Sequence[Run]:
    """See `RunStore.runs`."""
    asked: dict[str, tuple[str, Any]] = {
        "connection": (" AND c.key = %(connection)s", connection),
        "stream": (" AND s.key = %(stream)s", stream),
        "state": (" AND r.state = %(state)s", None if state is None else state.value),
        "backfill_id": (" AND r.backfill_id = %(backfill_id)s", backfill_id),
        "after": (" AND r.id < %(after)s", after),
    }
    given = {name: (text, wanted) for name, (text, wanted) in asked.items() if wanted is not None}
    sql = _sql["run_columns"] + "".join(text for text, _ in given.values()) + " ORDER BY r.id DESC LIMIT %(limit)s"
    parameters = {name: wanted for name, (_, wanted) in given.items()}
    return [as_run(found) for found in await rows(db, sql, **parameters, limit=min(limit, LIST_LIMIT_MAX))]


async def run(db: Connection, run_id: int) -> Run | None:
    """See `RunStore.run`."""
    found = await row(db, _sql["run_columns"] + " AND r.id = %(run_id)s", run_id=run_id)
    return None if found is None else as_run(found)


async def tick_runs(
    db: Connection, since: Mapping[int, datetime], *, until: datetime
) -> Mapping[int, Sequence[TickRun]]:
    """See `RunStore.tick_runs`."""
    starts = [to_micros(start) for start in since.values()]
    asked = {"ids": list(since), "starts": starts, "until": to_micros(until), "limit": LIST_LIMIT_MAX}
    return as_tick_runs(await rows(db, _sql["tick_runs"], **asked))


async def pages(db: Connection, run_id: int) -> Sequence[PageRow]:
    """See `RunStore.pages`."""
    return [as_page(found) for found in await rows(db, _sql["pages"], run_id=run_id)]


async def requests(db: Connection, run_id: int) -> Sequence[RequestLog]:
    """See `RunStore.requests`."""
    return [as_request(found) for found in await rows(db, _sql["requests"], run_id=run_id)]


def _lease(at: datetime, lease_seconds: float) -> int:
    return to_micros(at + timedelta(seconds=lease_seconds))


async def _count(db: Connection, stream_id: int, at: datetime, *, runs: int = 0, failed: int = 0) -> None:
    hour = hour_of(to_micros(at))
    await execute(db, _sql["count_run"], stream_id=stream_id, hour=hour, runs=runs, failed=failed)


async def _finish_stream(db: Connection, end: RunEnd, *, has_more: bool) -> None:
    stream_id, at = end.ref.stream_id, to_micros(end.at)
    if end.state is RunState.SUCCEEDED:
        await execute(db, _sql["succeed_stream"], stream_id=stream_id, at=at, complete=not has_more)
        if not end.keep_cursor:
            await execute(db, _sql["set_cursor"], stream_id=stream_id, cursor=end.checkpoint_cursor, at=at)
    elif end.state in (RunState.FAILED, RunState.RETRYING):
        failed = int(end.state is RunState.FAILED)
        await execute(
            db, _sql["fail_stream"],
            stream_id=stream_id, at=at, error=end.error, error_code=end.error_code, failures=failed,
        )  # fmt: skip
        if failed:
            await _count(db, stream_id, end.at, failed=1)


async def _finish_window(db: Connection, end: RunEnd, *, backfill_id: int) -> None:
    states = {RunState.SUCCEEDED: "done", RunState.FAILED: "failed", RunState.CANCELLED: "cancelled"}
    over = end.state in states
    await execute(
        db,
        _sql["finish_window"],
        window_id=end.ref.window_id,
        state=states.get(end.state, "running"),
        finished_at=micros(end.at) if over else None,
        error=end.error,
    )
    if over:
        await settle_backfill(db, backfill_id, at=end.at)


async def _heed_provider(db: Connection, end: RunEnd) -> None:
    connection_id = end.ref.connection_id
    if end.blocked_until is not None:
        until = to_micros(end.blocked_until)
        await execute(db, _sql["block_connection"], connection_id=connection_id, until=until)
    if end.pause_reason is not None:
        await pause_connection(db, connection_id, reason=end.pause_reason, needs_attention=True, at=end.at)
