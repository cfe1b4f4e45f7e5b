"""The strip of a stream's last expected ticks: reckoned backwards from its schedule, so that a missed run is a hole."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from headwater import cron
from headwater.health import StreamReport
from headwater.run import Run, RunState
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


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One expected tick."""

    tick: datetime
    state: CellState
    run_id: int | None = None
    changed: int = 0  # records that the run changed


def strip(
    line: str,
    zone: str,
    runs: Sequence[Run],
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
    by_tick: list[list[Run]] = [[] for _ in ticks]
    for run in sorted(runs, key=lambda run: run.id):
        place = bisect_right(ticks, run.scheduled_at) - 1
        if place >= 0 and run.backfill_id is None:
            by_tick[place].append(run)
    cells = []
    busy_until: datetime | None = None  # the end of the latest run so far; `at` while it still goes
    for tick, own in zip(ticks, by_tick, strict=True):
        was_busy = busy_until is not None and busy_until > tick
        cells.append(_cell(tick, own, registered_at, was_busy=was_busy, waits=_age(tick, at) <= grace_seconds))
        for run in own:
            end = run.finished_at or at
            busy_until = end if busy_until is None else max(busy_until, end)
    return tuple(cells)


def summary(cells: Sequence[Cell]) -> str:
    """The strip in words, for those who cannot see it: "90 expected ticks: 87 ok, 2 retried, 1 missed."."""
    counted = Counter(cell.state for cell in cells)
    parts = ", ".join(f"{counted[state]} {state}" for state in CellState if counted[state])
    return f"{len(cells)} expected ticks: {parts}." if cells else "No expected tick yet."


def _cell(tick: datetime, runs: Sequence[Run], registered_at: datetime, *, was_busy: bool, waits: bool) -> Cell:
    succeeded = next((run for run in reversed(runs) if run.state is RunState.SUCCEEDED), None)
    if run := succeeded or (runs[-1] if runs else None):
        return Cell(tick=tick, state=_state_of(run, runs), run_id=run.id, changed=run.counts.changed)
    if tick < registered_at:
        return Cell(tick=tick, state=CellState.NONE)
    if was_busy:
        return Cell(tick=tick, state=CellState.SKIPPED)
    return Cell(tick=tick, state=CellState.NONE if waits else CellState.MISSED)


def _state_of(run: Run, runs: Sequence[Run]) -> CellState:
    if run.state is RunState.SUCCEEDED:
        failed_before = any(other.state is RunState.FAILED for other in runs)
        return CellState.RETRIED if run.attempt > 1 or failed_before else CellState.OK
    if run.state is RunState.FAILED:
        return CellState.FAILED
    return CellState.SKIPPED if run.state is RunState.CANCELLED else CellState.RUNNING


def _age(tick: datetime, at: datetime) -> float:
    return (at - tick).total_seconds()


async def strips(store: Store, streams: Iterable[StreamReport], at: datetime) -> dict[int, tuple[Cell, ...]]:
    """The strip of each poll stream among these, by stream id."""
    found = {}
    for one in streams:
        if one.mode == "poll" and one.schedule:
            ticks = cron.previous_ticks(one.schedule, one.timezone, at, STRIP_TICKS)
            runs = await store.runs_between(one.id, ticks[0], at + _INSTANT) if ticks else ()
            found[one.id] = strip(
                one.schedule,
                one.timezone,
                runs,
                at,
                registered_at=one.registered_at,
                grace_seconds=one.grace_seconds or 0.0,
            )
    return found
