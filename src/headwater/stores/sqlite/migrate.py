"""Bring a file to the schema of this version: numbered SQL, each recorded in its own transaction, forward only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import apsw

from headwater.errors import SchemaError, StoreUnavailableError
from headwater.failpoint import failpoint
from headwater.stores.query import Migration, migrations
from headwater.stores.sqlite.database import value

_FOLDER = Path(__file__).parent / "schema"
_TABLE = "CREATE TABLE IF NOT EXISTS migrations (number INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT"


def known() -> Sequence[Migration]:
    """The migrations of this version, in order."""
    return migrations(_FOLDER)


def schema_version(db: apsw.Connection) -> int:
    """The number of the newest migration that the file has; 0 for a new file."""
    exists = value(db, "SELECT 1 FROM sqlite_schema WHERE name = 'migrations'")
    return int(value(db, "SELECT coalesce(max(number), 0) FROM migrations")) if exists else 0


def migrate(db: apsw.Connection, steps: Sequence[Migration]) -> None:
    """Apply what the file lacks; `SchemaError` when it has more than is known here."""
    newest = steps[-1].number
    found = schema_version(db)
    for migration in steps:
        if found < migration.number:
            _apply(db, migration)
    if (found := schema_version(db)) > newest:
        raise SchemaError(
            f"The database has schema {found}; this version knows {newest}.",
            hint="Start the version of Headwater that wrote it, or a newer one.",
        )


def _apply(db: apsw.Connection, migration: Migration) -> None:
    try:
        db.execute("BEGIN IMMEDIATE")
        db.execute(_TABLE)
        if schema_version(db) < migration.number:  # another process may have been first
            db.execute(migration.sql)
            db.execute("INSERT INTO migrations VALUES (?, ?)", (migration.number, migration.name))
        failpoint("migration.before_commit")
        db.execute("COMMIT")
    except apsw.Error as error:
        raise StoreUnavailableError(f"The migration {migration.name} failed: {error}.") from error
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")
