"""One typed SQL view per canonical type: `select email from customer`. Numbers are numeric: nothing is rounded.

A payload is read once for all columns of a row. Instants are timestamps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import psycopg

from headwater.errors import UsageError
from headwater.intention import TypeColumn
from headwater.stores.postgres.database import Connection, execute, queries, value

NAME_BYTES_MAX = 63  # PostgreSQL cuts a longer name off, and would look for that field
_KINDS = {"text": "text", "integer": "numeric", "decimal": "numeric", "boolean": "boolean", "json": "json"}
_FIXED = {
    "connection": "c.key",
    "source_id": "r.source_id",
    "version": "v.version",
    "as_of": "instant_of(v.as_of)",
    "observed_at": "instant_of(o.observed_at)",
    "sequence": "v.sequence",
}
_sql = queries("views.sql")


async def declare_types(
    db: Connection, types: Mapping[str, Sequence[TypeColumn]], *, numbers: Mapping[str, int]
) -> None:
    """See `RecordStore.declare_types`; a type named as one of our tables has its view under `_name`."""
    await execute(db, _sql["one_at_a_time"])
    for name, columns in sorted(types.items()):
        view = f"_{name}" if await value(db, _sql["is_taken"], name=name) else name
        sql = _create(view, numbers[name], columns)
        # The text is kept as the view's comment: the server tells a view's definition in words of its own.
        if await value(db, _sql["present"], name=view) != sql:
            await _renew(db, view, sql)


async def _renew(db: Connection, view: str, sql: str) -> None:
    try:
        await db.execute(f"DROP VIEW IF EXISTS {_identifier(view)}".encode())
    except psycopg.errors.DependentObjectsStillExist as error:
        raise UsageError(
            f"The view {view} has changed, and other views are built on it.",
            hint="Drop those, then start again.",
            detail=str(error),
        ) from error
    await db.execute(sql.encode())
    await db.execute(f"COMMENT ON VIEW {_identifier(view)} IS {_literal(sql)}".encode())


def _create(view: str, type_id: int, columns: Sequence[TypeColumn]) -> str:
    taken = {column.name for column in _addressable(columns)}
    fields = [f"{_identifier(column.name)} {_KINDS[column.kind]}" for column in _addressable(columns)]
    selected = [f"p.{_identifier(column.name)}" for column in _addressable(columns)]
    selected += [f"{expression} AS {_identifier(_free(f'_{name}', taken))}" for name, expression in _FIXED.items()]
    read = f"CROSS JOIN LATERAL json_to_record(payload_json(v.payload)) AS p ({', '.join(fields)})" if fields else ""
    return (
        f"CREATE VIEW {_identifier(view)} AS SELECT {', '.join(selected)} FROM connections c "  # noqa: S608  quoted
        f"JOIN records r ON r.connection_id = c.id AND r.type_id = {type_id} AND NOT r.deleted "
        f"JOIN versions v ON v.sequence = r.sequence JOIN origins o ON o.id = v.origin_id {read}"
    )


def _addressable(columns: Sequence[TypeColumn]) -> list[TypeColumn]:
    return [column for column in columns if 0 < len(column.name.encode()) <= NAME_BYTES_MAX]


def _free(name: str, taken: set[str]) -> str:
    # A field keeps its own name, a fixed column yields.
    while name in taken:
        name = f"_{name}"
    taken.add(name)
    return name


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
