"""Quarantined records: listed, released after a repair, or dropped."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import apsw

from headwater.clock import to_micros
from headwater.errors import NotFoundError
from headwater.intention import LIST_LIMIT, LIST_LIMIT_MAX, CommitResult
from headwater.record import Counts, Emission, Outcome, QuarantinedRecord
from headwater.stores.plan import Parcel
from headwater.stores.row import as_quarantined
from headwater.stores.sqlite.database import Row, execute, json_text, queries, rows
from headwater.stores.sqlite.ingest import Batch

_sql = queries("records.sql")


def quarantined(
    db: apsw.Connection,
    *,
    connection: str | None = None,
    stream: str | None = None,
    state: str | None = "waiting",
    after: int | None = None,
    limit: int = LIST_LIMIT,
) -> Sequence[QuarantinedRecord]:
    """See `RecordStore.quarantined`."""
    found = rows(
        db,
        _sql["quarantined"],
        connection=connection,
        stream=stream,
        state=state,
        after=after,
        limit=min(limit, LIST_LIMIT_MAX),
    )
    return [as_quarantined(one) for one in found]


def release_quarantined(
    db: apsw.Connection, releases: Sequence[tuple[int, Emission]], *, at: datetime, connector_version: str
) -> CommitResult:
    """See `RecordStore.release_quarantined`; the versions name the run or delivery that brought the record first."""
    ids = json_text([record_id for record_id, _ in releases])
    homes = {home["id"]: home for home in rows(db, _sql["releasable"], ids=ids)}
    if missing := [record_id for record_id, _ in releases if record_id not in homes]:
        raise NotFoundError(f"There is no quarantined record {missing[0]}.")
    parcels = [
        _parcel(homes[record_id], emission, at=to_micros(at), connector_version=connector_version)
        for record_id, emission in releases
    ]
    batch = Batch(db, parcels)
    counts, outcomes = Counts(), list[Outcome]()
    for parcel in parcels:
        effects = batch.plan.weigh(parcel)
        batch.plan.merge(effects)
        counts.add(effects.result.counts)
        outcomes += effects.result.outcomes
    batch.write()
    execute(db, _sql["release"], ids=ids)
    return CommitResult(counts=counts, outcomes=outcomes)


def drop_quarantined(db: apsw.Connection, ids: Sequence[int]) -> int:
    """See `RecordStore.drop_quarantined`."""
    return execute(db, _sql["drop"], ids=json_text(list(ids)))


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
