"""Deliveries as an operator sees them: listed, counted, replayed; and the requests that were refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from headwater.clock import to_micros
from headwater.delivery import REPLAY_CANCELLED, Delivery, DeliveryFilter, Rejection
from headwater.errors import NotFoundError, RunCancelledError
from headwater.failpoint import failpoint
from headwater.intention import LIST_LIMIT, LIST_LIMIT_MAX
from headwater.stores.plan import hour_of
from headwater.stores.postgres.connections import rely_on
from headwater.stores.postgres.database import Connection, execute, prepared, queries, row, rows, take_time, value
from headwater.stores.row import as_delivery, as_rejection

_sql = queries("deliveries.sql")


async def reject_delivery(db: Connection, connection_id: int, *, reason: str, at: datetime, sample: str) -> None:
    """See `DeliveryStore.reject_delivery`."""
    if not await rely_on(db, [connection_id]):
        raise NotFoundError(f"There is no connection {connection_id}.")
    now = to_micros(at)
    asked = {"connection_id": connection_id, "hour": hour_of(now), "reason": reason, "at": now, "sample": sample}
    await execute(db, _sql["reject"], **asked)


async def rejections(db: Connection, *, connection: str | None = None, limit: int = LIST_LIMIT) -> Sequence[Rejection]:
    """See `DeliveryStore.rejections`."""
    found = await rows(db, _sql["rejections"], connection=connection, limit=min(limit, LIST_LIMIT_MAX))
    return [as_rejection(one) for one in found]


async def replay_deliveries(db: Connection, which: DeliveryFilter, *, at: datetime) -> int:
    """See `DeliveryStore.replay_deliveries`.

    A replayed delivery has a new budget of attempts while its epoch goes on, so that an epoch above the attempt tells
    the two apart; one that is claimed at this moment is left to its holder.
    """
    await take_time(db)
    matching, parameters = _matching(which)
    sql = f"{_sql['replay']} (SELECT d.id {matching} ORDER BY d.id FOR NO KEY UPDATE OF d)"
    replayed = await execute(db, sql, at=to_micros(at), **parameters)
    failpoint("replay.before_commit")
    return replayed


async def cancel_replay(db: Connection, which: DeliveryFilter, *, at: datetime) -> int:
    """See `DeliveryStore.cancel_replay`."""
    await take_time(db)
    matching, parameters = _matching(replace(which, error_code=None))
    sql = (
        f"{_sql['cancel_replay']} (SELECT d.id {matching} AND d.state = 'pending' ORDER BY d.id FOR NO KEY UPDATE OF d)"
    )
    words = {"error_code": RunCancelledError.code, "error": REPLAY_CANCELLED}
    return await execute(db, sql, at=to_micros(at), **words, **parameters)


async def count_deliveries(db: Connection, which: DeliveryFilter) -> int:
    """See `DeliveryStore.count_deliveries`."""
    matching, parameters = _matching(which)
    return int(await value(db, f"SELECT count(*) {matching}", **parameters))


async def deliveries(
    db: Connection, which: DeliveryFilter, *, after: int | None = None, limit: int = LIST_LIMIT
) -> Sequence[Delivery]:
    """See `DeliveryStore.deliveries`."""
    matching, parameters = _matching(which)
    if after is not None:
        matching, parameters = f"{matching} AND d.id < %(after)s", {**parameters, "after": after}
    sql = f"{_sql['columns']} {matching} ORDER BY d.id DESC LIMIT %(limit)s"
    return [as_delivery(found) for found in await rows(db, sql, **parameters, limit=min(limit, LIST_LIMIT_MAX))]


async def delivery(db: Connection, delivery_id: int) -> Delivery | None:
    """See `DeliveryStore.delivery`."""
    matching, parameters = _matching(DeliveryFilter(ids=[delivery_id]))
    found = await row(db, f"{_sql['columns']} {matching}", **parameters)
    return None if found is None else as_delivery(found, await row(db, _sql["body"], delivery_id=delivery_id))


async def pending_deliveries(db: Connection) -> int:
    """See `DeliveryStore.pending_deliveries`."""
    (found,) = await prepared(db, _sql["pending"])
    return int(found["count"])


def _matching(which: DeliveryFilter) -> tuple[str, dict[str, Any]]:
    asked: dict[str, tuple[str, Any]] = {
        "ids": ("d.id = ANY(%(ids)s::bigint[])", None if which.ids is None else list(which.ids)),
        "connection": ("c.key = %(connection)s", which.connection),
        "event_type": ("d.event_type = %(event_type)s", which.event_type),
        "received_from": ("d.received_at >= %(received_from)s", which.received_from and to_micros(which.received_from)),
        "received_to": ("d.received_at < %(received_to)s", which.received_to and to_micros(which.received_to)),
        "error_code": ("d.error_code = %(error_code)s", which.error_code),
        "replayed_at": ("d.replayed_at = %(replayed_at)s", which.replayed_at and to_micros(which.replayed_at)),
    }
    given = {name: (text, wanted) for name, (text, wanted) in asked.items() if wanted is not None}
    sql = " AND ".join([_sql["matching"].rstrip(), *(text for text, _ in given.values())])
    if which.state is not None:
        sql += f" AND d.state = '{which.state.value}'"  # in the text, for the partial indexes
    return sql, {name: wanted for name, (_, wanted) in given.items()}
