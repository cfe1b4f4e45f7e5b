"""Runs per second through our engine, beside Procrastinate's own jobs with an empty task; both on fresh databases.

Usage: cost_engine.py URL PEER_URL. Handed in within one transaction, then carried out by eight slots; the clock runs
from the first statement until the last job is gone.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from procrastinate import App, PsycopgConnector
from store_of_streams import NOW, filled

from headwater.clock import SystemClock
from headwater.engines.job_table import install
from headwater.engines.procrastinate import ProcrastinateEngine
from headwater.run import RunRef
from headwater.schedule import decide
from headwater.stores.postgres.store import PostgresStore

RUNS = 1000
SLOTS = 8


async def ours(url: str) -> float:
    """A tick admits every due stream and hands the runs to the engine in its own transaction."""
    await install(url)
    store = PostgresStore(url, SystemClock())
    await store.open()
    await filled(store, connections=RUNS // 4, streams=4, due=RUNS)
    engine = ProcrastinateEngine(url, SystemClock())
    ended = asyncio.Event()
    count = 0

    async def empty(_: RunRef) -> None:
        nonlocal count
        count += 1
        if count == RUNS:
            ended.set()

    # What the tick itself costs is a row of its own; here it is what makes the runs that the engine is handed.
    admitted = await store.tick(NOW, decide=decide, admit_max=RUNS, per_connection_max=4, lease_seconds=600)
    started = time.perf_counter()
    await engine.submit(None, admitted.admitted)
    serving = asyncio.create_task(engine.serve(empty, slots=SLOTS))
    await ended.wait()
    seconds = time.perf_counter() - started
    engine.drain()
    await serving
    await store.close()
    if len(admitted.admitted) != RUNS:
        raise RuntimeError(f"{len(admitted.admitted)} runs were admitted, not {RUNS}")
    return RUNS / seconds


async def peer(url: str) -> float:
    """Procrastinate as its guide says: deferred in one batch, one worker, successful jobs deleted."""
    app = App(connector=PsycopgConnector(conninfo=url, min_size=1, max_size=4))
    ended = asyncio.Event()
    count = 0

    @app.task(name="empty", queue="runs")
    async def empty(run_id: int) -> None:
        nonlocal count
        count += 1
        if count == RUNS:
            ended.set()

    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        started = time.perf_counter()
        await empty.batch_defer_async(*({"run_id": number} for number in range(RUNS)))
        worker = asyncio.create_task(
            app.run_worker_async(
                queues=["runs"], concurrency=SLOTS, delete_jobs="always", install_signal_handlers=False
            )
        )
        await ended.wait()
        seconds = time.perf_counter() - started
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
    return RUNS / seconds


if __name__ == "__main__":
    print(json.dumps({"ours": asyncio.run(ours(sys.argv[1])), "peer": asyncio.run(peer(sys.argv[2]))}))
