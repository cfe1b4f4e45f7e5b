"""Records, their history and the change feed, as they are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import apsw

from headwater.intention import LIST_LIMIT, LIST_LIMIT_MAX, Feed
from headwater.record import Record, Version
from headwater.stores.row import as_record, as_version, end_of_prefix, seen_record
from headwater.stores.sqlite.database import queries, row, rows, value

FEED_SCAN_MAX = 50_000  # sequences that one filtered read of the feed looks at

_sql = queries("records.sql")


def records(
    db: apsw.Connection,
    *,
    connection: str | None = None,
    type: str | None = None,
    deleted: bool | None = None,
    search: str | None = None,
    after: str | None = None,
    limit: int = LIST_LIMIT,
) -> Sequence[Record]:
    """See `RecordStore.records`."""
    seen = seen_record(after)
    found: list[Record] = []
    limit = min(limit, LIST_LIMIT_MAX)
    for connection_id, type_id, beyond in _places(db, connection, type, seen):
        found += _page(
            db,
            connection_id=connection_id,
            type_id=type_id,
            after=beyond,
            first=search or "",
            last=end_of_prefix(search),
            deleted=None if deleted is None else int(deleted),
            limit=limit - len(found),
        )
        if len(found) >= limit:
            break
    return found


def record(db: apsw.Connection, connection: str, type: str, source_id: str) -> Record | None:
    """See `RecordStore.record`."""
    sql = f"{_sql['versions']} {_sql['page_of_records']} {_sql['joins']} {_sql['one_record']}"
    found = row(db, sql, connection=connection, type=type, source_id=source_id)
    return None if found is None else as_record(found)


def versions(db: apsw.Connection, connection: str, type: str, source_id: str) -> Sequence[Version]:
    """See `RecordStore.versions`."""
    # The order is pinned: to read all versions backwards looks cheap to the planner, and is not.
    joins = _sql["joins"].replace("\nJOIN", "\nCROSS JOIN")
    sql = (
        f"{_sql['history']} {_sql['versions']} FROM history h CROSS JOIN versions v ON v.sequence = h.sequence "
        f"{joins} ORDER BY h.sequence DESC"
    )
    return [as_version(found) for found in rows(db, sql, connection=connection, type=type, source_id=source_id)]


def versions_of_delivery(db: apsw.Connection, delivery_id: int) -> Sequence[Version]:
    """See `RecordStore.versions_of_delivery`; newest first."""
    sql = (
        f"{_sql['versions']} FROM versions v {_sql['joins']} "
        "WHERE v.sequence BETWEEN :first AND :last ORDER BY v.sequence DESC"
    )
    return [
        as_version(found)
        for span in rows(db, _sql["origins_of_delivery"], delivery_id=delivery_id)
        for found in rows(db, sql, first=span["id"], last=span["last_sequence"])
    ]


def populations(db: apsw.Connection) -> Sequence[tuple[str, str, int]]:
    """See `RecordStore.populations`."""
    return [(found["key"], found["name"], found["live"]) for found in rows(db, _sql["populations"])]


def high_water(db: apsw.Connection) -> int:
    """The newest sequence."""
    return int(value(db, _sql["high_water"]))


def changes(
    db: apsw.Connection,
    *,
    after: int,
    limit: int = LIST_LIMIT,
    connection: str | None = None,
    type: str | None = None,
    tenant: str | None = None,
) -> Feed:
    """See `RecordStore.changes`.

    The position passes what the filters leave out, so that a reader does not look at it again; one read looks at no
    more than `FEED_SCAN_MAX` sequences, and may find nothing although the high water is further on.
    """
    newest = high_water(db)
    limit = min(limit, LIST_LIMIT_MAX)
    last = min(newest, after + FEED_SCAN_MAX)
    asked = {"connection": ("c.key", connection), "type": ("t.name", type), "tenant": ("c.tenant", tenant)}
    given = {name: wanted for name, (_, wanted) in asked.items() if wanted is not None}
    conditions = "".join(f" AND {asked[name][0]} = :{name}" for name in given)
    joins = _sql["joins"].replace("\nJOIN", "\nCROSS JOIN")
    sql = (
        f"{_sql['versions']} FROM versions v {joins} WHERE v.sequence > :after AND v.sequence <= :last "
        f"AND v.stale = 0{conditions} ORDER BY v.sequence LIMIT :limit"
    )
    found = [as_version(one) for one in rows(db, sql, after=after, last=last, limit=limit, **given)]
    position = found[-1].sequence if len(found) == limit and found else max(last, after)
    return Feed(changes=found, position=position, high_water=newest)


def _places(
    db: apsw.Connection, connection: str | None, type: str | None, seen: tuple[str, str, str] | None
) -> Iterator[tuple[int, int, str]]:
    first = seen[0] if seen else None
    for home in rows(db, _sql["by_connection"], connection=connection, after=first):
        for kind in rows(db, _sql["types_of"], connection_id=home["id"], type=type):
            if seen is None or home["key"] > seen[0] or kind["name"] > seen[1]:
                yield home["id"], kind["id"], ""
            elif kind["name"] == seen[1]:
                yield home["id"], kind["id"], seen[2]


def _page(db: apsw.Connection, **parameters: Any) -> list[Record]:
    joins = _sql["joins"].replace("\nJOIN", "\nCROSS JOIN")
    sql = f"{_sql['versions']} {_sql['page_of_records']} {joins} {_sql['record_conditions']}"
    return [as_record(found) for found in rows(db, sql, **parameters)]
