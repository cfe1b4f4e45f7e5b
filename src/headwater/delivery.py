"""A webhook request as received: bytes, headers, instant.

received ──> pending ──> done (or ignored)
                │ └────> pending again, later
                └──────> dead ── replay ──> pending
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import msgspec

from headwater.record import Counts

REPLAY_CANCELLED = "Its replay was cancelled before it was dispatched again."


class DeliveryState(StrEnum):
    """Invariant 5: every stored delivery is pending, done or dead."""

    PENDING = "pending"
    DONE = "done"
    DEAD = "dead"


class NewDelivery(msgspec.Struct, gc=False, kw_only=True):
    """A verified delivery on its way into the store."""

    connection_id: int
    received_at: int  # microseconds
    provider_id: str  # the provider's delivery id, or the hex hash of the body: a second one is a duplicate
    event_type: str | None
    headers: bytes  # JSON object of the request's headers, without credentials
    body: bytes


class Appended(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What became of a delivery given to the store."""

    id: int
    duplicate: bool  # this provider id was stored before; `id` is the first one's


class ClaimedDelivery(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A pending delivery handed to dispatch, for one attempt."""

    id: int
    connection_id: int
    provider_id: str
    event_type: str | None
    received_at: datetime
    headers: Mapping[str, str]
    body: bytes
    attempt: int
    epoch: int  # fencing token of the claim: checked when it is finished

    @property
    def is_replay(self) -> bool:
        """Whether it was settled before: a replay begins the attempts anew, while the epoch goes on."""
        return self.epoch > self.attempt


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A delivery as stored."""

    id: int
    connection: str
    connector: str
    provider_id: str
    event_type: str | None
    state: DeliveryState
    ignored: bool  # done, and no stream wanted it
    received_at: datetime
    due_at: datetime | None  # next attempt, while pending
    finished_at: datetime | None
    attempts: int
    duplicates: int  # later arrivals of the same provider id
    last_duplicate_at: datetime | None
    body_bytes: int
    counts: Counts
    error_code: str | None
    error: str | None
    traceback: str | None
    replayed_at: datetime | None  # the last time
    headers: Mapping[str, str] = field(default_factory=dict)  # of `delivery()` alone
    body: bytes | None = None  # of `delivery()` alone


@dataclass(frozen=True, kw_only=True)
class DeliveryFilter:
    """Which deliveries: every given field must hold."""

    ids: Sequence[int] | None = None
    connection: str | None = None
    state: DeliveryState | None = None
    event_type: str | None = None
    received_from: datetime | None = None
    received_to: datetime | None = None
    error_code: str | None = None
    replayed_at: datetime | None = None  # by the replay of that instant


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """Refused requests to one endpoint for one reason, within one hour."""

    connection: str
    reason: str
    hour: datetime
    count: int
    last_at: datetime
    sample: str  # headers and the first bytes of the body of the latest one
