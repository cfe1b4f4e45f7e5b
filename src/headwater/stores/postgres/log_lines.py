"""Lines that routes logged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from headwater.clock import to_micros
from headwater.intention import LIST_LIMIT, LIST_LIMIT_MAX
from headwater.log_line import LINES_KEPT, LINES_OF_CONNECTION_MAX, LogFilter, LogLine
from headwater.stores.log_row import as_log_line, narrowed
from headwater.stores.postgres.database import Connection, execute, json_text, queries, rows

_sql = queries("log_lines.sql")


async def add_log_lines(db: Connection, lines: Sequence[Mapping[str, Any]]) -> None:
    """Keep lines in their order, of each run the newest `LINES_KEPT`."""
    if not lines:
        return
    await execute(db, _sql["insert"], rows=json_text(lines))
    for run_id in {line["run_id"] for line in lines if line["run_id"] is not None}:
        await execute(db, _sql["forget_earlier"], run_id=run_id, kept=LINES_KEPT)


async def log_lines(
    db: Connection, which: LogFilter, *, after: int | None = None, limit: int = LIST_LIMIT
) -> Sequence[LogLine]:
    """See `LogStore.log_lines`."""
    where, asked = narrowed(which, after=after, mark="%({})s")
    sql = f"{_sql['columns'].rstrip()}{where} ORDER BY l.id DESC LIMIT %(limit)s"
    return [as_log_line(found) for found in await rows(db, sql, **asked, limit=min(limit, LIST_LIMIT_MAX))]


async def purge_log_lines(db: Connection, *, before: datetime, limit: int) -> int:
    """Forget lines that are older, at most `limit`; how many."""
    return await execute(db, _sql["purge_old"], before=to_micros(before), limit=limit)


async def trim_log_lines(db: Connection, connection_id: int, *, limit: int) -> int:
    """Forget lines of a connection beyond its newest `LINES_OF_CONNECTION_MAX`, at most `limit`; how many."""
    kept = LINES_OF_CONNECTION_MAX
    return await execute(db, _sql["purge_many"], connection_id=connection_id, kept=kept, limit=limit)
