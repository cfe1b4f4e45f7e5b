"""Records, their history and the change feed, as they are read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from headwater.intention import LIST_LIMIT, LIST_LIMIT_MAX, Feed
from headwater.record import Record, Version
from headwater.stores.postgres.database import Connection, queries, row, rows, value
from headwater.stores.row import as_record, as_version, end_of_prefix, seen_record

FEED_SCAN_MAX = 50_000  # sequences that one filtered read of the feed looks at

_sql = queries("records.sql")


async def records(
    db: Connection,
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
    sql = f"{_sql['versions']} {_sql['page_of_records']} {_sql['joins']} ORDER BY r.source_id"
    async for connection_id, type_id, beyond in _places(db, connection, type, seen):
        page = await rows(
            db,
            sql,
            connection_id=connection_id,
            type_id=type_id,
            after=beyond,
            first=search or "",
            last=end_of_prefix(search),
            deleted=deleted,
            limit=limit - len(found),
        )
        found += [as_record(one) for one in page]
        if len(found) >= limit:
            break
    return found


async def record(db: Connection, connection: str, type: str, source_id: str) -> Record | None:
    """See `RecordStore.record`."""
    sql = f"{_sql['versions']} {_sql['one_record']} {_sql['joins']} {_sql['record_key']}"
    found = await row(db, sql, connection=connection, type=type, source_id=source_id)
    return None if found is None else as_record(found)


async def versions(db: Connection, connection: str, type: str, source_id: str) -> Sequence[Version]:
    """See `RecordStore.versions`."""
    sql = (
        f"{_sql['history']} {_sql['versions']} FROM history h JOIN versions v ON v.sequence = h.sequence "
        f"{_sql['joins']} ORDER BY v.sequence DESC"
    )
    found = await rows(db, sql, connection=connection, type=type, source_id=source_id)
    return [as_version(one) for one in found]


async def versions_of_delivery(db: Connection, delivery_id: int) -> Sequence[Version]:
    """See `RecordStore.versions_of_delivery`; newest first."""
    # A range may have sequences of other transactions in between.
    sql = (
        f"{_sql['versions']} FROM versions v {_sql['joins']} WHERE v.sequence BETWEEN %(first)s AND %(last)s "
        "AND v.origin_id = %(first)s ORDER BY v.sequence DESC"
    )
    return [
        as_version(found)
        for span in await rows(db, _sql["origins_of_delivery"], delivery_id=delivery_id)
        for found in await rows(db, sql, first=span["id"], last=span["last_sequence"])
    ]


async def populations(db: Connection) -> Sequence[tuple[str, str, int]]:
    """See `RecordStore.populations`."""
    return [(found["key"], found["name"], found["live"]) for found in await rows(db, _sql["populations"])]


async def high_water(db: Connection, after: int = 0) -> int:
    """The sequence up to which no version can appear any more: a late commit is waited for, never passed.

    The steps stand in this order. First the newest version: whoever took a sequence before that one's was announced by
    a lock since before. Then the locks: a transaction whose lock is gone has committed, or never will. The reader's
    own statement comes last, and sees whatever has committed by then.

    Between reading the counter and announcing, others may pass a writer: its lock then stands lower than it must. So
    the answer is no less than `after`, where a reader that has come so far may have been told of it before.
    """
    newest = int(await value(db, _sql["last_sequence"]))
    first: int | None = await value(db, _sql["under_way"])
    safe = newest if first is None else min(newest, first - 1)
    return max(safe, min(after, newest))


async def changes(
    db: Connection,
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
    newest = await high_water(db, after)
    limit = min(limit, LIST_LIMIT_MAX)
    last = min(newest, after + FEED_SCAN_MAX)
    asked = {
        "connection": ("AND connection_id = (SELECT id FROM connections WHERE key = %(connection)s)", connection),
        "type": ("AND type_id = (SELECT id FROM types WHERE name = %(type)s)", type),
        "tenant": ("AND connection_id IN (SELECT id FROM connections WHERE tenant = %(tenant)s)", tenant),
    }
    given = {name: (text, wanted) for name, (text, wanted) in asked.items() if wanted is not None}
    conditions = " ".join(text for text, _ in given.values())
    sql = (
        f"{_sql['versions']} {_sql['slice']} {conditions} ORDER BY sequence LIMIT %(limit)s) v {_sql['joins']} "
        "ORDER BY v.sequence"
    )
    parameters = {name: wanted for name, (_, wanted) in given.items()}
    page = await rows(db, sql, after=after, last=last, limit=limit, **parameters)
    found = [as_version(one) for one in page]
    position = found[-1].sequence if len(found) == limit and found else max(last, after)
    return Feed(changes=found, position=position, high_water=newest)


async def _places(
    db: Connection, connection: str | None, type: str | None, seen: tuple[str, str, str] | None
) -> AsyncIterator[tuple[int, int, str]]:
    first = seen[0] if seen else None
    for home in await rows(db, _sql["by_connection"], connection=connection, after=first):
        for kind in await rows(db, _sql["types_of"], connection_id=home["id"], type=type):
            if seen is None or home["key"] > seen[0] or kind["name"] > seen[1]:
                yield home["id"], kind["id"], ""
            elif kind["name"] == seen[1]:
                yield home["id"], kind["id"], seen[2]
