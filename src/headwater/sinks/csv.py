"""CSV by RFC 4180, in UTF-8, with exact numbers, and cells that no spreadsheet takes for a formula.

An absent value is an empty cell, an empty text is `""`. A text that begins like a formula gets an apostrophe before it;
numbers never do.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from datetime import datetime

from headwater.intention import TypeColumn
from headwater.jsonvalue import JSONValue
from headwater.sink import Change
from headwater.sinks.column import Columns
from headwater.sinks.file import AppendedFile

LINE_END = "\r\n"
_FORMULA = re.compile(r"[=+\-@\t\r\n]|\s+[=+\-@]")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")
_SPECIAL = re.compile(r'[",\r\n]|^\s|\s$')


class CSVSink:
    """A `Sink` of CSV rows, the first one with the names."""

    def __init__(self, file: AppendedFile, columns: Sequence[TypeColumn] | None = None) -> None:
        self._file = file
        self._columns = Columns.of(columns)

    async def open(self) -> str | None:
        """See `Sink`."""
        return await asyncio.to_thread(self._file.open)

    async def write(self, changes: Sequence[Change], *, position: str) -> None:
        """See `Sink`."""
        await asyncio.to_thread(self._write, changes, position)

    async def finish(self) -> None:
        """See `Sink`."""
        await asyncio.to_thread(self._finish)

    async def close(self) -> None:
        """See `Sink`."""
        await asyncio.to_thread(self._file.close)

    def _write(self, changes: Sequence[Change], position: str) -> None:
        lines = [self._line(change) for change in changes]
        if self._file.is_empty:
            lines.insert(0, self._head())
        self._file.append("".join(lines).encode(), position=position)

    def _finish(self) -> None:
        self._file.finish(empty=self._head().encode())

    def _head(self) -> str:
        return _row(cell(name) for name in self._columns.names)

    def _line(self, change: Change) -> str:
        meta = (
            str(change.sequence),
            change.op,
            cell(change.connection),
            cell(change.stream),
            cell(change.type),
            cell(change.id),
            str(change.version),
            _instant(change.as_of),
            _instant(change.observed_at),
            change.origin,
        )
        kinds = (column.kind for column in self._columns.columns)
        values = self._columns.values(change)
        return _row([*meta, *(_cell_of(value, kind) for value, kind in zip(values, kinds, strict=True))])


def cell(text: str) -> str:
    """A text as a cell: no formula, quoted where it must be."""
    if _FORMULA.match(text):
        text = f"'{text}"
    if not text or _SPECIAL.search(text):
        return '"' + text.replace('"', '""') + '"'
    return text


def _cell_of(value: JSONValue, kind: str) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    if kind in ("integer", "decimal") and _NUMBER.fullmatch(text):
        return text
    return cell(text)


def _instant(instant: datetime) -> str:
    return instant.isoformat().replace("+00:00", "Z")


def _row(cells: Iterable[str]) -> str:
    return ",".join(cells) + LINE_END
