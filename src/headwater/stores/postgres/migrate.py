"""Bring a database to the schema of this version: numbered SQL, each recorded in its own transaction, forward only.

`schema` says which version the database has and the oldest one whose code may still run on it: that is the one before,
so that nodes are renewed one after the other. A migration leaves what the version before reads and writes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import psycopg

from headwater.errors import SchemaError, StoreUnavailableError
from headwater.failpoint import failpoint
from headwater.stores.postgres.database import LOCK_WAIT, Connection, execute, queries, row, take_time, value
from headwater.stores.query import Migration, migrations

_FOLDER = Path(__file__).parent / "schema"
_sql = queries("migrate.sql")
_logger = logging.getLogger(__name__)


def known() -> Sequence[Migration]:
    """The migrations of this version, in order."""
    return migrations(_FOLDER)


async def schema_version(db: Connection) -> tuple[int, int]:
    """The version of the schema and the oldest one that may still run on it; zeros for a new database."""
    found = await row(db, _sql["version"]) if await value(db, _sql["exists"]) else None
    return (found["version"], found["oldest"]) if found else (0, 0)


async def migrate(db: Connection, steps: Sequence[Migration]) -> None:
    """Apply what the database lacks; `SchemaError` when it has so much more that this version may not run on it."""
    newest = steps[-1].number
    for step in steps:
        if (await schema_version(db))[0] < step.number:
            await _apply(db, step)
    version, oldest = await schema_version(db)
    if oldest > newest:
        raise SchemaError(
            f"The database has schema {version}; this version knows {newest}.",
            hint="Start the version of Headwater that wrote it, or a newer one.",
        )
    if version > newest:
        _logger.warning("The database has schema %d; this version knows %d, and may still run on it.", version, newest)


async def _apply(db: Connection, step: Migration) -> None:
    try:
        async with db.transaction():
            await take_time(db)
            await execute(db, _sql["one_at_a_time"])
            await execute(db, _sql["wait_no_longer"], seconds=LOCK_WAIT)
            await execute(db, _sql["make_table"])
            if (await schema_version(db))[0] < step.number:  # another node may have been first
                await db.execute(step.sql.encode())
                await execute(db, _sql["record"], number=step.number, name=step.name, oldest=max(1, step.number - 1))
            failpoint("migration.before_commit")
    except psycopg.Error as error:
        raise StoreUnavailableError(f"The migration {step.name} failed: {error}.") from error
