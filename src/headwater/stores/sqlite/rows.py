"""Stored rows as the platform's values, and back."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from headwater.clock import from_micros, to_micros
from headwater.record import COUNT_NAMES, Counts
from headwater.run import Window
from headwater.stores.sqlite.database import Row


def instant(micros: int | None) -> datetime | None:
    """The instant that a column holds, or None."""
    return None if micros is None else from_micros(micros)


def micros(at: datetime | None) -> int | None:
    """What a column holds for an instant, or for None."""
    return None if at is None else to_micros(at)


def counts(row: Row) -> Counts:
    """The seven counters of a row."""
    return Counts(**{name: row[name] or 0 for name in COUNT_NAMES})


def window(row: Row) -> Window | None:
    """The window of a row, if it has one."""
    if row["window_start"] is None:
        return None
    return Window(from_micros(row["window_start"]), from_micros(row["window_end"]))


def window_micros(window: Window | None) -> dict[str, Any]:
    """The two columns of a window."""
    return {
        "window_start": None if window is None else to_micros(window.start),
        "window_end": None if window is None else to_micros(window.end),
    }
