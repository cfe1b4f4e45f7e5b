"""Deliveries as an operator sees them: listed, counted, replayed; and the requests that were refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import apsw

from headwater.clock import to_micros
from headwater.delivery import REPLAY_CANCELLED, Delivery, DeliveryFilter, Rejection
from headwater.errors import RunCancelledError
from headwater.failpoint import failpoint
from headwater.intention import LIST_LIMIT, LIST_LIMIT_MAX
from headwater.stores.plan import hour_of
from headwater.stores.row import as_delivery, as_rejection
from headwater.stores.sqlite.connections import existing
from headwater.stores.sqlite.database import execute, json_text, queries, row, rows, value

_sql = queries("deliveries.sql")


def reject_delivery(db: apsw.Connection, connection_id: int, *, reason: str, at: datetime, sample: str) -> None:
    """See `DeliveryStore.reject_delivery`."""
    existing(db, connection_id)
    now = to_micros(at)
    execute(
        db,
        _sql["reject"],
        connection_id=connection_id,
        hour=hour_of(now),
        reason=reason,
        at=now,
        sample=sample,
    )


def rejections(db: apsw.Connection, *, connection: str | None = None, limit: int = LIST_LIMIT) -> Sequence[Rejection]:
    """See `DeliveryStore.rejections`."""
    found = rows(db, _sql["rejections"], connection=connection, limit=min(limit, LIST_LIMIT_MAX))
    return [as_rejection(one) for one in found]


def replay_deliveries(db: apsw.Connection, which: DeliveryFilter, *, at: datetime) -> int:
    """See `DeliveryStore.replay_deliveries`.

    A replayed delivery has a new budget of attempts while its epoch goes on, so that an epoch above the attempt tells
    the two apart; one that is claimed at this moment is left to its holder.
    """
    matching, parameters = _matching(which)
    sql = f"{_sql['replay']} (SELECT d.id {matching})"
    replayed = execute(db, sql, at=to_micros(at), **parameters)
    failpoint("replay.before_commit")
    return replayed


def cancel_replay(db: apsw.Connection, which: DeliveryFilter, *, at: datetime) -> int:
    """See `DeliveryStore.cancel_replay`."""
    matching, parameters = _matching(replace(which, error_code=None))
    sql = f"{_sql['cancel_replay']} (SELECT d.id {matching} AND d.state = 'pending')"
    words = {"error_code": RunCancelledError.code, "error": REPLAY_CANCELLED}
    return execute(db, sql, at=to_micros(at), **words, **parameters)


def count_deliveries(db: apsw.Connection, which: DeliveryFilter) -> int:
    """See `DeliveryStore.count_deliveries`."""
    matching, parameters = _matching(which)
    return int(value(db, f"SELECT count(*) {matching}", **parameters))


def deliveries(
    db: apsw.Connection, which: DeliveryFilter, *, after: int | None = None, limit: int = LIST_LIMIT
) -> Sequence[Delivery]:
    """See `DeliveryStore.deliveries`."""
    matching, parameters = _matching(which)
    if after is not None:
        matching, parameters = f"{matching} AND d.id < :after", {**parameters, "after": after}
    sql = f"{_sql['columns']} {matching} ORDER BY d.id DESC LIMIT :limit"
    return [as_delivery(found) for found in rows(db, sql, **parameters, limit=min(limit, LIST_LIMIT_MAX))]


def delivery(db: apsw.Connection, delivery_id: int) -> Delivery | None:
    """See `DeliveryStore.delivery`."""
    matching, parameters = _matching(DeliveryFilter(ids=[delivery_id]))
    found = row(db, f"{_sql['columns']} {matching}", **parameters)
    if found is None:
        return None
    return as_delivery(found, row(db, _sql["body"], delivery_id=delivery_id))


def pending_deliveries(db: apsw.Connection) -> int:
    """See `DeliveryStore.pending_deliveries`."""
    return int(value(db, _sql["pending"]))


def _matching(which: DeliveryFilter) -> tuple[str, dict[str, Any]]:
    asked: dict[str, tuple[str, Any]] = {
        "ids": (
            "d.id IN (SELECT value FROM json_each(:ids))",
            which.ids if which.ids is None else json_text(which.ids),
        ),
        "connection": ("c.key = :connection", which.connection),
        "event_type": ("d.event_type = :event_type", which.event_type),
        "received_from": ("d.received_at >= :received_from", which.received_from and to_micros(which.received_from)),
        "received_to": ("d.received_at < :received_to", which.received_to and to_micros(which.received_to)),
        "error_code": ("d.error_code = :error_code", which.error_code),
        "replayed_at": ("d.replayed_at = :replayed_at", which.replayed_at and to_micros(which.replayed_at)),
    }
    given = {name: (text, wanted) for name, (text, wanted) in asked.items() if wanted is not None}
    sql = " AND ".join([_sql["matching"].rstrip(), *(text for text, _ in given.values())])
    if which.state is not None:
        sql += f" AND d.state = '{which.state.value}'"  # in the text, for the partial indexes
    return sql, {name: wanted for name, (_, wanted) in given.items()}
