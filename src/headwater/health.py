"""How well each stream is fed: one word and one sentence, the same on the page, in the CLI, the API and the metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Protocol, TypeVar

import msgspec

from headwater import cron
from headwater.record import Counts
from headwater.run import RunState, StreamState
from headwater.verdict import Status, Verdict, brief, duration, verdict


class StreamReport(msgspec.Struct, frozen=True, kw_only=True):
    """A stream with its verdict, as every surface shows it."""

    id: int
    connection: str
    connector: str
    tenant: str | None
    stream: str
    partition: str
    mode: str
    schedule: str | None
    timezone: str
    cadence: str  # in words
    registered_at: datetime
    status: Status
    sentence: str
    age_seconds: float | None
    age_ratio: float | None
    expected_at: datetime | None
    grace_seconds: float | None
    interval_seconds: float | None
    lag_seconds: float
    missed: int
    next_at: datetime | None
    last_attempt_at: datetime | None
    last_success_at: datetime | None
    last_record_at: datetime | None
    last_error: str | None
    last_error_code: str | None
    consecutive_failures: int
    skipped_ticks: int
    paused_at: datetime | None  # the stream itself, by an operator
    run_id: int | None  # under way or waiting
    run_state: RunState | None
    cursor: str | None
    checkpoint_at: datetime | None
    runs_24h: int
    failed_24h: int
    counts_24h: Counts
    last_delivery_at: datetime | None
    deliveries_24h: int
    rejected_24h: int
    pending: int
    dead: int
    drift: float | None  # share of the changes of 24 h that a poll found and the webhooks had missed

    @property
    def name(self) -> str:
        """The stream as an operator writes it: `customers`, or `customers[acct_1]` for one partition."""
        return _name(self.stream, self.partition)

    @property
    def complete_at(self) -> datetime | None:
        """When the stream was last known complete: its last success, or its last delivery."""
        return self.last_delivery_at if self.mode == "webhook" else self.last_success_at


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What streams are counted, filtered and sorted by: of thousands a page tells a few in full."""

    id: int
    connection: str
    tenant: str | None
    stream: str
    partition: str
    mode: str
    status: Status
    lag_seconds: float

    @property
    def name(self) -> str:
        """See `StreamReport.name`."""
        return _name(self.stream, self.partition)


class Judged(Protocol):
    """A stream of which the status is known: a `Standing`, or a `StreamReport`."""

    @property
    def connection(self) -> str:
        """Its connection's key."""
        ...

    @property
    def stream(self) -> str:
        """Its key."""
        ...

    @property
    def partition(self) -> str:
        """Its partition, or ""."""
        ...

    @property
    def status(self) -> Status:
        """The word for it."""
        ...

    @property
    def lag_seconds(self) -> float:
        """How long it is overdue."""
        ...


J = TypeVar("J", bound=Judged)

# A page judges thousands: what is copied is looked up by name once.
_OWN = Verdict.__struct_fields__

_SAME = tuple(name for name in StreamReport.__struct_fields__ if name in StreamState.__struct_fields__)

_own_of, _same_of = attrgetter(*_OWN), attrgetter(*_SAME)


def standing(state: StreamState, at: datetime) -> Standing:
    """Where a stream stands at `at`."""
    status, lag = brief(state, at)
    return Standing(
        id=state.id,
        connection=state.connection,
        tenant=state.tenant,
        stream=state.stream,
        partition=state.partition,
        mode=state.mode,
        status=status,
        lag_seconds=lag,
    )


def report(state: StreamState, at: datetime) -> StreamReport:
    """A stream with its verdict at `at`."""
    found = verdict(state, at)
    own, same = zip(_OWN, _own_of(found), strict=True), zip(_SAME, _same_of(state), strict=True)
    return StreamReport(
        **dict(own), **dict(same), cadence=cadence(state), run_id=state.running_run_id, run_state=state.running_state
    )


def reports(states: Iterable[StreamState], at: datetime) -> list[StreamReport]:
    """Each stream with its verdict at `at`, worst first."""
    return worst_first([report(state, at) for state in states])


def worst_first(streams: Iterable[J]) -> list[J]:
    """By status, then the longest overdue, then by name."""
    order = {status: rank for rank, status in enumerate(Status)}
    return sorted(
        streams, key=lambda one: (order[one.status], -one.lag_seconds, one.connection, one.stream, one.partition)
    )


def status_counts(streams: Iterable[Judged]) -> dict[Status, int]:
    """How many streams have each status; statuses that none has are left out; worst first."""
    counted = Counter(one.status for one in streams)
    return {status: counted[status] for status in Status if counted[status]}


def connection_summary(connector_name: str, connection: str, streams: Sequence[Judged]) -> str:
    """What a connection ingests and how that goes: "Stripe (acme) ingests 12 streams: 10 fresh, 1 late, 1 failing."."""
    if not streams:
        return f"{connector_name} ({connection}) ingests nothing: its catalog declares no stream."
    counted = status_counts(streams)
    parts = ", ".join(f"{counted[status]} {status}" for status in reversed(Status) if status in counted)
    noun = "stream" if len(streams) == 1 else "streams"
    return f"{connector_name} ({connection}) ingests {len(streams)} {noun}: {parts}."


def cadence(state: StreamState) -> str:
    """How often a stream is fed, in words."""
    if state.mode == "poll" and state.schedule:
        return cron.describe(state.schedule, state.timezone)
    if state.mode == "webhook":
        expected = state.expect_within_seconds
        return f"on each event, within {duration(expected)}" if expected else "on each event"
    return "on demand"


def _name(stream: str, partition: str) -> str:
    return f"{stream}[{partition}]" if partition else stream
