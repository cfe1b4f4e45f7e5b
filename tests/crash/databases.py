"""The two kinds of database under the programmes that kill: a plain client reads and bends them past the platform."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import psycopg

sys.path.append(str(Path(__file__).parent.parent))

from cluster_nodes import as_url


class Database(Protocol):
    """What a programme needs of a database; statements are written for SQLite."""

    address: str  # as `HEADWATER_DATABASE` takes it

    def read(self) -> contextlib.AbstractContextManager[Any]:
        """A connection with `execute`."""
        ...

    def write(self, *statements: str) -> None:
        """Change rows as nobody may while nodes work."""
        ...

    def lapse(self) -> None:
        """Let every lease and claim lapse."""
        ...

    def fresh(self, name: str) -> str:
        """The address of another one of its kind, which is empty."""
        ...


class SqliteFile:
    """A file, served by one process at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.address = str(path)

    @contextlib.contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """See `Database.read`."""
        database = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)
        try:
            yield database
        finally:
            database.close()

    def write(self, *statements: str) -> None:
        """See `Database.write`."""
        with contextlib.closing(sqlite3.connect(self.path, timeout=30)) as database, database:
            for statement in statements:
                database.execute(statement)

    def lapse(self) -> None:
        """Nothing: the next process takes up what the one before held."""

    def fresh(self, name: str) -> str:
        """See `Database.fresh`."""
        return str(self.path.with_name(f"{name}.db"))


class PostgresDatabase:
    """The database of a PostgreSQL server, for any number of nodes."""

    def __init__(self, server: Any) -> None:
        self._conninfo = server.get_uri()
        self.address = as_url(self._conninfo)

    @contextlib.contextmanager
    def read(self) -> Iterator[Adapted]:
        """See `Database.read`."""
        with psycopg.connect(self.address, autocommit=True) as db:
            yield Adapted(db)

    def write(self, *statements: str) -> None:
        """See `Database.write`: under the lock that every writer takes first."""
        with psycopg.connect(self.address) as db:
            db.execute("select 1 from connections order by id for no key update")
            for statement in statements:
                db.execute(statement)

    def lapse(self) -> None:
        """See `Database.lapse`; those of nodes that are well included: whoever goes on is fenced."""
        self.write(
            "update runs set lease_until = 0 where state = 'running'",
            "update deliveries set lease_until = null where state = 'pending' and lease_until is not null",
        )

    def fresh(self, name: str) -> str:
        """See `Database.fresh`."""
        with psycopg.connect(self.address, autocommit=True) as db:
            db.execute(f'create database "{name}"')
        return as_url(psycopg.conninfo.make_conninfo(self._conninfo, dbname=name))


class Adapted:
    """A PostgreSQL connection that takes the statements written for SQLite."""

    def __init__(self, db: psycopg.Connection) -> None:
        self._db = db

    def execute(self, sql: str, parameters: tuple[object, ...] = ()) -> psycopg.Cursor:
        return self._db.execute(sql.replace("?", "%s"), parameters)
