"""Deliveries on their way in and out of dispatch: append, claim, finish, fail. The other hot path.

pending ── claimed: epoch + 1, lease ──> done · pending again · dead
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import apsw

from headwater.clock import to_micros
from headwater.delivery import Appended, ClaimedDelivery, DeliveryState, NewDelivery
from headwater.errors import HeadwaterError, NotFoundError
from headwater.intention import DeliveryCommit, DeliveryFailure
from headwater.stores import log_row
from headwater.stores.lease import check_claim, claim_of, parcel_of_delivery
from headwater.stores.plan import Effects, hour_of
from headwater.stores.row import micros
from headwater.stores.sqlite.database import execute, json_text, queries, table
from headwater.stores.sqlite.ingest import Batch
from headwater.stores.sqlite.log_lines import add_log_lines
from headwater.stores.sqlite.packing import as_claims, pack_body, pack_finished
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
    ids = json_text(claim_of(found))
    execute(db, _sql["claim"], ids=ids, lease_until=to_micros(at + timedelta(seconds=lease_seconds)))
    facts, bodies = db.execute(_sql["claimed"], {"ids": ids}).get
    return as_claims(facts, bodies)


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
    given = [delivery for batch in batches for delivery in batch]
    stored = _insert(db, given)
    ids = _ids(db, given, stored)
    is_all = stored == len(given)
    fresh = dict(zip(ids, count(), strict=False)) if is_all else _fresh(ids, stored)
    if fresh:
        packed = apsw.carray(tuple([pack_body(delivery_id, given[place]) for delivery_id, place in fresh.items()]))
        execute(db, _sql["insert_bodies"], packed=packed)
    appended = [
        Appended(id=delivery_id, duplicate=fresh.get(delivery_id) != place) for place, delivery_id in enumerate(ids)
    ]
    if not is_all:
        _count_duplicates(db, zip(appended, given, strict=True))
    _note_arrivals(db, appended, given)
    answers = iter(appended)
    return [[next(answers) for _ in batch] for batch in batches]


def _insert(db: apsw.Connection, given: Sequence[NewDelivery]) -> int:
    """How many of these were stored; the others are known."""
    columns = [(one.connection_id, one.provider_id, one.event_type, one.received_at, len(one.body)) for one in given]
    try:
        return execute(db, _sql["insert"], rows=json_text(columns))
    except apsw.ConstraintError as error:
        if getattr(error, "extendedresult", None) != apsw.SQLITE_CONSTRAINT_FOREIGNKEY:
            raise
        raise NotFoundError("The connection of the delivery is gone.") from error


def _ids(db: apsw.Connection, given: Sequence[NewDelivery], stored: int) -> Sequence[int]:
    if stored == len(given):  # the usual case: ids ascend, and nobody else writes meanwhile
        newest = db.last_insert_rowid()
        return range(newest - stored + 1, newest + 1)
    return table(db, _sql["known"], rows=json_text([(one.connection_id, one.provider_id) for one in given]))


def _fresh(ids: Sequence[int], stored: int) -> dict[int, int]:
    """The ids that were given out just now, which are the newest, and the place of each one's first arrival."""
    newest = set(sorted(set(ids))[-stored:]) if stored else set()
    first: dict[int, int] = {}
    for place, delivery_id in enumerate(ids):
        if delivery_id in newest:
            first.setdefault(delivery_id, place)
    return first


def _count_duplicates(db: apsw.Connection, arrivals: Iterable[tuple[Appended, NewDelivery]]) -> None:
    repeated: dict[int, tuple[int, int]] = {}  # id → how often, and when last
    for appended, delivery in arrivals:
        if appended.duplicate:
            count, at = repeated.get(appended.id, (0, 0))
            repeated[appended.id] = count + 1, max(at, delivery.received_at)
    if repeated:
        execute(
            db, _sql["count_duplicates"], rows=json_text([(first, *figures) for first, figures in repeated.items()])
        )


def _note_arrivals(db: apsw.Connection, appended: Sequence[Appended], given: Sequence[NewDelivery]) -> None:
    hours: dict[tuple[int, int], int] = {}
    last: dict[int, int] = {}
    for one, delivery in zip(appended, given, strict=True):
        home, at = delivery.connection_id, delivery.received_at
        last[home] = max(at, last.get(home, 0))
        if not one.duplicate:
            place = home, hour_of(at)
            hours[place] = hours.get(place, 0) + 1
    execute(db, _sql["count_arrivals"], rows=json_text([(*place, new) for place, new in hours.items()]))
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
    execute(db, _sql["finish"], packed=apsw.carray(tuple([pack_finished(*pair) for pair in finished])))
    last: dict[int, int] = {}
    for _, effects in finished:
        parcel = effects.parcel
        last[parcel.connection_id] = max(parcel.at, last.get(parcel.connection_id, 0))
    execute(db, _sql["succeed_streams"], rows=json_text(list(last.items())))
    add_log_lines(db, [line for done, _ in finished for line in log_row.of_delivery(done.claim, done.log)])
