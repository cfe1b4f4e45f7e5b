"""The time of one tick that admits 2,000 due of 100,000 poll streams. Usage: cost_tick.py DATABASE."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import UTC, datetime, timedelta

from headwater.clock import SystemClock
from headwater.intention import StreamDeclaration
from headwater.schedule import decide
from headwater.stores.sqlite.store import SQLiteStore

CONNECTIONS = 1000
STREAMS = 100
DUE = 2000
NOW = datetime(2026, 3, 1, 12, 0, 1, tzinfo=UTC)
SCHEDULES = ("*/15 * * * *", "*/5 * * * *", "0 * * * *", "30 2 * * *", "7,37 * * * *")
ZONES = ("UTC", "Europe/Berlin", "America/New_York")


def declaration(number: int) -> StreamDeclaration:
    """The nth stream of all; one in fifty is due."""
    due = number % (CONNECTIONS * STREAMS // DUE) == 0
    return StreamDeclaration(
        stream=f"things_{number % STREAMS}",
        partition="",
        mode="poll",
        schedule=SCHEDULES[number // STREAMS % len(SCHEDULES)],
        timezone=ZONES[number // STREAMS % len(ZONES)],
        expect_within_seconds=None,
        next_tick_at=NOW - timedelta(seconds=1) if due else NOW + timedelta(hours=6),
    )


async def main(path: str) -> None:
    """Fill the store, then time the one tick."""
    store = SQLiteStore(path, SystemClock())
    await store.open()
    for number in range(CONNECTIONS):
        stored = await store.add_connection(
            key=f"c{number}", connector="quiet", tenant=None, endpoint_id=f"e{number}", settings={}, secrets={}, at=NOW
        )
        declared = [declaration(number * STREAMS + offset) for offset in range(STREAMS)]
        await store.declare_streams(stored.id, declared, at=NOW - timedelta(hours=1))
    started = time.perf_counter()
    result = await store.tick(NOW, decide=decide, admit_max=DUE, per_connection_max=4, lease_seconds=60)
    seconds = time.perf_counter() - started
    await store.close()
    if len(result.admitted) != DUE:
        raise RuntimeError(f"{len(result.admitted)} runs were admitted, not {DUE}")
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
