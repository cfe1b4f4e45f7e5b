"""Connections and their secrets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import apsw

from headwater.clock import to_micros
from headwater.errors import NotFoundError, UsageError
from headwater.intention import StoredConnection, StoredSecret
from headwater.stores.row import as_connection, as_secret
from headwater.stores.sqlite.database import Row, execute, json_text, queries, row, rows, value

_sql = queries("connections.sql")
# Tables that grow with the data have no foreign keys, which the hot path would pay for.
_INGESTED = ("records", "versions", "origins", "emission_keys", "populations", "log_lines")


def add_connection(
    db: apsw.Connection,
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
    if value(db, _sql["by_key"], key=key) is not None:
        raise UsageError(f"There is a connection `{key}` already.", hint="Choose another key.")
    if value(db, _sql["by_endpoint"], endpoint_id=endpoint_id) is not None:
        raise UsageError("Another connection has this endpoint id.", hint="Draw another one.")
    connection_id = value(
        db,
        _sql["insert"],
        key=key,
        connector=connector,
        tenant=tenant,
        endpoint_id=endpoint_id,
        settings=json_text(settings),
        at=to_micros(at),
    )
    for field, ciphertext in secrets.items():
        execute(db, _sql["insert_secret"], connection_id=connection_id, field=field, ciphertext=ciphertext)
    return as_connection(existing(db, connection_id))


def existing(db: apsw.Connection, connection_id: int) -> Row:
    """The row of a connection; `NotFoundError` when there is none."""
    found = row(db, _sql["by_id"], connection_id=connection_id)
    if found is None:
        raise NotFoundError(f"There is no connection {connection_id}.")
    return found


def update_settings(db: apsw.Connection, connection_id: int, settings: Mapping[str, Any]) -> None:
    """See `ConnectionStore.update_settings`."""
    existing(db, connection_id)
    execute(db, _sql["update_settings"], connection_id=connection_id, settings=json_text(settings))


def remove_connection(db: apsw.Connection, connection_id: int) -> None:
    """See `ConnectionStore.remove_connection`."""
    existing(db, connection_id)
    execute(db, _sql["remove_bodies"], connection_id=connection_id)
    for name in _INGESTED:
        execute(db, f"DELETE FROM {name} WHERE connection_id = :connection_id", connection_id=connection_id)  # noqa: S608  names of our own
    execute(db, _sql["remove"], connection_id=connection_id)


def connections(db: apsw.Connection) -> Sequence[StoredConnection]:
    """See `ConnectionStore.connections`."""
    return [as_connection(found) for found in rows(db, _sql["all"])]


def connection(db: apsw.Connection, key: str) -> StoredConnection | None:
    """See `ConnectionStore.connection`."""
    found = row(db, _sql["by_key"], key=key)
    return None if found is None else as_connection(found)


def pause_connection(
    db: apsw.Connection, connection_id: int, *, reason: str, needs_attention: bool, at: datetime
) -> None:
    """See `ConnectionStore.pause_connection`."""
    existing(db, connection_id)
    execute(
        db,
        _sql["pause"],
        connection_id=connection_id,
        reason=reason,
        needs_attention=int(needs_attention),
        at=to_micros(at),
    )


def resume_connection(db: apsw.Connection, connection_id: int, *, at: datetime) -> None:  # noqa: ARG001  the contract's
    """See `ConnectionStore.resume_connection`; ticks that were missed are due, and coalesce."""
    existing(db, connection_id)
    execute(db, _sql["resume"], connection_id=connection_id)
    execute(db, _sql["unblock"], connection_id=connection_id)


def put_secret(
    db: apsw.Connection, connection_id: int, *, name: str, ciphertext: str, keep_previous_until: datetime | None
) -> None:
    """See `ConnectionStore.put_secret`."""
    existing(db, connection_id)
    if keep_previous_until is None:
        execute(db, _sql["drop_secrets"], connection_id=connection_id, field=name)
    else:
        until = to_micros(keep_previous_until)
        execute(db, _sql["expire_secrets"], connection_id=connection_id, field=name, until=until)
    execute(db, _sql["insert_secret"], connection_id=connection_id, field=name, ciphertext=ciphertext)


def drop_secret(db: apsw.Connection, connection_id: int, *, name: str) -> None:
    """Forget a secret field."""
    execute(db, _sql["drop_secrets"], connection_id=connection_id, field=name)


def secrets(db: apsw.Connection, connection_id: int, *, at: datetime) -> Sequence[StoredSecret]:
    """See `ConnectionStore.secrets`."""
    valid = rows(db, _sql["valid_secrets"], connection_id=connection_id, at=to_micros(at))
    return [as_secret(found) for found in valid]


def all_secrets(db: apsw.Connection) -> Sequence[tuple[int, StoredSecret]]:
    """See `ConnectionStore.all_secrets`."""
    return [(found["connection_id"], as_secret(found)) for found in rows(db, _sql["all_secrets"])]


def replace_ciphertexts(db: apsw.Connection, changes: Sequence[tuple[int, str, str, str]]) -> int:
    """See `ConnectionStore.replace_ciphertexts`."""
    return sum(
        execute(db, _sql["replace_ciphertext"], connection_id=connection_id, field=field, old=old, new=new)
        for connection_id, field, old, new in changes
    )
