"""Connections and their secrets; and how a writer holds the connection that it writes for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from headwater.clock import to_micros
from headwater.errors import NotFoundError, UsageError
from headwater.intention import StoredConnection, StoredSecret
from headwater.stores.postgres.database import Connection, document, execute, queries, row, rows, take_time, value
from headwater.stores.row import as_connection, as_secret

_sql = queries("connections.sql")
# Tables that grow with the data have no foreign keys, which the hot path would pay for.
_INGESTED = (
    "records", "versions", "origins", "emission_keys", "populations", "deliveries", "dedupes", "arrivals",
    "connection_hours", "rejections", "log_lines",
)  # fmt: skip


async def hold(db: Connection, ids: Collection[int]) -> set[int]:
    """Hold connections until the transaction ends, in the one order that there is; those that exist."""
    return {found["id"] for found in await rows(db, _sql["hold"], ids=list(ids))}


async def hold_one(db: Connection, connection_id: int) -> None:
    """Hold a connection; `NotFoundError` when there is none."""
    if not await hold(db, [connection_id]):
        raise NotFoundError(f"There is no connection {connection_id}.")


async def hold_stream(db: Connection, stream_id: int) -> None:
    """Hold the connection of a stream; `NotFoundError` when there is no such stream."""
    if await value(db, _sql["hold_stream"], stream_id=stream_id) is None:
        raise NotFoundError(f"There is no stream row {stream_id}.")


async def hold_run(db: Connection, run_id: int) -> bool:
    """Hold the connection of a run, if there is such a run."""
    return await value(db, _sql["hold_run"], run_id=run_id) is not None


async def hold_all(db: Connection) -> None:
    """Hold every connection."""
    await execute(db, _sql["hold_all"])


async def rely_on(db: Connection, ids: Collection[int]) -> set[int]:
    """Keep connections from being removed until the transaction ends; those that exist."""
    return {found["id"] for found in await rows(db, _sql["rely"], ids=list(ids))}


async def add_connection(
    db: Connection,
    *,
    key: str,
    connector: str,
    tenant: str | None,
    endpoint_id: str,
    settings: Mapping[str, Any],
    secrets: Mapping[str, str],
    at: datetime,
) -> StoredConnection:
    """See `ConnectionStore.add_connection`."""
    added = await row(
        db,
        _sql["insert"],
        key=key,
        connector=connector,
        tenant=tenant,
        endpoint_id=endpoint_id,
        settings=document(settings),
        at=to_micros(at),
    )
    if added is None:
        if await row(db, _sql["by_key"], key=key) is not None:
            raise UsageError(f"There is a connection `{key}` already.", hint="Choose another key.")
        raise UsageError("Another connection has this endpoint id.", hint="Draw another one.")
    for field, ciphertext in secrets.items():
        await execute(db, _sql["insert_secret"], connection_id=added["id"], field=field, ciphertext=ciphertext)
    return as_connection(added)


async def update_settings(db: Connection, connection_id: int, settings: Mapping[str, Any]) -> None:
    """See `ConnectionStore.update_settings`."""
    await hold_one(db, connection_id)
    await execute(db, _sql["update_settings"], connection_id=connection_id, settings=document(settings))


async def remove_connection(db: Connection, connection_id: int) -> None:
    """See `ConnectionStore.remove_connection`."""
    await take_time(db)
    if await value(db, _sql["hold_for_removal"], connection_id=connection_id) is None:
        raise NotFoundError(f"There is no connection {connection_id}.")
    await execute(db, _sql["raise_floor"])
    await execute(db, _sql["remove_bodies"], connection_id=connection_id)
    for name in _INGESTED:
        await execute(db, f"DELETE FROM {name} WHERE connection_id = %(connection_id)s", connection_id=connection_id)  # noqa: S608  names of our own
    await execute(db, _sql["remove"], connection_id=connection_id)


async def connections(db: Connection) -> Sequence[StoredConnection]:
    """See `ConnectionStore.connections`."""
    return [as_connection(found) for found in await rows(db, _sql["all"])]


async def connection(db: Connection, key: str) -> StoredConnection | None:
    """See `ConnectionStore.connection`."""
    found = await row(db, _sql["by_key"], key=key)
    return None if found is None else as_connection(found)


async def pause_connection(
    db: Connection, connection_id: int, *, reason: str, needs_attention: bool, at: datetime
) -> None:
    """See `ConnectionStore.pause_connection`."""
    await hold_one(db, connection_id)
    await execute(
        db,
        _sql["pause"],
        connection_id=connection_id,
        reason=reason,
        needs_attention=needs_attention,
        at=to_micros(at),
    )


async def resume_connection(db: Connection, connection_id: int, *, at: datetime) -> None:  # noqa: ARG001  the contract's
    """See `ConnectionStore.resume_connection`; ticks that were missed are due, and coalesce."""
    await hold_one(db, connection_id)
    await execute(db, _sql["resume"], connection_id=connection_id)
    await execute(db, _sql["unblock"], connection_id=connection_id)


async def put_secret(
    db: Connection, connection_id: int, *, name: str, ciphertext: str, keep_previous_until: datetime | None
) -> None:
    """See `ConnectionStore.put_secret`."""
    await hold_one(db, connection_id)
    if keep_previous_until is None:
        await execute(db, _sql["drop_secrets"], connection_id=connection_id, field=name)
    else:
        until = to_micros(keep_previous_until)
        await execute(db, _sql["expire_secrets"], connection_id=connection_id, field=name, until=until)
    await execute(db, _sql["insert_secret"], connection_id=connection_id, field=name, ciphertext=ciphertext)


async def drop_secret(db: Connection, connection_id: int, *, name: str) -> None:
    """Forget a secret field."""
    await execute(db, _sql["drop_secrets"], connection_id=connection_id, field=name)


async def secrets(db: Connection, connection_id: int, *, at: datetime) -> Sequence[StoredSecret]:
    """See `ConnectionStore.secrets`."""
    valid = await rows(db, _sql["valid_secrets"], connection_id=connection_id, at=to_micros(at))
    return [as_secret(found) for found in valid]


async def all_secrets(db: Connection) -> Sequence[tuple[int, StoredSecret]]:
    """See `ConnectionStore.all_secrets`."""
    return [(found["connection_id"], as_secret(found)) for found in await rows(db, _sql["all_secrets"])]


async def replace_ciphertexts(db: Connection, changes: Sequence[tuple[int, str, str, str]]) -> int:
    """See `ConnectionStore.replace_ciphertexts`."""
    await hold(db, {connection_id for connection_id, *_ in changes})
    replaced = 0
    for connection_id, field, old, new in changes:
        replaced += await execute(
            db, _sql["replace_ciphertext"], connection_id=connection_id, field=field, old=old, new=new
        )
    return replaced
