"""What a store is asked to do and what it answers, as values: whole intentions, never single rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import msgspec

from headwater.delivery import (
    ClaimedDelivery,
    DeliveryState,
)
from headwater.log_line import NewLogLine
from headwater.record import (
    Counts,
    Emission,
    Origin,
    Outcome,
    Quarantined,
    Version,
)
from headwater.run import (
    RequestLog,
    RunRef,
    RunState,
)

LIST_LIMIT = 100
LIST_LIMIT_MAX = 1000
REQUESTS_KEPT = 1000
DELETE_BRAKE_MIN = 10  # the mass-delete brake never holds fewer deletions than these

Transaction = Any  # the store's own handle, opaque to everybody but a transactional engine


@dataclass(frozen=True, kw_only=True)
class StoredConnection:
    """One authorised account of a connector, as stored; secrets apart."""

    id: int
    key: str  # the operator's name for it, unique
    connector: str  # connector key
    tenant: str | None
    endpoint_id: str  # the unguessable part of its webhook URL
    settings: Mapping[str, Any]  # without the secret fields
    paused_at: datetime | None
    paused_reason: str | None
    needs_attention: bool  # paused by the platform: credentials or settings
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class StoredSecret:
    """One encrypted secret; a field has two while it is rotated."""

    field: str
    ciphertext: str
    expires_at: datetime | None  # the older one of a rotation


@dataclass(frozen=True, kw_only=True)
class StreamDeclaration:
    """A stream as its catalog declares it, for one partition of one connection."""

    stream: str
    partition: str  # "" where the stream has none
    mode: Literal["poll", "webhook", "backfill"]
    schedule: str | None
    timezone: str
    expect_within_seconds: int | None
    next_tick_at: datetime | None  # used for a new row or a changed schedule


@dataclass(frozen=True, kw_only=True)
class DueStream:
    """A stream whose tick has come, as the pure decision sees it."""

    stream_id: int
    connection_id: int
    schedule: str
    timezone: str
    next_tick_at: datetime
    is_running: bool  # the run before is scheduled, running or retrying


@dataclass(frozen=True, kw_only=True)
class TickDecision:
    """What a tick does with a due stream."""

    stream_id: int
    start: bool  # make a run; otherwise the tick is skipped and counted
    next_tick_at: datetime
    missed: int = 0  # ticks in downtime that coalesced into this one


Decide = Callable[[Sequence[DueStream], datetime], Sequence[TickDecision]]


@dataclass(frozen=True, kw_only=True)
class TickResult:
    """What one tick did."""

    admitted: Sequence[RunRef]
    started: int
    skipped: int
    next_due_at: datetime | None  # the next instant at which a tick has work, if nothing else happens


@dataclass(frozen=True, kw_only=True)
class PageCommit:
    """Invariant 4: all of this is one transaction, or nothing of it."""

    ref: RunRef
    number: int  # 1, 2, … within the run
    emissions: Sequence[Emission]
    quarantined: Sequence[Quarantined]
    cursor: str | None
    has_more: bool
    origin: Origin
    connector_version: str
    started_at: datetime
    at: datetime  # of the commit; extends the lease
    lease_seconds: float
    delete_share_max: float = 1.0  # of the records of the types deleted from; 1.0 lets all pass
    advance: bool = True  # move the checkpoint; False for one page on demand
    dry: bool = False  # tell the outcomes and write nothing; asks for no lease
    requests: Sequence[RequestLog] = ()  # what the handler asked of the provider for this page
    log: Sequence[NewLogLine] = ()  # what it logged


class CommitResult(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What a page or a delivery came to; `outcomes` in the order of its emissions, each also set on its emission."""

    counts: Counts
    outcomes: Sequence[Outcome]


@dataclass(frozen=True, kw_only=True)
class RunEnd:
    """How an attempt ended, and what that does to its stream."""

    ref: RunRef
    at: datetime
    state: RunState  # succeeded, retrying, failed or cancelled
    due_at: datetime | None = None  # next attempt, for retrying
    blocked_until: datetime | None = None  # the provider asked for silence
    error_code: str | None = None
    error: str | None = None
    traceback: str | None = None
    pause_reason: str | None = None  # pause the whole connection: it needs its operator
    checkpoint_cursor: str | None = None  # the checkpoint after a success: where the next run begins
    keep_cursor: bool = True  # the checkpoint is what the last page said; else `checkpoint_cursor`
    requests: Sequence[RequestLog] = ()  # of the page that failed
    log: Sequence[NewLogLine] = ()  # likewise


class DeliveryCommit(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A dispatched delivery's emissions and its `done`: one transaction."""

    claim: ClaimedDelivery
    emissions: Sequence[Emission]
    quarantined: Sequence[Quarantined]
    ignored: bool  # no stream wanted it
    origin: Origin  # webhook, or replay
    connector_version: str
    at: datetime
    log: Sequence[NewLogLine] = ()


@dataclass(frozen=True, kw_only=True)
class DeliveryFailure:
    """An attempt at a delivery that failed: pending again at `due_at`, or dead."""

    claim: ClaimedDelivery
    at: datetime
    state: DeliveryState  # pending or dead
    due_at: datetime | None
    error_code: str
    error: str
    traceback: str | None
    log: Sequence[NewLogLine] = ()


@dataclass(frozen=True, kw_only=True)
class TypeColumn:
    """A column of the SQL view of a canonical type."""

    name: str
    kind: Literal["text", "integer", "decimal", "boolean", "json"]


@dataclass(frozen=True, kw_only=True)
class Feed:
    """A slice of the change feed."""

    changes: Sequence[Version]
    position: int  # go on after this; equals the `after` given when there was nothing
    high_water: int  # the newest sequence that a reader may rely on


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """A key of the HTTP API; the secret itself is never stored."""

    id: int
    name: str
    scopes: Sequence[str]
    tenant: str | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class AuditNote:
    """What is written down of an act, in the transaction that carries it out."""

    at: datetime
    actor: str
    act: str  # "accounts.add"
    target: str  # what was acted on
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class AuditFilter:
    """Which acts are meant; None leaves open."""

    actor: str | None = None
    act: str | None = None  # the act, or its family: "keys" means "keys.create", too
    target: str | None = None  # the beginning of what was acted on
    since: datetime | None = None
    until: datetime | None = None  # exclusive


EVERY_ACT = AuditFilter()


@dataclass(frozen=True, kw_only=True)
class AuditEntry:
    """One act of an operator."""

    id: int
    at: datetime
    actor: str
    act: str
    target: str
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One fact that `doctor` looked at."""

    name: str
    ok: bool
    fact: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class Purged:
    """What retention removed."""

    deliveries: int = 0
    runs: int = 0
    keys: int = 0
    log_lines: int = 0

    def __add__(self, other: Purged) -> Purged:
        """Both together."""
        return Purged(
            deliveries=self.deliveries + other.deliveries,
            runs=self.runs + other.runs,
            keys=self.keys + other.keys,
            log_lines=self.log_lines + other.log_lines,
        )
