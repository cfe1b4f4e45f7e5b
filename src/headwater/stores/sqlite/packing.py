"""Rows packed as blobs, fixed widths first: a thousand of them enter SQLite in one step.

The statements that unpack them are in `ingest.sql` and `deliveries.sql`.
"""

from __future__ import annotations

from headwater.delivery import NewDelivery
from headwater.jsonvalue import HASH_BYTES
from headwater.record import Emission
from headwater.stores.outcome import Content

VERSION_HEAD_BYTES = 100


def version_head(
    emission: Emission,
    *,
    origin_id: int,
    connection_id: int,
    type_id: int,
    stream_id: int,
    number: int,
    previous: int,
    stale: bool,
) -> bytes:
    """What `insert_versions` unpacks beside the emission's body; `previous` is 0 for a first version."""
    head = b"%19d%10d%10d%10d%10d%19d%19d%d%d%d" % (
        origin_id, connection_id, type_id, stream_id, number, previous, emission.as_of, emission.deleted, stale,
        emission.key is None,
    )  # fmt: skip
    assert len(head) == VERSION_HEAD_BYTES, "packed fields have their widths"
    return head


def pack_key(connection_id: int, key: bytes, content: Content, *, delivery_id: int | None) -> bytes:
    """What `upsert_keys` unpacks."""
    assert len(key) == HASH_BYTES, "a packed field has its width"
    return b"%10d%d%19d%s%s" % (
        connection_id, content.deleted, delivery_id or 0, key, bytes.fromhex(content.hash),
    )  # fmt: skip


def pack_body(delivery_id: int, delivery: NewDelivery) -> bytes:
    """What `insert_bodies` unpacks."""
    return b"%19d%10d%s%s" % (delivery_id, len(delivery.headers), delivery.headers, delivery.body)
