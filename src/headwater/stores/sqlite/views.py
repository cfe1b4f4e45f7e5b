"""One typed SQL view per canonical type, for any SQLite client: `select email from customer`.

Nothing is rounded on the way: decimals are text, and so is an integer that 64 bits do not hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import apsw

from headwater.intention import TypeColumn
from headwater.stores.sqlite.database import execute, rows
from headwater.stores.sqlite.ingest import type_number

# Exact to the microsecond, before 1970 too; a REAL of seconds would round.
_INSTANT = (
    "strftime('%Y-%m-%dT%H:%M:%S', ({0} - (({0} % 1000000) + 1000000) % 1000000) / 1000000, 'unixepoch') "
    "|| printf('.%06dZ', (({0} % 1000000) + 1000000) % 1000000)"
)
_FIXED = {
    "connection": "c.key",
    "source_id": "r.source_id",
    "version": "v.version",
    "as_of": _INSTANT.format("v.as_of"),
    "observed_at": _INSTANT.format("o.observed_at"),
    "sequence": "v.sequence",
}


def declare_types(db: apsw.Connection, types: Mapping[str, Sequence[TypeColumn]]) -> None:
    """See `RecordStore.declare_types`; a type named as one of our tables has its view under `_name`."""
    schema = rows(db, "SELECT type, name, sql FROM sqlite_schema")
    present = {one["name"]: one["sql"] for one in schema if one["type"] == "view"}
    ours = {one["name"].lower() for one in schema if one["type"] in ("table", "index")}
    for name, columns in types.items():
        view = f"_{name}" if name.lower() in ours else name
        sql = _create(view, type_number(db, name), columns)
        if present.get(view) != sql:
            execute(db, f"DROP VIEW IF EXISTS {_identifier(view)}")
            execute(db, sql)


def _create(view: str, type_id: int, columns: Sequence[TypeColumn]) -> str:
    taken: set[str] = set()
    selected = [f"{_extract(column)} AS {_identifier(_free(column.name, taken))}" for column in _addressable(columns)]
    selected += [f"{expression} AS {_identifier(_free(f'_{name}', taken))}" for name, expression in _FIXED.items()]
    return (
        f"CREATE VIEW {_identifier(view)} AS SELECT {', '.join(selected)} FROM connections c "  # noqa: S608  quoted
        f"CROSS JOIN records r ON r.connection_id = c.id AND r.type_id = {type_id} AND r.deleted = 0 "
        "CROSS JOIN versions v ON v.sequence = r.sequence CROSS JOIN origins o ON o.id = v.origin_id"
    )


def _addressable(columns: Sequence[TypeColumn]) -> list[TypeColumn]:
    # A JSON path of SQLite cannot name a field that has a double quote in it.
    return [column for column in columns if '"' not in column.name]


def _free(name: str, taken: set[str]) -> str:
    # SQLite tells columns apart without regard to case; a field keeps its own name, a fixed column yields.
    while name.lower() in taken:
        name = f"_{name}"
    taken.add(name.lower())
    return name


def _extract(column: TypeColumn) -> str:
    payload = "CAST(v.payload AS TEXT)"
    path = _literal(f'$."{column.name}"')
    json, plain = f"{payload} -> {path}", f"{payload} ->> {path}"
    if column.kind == "json":
        return f"nullif({json}, 'null')"
    if column.kind in ("integer", "decimal"):
        # An integer beyond 64 bits comes out as a rounded REAL: its JSON text is exact.
        exact = f"CASE typeof({plain}) WHEN 'real' THEN {json} ELSE {plain} END"
        return f"CAST({exact} AS TEXT)" if column.kind == "decimal" else exact
    return plain


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
