"""Deliveries on their way in and out of dispatch: append, claim, finish, fail. The other hot path.

pending ── claimed: epoch + 1, lease ──> done · pending again · dead

An append waits for no page's commit: it relies on its connections without holding them, and what it counts is in tables
of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

import msgspec
from psycopg.errors import CheckViolation

from headwater.clock import to_micros
from headwater.delivery import Appended, ClaimedDelivery, DeliveryState, NewDelivery
from headwater.errors import HeadwaterError, NotFoundError, StoreUnavailableError
from headwater.intention import CommitResult, DeliveryCommit, DeliveryFailure
from headwater.stores import log_row
from headwater.stores.lease import check_claim, claim_of, parcel_of_delivery
from headwater.stores.plan import Effects, hour_of
from headwater.stores.postgres.arrays import Bigints, Byteas, Texts
from headwater.stores.postgres.connections import hold
from headwater.stores.postgres.database import (
    Connection,
    Database,
    Row,
    escaped,
    execute,
    json_text,
    prepared,
    queries,
    rows,
)
from headwater.stores.postgres.ingest import Batch, prepare
from headwater.stores.postgres.log_lines import add_log_lines
from headwater.stores.postgres.numbers import Numbers
from headwater.stores.postgres.partition import day_of, first_id, make_days
from headwater.stores.row import as_claim, micros

_sql = queries("deliveries.sql")


class _MissingDaysError(Exception):
    """The day of a delivery has no partition yet."""


async def append_deliveries(database: Database, batches: Sequence[Sequence[NewDelivery]]) -> Sequence[Any]:
    """What became of the deliveries of each batch, all stored by one statement; what it raises stored none of them,
    or was lost on its way back.
    """
    given = [delivery for batch in batches for delivery in batch]
    found = await _stored(database, given)
    if not found:
        raise NotFoundError("The connection of the delivery is gone.")
    repeated = [delivery for delivery, one in zip(given, found, strict=True) if not one["is_fresh"]]
    firsts = iter(await database.transact(lambda db: _note_repeated(db, repeated)) if repeated else ())
    appended = (
        Appended(id=one["id"] if one["is_fresh"] else next(firsts), duplicate=not one["is_fresh"]) for one in found
    )
    return [list(islice(appended, len(batch))) for batch in batches]


async def is_any_claimable(db: Connection, at: datetime, *, ordered_connections: Sequence[int] = ()) -> bool:
    """Whether a claim would find something: an idle node asks for this alone."""
    asked = {"at": to_micros(at), "ordered": list(ordered_connections), "limit": 1}
    return bool(await prepared(db, _sql["claimable"], **asked))


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
    found = claim_of((one["id"], one["body_bytes"]) for one in await prepared(db, _sql["claimable"], **asked))
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
    await add_log_lines(db, log_row.of_delivery(claim, failure.log))
    await execute(
        db,
        _sql["fail_streams"],
        connection_id=claim.connection_id,
        at=to_micros(failure.at),
        error=failure.error,
        error_code=failure.error_code,
        failures=int(is_dead),
    )


async def _stored(database: Database, given: Sequence[NewDelivery]) -> list[Row]:
    names = {"before_commit": "delivery.before_commit", "after_commit": "delivery.after_commit"}
    try:
        return await database.once(lambda db: _append(db, given), **names)
    except _MissingDaysError:
        days = sorted({day_of(delivery.received_at) for delivery in given})
        await database.transact(lambda db: make_days(db, days))
        return await database.once(lambda db: _append(db, given), **names)


async def _append(db: Connection, given: Sequence[NewDelivery]) -> list[Row]:
    try:
        return await prepared(
            db,
            _sql["append"],
            homes=sorted({delivery.connection_id for delivery in given}),
            connection_ids=Bigints([delivery.connection_id for delivery in given]),
            provider_ids=Texts([escaped(delivery.provider_id) for delivery in given]),
            event_types=Texts([delivery.event_type and escaped(delivery.event_type) for delivery in given]),
            received_ats=Bigints([delivery.received_at for delivery in given]),
            hours=Bigints([hour_of(delivery.received_at) for delivery in given]),
            first_ids=Bigints([first_id(day_of(delivery.received_at)) for delivery in given]),
            headers=Byteas([delivery.headers for delivery in given]),
            bodies=Byteas([delivery.body for delivery in given]),
        )
    except CheckViolation as error:
        raise _MissingDaysError from error


async def _note_repeated(db: Connection, repeated: Sequence[NewDelivery]) -> Sequence[int]:
    """Count what arrived again; the id of each one's first arrival."""
    found = await rows(
        db,
        _sql["known"],
        connection_ids=[one.connection_id for one in repeated],
        provider_ids=[escaped(one.provider_id) for one in repeated],
    )
    if len(found) < len(repeated):
        raise StoreUnavailableError("The first arrival of a delivery was removed while it came again.")
    firsts = [one["delivery_id"] for one in found]
    times: dict[int, tuple[int, int]] = {}  # id → how often, and when last
    for first, delivery in zip(firsts, repeated, strict=True):
        count, at = times.get(first, (0, 0))
        times[first] = count + 1, max(at, delivery.received_at)
    ids = sorted(times)
    await execute(db, _sql["hold"], ids=ids)
    await execute(
        db, _sql["count_duplicates"], ids=ids, counts=[times[one][0] for one in ids], ats=[times[one][1] for one in ids]
    )
    return firsts


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
        await add_log_lines(db, [line for done, _ in finished for line in log_row.of_delivery(done.claim, done.log)])


def _finished_row(done: DeliveryCommit, effects: Effects) -> dict[str, Any]:
    return {
        "id": done.claim.id,
        "ignored": done.ignored,
        "at": to_micros(done.at),
        **msgspec.structs.asdict(effects.result.counts),
    }
