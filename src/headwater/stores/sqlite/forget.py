"""Forgetting records, some at a time, so that nobody waits long for the writer."""

from __future__ import annotations

from collections import Counter

import apsw

from headwater.stores.sqlite.connections import existing
from headwater.stores.sqlite.database import execute, json_text, queries, table

_sql = queries("forget.sql")


def forget_records(db: apsw.Connection, connection_id: int, *, type: str | None, limit: int) -> int:
    """See `RecordStore.forget_records`."""
    existing(db, connection_id)
    keys = execute(db, _sql["keys"], connection_id=connection_id, limit=limit)
    if keys:
        return keys
    doomed = table(db, _sql["doomed"], connection_id=connection_id, type=type, limit=limit)
    if not doomed:
        return 0
    ids = json_text([(type_id, source_id) for type_id, source_id, _, _ in doomed])
    execute(db, _sql["versions"], latest=json_text([latest for _, _, latest, _ in doomed]))
    execute(db, _sql["records"], connection_id=connection_id, ids=ids)
    live = Counter(type_id for type_id, _, _, deleted in doomed if not deleted)
    execute(db, _sql["populations"], connection_id=connection_id, fewer=json_text(list(live.items())))
    return len(doomed)
