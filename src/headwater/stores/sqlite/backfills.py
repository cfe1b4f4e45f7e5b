"""Backfills and their windows.

running <──> paused        running ── no window left ──> succeeded · failed        any ──> cancelled
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import apsw

from headwater.clock import to_micros
from headwater.errors import NotFoundError, UsageError
from headwater.run import Backfill, BackfillState, BackfillWindow, Window
from headwater.stores.row import as_backfill, as_window
from headwater.stores.sqlite.database import execute, json_text, queries, row, rows, value

_sql = queries("backfills.sql")
_OVER = ("succeeded", "failed", "cancelled")


def add_backfill(
    db: apsw.Connection, stream_id: int, *, span: Window, windows: Sequence[Window], at: datetime
) -> Backfill:
    """See `BackfillStore.add_backfill`."""
    if value(db, "SELECT 1 FROM streams WHERE id = :stream_id", stream_id=stream_id) is None:
        raise NotFoundError(f"There is no stream row {stream_id}.")
    if not windows:
        raise UsageError("A backfill needs at least one window.")
    backfill_id = value(
        db,
        _sql["insert"],
        stream_id=stream_id,
        span_start=to_micros(span.start),
        span_end=to_micros(span.end),
        at=to_micros(at),
    )
    spans = json_text([(to_micros(window.start), to_micros(window.end)) for window in windows])
    execute(db, _sql["insert_windows"], backfill_id=backfill_id, rows=spans)
    return _existing(db, backfill_id)


def backfills(db: apsw.Connection, *, connection: str | None = None, stream: str | None = None) -> Sequence[Backfill]:
    """See `BackfillStore.backfills`."""
    found = rows(db, _sql["list"], backfill_id=None, connection=connection, stream=stream)
    return [as_backfill(one) for one in found]


def backfill(db: apsw.Connection, backfill_id: int) -> Backfill | None:
    """See `BackfillStore.backfill`."""
    found = row(db, _sql["list"], backfill_id=backfill_id, connection=None, stream=None)
    return None if found is None else as_backfill(found)


def windows(db: apsw.Connection, backfill_id: int) -> Sequence[BackfillWindow]:
    """See `BackfillStore.windows`."""
    return [as_window(found) for found in rows(db, _sql["windows"], backfill_id=backfill_id)]


def set_backfill_state(db: apsw.Connection, backfill_id: int, state: BackfillState, *, at: datetime) -> None:
    """See `BackfillStore.set_backfill_state`; `UsageError` for one that is over, unless it is to be cancelled again."""
    before = _existing(db, backfill_id).state
    if state == before:
        return
    if before in _OVER or state in ("succeeded", "failed"):
        raise UsageError(f"Backfill {backfill_id} is {before} and cannot be {state}.", hint="Retry its windows.")
    finished_at = to_micros(at) if state == "cancelled" else None
    execute(db, _sql["set_state"], backfill_id=backfill_id, state=state, finished_at=finished_at)
    if state == "cancelled":
        execute(db, _sql["cancel_runs"], backfill_id=backfill_id, at=to_micros(at))
        execute(db, _sql["cancel_windows"], backfill_id=backfill_id, at=to_micros(at))


def retry_window(db: apsw.Connection, window_id: int, *, at: datetime) -> None:
    """See `BackfillStore.retry_window`."""
    found = row(db, _sql["window"], window_id=window_id)
    if found is None:
        raise NotFoundError(f"There is no window {window_id}.")
    execute(db, _sql["cancel_window_run"], window_id=window_id, at=to_micros(at))
    execute(db, _sql["reset_window"], window_id=window_id)
    execute(db, _sql["set_state"], backfill_id=found["backfill_id"], state="running", finished_at=None)


def settle_backfill(db: apsw.Connection, backfill_id: int, *, at: datetime) -> None:
    """End a backfill that has no window left to do."""
    execute(db, _sql["settle"], backfill_id=backfill_id, at=to_micros(at))


def _existing(db: apsw.Connection, backfill_id: int) -> Backfill:
    found = backfill(db, backfill_id)
    if found is None:
        raise NotFoundError(f"There is no backfill {backfill_id}.")
    return found
