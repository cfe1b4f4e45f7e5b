"""Log lines of a process that serves: text for people or JSON for programs, on stderr, without secrets."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from headwater.redaction import Redactor

FACT_PREFIX = "headwater_"  # of the attributes that a route's log lines carry


class _Redacting(logging.Formatter):
    """Formats a whole line, traceback included, and takes the secrets out of it."""

    def __init__(self, redactor: Callable[[], Redactor]) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S%z")
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        return self._redactor().text(super().format(record))


class _Json(_Redacting):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat()
        line = {"at": at, "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        line |= {
            name.removeprefix(FACT_PREFIX): str(value)
            for name, value in vars(record).items()
            if name.startswith(FACT_PREFIX)
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return self._redactor().text(msgspec.json.encode(line).decode())


def configure(level: str, log_format: str, redactor: Callable[[], Redactor]) -> None:
    """Send the log of this process to stderr; `redactor` gives what knows the secrets of the moment."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json(redactor) if log_format == "json" else _Redacting(redactor))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Their lines at `info` are about each start, changed file and run, which ours tell already.
    for name in ("uvicorn", "watchfiles", "procrastinate"):
        logging.getLogger(name).setLevel(logging.WARNING)
