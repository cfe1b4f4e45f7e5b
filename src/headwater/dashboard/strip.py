"""The strip of a stream's last expected ticks: reckoned backwards from its schedule, so that a missed run is a hole."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from operator import attrgetter

import msgspec

from headwater import cron
from headwater.clock import to_micros
from headwater.health import StreamReport
from headwater.run import RunState, TickRun
from headwater.store import Store

STRIP_TICKS = 90
_INSTANT = timedelta(microseconds=1)


class CellState(StrEnum):
    """What became of one expected tick."""

    OK = "ok"
    RETRIED = "retried"  # succeeded, after at least one failed attempt
    FAILED = "failed"
    RUNNING = "running"  # or waiting, or between two attempts
    SKIPPED = "skipped"  # the run before was still going, or the run was cancelled
    MISSED = "missed"  # nothing ran
    NONE = "none yet"  # before the stream was declared, or still inside its grace


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One expected tick."""

    tick: datetime
    state: CellState
    run_id: int | None = None
    changed: int = 0  # records that the run changed


def strip(
    line: str,
    zone: str,
    runs: Sequence[TickRun],
    at: datetime,
    *,
    registered_at: datetime,
    grace_seconds: float,
    count: int = STRIP_TICKS,
) -> tuple[Cell, ...]:
    """The last `count` expected ticks before `at`, oldest first, each with what became of it.

    `runs` are those scheduled since the first of the ticks, in any order. A run that an operator started between two
    ticks speaks for the earlier one where that has no run of its own.
    """
    ticks = cron.previous_ticks(line, zone, at, count)
    starts = [to_micros(tick) for tick in ticks]
    by_tick: list[list[TickRun]] = [[] for _ in ticks]
    for run in sorted(runs, key=attrgetter("id")):
        place = bisect_right(starts, run.scheduled_at) - 1
        if place >= 0:
            by_tick[place].append(run)
    now, registered = to_micros(at), to_micros(registered_at)
    waits_from = now - int(grace_seconds * 1_000_000)
    cells = []
    busy_until = 0  # the end of the latest run so far; `at` while it still goes
    for tick, start, own in zip(ticks, starts, by_tick, strict=True):
        if own:
            run = own[-1] if len(own) == 1 else _last_success(own)
            cells.append(Cell(tick=tick, state=_state_of(run, own), run_id=run.id, changed=run.changed))
            busy_until = max(busy_until, *(run.finished_at or now for run in own))
        elif start >= registered and busy_until > start:
            cells.append(Cell(tick=tick, state=CellState.SKIPPED))
        else:
            is_nothing_yet = start < registered or start >= waits_from
            cells.append(Cell(tick=tick, state=CellState.NONE if is_nothing_yet else CellState.MISSED))
    return tuple(cells)


def summary(cells: Sequence[Cell]) -> str:
    """The strip in words, for those who cannot see it: "90 expected ticks: 87 ok, 2 retried, 1 missed."."""
    counted = Counter(cell.state for cell in cells)
    parts = ", ".join(f"{counted[state]} {state}" for state in CellState if counted[state])
    return f"{len(cells)} expected ticks: {parts}." if cells else "No expected tick yet."


def _last_success(runs: Sequence[TickRun]) -> TickRun:
    """The last one that succeeded, or the last one."""
    return next((run for run in reversed(runs) if run.state is RunState.SUCCEEDED), runs[-1])


def _state_of(run: TickRun, runs: Sequence[TickRun]) -> CellState:
    if run.state is RunState.SUCCEEDED:
        has_failed = run.attempt > 1 or (len(runs) > 1 and any(one.state is RunState.FAILED for one in runs))
        return CellState.RETRIED if has_failed else CellState.OK
    if run.state is RunState.FAILED:
        return CellState.FAILED
    return CellState.SKIPPED if run.state is RunState.CANCELLED else CellState.RUNNING


async def strips(store: Store, streams: Iterable[StreamReport], at: datetime) -> dict[int, tuple[Cell, ...]]:
    """The strip of each poll stream among these, by stream id."""
    polled = [(one, one.schedule) for one in streams if one.mode == "poll" and one.schedule]
    ticks = {one.id: cron.previous_ticks(line, one.timezone, at, STRIP_TICKS) for one, line in polled}
    since = {stream_id: found[0] for stream_id, found in ticks.items() if found}
    runs = await store.tick_runs(since, until=at + _INSTANT) if since else {}
    return {
        one.id: strip(
            line,
            one.timezone,
            runs.get(one.id, ()),
            at,
            registered_at=one.registered_at,
            grace_seconds=one.grace_seconds or 0.0,
        )
        for one, line in polled
    }
