"""Runs from the trigger to the end of their last attempt, and as they are listed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import apsw

from headwater.clock import to_micros
from headwater.errors import NotFoundError, UsageError
from headwater.intention import LIST_LIMIT, LIST_LIMIT_MAX, RunEnd
from headwater.run import PageRow, Priority, RequestLog, Run, RunRef, RunState, TickRun, Trigger, Window
from headwater.stores import log_row
from headwater.stores.lease import check_lease
from headwater.stores.plan import hour_of
from headwater.stores.row import as_page, as_request, as_run, as_tick_runs, micros, window_micros
from headwater.stores.sqlite.backfills import settle_backfill
from headwater.stores.sqlite.connections import pause_connection
from headwater.stores.sqlite.database import execute, json_text, queries, row, rows, value
from headwater.stores.sqlite.log_lines import add_log_lines
from headwater.stores.sqlite.pages import add_requests, guards

_sql = queries("runs.sql")
_LIVE = (RunState.SCHEDULED, RunState.RUNNING, RunState.RETRYING)
_PRIORITIES: dict[Trigger, int] = {
    "operator": Priority.OPERATOR, "tick": Priority.POLL, "backfill": Priority.BACKFILL,
}  # fmt: skip


def trigger_run(
    db: apsw.Connection,
    stream_id: int,
    *,
    at: datetime,
    trigger: Trigger = "operator",
    window: Window | None = None,
    pages_limit: int | None = None,
    allow_deletes: bool = False,
) -> int:
    """See `RunStore.trigger_run`."""
    stream = row(db, _sql["stream_owner"], stream_id=stream_id)
    if stream is None:
        raise NotFoundError(f"There is no stream row {stream_id}.")
    if (live := value(db, _sql["live_run"], stream_id=stream_id)) is not None:
        raise UsageError(f"Run {live} of {stream['key']} is under way.", hint="Wait for it, or cancel it.")
    run_id: int = value(
        db,
        _sql["insert_operator_run"],
        connection_id=stream["connection_id"],
        stream_id=stream_id,
        trigger=trigger,
        priority=_PRIORITIES[trigger],
        at=to_micros(at),
        pages_limit=pages_limit,
        allow_deletes=int(allow_deletes),
        **window_micros(window),
    )
    _count(db, stream_id, at, runs=1)
    return run_id


def begin_run(db: apsw.Connection, ref: RunRef, *, at: datetime, lease_seconds: float) -> None:
    """See `RunStore.begin_run`."""
    check_lease(guards(db, [ref.run_id]).get(ref.run_id), ref)
    execute(db, _sql["begin"], run_id=ref.run_id, at=to_micros(at), lease_until=_lease(at, lease_seconds))
    if ref.window_id is None:
        execute(db, _sql["note_attempt"], stream_id=ref.stream_id, at=to_micros(at))


def extend_lease(db: apsw.Connection, ref: RunRef, *, at: datetime, lease_seconds: float) -> None:
    """See `RunStore.extend_lease`."""
    check_lease(guards(db, [ref.run_id]).get(ref.run_id), ref)
    execute(db, _sql["extend"], run_id=ref.run_id, lease_until=_lease(at, lease_seconds))


def finish_run(db: apsw.Connection, end: RunEnd) -> None:
    """See `RunStore.finish_run`; the same end told twice is told once, and a run that lost its lease is fenced."""
    guard = guards(db, [end.ref.run_id]).get(end.ref.run_id)
    if guard is not None and guard.state == end.state and guard.epoch == end.ref.epoch:
        return
    guard = check_lease(guard, end.ref)
    add_requests(db, [(guard, end.requests)])
    add_log_lines(db, log_row.of_run(end.ref, end.log))
    over = end.state is not RunState.RETRYING
    execute(
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
    if end.ref.window_id is None:
        _finish_stream(db, end)
    else:
        _finish_window(db, end)
    _heed_provider(db, end)


def cancel_run(db: apsw.Connection, run_id: int, *, at: datetime) -> bool:
    """See `RunStore.cancel_run`."""
    run = row(db, _sql["run_owner"], run_id=run_id)
    if run is None or run["state"] not in _LIVE:
        return False
    execute(db, _sql["cancel"], run_id=run_id, at=to_micros(at))
    if run["window_id"] is None:
        execute(db, _sql["fence_stream"], stream_id=run["stream_id"])
    else:
        execute(db, _sql["fence_window"], window_id=run["window_id"], at=to_micros(at))
        settle_backfill(db, run["backfill_id"], at=at)
    return True


def runs(
    db: apsw.Connection,
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
        "connection": (" AND c.key = :connection", connection),
        "stream": (" AND s.key = :stream", stream),
        "state": (" AND r.state = :state", None if state is None else state.value),
        "backfill_id": (" AND r.backfill_id = :backfill_id", backfill_id),
        "after": (" AND r.id < :after", after),
    }
    given = {name: (text, wanted) for name, (text, wanted) in asked.items() if wanted is not None}
    sql = _sql["run_columns"] + "".join(text for text, _ in given.values()) + " ORDER BY r.id DESC LIMIT :limit"
    parameters = {name: wanted for name, (_, wanted) in given.items()}
    return [as_run(found) for found in rows(db, sql, **parameters, limit=min(limit, LIST_LIMIT_MAX))]


def run(db: apsw.Connection, run_id: int) -> Run | None:
    """See `RunStore.run`."""
    found = row(db, _sql["run_columns"] + " AND r.id = :run_id", run_id=run_id)
    return None if found is None else as_run(found)


def tick_runs(
    db: apsw.Connection, since: Mapping[int, datetime], *, until: datetime
) -> Mapping[int, Sequence[TickRun]]:
    """See `RunStore.tick_runs`."""
    asked = json_text([(stream_id, to_micros(start)) for stream_id, start in since.items()])
    return as_tick_runs(rows(db, _sql["tick_runs"], since=asked, until=to_micros(until), limit=LIST_LIMIT_MAX))


def pages(db: apsw.Connection, run_id: int) -> Sequence[PageRow]:
    """See `RunStore.pages`."""
    return [as_page(found) for found in rows(db, _sql["pages"], run_id=run_id)]


def requests(db: apsw.Connection, run_id: int) -> Sequence[RequestLog]:
    """See `RunStore.requests`."""
    return [as_request(found) for found in rows(db, _sql["requests"], run_id=run_id)]


def _lease(at: datetime, lease_seconds: float) -> int:
    return to_micros(at + timedelta(seconds=lease_seconds))


def _count(db: apsw.Connection, stream_id: int, at: datetime, *, runs: int = 0, failed: int = 0) -> None:
    now = to_micros(at)
    execute(db, _sql["count_run"], stream_id=stream_id, hour=hour_of(now), runs=runs, failed=failed)


def _finish_stream(db: apsw.Connection, end: RunEnd) -> None:
    stream_id, at = end.ref.stream_id, to_micros(end.at)
    if end.state is RunState.SUCCEEDED:
        has_more = value(db, "SELECT has_more FROM runs WHERE id = :run_id", run_id=end.ref.run_id)
        execute(db, _sql["succeed_stream"], stream_id=stream_id, at=at, complete=int(not has_more))
        if not end.keep_cursor:
            execute(db, _sql["set_cursor"], stream_id=stream_id, cursor=end.checkpoint_cursor, at=at)
    elif end.state in (RunState.FAILED, RunState.RETRYING):
        failed = int(end.state is RunState.FAILED)
        execute(
            db, _sql["fail_stream"],
            stream_id=stream_id, at=at, error=end.error, error_code=end.error_code, failures=failed,
        )  # fmt: skip
        if failed:
            _count(db, stream_id, end.at, failed=1)


def _finish_window(db: apsw.Connection, end: RunEnd) -> None:
    states = {RunState.SUCCEEDED: "done", RunState.FAILED: "failed", RunState.CANCELLED: "cancelled"}
    over = end.state in states
    execute(
        db,
        _sql["finish_window"],
        window_id=end.ref.window_id,
        state=states.get(end.state, "running"),
        finished_at=micros(end.at) if over else None,
        error=end.error,
    )
    if over:
        owner = row(db, _sql["run_owner"], run_id=end.ref.run_id)
        assert owner is not None
        settle_backfill(db, owner["backfill_id"], at=end.at)


def _heed_provider(db: apsw.Connection, end: RunEnd) -> None:
    if end.blocked_until is not None:
        execute(db, _sql["block_connection"], connection_id=end.ref.connection_id, until=to_micros(end.blocked_until))
    if end.pause_reason is not None:
        pause_connection(db, end.ref.connection_id, reason=end.pause_reason, needs_attention=True, at=end.at)
