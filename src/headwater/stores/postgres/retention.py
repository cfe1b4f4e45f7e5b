"""Retention: a day of the inbox is dropped whole; rows go one by one where a day still has something that is wanted.

a day, all finished before ──> forget its keys ──> alone for a moment: look again, drop
a day in part ──> its old rows, unless they are many: those go with their day
"""

from __future__ import annotations

from datetime import datetime
from functools import partial

from headwater.clock import to_micros
from headwater.errors import StoreUnavailableError
from headwater.intention import Purged
from headwater.stores.plan import HOUR_MICROSECONDS
from headwater.stores.postgres.connections import connections
from headwater.stores.postgres.database import Connection, Database, execute, queries, rows, take_time, value
from headwater.stores.postgres.log_lines import purge_log_lines, trim_log_lines
from headwater.stores.postgres.partition import DAY_MICROSECONDS, TABLES, first_id

PURGE_MAX = 2_000  # rows of a kind in one transaction, so that nobody waits long for a purge
ROWS_MAX = 20_000  # deliveries that one purge removes row by row
WAIT_MILLISECONDS = 2_000  # for the inbox: whoever comes after the purge waits as long
_FIGURES_HOURS = 25  # that health may still ask for

_sql = queries("retention.sql")


async def purge(database: Database, *, deliveries_before: datetime, runs_before: datetime, at: datetime) -> Purged:
    """See `Store.purge`; in transactions of limited size, so that it may be interrupted and goes on later."""
    before = to_micros(deliveries_before)
    await database.transact(lambda db: _purge_figures(db, before=before, at=to_micros(at)))
    total = Purged()
    for day in await database.read(_days):
        if (day + 1) * DAY_MICROSECONDS <= before:
            total += await _purge_day(database, day, before=before)
    some = Purged(deliveries=PURGE_MAX)
    rows_before = total.deliveries
    while some.deliveries == PURGE_MAX and total.deliveries - rows_before < ROWS_MAX:
        some = await database.transact(lambda db: _purge_rows(db, before=before))
        total += some
    runs = PURGE_MAX
    while runs == PURGE_MAX:
        runs = await database.transact(
            lambda db: execute(db, _sql["purge_runs"], before=to_micros(runs_before), limit=PURGE_MAX)
        )
        total += Purged(runs=runs)
    lines = PURGE_MAX
    while lines >= PURGE_MAX:
        lines = await database.transact(lambda db: purge_log_lines(db, before=runs_before, limit=PURGE_MAX))
        total += Purged(log_lines=lines)
    for connection in await database.read(connections):
        while trimmed := await database.transact(partial(trim_log_lines, connection_id=connection.id, limit=PURGE_MAX)):
            total += Purged(log_lines=trimmed)
    return total


async def _days(db: Connection) -> list[int]:
    return [found["day"] for found in await rows(db, _sql["days"])]


async def _purge_day(database: Database, day: int, *, before: int) -> Purged:
    """Drop a day of the inbox that nobody wants; nothing, where somebody does."""
    # The keys go first: a dedupe key must not outlive its delivery (Invariant 3).
    keys = await database.transact(lambda db: _forget_day(db, day, before=before))
    if keys is None:
        return Purged()
    try:
        deliveries = await database.transact(lambda db: _drop_day(db, day, before=before))
    except StoreUnavailableError:
        deliveries = 0  # the inbox is busy: the next purge drops the day
    return Purged(deliveries=deliveries, keys=keys)


async def _forget_day(db: Connection, day: int, *, before: int) -> int | None:
    await take_time(db)
    span = {"first": first_id(day), "end": first_id(day + 1)}
    if await value(db, _sql["is_wanted"], **span, before=before):
        return None
    keys = await execute(db, _sql["forget_keys"], **span)
    await execute(db, _sql["forget_dedupes"], **span)
    return keys


async def _drop_day(db: Connection, day: int, *, before: int) -> int:
    await execute(db, _sql["wait_shortly"], milliseconds=str(WAIT_MILLISECONDS))
    await execute(db, _sql["shut_inbox"])
    span = {"first": first_id(day), "end": first_id(day + 1)}
    if await value(db, _sql["is_wanted"], **span, before=before):  # replayed in between: it is wanted again
        return 0
    dropped = int(await value(db, _sql["count_day"], **span))
    for table in TABLES:
        await execute(db, f"DROP TABLE {table}_{day}")
    return dropped


async def _purge_rows(db: Connection, *, before: int) -> Purged:
    ids = [found["id"] for found in await rows(db, _sql["old_deliveries"], before=before, limit=PURGE_MAX)]
    keys = await execute(db, _sql["purge_keys"], ids=ids)
    await execute(db, _sql["purge_dedupes"], ids=ids)
    await execute(db, _sql["purge_bodies"], ids=ids)
    await execute(db, _sql["purge_deliveries"], ids=ids)
    return Purged(deliveries=len(ids), keys=keys)


async def _purge_figures(db: Connection, *, before: int, at: int) -> None:
    await take_time(db)
    day = at - _FIGURES_HOURS * HOUR_MICROSECONDS
    await execute(db, _sql["purge_rejections"], before=min(before, day))
    await execute(db, _sql["purge_connection_hours"], before=day)
    await execute(db, _sql["purge_stream_hours"], before=day)
