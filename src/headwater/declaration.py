"""A catalog → the streams that a connection carries: one row for each of their partitions."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from datetime import datetime
from typing import Any

from headwater import cron
from headwater.catalog import Connector, Stream
from headwater.intention import StoredConnection, StreamDeclaration


def declarations(
    stored: StoredConnection, connector: Connector, at: datetime, *, polled: Container[tuple[int, str, str]] = ()
) -> list[StreamDeclaration]:
    """The streams of a connection as its connector declares them; a new poll stream is due at once, one that was
    `polled` before (by connection, stream and partition) at the next tick of its schedule.
    """
    settings = connector.with_defaults(stored.settings)
    return [
        _declaration(stream, partition, at, was_polled=(stored.id, stream.key, partition) in polled)
        for stream in connector.streams
        for partition in _partitions(stream, settings)
    ]


def _partitions(stream: Stream, settings: Mapping[str, Any]) -> Sequence[str]:
    if stream.partitions is None:
        return ("",)
    values = settings.get(stream.partitions)
    return tuple(dict.fromkeys(str(value) for value in values)) if isinstance(values, (list, tuple)) else ()


def _declaration(stream: Stream, partition: str, at: datetime, *, was_polled: bool) -> StreamDeclaration:
    tick = at if stream.mode == "poll" else None
    if stream.schedule is not None and was_polled:
        tick = cron.next_tick(stream.schedule, stream.timezone, at)
    return StreamDeclaration(
        stream=stream.key,
        partition=partition,
        mode=stream.mode,
        schedule=stream.schedule,
        timezone=stream.timezone,
        expect_within_seconds=stream.expect_within_seconds,
        next_tick_at=tick,
    )
