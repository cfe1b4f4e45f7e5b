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


def narrowed(which: LogFilter, *, after: int | None, mark: str) -> tuple[str, dict[str, Any]]:
    """The conditions of a filter, to follow `columns`, and their parameters; `mark` is a parameter in the dialect."""
    asked = {
        "connection": ("c.key =", which.connection),
        "stream": ("s.key =", which.stream),
        "run_id": ("l.run_id =", which.run_id),
        "delivery_id": ("l.delivery_id =", which.delivery_id),
        "level": ("l.level >=", which.level and LEVELS[which.level]),
        "after": ("l.id <", after),
    }
    given = {name: pair for name, pair in asked.items() if pair[1] is not None}
    sql = "".join(f" AND {text} {mark.format(name)}" for name, (text, _) in given.items())
    return sql, {name: value for name, (_, value) in given.items()}


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
