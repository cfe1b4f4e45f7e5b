"""The database's own facts for `doctor`, and what it must promise before anything is written to it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from headwater.clock import Clock
from headwater.errors import StartError
from headwater.intention import Finding
from headwater.node import CLOCK_OFFSET_SECONDS_MAX
from headwater.stores.postgres.database import SERVER_VERSION_MIN, Connection, queries, row, value
from headwater.stores.postgres.migrate import known, schema_version
from headwater.stores.postgres.nodes import clock_offset_seconds, examine_nodes

DURABLE: Mapping[str, Sequence[str]] = {
    "fsync": ("on",),
    "full_page_writes": ("on",),
    "synchronous_commit": ("on", "remote_apply", "remote_write"),
}

_sql = queries("examine.sql")
_logger = logging.getLogger(__name__)


async def require(db: Connection, *, allow_unsafe: bool) -> None:
    """`StartError` unless the server keeps what it has acknowledged, through a crash and a power cut.

    With `allow_unsafe` only a warning is logged; an unfit version or encoding is refused in any case.
    """
    found = await row(db, _sql["server"])
    assert found is not None
    if found["version"] < SERVER_VERSION_MIN:
        raise StartError(
            f"PostgreSQL {found['text']} is too old.", hint=f"Install version {SERVER_VERSION_MIN // 10_000} or newer."
        )
    if found["encoding"] != "UTF8":
        raise StartError(f"The database has the encoding {found['encoding']}.", hint="Make one with the encoding UTF8.")
    unsafe = await _unsafe(db)
    if unsafe and not allow_unsafe:
        raise StartError(
            f"PostgreSQL may lose what it acknowledged: {unsafe}.",
            hint="put these settings on, or say `database_unsafe = true` where losing data is no matter.",
        )
    if unsafe:
        _logger.warning("PostgreSQL may lose what it acknowledges: %s. This is no place for real data.", unsafe)


async def examine(db: Connection, clock: Clock) -> Sequence[Finding]:
    """See `Store.examine`."""
    own = [await _version(db), await _schema(db), await _durability(db), await _clock(db, clock), await _size(db)]
    return [*own, *await examine_nodes(db)]


async def _unsafe(db: Connection) -> str:
    found = await row(db, _sql["durability"])
    assert found is not None
    return ", ".join(f"{name} is {found[name]}" for name, safe in DURABLE.items() if found[name] not in safe)


async def _version(db: Connection) -> Finding:
    found = await row(db, _sql["server"])
    assert found is not None
    ok = found["version"] >= SERVER_VERSION_MIN
    return Finding(name="postgres version", ok=ok, fact=found["text"], hint="" if ok else "Install a newer server.")


async def _schema(db: Connection) -> Finding:
    (version, _), newest = await schema_version(db), known()[-1].number
    hint = "" if version == newest else "Renew this node: the schema is a version ahead of it."
    return Finding(name="schema", ok=version == newest, fact=f"{version} of {newest}", hint=hint)


async def _durability(db: Connection) -> Finding:
    unsafe = await _unsafe(db)
    return Finding(
        name="durability",
        ok=not unsafe,
        fact=unsafe or "fsync, full_page_writes and synchronous_commit are on",
        hint="Put these settings on: a power cut may lose what was acknowledged." if unsafe else "",
    )


async def _clock(db: Connection, clock: Clock) -> Finding:
    offset = -await clock_offset_seconds(db, clock)
    # What decides is told by the database's clock (`SharedClock`): a difference is a fact, and does no harm.
    hint = "" if abs(offset) <= CLOCK_OFFSET_SECONDS_MAX else "Let all machines keep their time by the same servers."
    return Finding(name="database clock", ok=True, fact=f"{offset:+.3f} s from ours", hint=hint)


async def _size(db: Connection) -> Finding:
    size = int(await value(db, _sql["size"]))
    return Finding(name="database size", ok=True, fact=f"{size / 1e6:.1f} MB")
