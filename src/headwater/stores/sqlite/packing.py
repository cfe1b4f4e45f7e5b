"""Rows packed as blobs, fixed widths first: a thousand of them enter SQLite in one step.

The statements that unpack them are in `ingest.sql` and `deliveries.sql`.
"""

from __future__ import annotations

from headwater.delivery import NewDelivery
from headwater.jsonvalue import HASH_BYTES
from headwater.record import Emission
from headwater.stores.sqlite.outcome import Content, Known


def version_home(*, origin_id: int, connection_id: int, type_id: int, stream_id: int) -> bytes:
    """The part of a packed version that all versions of one parcel, type and stream share."""
    return b"%19d%10d%10d%10d" % (origin_id, connection_id, type_id, stream_id)


def pack_version(emission: Emission, home: bytes, sequence: int, number: int, previous: int, stale: bool) -> bytes:
    """What `insert_versions` unpacks; `previous` is 0 for a record's first version."""
    assert len(emission.hash) == HASH_BYTES, "a packed field has its width"
    source_id = emission.source_id.encode()
    return b"%19d%b%10d%19d%19d%d%d%b%4d%b%b" % (
        sequence, home, number, previous, emission.as_of, emission.deleted, stale, emission.hash, len(source_id),
        source_id, emission.payload,
    )  # fmt: skip


def pack_record(connection_id: int, type_id: int, known: Known) -> bytes:
    """What `upsert_records` unpacks."""
    return b"%10d%10d%19d%19d%10d%19d%d%d%s%s" % (
        connection_id, type_id, known.sequence, known.latest, known.version, known.as_of, known.deleted,
        known.by_object, bytes.fromhex(known.hash), known.source_id.encode(),
    )  # fmt: skip


def pack_key(connection_id: int, key: bytes, content: Content, *, delivery_id: int | None) -> bytes:
    """What `upsert_keys` unpacks."""
    assert len(key) == HASH_BYTES, "a packed field has its width"
    return b"%10d%d%19d%s%s" % (
        connection_id, content.deleted, delivery_id or 0, key, bytes.fromhex(content.hash),
    )  # fmt: skip


def pack_body(delivery_id: int, delivery: NewDelivery) -> bytes:
    """What `insert_bodies` unpacks."""
    return b"%19d%10d%s%s" % (delivery_id, len(delivery.headers), delivery.headers, delivery.body)
