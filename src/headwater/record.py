"""What ingest works on: an emission as a handler made it, a record's versions as the store keeps them.

Emission ── commit ──> created · updated · unchanged · duplicate · stale · deleted · quarantined
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal

import msgspec

from headwater.jsonvalue import HASH_BYTES, content_hash

SOURCE_ID_CHARACTERS_MAX = 512
BODY_HEAD_BYTES = HASH_BYTES + 5  # of an emission, before its source id

_MARK_NEWS, _MARK_ANY = b"1", b"0"
_LENGTHS = tuple(b"%4d" % length for length in range(4 * SOURCE_ID_CHARACTERS_MAX + 1))  # in UTF-8

Origin = Literal["poll", "webhook", "backfill", "operator", "replay"]


class Outcome(StrEnum):
    """What an emission came to."""

    CREATED = "created"  # first version of its record, or the first after a deletion
    UPDATED = "updated"  # new current version
    UNCHANGED = "unchanged"  # another key, the same content as the current version
    DUPLICATE = "duplicate"  # a known key with known content
    STALE = "stale"  # older than the current version: kept in history only
    DELETED = "deleted"  # a tombstone became current
    QUARANTINED = "quarantined"  # set aside with its reason


class Emission(msgspec.Struct, gc=False, kw_only=True):
    """One call of `ingest.canonical`, validated, in canonical form; `outcome` is set once its page committed.

    What is long lies in `body`, packed while it is at hand: a store takes it as it is, without touching it again.
    """

    type: str  # canonical type
    stream: str  # stream key
    source_id: str  # the object's id at the provider
    body: bytes  # content hash (16), `1` where known content is no news (1), length of the id (4), source id, payload
    key: bytes | None  # hash of the idempotency key; None where the key names the object itself
    as_of: int  # when the payload was true at the provider, microseconds
    deleted: bool = False
    outcome: Outcome | None = None

    @classmethod
    def of(
        cls,
        type: str,
        stream: str,
        source_id: str,
        payload: bytes,
        key: bytes | None,
        as_of: int,
        deleted: bool = False,
    ) -> Emission:
        """An emission of `payload` in canonical form; a deletion's may be b"{}"."""
        identity = source_id.encode()
        # A key of its own, or a deletion, must see its record whatever that holds.
        mark = _MARK_NEWS if key is None and not deleted else _MARK_ANY
        body = b"".join((content_hash(payload), mark, _LENGTHS[len(identity)], identity, payload))
        return cls(type=type, stream=stream, source_id=source_id, body=body, key=key, as_of=as_of, deleted=deleted)

    @property
    def hash(self) -> bytes:
        """The content hash, 16 bytes."""
        return self.body[:HASH_BYTES]

    @property
    def payload(self) -> bytes:
        """The canonical form."""
        return self.body[BODY_HEAD_BYTES + len(self.source_id.encode()) :]


class Quarantined(msgspec.Struct, gc=False, kw_only=True):
    """A record that did not fit its type, kept as the handler gave it."""

    type: str
    stream: str
    source_id: str | None
    idempotency_key: str
    payload: bytes  # JSON of what was given, or its repr where it is no JSON
    reason: str
    as_of: int
    deleted: bool = False


class Counts(msgspec.Struct, kw_only=True):
    """How many emissions came to what."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    duplicate: int = 0
    stale: int = 0
    deleted: int = 0
    quarantined: int = 0

    def add(self, other: Counts) -> None:
        """Add the counts of `other` to these."""
        for name in COUNT_NAMES:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def total(self) -> int:
        """All emissions, whatever they came to."""
        return sum(getattr(self, name) for name in COUNT_NAMES)

    @property
    def changed(self) -> int:
        """Emissions that made a new current version."""
        return self.created + self.updated + self.deleted


COUNT_NAMES: tuple[str, ...] = tuple(field.name for field in msgspec.structs.fields(Counts))


@dataclass(frozen=True, kw_only=True)
class Version:
    """One immutable state of one record."""

    sequence: int  # its place in the change feed
    connection: str  # connection key
    type: str
    source_id: str
    version: int  # 1, 2, … within its record, in the order of arrival
    operation: Literal["upsert", "delete"]
    stale: bool  # arrived after a newer observation; never was current
    payload: msgspec.Raw  # canonical JSON
    hash: str  # content hash, hex
    as_of: datetime  # true at the provider
    observed_at: datetime  # committed here
    stream: str
    origin: Origin
    run_id: int | None  # the run that emitted it …
    page: int | None  # … and its page
    delivery_id: int | None  # … or the delivery
    connector_version: str


@dataclass(frozen=True, kw_only=True)
class Record:
    """The current canonical form of one object."""

    connection: str
    type: str
    source_id: str
    deleted: bool
    version: int  # number of the current version
    current: Version


@dataclass(frozen=True, kw_only=True)
class QuarantinedRecord:
    """A quarantined record as stored."""

    id: int
    connection: str
    stream: str
    type: str
    source_id: str | None
    idempotency_key: str
    reason: str
    payload: str  # as the handler gave it, JSON where it was
    as_of: datetime
    created_at: datetime
    run_id: int | None
    delivery_id: int | None
    state: Literal["waiting", "released", "dropped"]


def record_cursor(record: Record) -> str:
    """The opaque text after which a list of records goes on."""
    return json.dumps([record.connection, record.type, record.source_id], separators=(",", ":"))
