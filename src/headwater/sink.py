"""The contract of a way out, and the one envelope in which changes leave: by the feed, the API and every export."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Literal, Protocol

import msgspec

from headwater.record import Origin, Version

WRITE_CHANGES_MAX = 5000  # changes gathered for one `Sink.write`; one page of them more may come


class Change(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One version that became current. Readers that see it again know it by (connection, type, id, version)."""

    sequence: int  # strictly increasing over the whole database
    op: Literal["upsert", "delete"]
    origin: Origin
    connection: str  # connection key
    connector: str  # connector key
    stream: str
    type: str  # canonical type
    id: str  # the object's id at the provider
    version: int  # within its record
    hash: str
    as_of: datetime  # true at the provider
    observed_at: datetime  # committed here
    connector_version: str
    run_id: int | None  # the run that emitted it …
    page: int | None  # … and its page
    delivery_id: int | None  # … or the delivery
    data: msgspec.Raw | None  # canonical JSON, untouched; None for a deletion


class Sink(Protocol):
    """A way out that knows how far it has come.

    `write` makes its changes durable together with the position, or neither: whoever writes may be killed at any
    instant, opens the sink again, and goes on after the position it is told.
    """

    async def open(self) -> str | None:
        """Take up where the last durable write ended: its position, or None at the beginning."""
        ...

    async def write(self, changes: Sequence[Change], *, position: str) -> None:
        """Make these changes and the position durable."""
        ...

    async def finish(self) -> None:
        """Everything asked for was written: make it visible to readers."""
        ...

    async def close(self) -> None:
        """Let go; what was written stays, to be taken up later."""
        ...


def change(version: Version, connectors: Mapping[str, str]) -> Change:
    """The envelope of a version; `connectors` maps connection keys to connector keys."""
    deleted = version.operation == "delete"
    return Change(
        sequence=version.sequence,
        op=version.operation,
        origin=version.origin,
        connection=version.connection,
        connector=connectors.get(version.connection, ""),
        stream=version.stream,
        type=version.type,
        id=version.source_id,
        version=version.version,
        hash=version.hash,
        as_of=version.as_of,
        observed_at=version.observed_at,
        connector_version=version.connector_version,
        run_id=version.run_id,
        page=version.page,
        delivery_id=version.delivery_id,
        data=None if deleted else version.payload,
    )


def changes(versions: Iterable[Version], connectors: Mapping[str, str]) -> list[Change]:
    """The envelopes of many versions."""
    return [change(version, connectors) for version in versions]
