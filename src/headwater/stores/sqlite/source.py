"""An installation in a SQLite file as the source of a copy: held still, and read in the form that PostgreSQL has it.

Two things are told differently there. A delivery's id begins with its day (see `stores/postgres/partition.py`), so that
each delivery gets a new id, and everything that names it names the new one. And what SQLite keeps in a column for the
sake of its own statements is left out, or has a table of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import apsw
import msgspec

from headwater.errors import NotFoundError, SchemaError, StartError
from headwater.stores.sqlite.database import BUSY_TIMEOUT_MILLISECONDS, value
from headwater.stores.sqlite.migrate import known, schema_version
from headwater.transfer import BATCH_BYTES_MAX, BATCH_ROWS, Key, Row, Table

DAY_MICROSECONDS = 86_400_000_000
NUMBER_BITS = 36  # of a delivery's id that count, below those of its day

_OWN_TABLES = frozenset({"migrations"})  # the target has had its own
# Columns that no column of the same name stands for, and where what they say is kept.
_LEFT_OUT = {
    "connections.last_delivery_at": "the table arrivals",
    "versions.by_object": "the record's own row",
}
_NEW_ID = "coalesce((SELECT m.new_id FROM temp.delivery_ids m WHERE m.old_id = t.{0}), t.{0})"
_DELIVERY = "temp.delivery_ids m CROSS JOIN main.{0} t ON t.{1} = m.old_id"
_FROM = {
    "deliveries": _DELIVERY.format("deliveries", "id"),
    "bodies": _DELIVERY.format("bodies", "delivery_id"),
    "dedupes": "main.deliveries t",
    "arrivals": "(SELECT id, last_delivery_at FROM main.connections WHERE last_delivery_at IS NOT NULL) t",
}
_EXPRESSIONS = {
    "deliveries.id": "m.new_id",
    "bodies.delivery_id": "m.new_id",
    "dedupes.delivery_id": _NEW_ID.format("id"),
    "origins.delivery_id": _NEW_ID.format("delivery_id"),
    "emission_keys.delivery_id": _NEW_ID.format("delivery_id"),
    "log_lines.delivery_id": _NEW_ID.format("delivery_id"),
    "quarantine.delivery_id": _NEW_ID.format("delivery_id"),
    "arrivals.connection_id": "t.id",
    "arrivals.last_at": "t.last_delivery_at",
}
_NUMBER_DELIVERIES = f"""
CREATE TEMP TABLE delivery_ids (new_id INTEGER PRIMARY KEY, old_id INTEGER NOT NULL UNIQUE);
INSERT INTO temp.delivery_ids (new_id, old_id)
SELECT (max(0, received_at / {DAY_MICROSECONDS}) << {NUMBER_BITS}) + id, id FROM main.deliveries;
"""  # noqa: S608  constants


@contextmanager
def opened(path: Path) -> Iterator[SQLiteSource]:
    """The source; until the end nothing is written to the file, by us or by another process.

    Raises `NotFoundError` where there is no file, `SchemaError` for the schema of another version and `StartError`
    while another process writes.
    """
    if not path.is_file():
        raise NotFoundError(f"There is no database {path}.", hint="`--database` names another.")
    try:
        db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    except apsw.Error as error:
        raise StartError(f"The database {path} cannot be opened: {error}.") from error
    try:
        db.set_busy_timeout(BUSY_TIMEOUT_MILLISECONDS)
        _require_this_schema(db)
        _hold(db)
        yield SQLiteSource(db)
    finally:
        db.close(True)


class SQLiteSource:
    """See `Source`."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db

    def fingerprint(self) -> str:
        """See `Source.fingerprint`."""
        facts = {
            "endpoints": [row[0] for row in self._db.execute("SELECT endpoint_id FROM connections ORDER BY id")],
            "newest": sorted(self.newest().items()),
            "rows": [(name, value(self._db, f"SELECT count(*) FROM main.{name}")) for name in self._tables()],  # noqa: S608  a name of the schema
        }
        return sha256(msgspec.json.encode(facts)).hexdigest()

    def cover(self, tables: Sequence[Table]) -> None:
        """See `Source.cover`."""
        ours = {f"{table}.{column}" for table in self._tables() for column in self._columns(table)}
        theirs = {f"{table.name}.{column.name}" for table in tables for column in table.columns}
        missing = {name for name in theirs if name not in ours and not self._is_made(name)}
        left = {name for name in ours - theirs if name not in _LEFT_OUT}
        if missing or left:
            raise SchemaError(
                f"The two stores differ in what they keep: {', '.join(sorted(missing | left))}.",
                hint="This version cannot copy it; no row was.",
            )

    def count(self, table: Table) -> int:
        """See `Source.count`."""
        return int(value(self._db, f"SELECT count(*) FROM {self._from(table)}"))  # noqa: S608  names of the schema

    def batch(self, table: Table, after: Key | None) -> Sequence[Row]:
        """See `Source.batch`."""
        selected = ", ".join(_expression(table, column.name) for column in table.columns)
        key = ", ".join(_expression(table, name) for name in table.key)
        beyond = f"WHERE ({key}) > ({', '.join('?' * len(table.key))})" if after is not None else ""
        sql = f"SELECT {selected} FROM {self._from(table)} {beyond} ORDER BY {key} LIMIT {BATCH_ROWS}"  # noqa: S608
        booleans = [index for index, column in enumerate(table.columns) if column.type == "boolean"]
        batch: list[Row] = []
        size = 0
        for found in self._db.execute(sql, after or ()):
            row = list(found)
            for index in booleans:
                row[index] = bool(row[index])
            batch.append(tuple(row))
            size += sum(len(part) for part in row if isinstance(part, (bytes, str)))
            if size > BATCH_BYTES_MAX:
                break
        return batch

    def newest(self) -> Mapping[str, int]:
        """See `Source.newest`."""
        newest = {str(name): int(seq) for name, seq in self._db.execute("SELECT name, seq FROM main.sqlite_sequence")}
        for table in self._tables():
            if table not in newest and "id" in self._columns(table):
                newest[table] = int(value(self._db, f"SELECT coalesce(max(id), 0) FROM main.{table}"))  # noqa: S608
        return newest

    def _is_made(self, name: str) -> bool:
        table, _, column = name.partition(".")
        return name in _EXPRESSIONS or (table == "dedupes" and column in self._columns("deliveries"))

    def _from(self, table: Table) -> str:
        return _FROM.get(table.name, f"main.{table.name} t")

    def _tables(self) -> list[str]:
        sql = "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        return sorted(name for (name,) in self._db.execute(sql) if name not in _OWN_TABLES)

    def _columns(self, table: str) -> list[str]:
        # Generated columns are not among them: the target generates its own.
        return [name for (name,) in self._db.execute("SELECT name FROM pragma_table_info(?, 'main')", (table,))]


def _expression(table: Table, column: str) -> str:
    return _EXPRESSIONS.get(f"{table.name}.{column}", f't."{column}"')


def _require_this_schema(db: apsw.Connection) -> None:
    try:
        found, newest = schema_version(db), known()[-1].number
    except apsw.Error as error:
        raise StartError(f"The database cannot be read: {error}.") from error
    if found < newest:
        raise SchemaError(
            f"The database has schema {found}; this version copies from {newest}.",
            hint="`headwater doctor` brings it up to date.",
        )
    if found > newest:
        raise SchemaError(
            f"The database has schema {found}; this version knows {newest}.",
            hint="Use the version of Headwater that wrote it, or a newer one.",
        )


def _hold(db: apsw.Connection) -> None:
    try:
        db.execute("BEGIN IMMEDIATE")
    except apsw.BusyError as error:
        raise StartError(
            "Another process writes to the database.", hint="Stop it: nothing may change while it is copied."
        ) from error
    db.execute(_NUMBER_DELIVERIES)
