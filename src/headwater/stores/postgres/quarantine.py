"""Quarantined records: listed, released after a repair, or dropped."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from headwater.clock import to_micros
from headwater.errors import NotFoundError
from headwater.intention import LIST_LIMIT, LIST_LIMIT_MAX, CommitResult
from headwater.record import Counts, Emission, Outcome, QuarantinedRecord
from headwater.stores.plan import Parcel
from headwater.stores.postgres.connections import hold
from headwater.stores.postgres.database import Connection, Database, Row, execute, queries, rows
from headwater.stores.postgres.ingest import Batch, prepare
from headwater.stores.postgres.numbers import Numbers
from headwater.stores.row import as_quarantined

_sql = queries("records.sql")

Releases = Sequence[tuple[int, Emission]]


async def quarantined(
    db: Connection,
    *,
    connection: str | None = None,
    stream: str | None = None,
    state: str | None = "waiting",
    after: int | None = None,
    limit: int = LIST_LIMIT,
) -> Sequence[QuarantinedRecord]:
    """See `RecordStore.quarantined`."""
    found = await rows(
        db,
        _sql["quarantined"],
        connection=connection,
        stream=stream,
        state=state,
        after=after,
        limit=min(limit, LIST_LIMIT_MAX),
    )
    return [as_quarantined(one) for one in found]


async def release_quarantined(
    database: Database, numbers: Numbers, releases: Releases, *, at: datetime, connector_version: str
) -> CommitResult:
    """See `RecordStore.release_quarantined`; the versions name the run or delivery that brought the record first."""
    ids = [record_id for record_id, _ in releases]
    homes = {home["id"]: home for home in await database.read(lambda db: rows(db, _sql["releasable"], ids=ids))}
    if missing := [record_id for record_id in ids if record_id not in homes]:
        raise NotFoundError(f"There is no quarantined record {missing[0]}.")
    parcels = [
        _parcel(homes[record_id], emission, at=to_micros(at), connector_version=connector_version)
        for record_id, emission in releases
    ]
    batch = await prepare(parcels, numbers)
    return await database.transact(lambda db: _release(db, ids, batch))


async def drop_quarantined(db: Connection, ids: Sequence[int]) -> int:
    """See `RecordStore.drop_quarantined`."""
    homes = [found["connection_id"] for found in await rows(db, _sql["quarantine_homes"], ids=list(ids))]
    await hold(db, homes)
    return await execute(db, _sql["drop"], ids=list(ids))


async def _release(db: Connection, ids: Sequence[int], batch: Batch) -> CommitResult:
    held = await hold(db, {parcel.connection_id for parcel in batch.parcels})
    if any(parcel.connection_id not in held for parcel in batch.parcels):
        raise NotFoundError("The connection of a quarantined record is gone.")
    await batch.look_up(db)
    counts, outcomes = Counts(), list[Outcome]()
    for parcel in batch.parcels:
        effects = batch.plan.weigh(parcel)
        batch.plan.merge(effects)
        counts.add(effects.result.counts)
        outcomes += effects.result.outcomes
    await batch.write(db)
    await execute(db, _sql["release"], ids=list(ids))
    return CommitResult(counts=counts, outcomes=outcomes)


def _parcel(home: Row, emission: Emission, *, at: int, connector_version: str) -> Parcel:
    return Parcel(
        connection_id=home["connection_id"],
        partition=home["partition"],
        emissions=[emission],
        quarantined=(),
        origin="replay",
        connector_version=connector_version,
        at=at,
        run_id=home["run_id"],
        page=home["page"],
        delivery_id=home["delivery_id"],
    )
