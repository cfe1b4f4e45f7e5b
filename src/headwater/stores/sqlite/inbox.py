"""Deliveries on their way in and out of dispatch: append, claim, finish, fail. The other hot path.

pending ── claimed: epoch + 1, lease ──> done · pending again · dead
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import apsw
import msgspec

from headwater.clock import to_micros
from headwater.delivery import Appended, ClaimedDelivery, DeliveryState, NewDelivery
from headwater.errors import HeadwaterError, NotFoundError
from headwater.intention import DeliveryCommit, DeliveryFailure
from headwater.stores import log_row
from headwater.stores.lease import check_claim, parcel_of_delivery
from headwater.stores.plan import Effects, hour_of
from headwater.stores.row import as_claim, micros
from headwater.stores.sqlite.database import execute, json_text, queries, rows, table, value
from headwater.stores.sqlite.ingest import Batch
from headwater.stores.sqlite.log_lines import add_log_lines
from headwater.stores.sqlite.packing import pack_body
from headwater.stores.sqlite.parcels import commit_all

_sql = queries("deliveries.sql")


def append_deliveries(
    db: apsw.Connection, batches: Sequence[Sequence[NewDelivery]], *, together: bool
) -> Sequence[Any]:
    """For each batch what became of its deliveries, or why none of it was stored; see `commit_all`."""
    return commit_all(db, batches, _append_many, together=together)


def claim_deliveries(
    db: apsw.Connection,
    at: datetime,
    *,
    limit: int,
    lease_seconds: float,
    ordered_connections: Sequence[int] = (),
) -> Sequence[ClaimedDelivery]:
    """See `DeliveryStore.claim_deliveries`."""
    found = table(
        db, _sql["claimable"], at=to_micros(at), ordered=json_text(list(ordered_connections)), limit=max(limit, 0)
    )
    if not found:
        return []
    ids = json_text(found)
    execute(db, _sql["claim"], ids=ids, lease_until=to_micros(at + timedelta(seconds=lease_seconds)))
    return [as_claim(row) for row in rows(db, _sql["claimed"], ids=ids)]


def finish_deliveries(
    db: apsw.Connection, batches: Sequence[Sequence[DeliveryCommit]], *, together: bool
) -> Sequence[Any]:
    """For each batch a result or an exception for each of its deliveries, each all or nothing by itself; see
    `commit_all`.
    """
    dones = [done for batch in batches for done in batch]
    results = iter(commit_all(db, dones, _finish_many, together=together))
    return [[next(results) for _ in batch] for batch in batches]


def fail_delivery(db: apsw.Connection, failure: DeliveryFailure) -> None:
    """See `DeliveryStore.fail_delivery`; `FencedError` when the claim was retaken."""
    claim = failure.claim
    state, epoch = _claims(db, [claim.id]).get(claim.id, ("", 0))
    check_claim(claim, state, epoch)
    is_dead = failure.state is DeliveryState.DEAD
    execute(
        db,
        _sql["fail"],
        id=claim.id,
        state=failure.state.value,
        due_at=None if is_dead else micros(failure.due_at or failure.at),
        finished_at=to_micros(failure.at) if is_dead else None,
        error_code=failure.error_code,
        error=failure.error,
        traceback=failure.traceback,
    )
    add_log_lines(db, log_row.of_delivery(claim, failure.log))
    execute(
        db,
        _sql["fail_streams"],
        connection_id=claim.connection_id,
        at=to_micros(failure.at),
        error=failure.error,
        error_code=failure.error_code,
        failures=int(is_dead),
    )


def _append_many(db: apsw.Connection, batches: Sequence[Sequence[NewDelivery]]) -> Sequence[Any]:
    given = {delivery.connection_id for batch in batches for delivery in batch}
    existing = set(table(db, _sql["existing_connections"], ids=json_text(sorted(given))))
    accepted = [batch for batch in batches if all(delivery.connection_id in existing for delivery in batch)]
    known = _known(db, accepted)
    next_id = value(db, _sql["last_id"]) + 1
    fresh: list[tuple[int, NewDelivery]] = []
    repeated: dict[int, tuple[int, int]] = {}  # id → how often, and when last
    results: list[Any] = []
    for batch in batches:
        if not all(delivery.connection_id in existing for delivery in batch):
            results.append(NotFoundError("The connection of the delivery is gone."))
            continue
        appended: list[Appended] = []
        for delivery in batch:
            key = delivery.connection_id, delivery.dedupe
            first = known.get(key)
            appended.append(Appended(id=first or next_id, duplicate=first is not None))
            if first is not None:
                count, at = repeated.get(first, (0, 0))
                repeated[first] = count + 1, max(at, delivery.received_at)
                continue
            known[key] = next_id
            fresh.append((next_id, delivery))
            next_id += 1
        results.append(appended)
    _insert(db, fresh)
    if repeated:
        execute(
            db, _sql["count_duplicates"], rows=json_text([(first, *figures) for first, figures in repeated.items()])
        )
    _note_arrivals(db, fresh, [delivery for batch in accepted for delivery in batch])
    return results


def _known(db: apsw.Connection, batches: Sequence[Sequence[NewDelivery]]) -> dict[tuple[int, bytes], int]:
    asked: dict[int, dict[bytes, None]] = {}
    for batch in batches:
        for delivery in batch:
            asked.setdefault(delivery.connection_id, {})[delivery.dedupe] = None
    return {
        (connection_id, bytes.fromhex(dedupe)): delivery_id
        for connection_id, dedupes in asked.items()
        for dedupe, delivery_id in table(
            db, _sql["known"], connection_id=connection_id, dedupes=apsw.carray(tuple(dedupes))
        )
    }


def _insert(db: apsw.Connection, fresh: Sequence[tuple[int, NewDelivery]]) -> None:
    if not fresh:
        return
    columns = [
        (
            delivery_id, delivery.connection_id, delivery.dedupe.hex(), delivery.provider_id, delivery.event_type,
            delivery.received_at, len(delivery.body),
        )
        for delivery_id, delivery in fresh
    ]  # fmt: skip
    execute(db, _sql["insert"], rows=json_text(columns))
    packed = apsw.carray(tuple([pack_body(delivery_id, delivery) for delivery_id, delivery in fresh]))
    execute(db, _sql["insert_bodies"], packed=packed)


def _note_arrivals(
    db: apsw.Connection, fresh: Sequence[tuple[int, NewDelivery]], arrived: Sequence[NewDelivery]
) -> None:
    hours: dict[tuple[int, int], int] = {}
    for _, delivery in fresh:
        hour = hour_of(delivery.received_at)
        hours[delivery.connection_id, hour] = hours.get((delivery.connection_id, hour), 0) + 1
    last: dict[int, int] = {}
    for delivery in arrived:
        last[delivery.connection_id] = max(delivery.received_at, last.get(delivery.connection_id, 0))
    execute(db, _sql["count_arrivals"], rows=json_text([(*key, count) for key, count in hours.items()]))
    execute(db, _sql["note_arrivals"], rows=json_text(list(last.items())))


def _claims(db: apsw.Connection, ids: Sequence[int]) -> dict[int, tuple[str, int]]:
    found = table(db, _sql["claims"], ids=json_text(sorted(set(ids))))
    return {delivery_id: (state, epoch) for delivery_id, state, epoch in found}


def _finish_many(db: apsw.Connection, dones: Sequence[DeliveryCommit]) -> Sequence[Any]:
    claims = _claims(db, [done.claim.id for done in dones])
    parcels = [parcel_of_delivery(done) for done in dones]
    batch = Batch(db, parcels)
    results: list[Any] = []
    finished: list[tuple[DeliveryCommit, Effects]] = []
    for done, parcel in zip(dones, parcels, strict=True):
        state, epoch = claims.get(done.claim.id, ("", 0))
        effects = batch.plan.weigh(parcel)
        if state == DeliveryState.DONE and epoch == done.claim.epoch:
            results.append(effects.result)  # its answer was lost: it is done, and counts once
            continue
        try:
            check_claim(done.claim, state, epoch)
        except HeadwaterError as error:
            results.append(error)
            continue
        claims[done.claim.id] = DeliveryState.DONE, epoch
        batch.plan.merge(effects)
        finished.append((done, effects))
        results.append(effects.result)
    batch.write()
    _note_finished(db, finished)
    return results


def _note_finished(db: apsw.Connection, finished: Sequence[tuple[DeliveryCommit, Effects]]) -> None:
    if not finished:
        return
    execute(db, _sql["finish"], rows=json_text([_finished_row(*pair) for pair in finished]))
    last: dict[int, int] = {}
    for done, _ in finished:
        last[done.claim.connection_id] = max(to_micros(done.at), last.get(done.claim.connection_id, 0))
    execute(db, _sql["succeed_streams"], rows=json_text(list(last.items())))
    add_log_lines(db, [line for done, _ in finished for line in log_row.of_delivery(done.claim, done.log)])


def _finished_row(done: DeliveryCommit, effects: Effects) -> tuple[Any, ...]:
    counts = msgspec.structs.astuple(effects.result.counts)
    return (done.claim.id, int(done.ignored), to_micros(done.at), *counts)
