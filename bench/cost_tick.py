"""The time of one tick that admits 2,000 due of 100,000 poll streams. Usage: cost_tick.py DATABASE [--postgres].

On PostgreSQL, where the choice of what is admitted is one query, its own time is told as well; and how evenly the
connections were served.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter

from store_of_streams import NOW, filled

from headwater.clock import SystemClock
from headwater.intention import TickResult
from headwater.schedule import decide
from headwater.store import Store
from headwater.stores.sqlite.store import SQLiteStore

CONNECTIONS = 1000
STREAMS = 100
DUE = 2000
PER_CONNECTION_MAX = 4


async def ticked(store: Store) -> tuple[TickResult, float]:
    """One tick, and its seconds."""
    started = time.perf_counter()
    result = await store.tick(
        NOW, decide=decide, admit_max=DUE, per_connection_max=PER_CONNECTION_MAX, lease_seconds=60
    )
    return result, time.perf_counter() - started


async def on_sqlite(path: str) -> dict[str, float]:
    """Fill the store, then time the one tick."""
    store = SQLiteStore(path, SystemClock())
    await store.open()
    await filled(store, connections=CONNECTIONS, streams=STREAMS, due=DUE)
    result, seconds = await ticked(store)
    await store.close()
    return {"seconds": seconds, **_fairness(result)}


async def on_postgres(url: str) -> dict[str, float]:
    """The same on PostgreSQL, and the seconds of the choice alone: which streams are kept, and which runs go."""
    import psycopg

    from headwater.stores.postgres.store import PostgresStore
    from headwater.stores.postgres.ticks import _sql

    store = PostgresStore(url, SystemClock())
    await store.open()
    await filled(store, connections=CONNECTIONS, streams=STREAMS, due=DUE)
    with psycopg.connect(url, autocommit=True) as db:
        db.execute("VACUUM ANALYZE")
    nothing = await store.tick(NOW, decide=decide, admit_max=0, per_connection_max=PER_CONNECTION_MAX, lease_seconds=60)
    choice = []
    with psycopg.connect(url, autocommit=True) as db:
        held = [row[0] for row in db.execute("SELECT DISTINCT connection_id FROM runs WHERE state = 'scheduled'")]
        asked = {
            "at": int(NOW.timestamp() * 1e6), "per_connection_max": PER_CONNECTION_MAX, "limit": DUE, "active": held,
            "kept": [],
        }  # fmt: skip
        found = db.execute(_sql["waiting_runs"], asked).fetchall()
        for _ in range(5):
            explained = [
                db.execute("EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) " + _sql[name], asked).fetchone()[0][0]
                for name in ("kept_streams", "waiting_runs")
            ]
            choice.append(sum(one["Planning Time"] + one["Execution Time"] for one in explained) / 1000)
        if len(found) != DUE or nothing.started != DUE:
            raise RuntimeError(f"{len(found)} of {nothing.started} waiting runs were chosen, not {DUE}")
    result, seconds = await ticked(store)
    await store.close()
    return {"seconds": seconds, "choice": sorted(choice)[len(choice) // 2], **_fairness(result)}


def _fairness(result: TickResult) -> dict[str, float]:
    """The least and the most runs that a connection was given."""
    if len(result.admitted) != DUE:
        raise RuntimeError(f"{len(result.admitted)} runs were admitted, not {DUE}")
    given = Counter(run.connection_id for run in result.admitted).values()
    return {"least": min(given), "most": max(given)}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(on_postgres(sys.argv[1]) if "--postgres" in sys.argv else on_sqlite(sys.argv[1]))))
