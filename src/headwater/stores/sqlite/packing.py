"""Rows packed as blobs, fixed widths first: a thousand of them enter SQLite in one step.

The statements that unpack them are in `ingest.sql` and `deliveries.sql`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headwater.clock import from_micros
from headwater.delivery import ClaimedDelivery, NewDelivery
from headwater.intention import DeliveryCommit
from headwater.jsonvalue import HASH_BYTES
from headwater.record import Emission
from headwater.stores.outcome import Content
from headwater.stores.plan import Effects

VERSION_HEAD_BYTES = 100
ORIGIN_HEAD_BYTES = 125  # before the origin
FINISHED_BYTES = 109


class _Facts(msgspec.Struct, array_like=True, gc=False):
    id: int
    connection_id: int
    provider_id: str
    event_type: str | None
    received_at: int
    attempts: int
    epoch: int
    headers: dict[str, str]
    body_bytes: int


_decode_facts = msgspec.json.Decoder(list[_Facts]).decode


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
    """What `insert_keys` and `renew_keys` unpack."""
    assert len(key) == HASH_BYTES, "a packed field has its width"
    return b"%10d%d%19d%s%s" % (
        connection_id, content.deleted, delivery_id or 0, key, content.hash,
    )  # fmt: skip


def pack_origin(effects: Effects, connector_version_id: int) -> bytes:
    """What `insert_origins` unpacks."""
    parcel, first = effects.parcel, effects.first_sequence
    head = b"%19d%19d%10d%19d%10d%19d%10d%19d" % (
        first, first + effects.size - 1, parcel.connection_id, parcel.run_id or 0, parcel.page or 0,
        parcel.delivery_id or 0, connector_version_id, parcel.at,
    )  # fmt: skip
    assert len(head) == ORIGIN_HEAD_BYTES, "packed fields have their widths"
    return head + parcel.origin.encode()


def pack_body(delivery_id: int, delivery: NewDelivery) -> bytes:
    """What `insert_bodies` unpacks."""
    return b"%19d%10d%s%s" % (delivery_id, len(delivery.headers), delivery.headers, delivery.body)


def pack_finished(done: DeliveryCommit, effects: Effects) -> bytes:
    """What `finish` unpacks."""
    counts = msgspec.structs.astuple(effects.result.counts)
    packed = b"%19d%d%19d%10d%10d%10d%10d%10d%10d%10d" % (done.claim.id, done.ignored, effects.parcel.at, *counts)
    assert len(packed) == FINISHED_BYTES, "packed fields have their widths"
    return packed


def as_claims(facts: str, bodies: bytes) -> Sequence[ClaimedDelivery]:
    """What `claimed` packed, oldest first."""
    claims: list[ClaimedDelivery] = []
    end = 0
    for one in _decode_facts(facts):
        start, end = end, end + one.body_bytes
        claims.append(
            ClaimedDelivery(
                id=one.id,
                connection_id=one.connection_id,
                provider_id=one.provider_id,
                event_type=one.event_type,
                received_at=from_micros(one.received_at),
                headers=one.headers,
                body=bodies[start:end],
                attempt=one.attempts,
                epoch=one.epoch,
            )
        )
    return sorted(claims, key=lambda claim: claim.id)
