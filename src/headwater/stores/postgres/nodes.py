"""The processes at work on the database: who is here, since when, with which clock."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headwater.clock import Clock, from_micros, to_micros
from headwater.intention import Finding
from headwater.node import Node
from headwater.stores.postgres.database import Connection, Row, document, execute, queries, row, rows, value

FORGOTTEN_SECONDS = 3600  # a node that was silent for so long is no longer listed

_sql = queries("nodes.sql")


async def clock_offset_seconds(db: Connection, clock: Clock) -> float:
    """See `SharedStore.clock_offset_seconds`."""
    return (to_micros(clock.now()) - int(await value(db, _sql["clock"]))) / 1e6


async def note_node(db: Connection, node: Node, *, clock: Clock) -> Sequence[Node]:
    """See `SharedStore.note_node`."""
    await execute(db, _sql["forget_silent"], seconds=FORGOTTEN_SECONDS)
    await execute(
        db,
        _sql["note"],
        id=node.id,
        host=node.host,
        pid=node.pid,
        url=node.url,
        roles=document(sorted(node.roles)),
        slots=node.slots,
        runs=node.runs,
        started_at=to_micros(node.started_at),
        at=to_micros(clock.now()),
    )
    return await nodes(db)


async def forget_node(db: Connection, node_id: str) -> None:
    """See `SharedStore.forget_node`."""
    await execute(db, _sql["forget"], id=node_id)


async def nodes(db: Connection) -> Sequence[Node]:
    """See `SharedStore.nodes`."""
    return [_node(found) for found in await rows(db, _sql["nodes"])]


async def examine_nodes(db: Connection) -> Sequence[Finding]:
    """The nodes as `doctor` shows them, and the leases held."""
    found = await row(db, _sql["leases"], at=await value(db, _sql["clock"]))
    assert found is not None
    leases = Finding(name="leases", ok=True, fact=f"{found['held']} held, {found['lapsed']} lapsed")
    return [*(_finding(node) for node in await nodes(db)), leases]


def _finding(node: Node) -> Finding:
    seen = f"seen {node.silent_seconds:.0f} s ago" if node.is_here else f"silent for {node.silent_seconds:.0f} s"
    return Finding(
        name=f"node {node.id}",
        ok=not node.clock_warning,
        fact=f"{node.host} process {node.pid}, {' '.join(sorted(node.roles))}, {node.runs} runs, {seen},"
        f" clock {node.clock_offset_seconds:+.3f} s from the database's",
        hint=node.clock_warning,
    )


def _node(found: Row) -> Node:
    return Node(
        id=found["id"],
        host=found["host"],
        pid=found["pid"],
        url=found["url"],
        roles=frozenset(msgspec.json.decode(found["roles"], type=list[str])),
        slots=found["slots"],
        runs=found["runs"],
        started_at=from_micros(found["started_at"]),
        silent_seconds=float(found["silent"]) / 1e6,
        clock_offset_seconds=found["clock_offset"] / 1e6,
    )
