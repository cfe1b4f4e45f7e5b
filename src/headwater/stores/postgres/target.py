"""A database as the target of a copy: it takes batches, says how far it has come, and may not be used before its end.

What is copied is read from the schema itself, so that a table that a later version adds cannot be forgotten. The mark
of a copy under way is made before any table is, and `require_whole` has a store refuse the database until it is gone.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any, Literal

import msgspec
import psycopg
from psycopg.rows import tuple_row

from headwater.clock import to_micros
from headwater.errors import SchemaError, StartError
from headwater.failpoint import failpoint
from headwater.stores.postgres.database import (
    Connection,
    Database,
    escaped,
    execute,
    queries,
    row,
    rows,
    translating,
    unescaped,
    value,
)
from headwater.stores.postgres.examine import require
from headwater.stores.postgres.migrate import known, migrate, schema_version
from headwater.stores.postgres.partition import NUMBER_BITS, TABLES, make_days
from headwater.transfer import Column, Key, Reached, Row, State, Table

NAMES_SHOWN_MAX = 5

# What the database tells of itself and of its nodes: nothing of it is an installation's.
_OWN_TABLES = frozenset({"schema", "feed", "nodes", "store_copy", "store_copy_reached"})
_NUMBERED = {"feed_sequence": "versions", "delivery_number": "deliveries"}  # sequences that no column owns
_WIRE = {"bigint": "int8", "integer": "int4", "boolean": "bool", "text": "text", "bytea": "bytea"}
_MADE = re.compile(r"^CREATE (?:TABLE|SEQUENCE|VIEW) (?:IF NOT EXISTS )?(\w+)", re.MULTILINE)

_EMPTY = "Make an empty database, and copy into that."

_sql = queries("target.sql")


async def require_whole(db: Connection) -> None:
    """`StartError` when the database holds a copy that is not complete, with the words to go on."""
    found = await row(db, _sql["mark"]) if await value(db, _sql["is_marked"]) else None
    if found is not None and found["state"] == "copying":
        raise StartError(
            "The database holds a copy that is not finished.", hint="`headwater db copy` given again goes on with it."
        )
    if found is not None and found["state"] == "broken":
        raise StartError(
            f"The database holds a copy that is not usable. {found['note']}",
            hint="Make an empty database, and `headwater db copy` into that.",
        )


@asynccontextmanager
async def opened(url: str, *, allow_unsafe: bool = False) -> AsyncIterator[PostgresTarget]:
    """The target, on one connection of its own; `StartError` when it cannot be reached."""
    async with Database(url).alone() as db:
        try:
            with translating():
                yield PostgresTarget(db, allow_unsafe=allow_unsafe)
        finally:
            # The server ends a session a moment after its client: whoever copies next does not meet this one.
            with suppress(psycopg.Error):
                await execute(db, _sql["copied"])


class PostgresTarget:
    """See `Target`."""

    def __init__(self, db: Connection, *, allow_unsafe: bool) -> None:
        self._db = db
        self._allow_unsafe = allow_unsafe

    async def begin(self, fingerprint: str) -> State:
        """See `Target.begin`."""
        await require(self._db, allow_unsafe=self._allow_unsafe)
        if not await value(self._db, _sql["one_copy"]):
            raise StartError("Another process copies into this database.", hint="Wait for it, or stop it first.")
        state = await self._marked(fingerprint)
        if state in ("new", "copying"):
            await migrate(self._db, known())
        (version, _), newest = await schema_version(self._db), known()[-1].number
        if version != newest:
            raise SchemaError(f"The target has schema {version}; this version writes {newest}.")
        return state

    async def tables(self) -> Sequence[Table]:
        """See `Target.tables`."""
        found: dict[str, list[dict[str, Any]]] = {}
        for one in await rows(self._db, _sql["columns"]):
            if one["table_name"] not in _OWN_TABLES:
                found.setdefault(one["table_name"], []).append(one)
        references = {(one["table_name"], one["refers_to"]) for one in await rows(self._db, _sql["references"])}
        return [_table(name, found[name]) for name in _in_order(found, references)]

    async def reached(self, table: Table) -> Reached:
        """See `Target.reached`."""
        found = await row(self._db, _sql["reached"], name=table.name)
        if found is None:
            return Reached()
        return Reached(after=tuple(msgspec.msgpack.decode(found["after"])), rows=found["count"])

    async def append(self, table: Table, rows: Sequence[Row]) -> None:
        """See `Target.append`."""
        columns = ", ".join(_quoted(column.name) for column in table.columns)
        sql = f"COPY {_quoted(table.name)} ({columns}) FROM STDIN (FORMAT BINARY)"
        async with self._db.transaction():
            if table.name in TABLES:
                await make_days(self._db, sorted({table.key_of(one)[0] >> NUMBER_BITS for one in rows}))
            async with self._db.cursor() as cursor, cursor.copy(sql.encode()) as copy:
                copy.set_types([_WIRE[column.type] for column in table.columns])
                for one in rows:
                    await copy.write_row([escaped(part) if isinstance(part, str) else part for part in one])
            after = msgspec.msgpack.encode(table.key_of(rows[-1]))
            await execute(self._db, _sql["note_reached"], name=table.name, after=after, count=len(rows))
            failpoint("copy.before_batch_commit")
        failpoint("copy.after_batch_commit")

    async def rows(self, table: Table, *, after: Key | None, last: Key | None, limit: int) -> Sequence[Row]:
        """See `Target.rows`."""
        types = {column.name: column.type for column in table.columns}
        # Both sides sort text by its code points, whatever the database's own order is.
        key = ", ".join(_quoted(name) + (' COLLATE "C"' if types[name] == "text" else "") for name in table.key)
        given = "(" + ", ".join(f"%s::{types[name]}" for name in table.key) + ")"
        bounds = [f"({key}) {sign} {given}" for sign, bound in ((">", after), ("<=", last)) if bound is not None]
        columns = ", ".join(_quoted(column.name) for column in table.columns)
        where = f"WHERE {' AND '.join(bounds)}" if bounds else ""
        sql = f"SELECT {columns} FROM {_quoted(table.name)} {where} ORDER BY {key} LIMIT {limit}"  # noqa: S608  quoted
        parameters = [escaped(part) if isinstance(part, str) else part for part in (*(after or ()), *(last or ()))]
        async with self._db.cursor(row_factory=tuple_row, binary=True) as cursor:
            found = await (await cursor.execute(sql.encode(), parameters)).fetchall()
        return [tuple(unescaped(part) if isinstance(part, str) else part for part in one) for one in found]

    async def number_on(self, newest: Mapping[str, int]) -> None:
        """See `Target.number_on`."""
        owned = {one["sequence"]: one["table_name"] for one in await rows(self._db, _sql["identities"])}
        async with self._db.transaction():
            for sequence, table in {**owned, **_NUMBERED}.items():
                if number := newest.get(table, 0):
                    await execute(self._db, _sql["set_number"], sequence=sequence, number=number)
            await execute(self._db, _sql["set_floor"], number=newest.get("versions", 0))
        failpoint("copy.numbered")

    async def end(self, state: Literal["complete", "broken"], *, at: datetime, note: str) -> None:
        """See `Target.end`."""
        # The planner knows nothing of tables that were filled a moment ago.
        await self._db.execute("ANALYZE")
        async with self._db.transaction():
            await execute(self._db, _sql["end"], state=state, at=to_micros(at), note=note)
            failpoint("copy.before_end_commit")
        failpoint("copy.after_end_commit")

    async def _marked(self, fingerprint: str) -> State:
        found = await row(self._db, _sql["mark"]) if await value(self._db, _sql["is_marked"]) else None
        if found is None:
            await self._require_nothing_else()
            async with self._db.transaction():
                await execute(self._db, _sql["make_mark"])
                await execute(self._db, _sql["make_reached"])
                await execute(self._db, _sql["insert_mark"], fingerprint=fingerprint)
            failpoint("copy.begun")
            return "new"
        if found["state"] == "broken":
            await require_whole(self._db)
        if found["fingerprint"] != fingerprint:
            raise StartError(
                "The database holds a copy of another installation, or of this one as it was before it changed.",
                hint=_EMPTY,
            )
        return "complete" if found["state"] == "complete" else "copying"

    async def _require_nothing_else(self) -> None:
        here = await value(self._db, "SELECT current_schema()")
        found = {(one["schema"], one["name"]) for one in await rows(self._db, _sql["relations"])}
        is_migrated = (here, "schema") in found
        ours = {(here, name) for step in known() for name in _MADE.findall(step.sql)} | {(here, "schema")}
        strangers = sorted(f"{schema}.{name}" for schema, name in (found - ours if is_migrated else found))
        if strangers:
            names = ", ".join(strangers[:NAMES_SHOWN_MAX]) + (", …" if strangers[NAMES_SHOWN_MAX:] else "")
            raise StartError(f"The database holds what is not ours: {names}.", hint=_EMPTY)
        for table in await self.tables() if is_migrated else ():
            if await self.rows(table, after=None, last=None, limit=1):
                raise StartError(f"The database is in use: its table {table.name} has rows.", hint=_EMPTY)


def _table(name: str, columns: Sequence[Mapping[str, Any]]) -> Table:
    key = sorted((one for one in columns if one["key_place"] is not None), key=lambda one: int(one["key_place"]))
    unknown = [one["name"] for one in columns if one["type"] not in _WIRE]
    if unknown or not key:
        raise SchemaError(f"The table {name} cannot be copied: {', '.join(unknown) or 'it has no primary key'}.")
    return Table(
        name=name,
        columns=[Column(name=one["name"], type=one["type"]) for one in columns],
        key=[one["name"] for one in key],
    )


def _in_order(names: Mapping[str, Any], references: set[tuple[str, str]]) -> list[str]:
    """Names sorted so that each comes after those that it refers to, and otherwise by the alphabet."""
    ordered: list[str] = []
    left = sorted(names)
    while left:
        ready = [name for name in left if not any(a == name and b in left and b != name for a, b in references)]
        assert ready, "tables that refer to each other in a circle cannot be copied one by one"
        ordered += ready
        left = [name for name in left if name not in ready]
    return ordered


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
