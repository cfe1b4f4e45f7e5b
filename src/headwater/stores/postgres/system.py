"""What belongs to no stream: the audit, keys of the API, sinks' positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from headwater.clock import to_micros
from headwater.errors import UsageError
from headwater.intention import EVERY_ACT, LIST_LIMIT, LIST_LIMIT_MAX, ApiKey, AuditEntry, AuditFilter
from headwater.stores.postgres.database import Connection, document, execute, queries, row, rows, value
from headwater.stores.row import as_api_key, as_audit_entry, micros

_sql = queries("system.sql")


async def audit(db: Connection, *, at: datetime, actor: str, act: str, target: str, detail: Mapping[str, Any]) -> None:
    """See `Store.audit`."""
    await execute(db, _sql["audit"], at=to_micros(at), actor=actor, act=act, target=target, detail=document(detail))


async def audit_log(
    db: Connection, which: AuditFilter = EVERY_ACT, *, after: int | None = None, limit: int = LIST_LIMIT
) -> Sequence[AuditEntry]:
    """See `Store.audit_log`."""
    asked = {
        "actor": which.actor,
        "act": which.act,
        "target": which.target,
        "since": micros(which.since),
        "until": micros(which.until),
    }
    found = await rows(db, _sql["audit_log"], **asked, after=after, limit=min(limit, LIST_LIMIT_MAX))
    return [as_audit_entry(one) for one in found]


async def add_api_key(
    db: Connection,
    *,
    name: str,
    hash: bytes,
    scopes: Sequence[str],
    tenant: str | None,
    at: datetime,
    expires_at: datetime | None,
) -> ApiKey:
    """See `Store.add_api_key`."""
    if await value(db, _sql["api_key_exists"], hash=hash):
        raise UsageError("This key is stored already.")
    found = await row(
        db,
        _sql["insert_api_key"],
        name=name,
        hash=hash,
        scopes=document(list(scopes)),
        tenant=tenant,
        at=to_micros(at),
        expires_at=micros(expires_at),
    )
    assert found is not None
    return as_api_key(found)


async def api_key(db: Connection, hash: bytes, *, at: datetime) -> ApiKey | None:
    """See `Store.api_key`."""
    found = await row(db, _sql["api_key"], hash=hash, at=to_micros(at))
    return None if found is None else as_api_key(found)


async def position(db: Connection, sink: str) -> int:
    """See `RecordStore.position`."""
    return int(await value(db, _sql["position"], name=sink) or 0)


async def set_position(db: Connection, sink: str, position: int, *, at: datetime) -> None:
    """See `RecordStore.set_position`."""
    await execute(db, _sql["set_position"], name=sink, position=position, at=to_micros(at))
