"""A SQLite store that is open for one test, in a file or in memory."""

from contextlib import asynccontextmanager

from headwater.stores.sqlite.store import SQLiteStore
from headwater.testing.clock import FakeClock
from headwater.testing.conformance.world import World


@asynccontextmanager
async def opened(path=":memory:"):
    clock = FakeClock()
    store = SQLiteStore(str(path), clock)
    await store.open()
    try:
        yield World(store=store, clock=clock)
    finally:
        await store.close()
