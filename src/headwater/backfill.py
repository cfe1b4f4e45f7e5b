"""A span of the past → windows, carried out beside the live stream; how far they have come, and the map of it.

running ──> paused ──> running …        window: todo ──> running ──> done
   └──────────┴──> succeeded · failed · cancelled        ↑ retry ──── failed · cancelled
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from headwater.catalog import Connector
from headwater.engine import Engine
from headwater.errors import NotFoundError, UsageError, near_miss
from headwater.run import Backfill, BackfillState, BackfillWindow, StreamState, Window, WindowState, of_partition
from headwater.store import Store

WINDOWS_MAX = 10_000
MAP_CELLS = 60  # of a folded map: the width of a terminal, less its labels

CELLS: dict[WindowState, str] = {"done": "█", "running": "▶", "failed": "✗", "todo": "·", "cancelled": "-"}
PARTLY_DONE = "▒"  # a folded cell of windows done and to do
LEGEND = "█ done  ▒ partly  ▶ running  · to do  ✗ failed  - cancelled"

_FROM: dict[BackfillState, tuple[BackfillState, ...]] = {
    "paused": ("running",),
    "running": ("paused",),
    "cancelled": ("running", "paused"),
}
_ACTS: dict[BackfillState, str] = {"paused": "paused", "running": "resumed", "cancelled": "cancelled"}


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a backfill has come at an instant."""

    done: int  # windows
    total: int
    records: int  # emissions of its committed pages
    elapsed_seconds: float  # since its first window began
    records_per_second: float
    eta_seconds: float | None  # None: finished, at rest, or no window done yet

    @property
    def share(self) -> float:
        """The part of the windows that is done, 0.0 to 1.0."""
        return self.done / self.total if self.total else 1.0


def split(span: Window, *, days: int) -> list[Window]:
    """The windows of `span`: half-open, one after the other from its start, the last one cut at its end.

    Raises `UsageError` for an empty span, or one that makes more than `WINDOWS_MAX` windows.
    """
    if span.start.tzinfo is None or span.end.tzinfo is None:
        raise UsageError("The span of a backfill needs instants with a time zone.")
    if days < 1:
        raise UsageError(f"A window of {days} days is none.", hint="Give at least one day.")
    start, end, width = span.start.astimezone(UTC), span.end.astimezone(UTC), timedelta(days=days)
    if start >= end:
        raise UsageError(
            f"The span from {start.isoformat()} to {end.isoformat()} is empty.", hint="Its end lies after its start."
        )
    count = -(-(end - start) // width)
    if count > WINDOWS_MAX:
        raise UsageError(
            f"The span makes {count} windows of {days} days, more than {WINDOWS_MAX}.", hint="Choose wider windows."
        )
    return [Window(start + width * number, min(end, start + width * (number + 1))) for number in range(count)]


def progress(backfill: Backfill, windows: Sequence[BackfillWindow], at: datetime) -> Progress:
    """How far `backfill` has come at `at`; the estimate takes the windows to come for as long as those done."""
    states = [window.state for window in windows]
    done, left = states.count("done"), states.count("todo") + states.count("running")
    begun = min((window.started_at for window in windows if window.started_at), default=None)
    elapsed = max(0.0, ((backfill.finished_at or at) - begun).total_seconds()) if begun else 0.0
    records = backfill.counts.total
    is_moving = backfill.state == "running" and done > 0 and elapsed > 0
    return Progress(
        done=done,
        total=len(windows),
        records=records,
        elapsed_seconds=elapsed,
        records_per_second=records / elapsed if elapsed else 0.0,
        eta_seconds=elapsed / done * left if is_moving else None,
    )


def interval_map(windows: Sequence[BackfillWindow], *, cells_max: int = MAP_CELLS) -> str:
    """One character per window in the order of time; neighbours share one where there are more than `cells_max`."""
    states = [window.state for window in windows]
    cells = min(len(states), cells_max)
    bounds = [len(states) * cell // cells for cell in range(cells + 1)] if cells else []
    return "".join(_cell(set(states[first:last])) for first, last in pairwise(bounds))


def _cell(states: set[WindowState]) -> str:
    # What needs a look wins: one failed window among many done must not vanish in a folded map.
    for state in ("failed", "running"):
        if state in states:
            return CELLS[state]
    if len(states) == 1:
        return CELLS[states.pop()]
    return PARTLY_DONE if "done" in states else CELLS["todo"]


async def start(
    store: Store,
    *,
    connector: Connector,
    connection: str,
    stream: str,
    span: Window,
    at: datetime,
    partition: str = "",
    days: int | None = None,
) -> Backfill:
    """Store a backfill of a stream; its windows become runs at the next ticks, after the live polls.

    A window is as wide as the stream's `backfill_window_days` says, unless `days` is given.
    """
    declared = connector.stream(stream)
    if declared is None:
        keys = [one.key for one in connector.streams]
        raise NotFoundError(f"The connector {connector.key} has no stream `{stream}`.", hint=near_miss(stream, keys))
    if declared.mode == "webhook":
        raise UsageError(
            f"The stream `{stream}` comes by webhook and has no sync route.",
            hint="Back-fill a poll or backfill stream.",
        )
    windows = split(span, days=declared.backfill_window_days if days is None else days)
    state = await _stream_state(store, connection=connection, stream=stream, partition=partition, at=at)
    return await store.add_backfill(state.id, span=span, windows=windows, at=at)


async def pause(store: Store, backfill_id: int, *, at: datetime) -> None:
    """Begin no further window; those under way finish. `UsageError` unless it runs."""
    await _change(store, backfill_id, "paused", at)


async def resume(store: Store, backfill_id: int, *, at: datetime) -> None:
    """Go on after a pause. `UsageError` unless it is paused."""
    await _change(store, backfill_id, "running", at)


async def cancel(store: Store, backfill_id: int, *, at: datetime, engine: Engine | None = None) -> None:
    """End it, its runs too; committed pages stay. `engine` interrupts the runs at once, else their next commit is
    refused.
    """
    under_way = [window.run_id for window in await store.windows(backfill_id) if window.state == "running"]
    await _change(store, backfill_id, "cancelled", at)
    for run_id in under_way:
        if engine is not None and run_id is not None:
            await engine.cancel(run_id)


async def retry_window(store: Store, backfill_id: int, number: int, *, at: datetime) -> BackfillWindow:
    """Make the window of that number (1 for the oldest) to do again from its beginning, whatever became of it."""
    await _existing(store, backfill_id)
    windows = await store.windows(backfill_id)
    if not 1 <= number <= len(windows):
        raise NotFoundError(f"The backfill {backfill_id} has windows 1 to {len(windows)}, and none {number}.")
    window = windows[number - 1]
    await store.retry_window(window.id, at=at)
    return window


async def _change(store: Store, backfill_id: int, state: BackfillState, at: datetime) -> None:
    backfill = await _existing(store, backfill_id)
    if backfill.state not in _FROM[state]:
        raise UsageError(f"The backfill {backfill_id} is {backfill.state}: it cannot be {_ACTS[state]}.")
    await store.set_backfill_state(backfill_id, state, at=at)


async def _existing(store: Store, backfill_id: int) -> Backfill:
    backfill = await store.backfill(backfill_id)
    if backfill is None:
        raise NotFoundError(f"There is no backfill {backfill_id}.", hint="`headwater backfill list` shows them.")
    return backfill


async def _stream_state(store: Store, *, connection: str, stream: str, partition: str, at: datetime) -> StreamState:
    rows = await store.streams(at=at, connection=connection, stream=stream)
    if not rows:
        raise NotFoundError(f"The connection {connection} carries no stream `{stream}`.")
    return of_partition(rows, partition)
