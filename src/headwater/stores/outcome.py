"""What an emission comes to beside what is known of its record and its idempotency key: pure, one decision.

key seen, same content ─────────────> duplicate      nothing written
same content as the current version ─> unchanged     (duplicate, where the key names the object and did so before)
older than the current version ──────> stale         kept in history, never current (Invariant 8)
otherwise ───────────────────────────> created · updated · deleted
"""

from __future__ import annotations

import msgspec

from headwater.record import Emission, Outcome


class Known(msgspec.Struct, array_like=True, gc=False):
    """A record as the store knows it before an emission."""

    source_id: str
    sequence: int  # of the current version
    latest: int  # of the newest version, stale ones included
    version: int  # number of the newest version
    hash: str  # of the current content, hex
    as_of: int
    deleted: int
    by_object: int  # the current version came under the key that names the object


class Content(msgspec.Struct, gc=False, frozen=True):
    """What an idempotency key came with."""

    hash: bytes
    deleted: bool


def decide(emission: Emission, known: Known | None, seen: Content | None) -> Outcome:
    """The outcome of an emission; `seen` is what its key came with before, if it has a key and it did."""
    if known is None and seen is None:
        return Outcome.DELETED if emission.deleted else Outcome.CREATED
    if seen is not None and seen.hash == emission.hash and seen.deleted == emission.deleted:
        return Outcome.DUPLICATE
    if known is None:
        return Outcome.DELETED if emission.deleted else Outcome.CREATED
    if _is_same(emission, known):
        return Outcome.DUPLICATE if emission.key is None and known.by_object else Outcome.UNCHANGED
    if emission.as_of < known.as_of:
        return Outcome.STALE
    if emission.deleted:
        return Outcome.DELETED
    return Outcome.CREATED if known.deleted else Outcome.UPDATED


def _is_same(emission: Emission, known: Known) -> bool:
    if emission.deleted or known.deleted:
        return emission.deleted and bool(known.deleted)
    return known.hash == emission.hash.hex()
