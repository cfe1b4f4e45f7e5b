"""How soon a run starts when nothing else is under way: from the act's return to its handler. Usage: cost_start.py URL.

The ticker and the worker of a served node, over PostgreSQL; the run is made on another store, as another node does.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable

from store_of_streams import filled

from headwater.clock import SystemClock
from headwater.engines.job_table import install
from headwater.engines.procrastinate import ProcrastinateEngine
from headwater.intention import RunEnd
from headwater.node import Topic
from headwater.run import RunRef, RunState
from headwater.schedule import Ticker
from headwater.stores.postgres.store import PostgresStore

RUNS = 200
STREAMS = 10
SLOTS = 8
LEASE_SECONDS = 60.0
PAUSE_SECONDS = 0.1  # idle again before the next


async def measure(url: str) -> dict[str, float]:
    """The median and the 99th percentile of all starts, in seconds."""
    clock = SystemClock()
    await install(url)
    store, other = PostgresStore(url, clock), PostgresStore(url, clock)
    await store.open()
    await other.open()
    await filled(store, connections=1, streams=STREAMS, due=1)
    streams = [one.id for one in await store.streams(at=clock.now())]
    engine = ProcrastinateEngine(url, clock)
    ticker = Ticker(store=store, engine=engine, clock=clock, slots=SLOTS)
    started: dict[int, float] = {}
    ended: asyncio.Queue[int] = asyncio.Queue()

    async def carry_out(ref: RunRef) -> None:
        started[ref.run_id] = time.perf_counter()
        await store.begin_run(ref, at=clock.now(), lease_seconds=LEASE_SECONDS)
        end = RunEnd(ref=ref, at=clock.now(), state=RunState.SUCCEEDED, keep_cursor=True, checkpoint_cursor=None)
        await store.finish_run(end)
        ended.put_nowait(ref.run_id)

    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(ticker.serve()),
            group.create_task(engine.serve(ticker.waking(carry_out), slots=SLOTS)),
            group.create_task(store.hear(_waking(ticker))),
        ]
        await ended.get()  # the one that was due: everything is warm
        seconds = []
        for number in range(RUNS):
            await asyncio.sleep(PAUSE_SECONDS)
            run_id = await other.trigger_run(streams[1 + number % (STREAMS - 1)], at=clock.now())
            asked = time.perf_counter()
            while (found := await asyncio.wait_for(ended.get(), 30)) != run_id:
                pass
            if found != run_id:
                raise RuntimeError(f"another run than {run_id} ended")
            seconds.append(max(0.0, started[run_id] - asked))
        for task in tasks:
            task.cancel()
    await store.close()
    await other.close()
    seconds.sort()
    return {"p50": seconds[len(seconds) // 2], "p99": seconds[len(seconds) * 99 // 100]}


def _waking(ticker: Ticker) -> Callable[[Topic], None]:
    return lambda topic: ticker.wake() if topic == "runs" else None


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(sys.argv[1]))))
