"""Deliveries on their way in and out of dispatch: append, claim, finish, fail. The other hot path.

pending ── claimed: epoch + 1, lease ──> done · pending again · dead

An append waits for no page's commit: it relies on its connections without holding them, and what it counts is in tables
of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from headwater.clock import to_micros
from headwater.delivery import Appended, ClaimedDelivery, DeliveryState, NewDelivery
from headwater.errors import HeadwaterError, NotFoundError
from headwater.intention import CommitResult, DeliveryCommit, DeliveryFailure
from headwater.stores.lease import check_claim, parcel_of_delivery
from headwater.stores.plan import Effects, hour_of
from headwater.stores.postgres.connections import hold, rely_on
from headwater.stores.postgres.database import Connection, Database, begin, execute, json_text, prepared, queries, rows
from headwater.stores.postgres.ingest import Batch, prepare
from headwater.stores.postgres.numbers import Numbers
from headwater.stores.postgres.partition import day_of, delivery_id, make_days
from headwater.stores.row import as_claim, micros

_sql = queries("deliveries.sql")

Key = tuple[int, bytes]  # connection id, dedupe key


class _MissingDaysError(Exception):
    """Days that have no partition yet."""

    def __init__(self, days: Sequence[int]) -> None:
        super().__init__(f"no partition for {days}")
        self.days = days


async def append_deliveries(database: Database, batches: Sequence[Sequence[NewDelivery]]) -> Sequence[Any]:
    """For each batch what became of its deliveries, or why none of it was stored: one transaction for all."""
    names = {"before_commit": "delivery.before_commit", "after_commit": "delivery.after_commit"}
    try:
        return await database.transact(lambda db: _append(db, batches), **names)
    except _MissingDaysError as error:
        days = error.days
    await database.transact(lambda db: make_days(db, days))
    return await database.transact(lambda db: _append(db, batches), **names)


async def claim_deliveries(
    db: Connection,
    at: datetime,
    *,
    limit: int,
    lease_seconds: float,
    ordered_connections: Sequence[int] = (),
) -> Sequence[ClaimedDelivery]:
    """See `DeliveryStore.claim_deliveries`."""
    now = to_micros(at)
    await execute(db, _sql["one_claim_at_a_time"])
    asked = {"at": now, "ordered": list(ordered_connections), "limit": max(limit, 0)}
    found = [one["id"] for one in await prepared(db, _sql["claimable"], **asked)]
    if not found:
        return []
    lease_until = to_micros(at + timedelta(seconds=lease_seconds))
    claimed = [one["id"] for one in await rows(db, _sql["claim"], ids=found, at=now, lease_until=lease_until)]
    return [as_claim(one) for one in await rows(db, _sql["claimed"], ids=claimed)] if claimed else []


async def finish_deliveries(database: Database, numbers: Numbers, dones: Sequence[DeliveryCommit]) -> Sequence[Any]:
    """A result or a refusal for each delivery, in order, in one transaction; an unforeseen error takes all back."""
    batch = await prepare([parcel_of_delivery(done) for done in dones], numbers)
    return await database.transact(
        lambda db: _finish(db, dones, batch),
        before_commit="dispatch.before_commit",
        after_commit="dispatch.after_commit",
    )


async def fail_delivery(db: Connection, failure: DeliveryFailure) -> None:
    """See `DeliveryStore.fail_delivery`; `FencedError` when the claim was retaken."""
    claim = failure.claim
    await hold(db, [claim.connection_id])
    state, epoch = (await _claims(db, [claim.id])).get(claim.id, ("", 0))
    check_claim(claim, state, epoch)
    is_dead = failure.state is DeliveryState.DEAD
    await execute(
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
    await execute(
        db,
        _sql["fail_streams"],
        connection_id=claim.connection_id,
        at=to_micros(failure.at),
        error=failure.error,
        error_code=failure.error_code,
        failures=int(is_dead),
    )


async def _append(db: Connection, batches: Sequence[Sequence[NewDelivery]]) -> Sequence[Any]:
    given = [delivery for batch in batches for delivery in batch]
    existing, ids = await _prepare(db, given)
    accepted = [delivery for delivery in given if delivery.connection_id in existing]
    wanted: dict[Key, int] = {}
    for delivery, number in zip(accepted, ids, strict=False):
        wanted.setdefault((delivery.connection_id, delivery.dedupe), delivery_id(delivery.received_at, number))
    known = await _remember(db, wanted)
    fresh: dict[int, NewDelivery] = {}
    repeated: dict[int, tuple[int, int]] = {}  # id → how often, and when last
    results: list[Any] = []
    for batch in batches:
        if not all(delivery.connection_id in existing for delivery in batch):
            results.append(NotFoundError("The connection of the delivery is gone."))
            continue
        results.append([_settle(delivery, wanted, known, fresh, repeated) for delivery in batch])
    await _store(db, fresh, repeated, accepted)
    return results


async def _prepare(db: Connection, given: Sequence[NewDelivery]) -> tuple[set[int], list[int]]:
    days = sorted({day_of(delivery.received_at) for delivery in given})
    homes = sorted({delivery.connection_id for delivery in given})
    async with db.pipeline():
        await execute(db, _sql["open_inbox"])
        missing = await begin(db, _sql["missing_days"], days=days)
        numbers = await begin(db, _sql["next_ids"], wanted=len(given))
    if lacking := [found["day"] for found in await missing.fetchall()]:
        raise _MissingDaysError(lacking)
    existing = await rely_on(db, homes)
    return existing, [found["number"] for found in await numbers.fetchall()]


async def _remember(db: Connection, wanted: Mapping[Key, int]) -> dict[Key, int]:
    """The delivery of each key that was known before."""
    asked = {"connection_ids": [home for home, _ in wanted], "dedupes": [dedupe for _, dedupe in wanted]}
    new = {found["delivery_id"] for found in await rows(db, _sql["remember"], **asked, ids=list(wanted.values()))}
    if len(new) == len(wanted):
        return {}
    found = await rows(db, _sql["known"], **asked)
    known = {(one["connection_id"], one["dedupe"]): one["delivery_id"] for one in found}
    return {key: first for key, first in known.items() if first not in new}


def _settle(
    delivery: NewDelivery,
    wanted: Mapping[Key, int],
    known: Mapping[Key, int],
    fresh: dict[int, NewDelivery],
    repeated: dict[int, tuple[int, int]],
) -> Appended:
    key = delivery.connection_id, delivery.dedupe
    first = known.get(key)
    if first is None and wanted[key] not in fresh:
        fresh[wanted[key]] = delivery
        return Appended(id=wanted[key], duplicate=False)
    first = first or wanted[key]
    count, at = repeated.get(first, (0, 0))
    repeated[first] = count + 1, max(at, delivery.received_at)
    return Appended(id=first, duplicate=True)


async def _store(
    db: Connection,
    fresh: Mapping[int, NewDelivery],
    repeated: Mapping[int, tuple[int, int]],
    arrived: Sequence[NewDelivery],
) -> None:
    ids, new = list(fresh), list(fresh.values())
    async with db.pipeline():
        await execute(
            db,
            _sql["insert"],
            ids=ids,
            connection_ids=[delivery.connection_id for delivery in new],
            dedupes=[delivery.dedupe for delivery in new],
            provider_ids=[delivery.provider_id for delivery in new],
            event_types=[delivery.event_type for delivery in new],
            received_ats=[delivery.received_at for delivery in new],
            body_bytes=[len(delivery.body) for delivery in new],
        )
        headers, bodies = [delivery.headers for delivery in new], [delivery.body for delivery in new]
        await execute(db, _sql["insert_bodies"], ids=ids, headers=headers, bodies=bodies)
        if repeated:
            again = sorted(repeated)
            counts, ats = [repeated[one][0] for one in again], [repeated[one][1] for one in again]
            await execute(db, _sql["hold"], ids=again)
            await execute(db, _sql["count_duplicates"], ids=again, counts=counts, ats=ats)
        await _note_arrivals(db, new, arrived)


async def _note_arrivals(db: Connection, new: Sequence[NewDelivery], arrived: Sequence[NewDelivery]) -> None:
    hours: dict[tuple[int, int], int] = {}
    for delivery in new:
        place = delivery.connection_id, hour_of(delivery.received_at)
        hours[place] = hours.get(place, 0) + 1
    last: dict[int, int] = {}
    for delivery in arrived:
        last[delivery.connection_id] = max(delivery.received_at, last.get(delivery.connection_id, 0))
    places, homes = sorted(hours), sorted(last)
    await execute(
        db,
        _sql["count_arrivals"],
        connection_ids=[home for home, _ in places],
        hours=[hour for _, hour in places],
        counts=[hours[place] for place in places],
    )
    await execute(db, _sql["note_arrivals"], connection_ids=homes, ats=[last[home] for home in homes])


async def _claims(db: Connection, ids: Sequence[int]) -> dict[int, tuple[str, int]]:
    found = await rows(db, _sql["hold"], ids=sorted(set(ids)))
    return {one["id"]: (one["state"], one["epoch"]) for one in found}


async def _finish(db: Connection, dones: Sequence[DeliveryCommit], batch: Batch) -> Sequence[Any]:
    await hold(db, {done.claim.connection_id for done in dones})
    claims = await _claims(db, [done.claim.id for done in dones])
    await batch.look_up(db)
    results: list[CommitResult | Exception] = []
    finished: list[tuple[DeliveryCommit, Effects]] = []
    for done, parcel in zip(dones, batch.parcels, strict=True):
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
    if finished:
        await batch.write(db)
        await _note_finished(db, finished)
    return results


async def _note_finished(db: Connection, finished: Sequence[tuple[DeliveryCommit, Effects]]) -> None:
    last: dict[int, int] = {}
    for done, _ in finished:
        last[done.claim.connection_id] = max(to_micros(done.at), last.get(done.claim.connection_id, 0))
    async with db.pipeline():
        await execute(
            db,
            _sql["finish"],
            ids=[done.claim.id for done, _ in finished],
            rows=json_text([_finished_row(*pair) for pair in finished]),
        )
        await execute(db, _sql["succeed_streams"], connection_ids=list(last), ats=list(last.values()))


def _finished_row(done: DeliveryCommit, effects: Effects) -> dict[str, Any]:
    return {
        "id": done.claim.id,
        "ignored": done.ignored,
        "at": to_micros(done.at),
        **msgspec.structs.asdict(effects.result.counts),
    }
