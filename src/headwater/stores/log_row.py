"""Log lines on their way into a table, and out of it: the same in every dialect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headwater.clock import from_micros, to_micros
from headwater.delivery import ClaimedDelivery
from headwater.log_line import LEVELS, LogFilter, LogLine, NewLogLine, level_of
from headwater.run import RunRef


def of_run(ref: RunRef, log: Sequence[NewLogLine]) -> list[dict[str, Any]]:
    """Lines of an attempt of a run, ready for `insert`."""
    owner = {"connection_id": ref.connection_id, "stream_id": ref.stream_id, "run_id": ref.run_id, "delivery_id": None}
    return [owner | _said(line) for line in log]


def of_delivery(claim: ClaimedDelivery, log: Sequence[NewLogLine]) -> list[dict[str, Any]]:
    """Lines of an attempt at a delivery, ready for `insert`."""
    owner = {"connection_id": claim.connection_id, "stream_id": None, "run_id": None, "delivery_id": claim.id}
    return [owner | _said(line) for line in log]


def asked(which: LogFilter) -> dict[str, tuple[str, Any]]:
    """For each word of a filter the condition that asks for it, its parameter as `{}`, and the value."""
    return {
        "connection": ("c.key = {}", which.connection),
        "stream": ("s.key = {}", which.stream),
        "run_id": ("l.run_id = {}", which.run_id),
        "delivery_id": ("l.delivery_id = {}", which.delivery_id),
        "level": ("l.level >= {}", which.level and LEVELS[which.level]),
    }


def as_log_line(found: Mapping[str, Any]) -> LogLine:
    """A stored line."""
    return LogLine(
        id=found["id"],
        connection=found["connection_key"],
        stream=found["stream_key"],
        partition=found["partition"] or "",
        run_id=found["run_id"],
        delivery_id=found["delivery_id"],
        at=from_micros(found["at"]),
        level=level_of(found["level"]),
        message=found["message"],
    )


def _said(line: NewLogLine) -> dict[str, Any]:
    return {"at": to_micros(line.at), "level": LEVELS[line.level], "message": line.message}
