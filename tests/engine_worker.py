"""A worker process for the tests that kill and stop one: serves the engine until its stdin says `drain` or ends.

It tells what happens as lines on stdout, and holds before a page until stdin says `go`.
"""

from __future__ import annotations

import asyncio
import sys

from headwater.clock import SystemClock
from headwater.engines.procrastinate import ProcrastinateEngine
from headwater.stores.postgres.store import PostgresStore
from headwater.testing import engine_conformance
from headwater.testing.engine_conformance import Worker

LEASE_SECONDS = 2.0


async def main(url: str, hold: str) -> None:
    clock = SystemClock()
    store = PostgresStore(url, clock)
    await store.open()
    worker, engine = Worker(store, clock), ProcrastinateEngine(url, clock)
    engine_conformance.LEASE_SECONDS = LEASE_SECONDS
    stream, _, page = hold.partition(":")
    if stream:
        worker.hold(stream, int(page))
    serving = asyncio.create_task(engine.serve(worker, slots=4))
    telling = asyncio.create_task(tell(worker))
    lines = await stdin_lines()
    while (line := (await lines.readline()).strip()) and line != b"drain":
        worker.let_go(stream, int(page))
    engine.drain()
    await serving
    telling.cancel()
    await store.close()
    print("drained", flush=True)


async def stdin_lines() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def tell(worker: Worker) -> None:
    told: set[str] = set()
    print("serving", flush=True)
    while True:
        for word, many in (("held", worker.waiting), ("ended", worker.ended), ("fenced", worker.fenced)):
            if many and word not in told:
                told.add(word)
                print(word, flush=True)
        await asyncio.sleep(0.02)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
