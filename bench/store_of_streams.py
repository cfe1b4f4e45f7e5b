"""A store with many connections of many poll streams, some of them due: what ticks are measured on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from headwater.intention import StreamDeclaration
from headwater.store import Store

NOW = datetime(2026, 3, 1, 12, 0, 1, tzinfo=UTC)
SCHEDULES = ("*/15 * * * *", "*/5 * * * *", "0 * * * *", "30 2 * * *", "7,37 * * * *")
ZONES = ("UTC", "Europe/Berlin", "America/New_York")


async def filled(store: Store, *, connections: int, streams: int, due: int) -> None:
    """Add the connections with their streams; `due` of all, evenly spread, are due at `NOW`."""
    every = connections * streams // due
    for number in range(connections):
        stored = await store.add_connection(
            key=f"c{number}", connector="quiet", tenant=None, endpoint_id=f"e{number}", settings={}, secrets={}, at=NOW
        )
        declared = [_declaration(number, offset, streams, every) for offset in range(streams)]
        await store.declare_streams(stored.id, declared, at=NOW - timedelta(hours=1))


def _declaration(connection: int, stream: int, streams: int, every: int) -> StreamDeclaration:
    is_due = (connection * streams + stream) % every == 0
    return StreamDeclaration(
        stream=f"things_{stream}",
        partition="",
        mode="poll",
        schedule=SCHEDULES[connection % len(SCHEDULES)],
        timezone=ZONES[connection % len(ZONES)],
        expect_within_seconds=None,
        next_tick_at=NOW - timedelta(seconds=1) if is_due else NOW + timedelta(hours=6),
    )
