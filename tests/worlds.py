"""The world of the conformance suite over a store that is open for one test: a SQLite file, memory or PostgreSQL."""

from contextlib import asynccontextmanager

from headwater.stores.postgres.store import PostgresStore
from headwater.stores.sqlite.store import SQLiteStore
from headwater.testing.clock import FakeClock
from headwater.testing.conformance.world import World


@asynccontextmanager
async def opened(where=":memory:", **options):
    """A store of its own: two of the same place are two nodes. `where` is an absolute path, or names a database."""
    clock = FakeClock()
    place = str(where)
    kind = SQLiteStore if place.startswith(("/", ":memory:")) else PostgresStore
    store = kind(place, clock, **options)
    await store.open()
    try:
        yield World(store=store, clock=clock)
    finally:
        await store.close()
