"""The logger of a route being invoked: every line knows its connection, stream and run, and holds no secret."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping, MutableMapping
from typing import Any

from headwater.clock import Clock
from headwater.log_line import LEVELS, LINES_NOTED_MAX, NewLogLine, level_of
from headwater.redaction import Redactor, one_line

LINE_CHARACTERS_MAX = 8_000

_logger = logging.getLogger("headwater.route")
_ABOVE = 3  # frames between the author's call and the logger: `Log.info`, `LoggerAdapter.info`, `log` below


class RouteLog(logging.LoggerAdapter[logging.Logger]):
    """Formats and redacts a line before it is a record: no handler, wherever it was added, sees more.

    It adds each line from `info` on to `lines`, and those below that the process logs too; the newest
    `LINES_NOTED_MAX` stay there.
    """

    def __init__(
        self,
        facts: Mapping[str, object],
        redactor: Redactor,
        *,
        clock: Clock,
        lines: list[NewLogLine],
        logger: logging.Logger = _logger,
    ) -> None:
        super().__init__(logger)
        self._clock = clock
        self._lines = lines
        self._facts = facts  # put into words only when a line is logged: most routes log none
        self._redactor = redactor

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log one line, and the traceback that `exc_info` asks for as part of it."""
        is_told = self.isEnabledFor(level)
        if not is_told and level < LEVELS["info"]:
            return
        text = _formatted(msg, args)
        if raised := kwargs.pop("exc_info", None):
            text += "\n" + _traceback(raised)
        kwargs.pop("stack_info", None)
        kwargs.setdefault("stacklevel", _ABOVE)
        # Half a character, as a provider's JSON may hold it, is no text that a store or a terminal takes.
        line = self._redactor.line(text)[:LINE_CHARACTERS_MAX].encode("utf-8", "backslashreplace").decode()
        if len(self._lines) >= LINES_NOTED_MAX:
            del self._lines[0]
        self._lines.append(NewLogLine(at=self._clock.now(), level=level_of(level), message=line))
        if not is_told:
            return
        head = " ".join(f"{name}={one_line(str(fact))}" for name, fact in self._known())
        super().log(level, "%s", f"[{head}] {line}", **kwargs)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Add the facts to the record, beside what the line itself brings."""
        facts = {f"headwater_{name}": fact for name, fact in self._known()}
        kwargs["extra"] = {**(kwargs.get("extra") or {}), **facts}
        return msg, kwargs

    def _known(self) -> list[tuple[str, object]]:
        return [(name, fact) for name, fact in self._facts.items() if fact is not None]


def _formatted(message: object, args: tuple[object, ...]) -> str:
    try:
        return str(message) % args if args else str(message)
    except (TypeError, ValueError, KeyError):
        # Words that do not fit their arguments are no reason to end a run.
        return f"{message} {args!r}"


def _traceback(raised: Any) -> str:
    if isinstance(raised, BaseException):
        return "".join(traceback.format_exception(raised)).rstrip("\n")
    return traceback.format_exc().rstrip("\n")
