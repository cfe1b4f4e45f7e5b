"""JSON lines: one change a line, the canonical payload byte for byte inside it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from headwater.sink import Change
from headwater.sinks.file import AppendedFile

_encoder = msgspec.json.Encoder(decimal_format="string")


class JSONLinesSink:
    """A `Sink` of JSON lines."""

    def __init__(self, file: AppendedFile) -> None:
        self._file = file

    async def open(self) -> str | None:
        """See `Sink`."""
        return await asyncio.to_thread(self._file.open)

    async def write(self, changes: Sequence[Change], *, position: str) -> None:
        """See `Sink`."""
        await asyncio.to_thread(self._write, changes, position)

    async def finish(self) -> None:
        """See `Sink`."""
        await asyncio.to_thread(self._file.finish)

    async def close(self) -> None:
        """See `Sink`."""
        await asyncio.to_thread(self._file.close)

    def _write(self, changes: Sequence[Change], position: str) -> None:
        self._file.append(_encoder.encode_lines(changes), position=position)
