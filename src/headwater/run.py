"""What a run is made of: its reference, pages, window, states, and the stored forms of streams and backfills.

scheduled ──> running ──> succeeded
                 │  └───> retrying ──> running …
                 └──────> failed · cancelled
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal

import msgspec

from headwater.errors import NotFoundError, near_miss
from headwater.record import Counts

Trigger = Literal["tick", "backfill", "operator"]
NAMES_SHOWN_MAX = 10
CURSOR_BYTES_MAX = 64 * 1024
LEASE_SECONDS = 60.0  # a worker that is silent for so long has lost its run


class RunState(StrEnum):
    """The states of a run."""

    SCHEDULED = "scheduled"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Priority:
    """Smaller runs first: deliveries are not runs and come before all of these."""

    OPERATOR = 10
    POLL = 20
    BACKFILL = 30


@dataclass(frozen=True)
class Window:
    """A half-open span `[start, end)` asked of the provider; both aware UTC."""

    start: datetime
    end: datetime


@dataclass(frozen=True, kw_only=True)
class Page:
    """What a sync route returns: where to go on, and whether to."""

    cursor: str | None = None  # the provider's token for the next page; saved with this page's records
    has_more: bool = False  # whether another page is asked for at once


@dataclass(frozen=True, kw_only=True)
class RunRef:
    """Who may commit: everything an engine needs to carry out one attempt of a run."""

    run_id: int
    connection_id: int
    stream_id: int
    stream_key: str
    partition: str
    trigger: Trigger
    priority: int
    epoch: int  # fencing token: checked in every commit of this attempt
    attempt: int  # 1 for the first
    cursor: str | None  # where to go on
    window: Window | None = None
    window_id: int | None = None  # the window of a backfill, which keeps its own checkpoint
    page_number: int = 0  # pages this run has committed before
    pages_limit: int | None = None  # stop after so many pages, with success
    allow_deletes: bool = False  # an operator released the mass-delete brake for this run
    checkpoint_at: datetime | None = None  # when `cursor` was saved, by the clock that was furthest ahead so far


@dataclass(frozen=True, kw_only=True)
class Run:
    """One execution of a poll or backfill, as stored."""

    id: int
    connection: str
    connector: str
    stream: str
    partition: str
    trigger: Trigger
    state: RunState
    attempt: int
    scheduled_at: datetime  # the tick, or the moment of the operator's act
    due_at: datetime  # not before; later than `scheduled_at` while retrying
    started_at: datetime | None
    finished_at: datetime | None
    pages: int
    counts: Counts
    cursor_before: str | None
    cursor_after: str | None
    window: Window | None
    backfill_id: int | None
    connector_version: str
    error_code: str | None
    error: str | None
    traceback: str | None


class TickRun(msgspec.Struct, frozen=True, kw_only=True):
    """What a run of the schedule, or of an operator, tells of the tick that it was for; a page reads thousands."""

    id: int
    state: RunState
    attempt: int
    scheduled_at: int  # microseconds, as is the next
    finished_at: int | None
    changed: int  # records


@dataclass(frozen=True, kw_only=True)
class PageRow:
    """One committed page of a run."""

    run_id: int
    number: int
    cursor: str | None
    has_more: bool
    counts: Counts
    started_at: datetime
    committed_at: datetime


@dataclass(frozen=True, kw_only=True)
class RequestLog:
    """One HTTP request of a handler, redacted."""

    at: datetime
    method: str
    url: str  # without credentials; secrets replaced
    status: int | None  # None: no answer came
    milliseconds: int
    retries: int  # attempts before this answer
    note: str = ""  # what the client did about it, such as "waited 2.0 s for Retry-After"


class StreamState(msgspec.Struct, frozen=True, kw_only=True):
    """A stream of a connection (and of one partition), as stored, with its figures of the last 24 h."""

    id: int
    connection_id: int
    connection: str  # connection key
    connector: str
    tenant: str | None
    stream: str
    partition: str
    mode: Literal["poll", "webhook", "backfill"]
    schedule: str | None
    timezone: str
    expect_within_seconds: int | None
    paused_at: datetime | None  # by an operator
    connection_paused_reason: str | None  # the connection is paused: by an operator, or needs attention
    connection_needs_attention: bool
    next_tick_at: datetime | None
    blocked_until: datetime | None  # the provider's Retry-After
    cursor: str | None
    checkpoint_at: datetime | None
    running_run_id: int | None  # the run that is scheduled, running or retrying now
    running_state: RunState | None
    retry_at: datetime | None  # when that run is retried
    registered_at: datetime
    last_attempt_at: datetime | None
    last_success_at: datetime | None
    last_record_at: datetime | None
    last_error: str | None
    last_error_code: str | None
    consecutive_failures: int
    skipped_ticks: int  # ticks that found the run before still going
    runs_24h: int
    failed_24h: int
    counts_24h: Counts
    # webhook streams
    last_delivery_at: datetime | None = None
    rejected_24h: int = 0
    deliveries_24h: int = 0
    pending: int = 0
    dead: int = 0
    drift: float | None = None  # share of the changes of 24 h that a poll found and the webhooks had missed


BackfillState = Literal["running", "paused", "succeeded", "failed", "cancelled"]
WindowState = Literal["todo", "running", "done", "failed", "cancelled"]


def of_partition(states: Sequence[StreamState], partition: str) -> StreamState:
    """The row of that partition among the rows of one stream of one connection; `NotFoundError` where there is none."""
    for one in states:
        if one.partition == partition:
            return one
    name, names = f"The stream {states[0].connection} {states[0].stream}", [one.partition for one in states]
    if not partition:
        shown = ", ".join(names[:NAMES_SHOWN_MAX])
        raise NotFoundError(f"{name} has partitions.", hint=f"Say which: {shown}.")
    if names == [""]:
        raise NotFoundError(f"{name} has no partition `{partition}`.", hint="It has none at all.")
    hint = near_miss(partition, names) or f"It has {', '.join(names[:NAMES_SHOWN_MAX])}."
    raise NotFoundError(f"{name} has no partition `{partition}`.", hint=hint)


@dataclass(frozen=True, kw_only=True)
class Backfill:
    """A bounded historical run beside the live stream."""

    id: int
    connection: str
    stream: str
    partition: str
    span: Window
    state: BackfillState
    created_at: datetime
    finished_at: datetime | None
    windows: Mapping[WindowState, int]
    counts: Counts
    pages: int


@dataclass(frozen=True, kw_only=True)
class BackfillWindow:
    """One window of a backfill: its own checkpoint, its own fencing token."""

    id: int
    backfill_id: int
    window: Window
    state: WindowState
    run_id: int | None
    cursor: str | None
    pages: int
    counts: Counts
    started_at: datetime | None
    finished_at: datetime | None
    error: str | None
    attempts: int = field(default=0)
