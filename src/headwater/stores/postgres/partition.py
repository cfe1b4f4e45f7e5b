"""The days of the inbox: a delivery's id begins with the day on which it came, and each day is a partition.

So an id alone says where its row is, a list of ids touches only its own days, and a day that is over is dropped whole.
"""

from __future__ import annotations

from collections.abc import Sequence

from headwater.stores.postgres.database import Connection, execute, queries, rows

DAY_MICROSECONDS = 86_400_000_000
NUMBER_BITS = 36  # as many as `delivery_number` counts to
TABLES = ("deliveries", "bodies")

_sql = queries("deliveries.sql")


def day_of(micros: int) -> int:
    """The day since 1970 that an instant lies in; a clock that is before it counts as its first day."""
    return max(0, micros // DAY_MICROSECONDS)


def first_id(day: int) -> int:
    """The lower bound of a day's ids; a number is added to it."""
    return day << NUMBER_BITS


async def make_days(db: Connection, days: Sequence[int]) -> None:
    """Make the partitions of days that have none yet."""
    await execute(db, _sql["one_partition_maker"])
    for found in await rows(db, _sql["missing_days"], days=list(days)):
        day = int(found["day"])
        for table in TABLES:
            # To create it as a partition would lock the whole inbox; to attach it does not.
            await execute(db, f"CREATE TABLE {table}_{day} (LIKE {table} INCLUDING ALL)")
            bounds = f"FROM ({first_id(day)}) TO ({first_id(day + 1)})"
            await execute(db, f"ALTER TABLE {table} ATTACH PARTITION {table}_{day} FOR VALUES {bounds}")
