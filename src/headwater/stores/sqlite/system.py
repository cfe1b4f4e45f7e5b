"""What belongs to no stream: the audit, keys of the API, sinks' positions, retention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import apsw

from headwater.clock import to_micros
from headwater.errors import UsageError
from headwater.intention import EVERY_ACT, LIST_LIMIT, LIST_LIMIT_MAX, ApiKey, AuditEntry, AuditFilter, Purged
from headwater.stores.plan import HOUR_MICROSECONDS
from headwater.stores.row import as_api_key, as_audit_entry, micros
from headwater.stores.sqlite.database import execute, json_text, queries, row, rows, table, value
from headwater.stores.sqlite.log_lines import purge_log_lines

PURGE_MAX = 2_000  # rows of a kind in one transaction, so that no page waits long for a purge
_FIGURES_HOURS = 25  # that health may still ask for

_sql = queries("system.sql")


def audit(db: apsw.Connection, *, at: datetime, actor: str, act: str, target: str, detail: Mapping[str, Any]) -> None:
    """See `Store.audit`."""
    execute(db, _sql["audit"], at=to_micros(at), actor=actor, act=act, target=target, detail=json_text(detail))


def audit_log(
    db: apsw.Connection, which: AuditFilter = EVERY_ACT, *, after: int | None = None, limit: int = LIST_LIMIT
) -> Sequence[AuditEntry]:
    """See `Store.audit_log`."""
    asked = {
        "actor": which.actor,
        "act": which.act,
        "target": which.target,
        "since": micros(which.since),
        "until": micros(which.until),
    }
    found = rows(db, _sql["audit_log"], **asked, after=after, limit=min(limit, LIST_LIMIT_MAX))
    return [as_audit_entry(one) for one in found]


def add_api_key(
    db: apsw.Connection,
    *,
    name: str,
    hash: bytes,
    scopes: Sequence[str],
    tenant: str | None,
    at: datetime,
    expires_at: datetime | None,
) -> ApiKey:
    """See `Store.add_api_key`."""
    if value(db, "SELECT 1 FROM api_keys WHERE hash = :hash", hash=hash):
        raise UsageError("This key is stored already.")
    found = row(
        db,
        _sql["insert_api_key"],
        name=name,
        hash=hash,
        scopes=json_text(list(scopes)),
        tenant=tenant,
        at=to_micros(at),
        expires_at=micros(expires_at),
    )
    assert found is not None
    return as_api_key(found)


def api_key(db: apsw.Connection, hash: bytes, *, at: datetime) -> ApiKey | None:
    """See `Store.api_key`."""
    found = row(db, _sql["api_key"], hash=hash, at=to_micros(at))
    return None if found is None else as_api_key(found)


def position(db: apsw.Connection, sink: str) -> int:
    """See `RecordStore.position`."""
    return int(value(db, _sql["position"], name=sink) or 0)


def set_position(db: apsw.Connection, sink: str, position: int, *, at: datetime) -> None:
    """See `RecordStore.set_position`."""
    execute(db, _sql["set_position"], name=sink, position=position, at=to_micros(at))


def purge_some(db: apsw.Connection, *, deliveries_before: datetime, runs_before: datetime) -> Purged:
    """One transaction's worth of `Store.purge`; keys of deliveries that still wait stay with them."""
    old = table(db, _sql["old_deliveries"], before=to_micros(deliveries_before), limit=PURGE_MAX)
    ids = json_text(old)
    keys = execute(db, _sql["purge_keys"], ids=ids)
    execute(db, _sql["purge_bodies"], ids=ids)
    execute(db, _sql["purge_deliveries"], ids=ids)
    runs = execute(db, _sql["purge_runs"], before=to_micros(runs_before), limit=PURGE_MAX)
    lines = purge_log_lines(db, before=runs_before, limit=PURGE_MAX)
    return Purged(deliveries=len(old), runs=runs, keys=keys, log_lines=lines)


def purge_figures(db: apsw.Connection, *, deliveries_before: datetime, at: datetime) -> None:
    """Refused requests past the retention of deliveries, and hourly figures that nobody asks for any more."""
    day = to_micros(at) - _FIGURES_HOURS * HOUR_MICROSECONDS
    execute(db, _sql["purge_rejections"], before=min(to_micros(deliveries_before), day))
    execute(db, _sql["purge_connection_hours"], before=day)
    execute(db, _sql["purge_stream_hours"], before=day)
