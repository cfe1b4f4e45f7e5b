"""Lines that routes logged, kept with the page or the delivery that they were logged for.

They are committed with it, so that what is shown of a run is what its committed pages said, and of a page that failed
what it said until then. What a fenced attempt said is in its process's own log alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

Level = Literal["debug", "info", "warning", "error"]
LEVELS: Mapping[Level, int] = {"debug": 10, "info": 20, "warning": 30, "error": 40}  # as the module `logging` has them
LINES_NOTED_MAX = 200  # of one invocation; the newest are kept
LINES_KEPT = 1_000  # of one run; likewise
LINES_OF_CONNECTION_MAX = 100_000  # that a purge leaves


@dataclass(frozen=True, kw_only=True)
class NewLogLine:
    """A line as a route logged it: redacted, without line breaks."""

    at: datetime
    level: Level
    message: str


@dataclass(frozen=True, kw_only=True)
class LogLine:
    """A line as stored, with what it belongs to."""

    id: int
    connection: str
    stream: str | None  # None: of a delivery
    partition: str
    run_id: int | None
    delivery_id: int | None
    at: datetime
    level: Level
    message: str


@dataclass(frozen=True, kw_only=True)
class LogFilter:
    """Which lines are meant; None leaves open."""

    connection: str | None = None
    stream: str | None = None
    run_id: int | None = None
    delivery_id: int | None = None
    level: Level | None = None  # and those above it


class LogStore(Protocol):
    """Lines that routes logged."""

    async def log_lines(self, which: LogFilter, *, after: int | None = None, limit: int = 100) -> Sequence[LogLine]:
        """Lines that match, newest first, with ids below `after`.

        Of a run the newest `LINES_KEPT` are kept; a purge leaves those that are younger than its runs, and of each
        connection the newest `LINES_OF_CONNECTION_MAX`.
        """
        ...


def level_of(number: int) -> Level:
    """The level of a number of the module `logging`, which may lie between two: the one below."""
    name: Level = "debug"
    for level, at_least in LEVELS.items():
        if number >= at_least:
            name = level
    return name
