"""Backfills and their windows.

running <──> paused        running ── no window left ──> succeeded · failed        any ──> cancelled
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from headwater.clock import to_micros
from headwater.errors import NotFoundError, UsageError
from headwater.run import Backfill, BackfillState, BackfillWindow, Window
from headwater.stores.postgres.connections import hold_stream
from headwater.stores.postgres.database import Connection, execute, queries, row, rows, value
from headwater.stores.row import as_backfill, as_window

_sql = queries("backfills.sql")
_OVER = ("succeeded", "failed", "cancelled")


async def add_backfill(
    db: Connection, stream_id: int, *, span: Window, windows: Sequence[Window], at: datetime
) -> Backfill:
    """See `BackfillStore.add_backfill`."""
    await hold_stream(db, stream_id)
    if not windows:
        raise UsageError("A backfill needs at least one window.")
    backfill_id = await value(
        db,
        _sql["insert"],
        stream_id=stream_id,
        span_start=to_micros(span.start),
        span_end=to_micros(span.end),
        at=to_micros(at),
    )
    await execute(
        db,
        _sql["insert_windows"],
        backfill_id=backfill_id,
        starts=[to_micros(window.start) for window in windows],
        ends=[to_micros(window.end) for window in windows],
    )
    return await _held(db, backfill_id)


async def backfills(db: Connection, *, connection: str | None = None, stream: str | None = None) -> Sequence[Backfill]:
    """See `BackfillStore.backfills`."""
    found = await rows(db, _sql["list"], backfill_id=None, connection=connection, stream=stream)
    return [as_backfill(one) for one in found]


async def backfill(db: Connection, backfill_id: int) -> Backfill | None:
    """See `BackfillStore.backfill`."""
    found = await row(db, _sql["list"], backfill_id=backfill_id, connection=None, stream=None)
    return None if found is None else as_backfill(found)


async def windows(db: Connection, backfill_id: int) -> Sequence[BackfillWindow]:
    """See `BackfillStore.windows`."""
    return [as_window(found) for found in await rows(db, _sql["windows"], backfill_id=backfill_id)]


async def set_backfill_state(db: Connection, backfill_id: int, state: BackfillState, *, at: datetime) -> None:
    """See `BackfillStore.set_backfill_state`; `UsageError` for one that is over, unless it is to be cancelled again."""
    before = (await _held(db, backfill_id)).state
    if state == before:
        return
    if before in _OVER or state in ("succeeded", "failed"):
        raise UsageError(f"Backfill {backfill_id} is {before} and cannot be {state}.", hint="Retry its windows.")
    finished_at = to_micros(at) if state == "cancelled" else None
    await execute(db, _sql["set_state"], backfill_id=backfill_id, state=state, finished_at=finished_at)
    if state == "cancelled":
        await execute(db, _sql["cancel_runs"], backfill_id=backfill_id, at=to_micros(at))
        await execute(db, _sql["cancel_windows"], backfill_id=backfill_id, at=to_micros(at))


async def retry_window(db: Connection, window_id: int, *, at: datetime) -> None:
    """See `BackfillStore.retry_window`."""
    backfill_id = await value(db, _sql["window_backfill"], window_id=window_id)
    if backfill_id is None:
        raise NotFoundError(f"There is no window {window_id}.")
    await _held(db, backfill_id)
    await execute(db, _sql["cancel_window_run"], window_id=window_id, at=to_micros(at))
    await execute(db, _sql["reset_window"], window_id=window_id)
    await execute(db, _sql["set_state"], backfill_id=backfill_id, state="running", finished_at=None)


async def settle_backfill(db: Connection, backfill_id: int, *, at: datetime) -> None:
    """End a backfill that has no window left to do."""
    await execute(db, _sql["settle"], backfill_id=backfill_id, at=to_micros(at))


async def _held(db: Connection, backfill_id: int) -> Backfill:
    await execute(db, _sql["hold_backfill"], backfill_id=backfill_id)
    found = await backfill(db, backfill_id)
    if found is None:
        raise NotFoundError(f"There is no backfill {backfill_id}.")
    return found
