"""The contract of a store: whole intentions, each one transaction, never single rows.

Every method that writes is all or nothing. One that raises may still have been committed (a lost answer): the caller
repeats it, and the store settles the repetition. Reads see committed states only. Lists come newest or worst first, at
most `limit` of them, and go on `after` the last id seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from headwater.account import AccountStore
from headwater.alert import AlertStore
from headwater.delivery import (
    Appended,
    ClaimedDelivery,
    Delivery,
    DeliveryFilter,
    NewDelivery,
    Rejection,
)
from headwater.deployment import BundleStore
from headwater.grant import GrantStore
from headwater.intention import (
    EVERY_ACT,
    LIST_LIMIT,
    AuditEntry,
    AuditFilter,
    CommitResult,
    Decide,
    DeliveryCommit,
    DeliveryFailure,
    Feed,
    Finding,
    PageCommit,
    Purged,
    RunEnd,
    StoredConnection,
    StoredSecret,
    StreamDeclaration,
    TickResult,
    TypeColumn,
)
from headwater.log_line import LogStore
from headwater.record import (
    Emission,
    QuarantinedRecord,
    Record,
    Version,
)
from headwater.repetition import AnswerStore
from headwater.run import (
    Backfill,
    BackfillState,
    BackfillWindow,
    PageRow,
    RequestLog,
    Run,
    RunRef,
    RunState,
    StreamState,
    TickRun,
    Trigger,
    Window,
)


class ConnectionStore(Protocol):
    """Connections, their secrets and the streams that they carry."""

    async def add_connection(
        self,
        *,
        key: str,
        connector: str,
        tenant: str | None,
        endpoint_id: str,
        settings: Mapping[str, Any],
        secrets: Mapping[str, str],
        at: datetime,
    ) -> StoredConnection:
        """Store a connection with its encrypted secrets; `UsageError` when the key is taken."""
        ...

    async def update_settings(self, connection_id: int, settings: Mapping[str, Any]) -> None:
        """Replace the plain settings."""
        ...

    async def remove_connection(self, connection_id: int) -> None:
        """Remove a connection with everything that was ingested through it."""
        ...

    async def connections(self) -> Sequence[StoredConnection]:
        """All connections, by key."""
        ...

    async def connection(self, key: str) -> StoredConnection | None:
        """The connection of that key."""
        ...

    async def pause_connection(self, connection_id: int, *, reason: str, needs_attention: bool, at: datetime) -> None:
        """Start no run and dispatch no delivery of it until it is resumed; deliveries are still stored."""
        ...

    async def resume_connection(self, connection_id: int, *, at: datetime) -> None:
        """Undo a pause, of either kind, and of the provider's silence."""
        ...

    async def put_secret(
        self, connection_id: int, *, name: str, ciphertext: str, keep_previous_until: datetime | None
    ) -> None:
        """Set a secret field; the one before stays valid until then, or goes at once."""
        ...

    async def secrets(self, connection_id: int, *, at: datetime) -> Sequence[StoredSecret]:
        """The secrets valid at `at`, newest first within a field."""
        ...

    async def all_secrets(self) -> Sequence[tuple[int, StoredSecret]]:
        """Every stored secret with its connection's id, expired ones included: for a change of the key ring."""
        ...

    async def replace_ciphertexts(self, changes: Sequence[tuple[int, str, str, str]]) -> int:
        """Swap (connection id, field, old, new) ciphertexts, each only if the old one still stands; tell how many."""
        ...

    async def declare_streams(
        self, connection_id: int, declarations: Sequence[StreamDeclaration], *, at: datetime
    ) -> None:
        """Bring a connection's stream rows in line with its catalog.

        New ones begin without a checkpoint; changed schedules take the given next tick, and so do those whose own lies
        beyond it: the clock was ahead, and was put right. Those no longer declared keep their checkpoint, and are
        neither scheduled nor listed until they are declared again.
        """
        ...

    async def pause_stream(self, stream_id: int, *, at: datetime) -> None:
        """Start no run of this stream until it is resumed; one under way finishes."""
        ...

    async def resume_stream(self, stream_id: int, *, next_tick_at: datetime | None) -> None:
        """Undo `pause_stream`."""
        ...

    async def set_checkpoint(self, stream_id: int, cursor: str | None, *, at: datetime) -> None:
        """Put a stream's checkpoint where an operator wants it (None: from the beginning); fences a run under way."""
        ...


class RunStore(Protocol):
    """Ticks, leases, pages and runs."""

    async def tick(
        self, at: datetime, *, decide: Decide, admit_max: int, per_connection_max: int, lease_seconds: float
    ) -> TickResult:
        """Start what is due and admit what may run, in one transaction.

        1. Runs whose lease ran out become scheduled again (their holder is fenced by the next epoch).
        2. Streams whose tick has come go through `decide`; each starts a run or counts a skip, and gets its next tick.
        3. Windows to do of running backfills become runs.
        4. Waiting runs that are due are admitted: smaller priority first, round robin over connections, at most
           `per_connection_max` running per connection, none of a connection or stream that is paused or blocked, at
           most `admit_max` in all. Each gets its stream's (or window's) epoch + 1 and a lease.
        """
        ...

    async def readmit(self, at: datetime) -> int:
        """Make every running run wait again at once, and every claimed delivery; how many runs.

        For an embedded process that starts after a crash, and knows that nobody else works on this store.
        """
        ...

    async def bring_back(self, at: datetime, *, lease_seconds: float) -> None:
        """Let nothing wait any more for an instant that was set by a clock which was ahead until `at`.

        What was put off is due at once (runs, deliveries, the messages of alerts), a provider that asked for silence is
        asked again, and no lease or claim ends later than `lease_seconds`, the longest there is, from `at`. What was
        rightly put off comes early once, too: nobody can tell it from the other.
        """
        ...

    async def last_instant(self) -> datetime | None:
        """When anything was last tried, received or made to run, by whatever clock told it then; None where nothing
        was.
        """
        ...

    async def trigger_run(
        self,
        stream_id: int,
        *,
        at: datetime,
        trigger: Trigger = "operator",
        window: Window | None = None,
        pages_limit: int | None = None,
        allow_deletes: bool = False,
    ) -> int:
        """Make a run that waits to be admitted; its id. `UsageError` when a run of that stream is under way."""
        ...

    async def admit_run(self, run_id: int, *, at: datetime, lease_seconds: float) -> RunRef:
        """Admit one waiting run now, whatever the caps: for a run in the foreground."""
        ...

    async def begin_run(self, ref: RunRef, *, at: datetime, lease_seconds: float) -> None:
        """Note that the attempt started; `FencedError` when its epoch is no longer the stream's."""
        ...

    async def extend_lease(self, ref: RunRef, *, at: datetime, lease_seconds: float) -> None:
        """Keep the lease through a long page; `FencedError` as above."""
        ...

    async def commit_page(self, page: PageCommit) -> CommitResult:
        """Commit one page: records, versions, keys, quarantine, counters, checkpoint (Invariant 4).

        Pages of one run may be given without waiting: they commit in the order given, and once one fails, those after
        it are fenced. Raises `FencedError` when the epoch moved on (Invariant 9) and `MassDeleteError` when the run
        would delete more than its share; both leave the store as it was.
        """
        ...

    async def finish_run(self, end: RunEnd) -> None:
        """End an attempt: the run's state, its stream's health, its window's state; releases the lease."""
        ...

    async def cancel_run(self, run_id: int, *, at: datetime) -> bool:
        """Cancel a run that waits or runs; its epoch moves on, so nothing more of it commits. False if it was over."""
        ...

    async def streams(
        self,
        *,
        at: datetime,
        connection: str | None = None,
        tenant: str | None = None,
        stream: str | None = None,
    ) -> Sequence[StreamState]:
        """The declared streams with their figures of the 24 h before `at`, by connection and stream."""
        ...

    async def runs(
        self,
        *,
        connection: str | None = None,
        stream: str | None = None,
        state: RunState | None = None,
        backfill_id: int | None = None,
        after: int | None = None,
        limit: int = LIST_LIMIT,
    ) -> Sequence[Run]:
        """Runs, newest first, with ids below `after`."""
        ...

    async def run(self, run_id: int) -> Run | None:
        """One run."""
        ...

    async def pages(self, run_id: int) -> Sequence[PageRow]:
        """The committed pages of a run, first to last."""
        ...

    async def requests(self, run_id: int) -> Sequence[RequestLog]:
        """What a run asked of the provider, first to last; the newest `REQUESTS_KEPT` of each run are kept."""
        ...

    async def tick_runs(self, since: Mapping[int, datetime], *, until: datetime) -> Mapping[int, Sequence[TickRun]]:
        """Of each stream id its runs, those of backfills apart, scheduled from its instant on and before `until`.

        Oldest first, at most `LIST_LIMIT_MAX` of a stream; a stream without any is left out.
        """
        ...


class BackfillStore(Protocol):
    """Backfills and their windows."""

    async def add_backfill(self, stream_id: int, *, span: Window, windows: Sequence[Window], at: datetime) -> Backfill:
        """Store a backfill with its windows, all to do."""
        ...

    async def backfills(self, *, connection: str | None = None, stream: str | None = None) -> Sequence[Backfill]:
        """Backfills, newest first."""
        ...

    async def backfill(self, backfill_id: int) -> Backfill | None:
        """One backfill."""
        ...

    async def windows(self, backfill_id: int) -> Sequence[BackfillWindow]:
        """The interval map: windows in the order of time."""
        ...

    async def set_backfill_state(self, backfill_id: int, state: BackfillState, *, at: datetime) -> None:
        """Pause, resume or cancel; cancelling cancels its runs, pausing lets them finish."""
        ...

    async def retry_window(self, window_id: int, *, at: datetime) -> None:
        """Make a window to do again from its beginning, whatever became of it; its backfill runs again."""
        ...


class DeliveryStore(Protocol):
    """The inbox."""

    async def append_deliveries(self, deliveries: Sequence[NewDelivery]) -> Sequence[Appended]:
        """Store deliveries durably (Invariant 1); a known provider id counts a duplicate and stores nothing."""
        ...

    async def reject_delivery(self, connection_id: int, *, reason: str, at: datetime, sample: str) -> None:
        """Count a refused request; keep the latest sample of its reason and hour (Invariant 11)."""
        ...

    async def rejections(self, *, connection: str | None = None, limit: int = LIST_LIMIT) -> Sequence[Rejection]:
        """Refused requests, newest hour first."""
        ...

    async def claim_deliveries(
        self, at: datetime, *, limit: int, lease_seconds: float, ordered_connections: Sequence[int] = ()
    ) -> Sequence[ClaimedDelivery]:
        """Take due pending deliveries of connections that are not paused: in turn, the oldest of each first.

        A claim lasts `lease_seconds`; then another may take it, with a higher epoch. Of an ordered connection only the
        oldest pending one is given, and none while it is claimed or waits for its retry.
        """
        ...

    async def finish_delivery(self, done: DeliveryCommit) -> CommitResult:
        """Commit a delivery's emissions and its `done` together; `FencedError` when the claim was retaken."""
        ...

    async def finish_deliveries(self, done: Sequence[DeliveryCommit]) -> Sequence[CommitResult | Exception]:
        """`finish_delivery` for many in one transaction, each all or nothing by itself."""
        ...

    async def fail_delivery(self, failure: DeliveryFailure) -> None:
        """Note a failed attempt: pending again, or dead."""
        ...

    async def replay_deliveries(self, which: DeliveryFilter, *, at: datetime) -> int:
        """Make the deliveries that match pending again, done ones included (Invariant 6); how many."""
        ...

    async def cancel_replay(self, which: DeliveryFilter, *, at: datetime) -> int:
        """Make replayed deliveries that match and still wait what they were before their replay; how many.

        Those under way go on; those that were waiting before they were replayed wait on.
        """
        ...

    async def count_deliveries(self, which: DeliveryFilter) -> int:
        """How many match."""
        ...

    async def deliveries(
        self, which: DeliveryFilter, *, after: int | None = None, limit: int = LIST_LIMIT
    ) -> Sequence[Delivery]:
        """Deliveries that match, newest first, with ids below `after`; without headers and body."""
        ...

    async def delivery(self, delivery_id: int) -> Delivery | None:
        """One delivery with headers and body."""
        ...

    async def pending_deliveries(self) -> int:
        """How many wait: ingress sheds load above its limit."""
        ...


class RecordStore(Protocol):
    """Records, versions, the change feed, quarantine."""

    async def records(
        self,
        *,
        connection: str | None = None,
        type: str | None = None,
        deleted: bool | None = None,
        search: str | None = None,
        after: str | None = None,
        limit: int = LIST_LIMIT,
    ) -> Sequence[Record]:
        """Current records by (connection, type, source id); `search` is the beginning of a source id.

        `after` is the `record_cursor` of the last record seen.
        """
        ...

    async def record(self, connection: str, type: str, source_id: str) -> Record | None:
        """One current record."""
        ...

    async def versions(self, connection: str, type: str, source_id: str) -> Sequence[Version]:
        """Its whole history, newest first, stale ones included."""
        ...

    async def versions_of_delivery(self, delivery_id: int) -> Sequence[Version]:
        """What a delivery changed."""
        ...

    async def forget_records(self, connection_id: int, *, type: str | None, limit: int) -> int:
        """Forget at most so many idempotency keys of a connection, or once there are none, records of that type (None:
        of every type) with all their versions; how many, 0 when nothing is left. What comes again is created anew.
        """
        ...

    async def populations(self) -> Sequence[tuple[str, str, int]]:
        """(connection, type, live records)."""
        ...

    async def changes(
        self,
        *,
        after: int,
        limit: int = LIST_LIMIT,
        connection: str | None = None,
        type: str | None = None,
        tenant: str | None = None,
    ) -> Feed:
        """The change feed after a sequence: every version that became current, tombstones included, without gap."""
        ...

    async def quarantined(
        self,
        *,
        connection: str | None = None,
        stream: str | None = None,
        state: str | None = "waiting",
        after: int | None = None,
        limit: int = LIST_LIMIT,
    ) -> Sequence[QuarantinedRecord]:
        """Quarantined records, newest first."""
        ...

    async def release_quarantined(
        self, releases: Sequence[tuple[int, Emission]], *, at: datetime, connector_version: str
    ) -> CommitResult:
        """Ingest repaired quarantined records, each with its id, and mark them released: one transaction."""
        ...

    async def drop_quarantined(self, ids: Sequence[int]) -> int:
        """Mark quarantined records as dropped; they stay readable."""
        ...

    async def declare_types(self, types: Mapping[str, Sequence[TypeColumn]]) -> None:
        """Make or renew one SQL view per canonical type, named as the type."""
        ...

    async def position(self, sink: str) -> int:
        """How far a sink has come; 0 at first."""
        ...

    async def set_position(self, sink: str, position: int, *, at: datetime) -> None:
        """Note how far a sink has come."""
        ...


class Store(
    ConnectionStore, RunStore, BackfillStore, DeliveryStore, RecordStore, BundleStore, AccountStore, AnswerStore,
    AlertStore, GrantStore, LogStore, Protocol,
):  # fmt: skip
    """Everything durable."""

    name: str  # "sqlite" or "postgres"

    async def open(self) -> None:
        """Connect and migrate; `SchemaError` when the schema is newer than this version knows."""
        ...

    async def close(self) -> None:
        """Commit what waits and let go."""
        ...

    async def wait_for_changes(self, after: int, *, timeout_seconds: float) -> None:
        """Return once the change feed goes beyond `after` by a commit of this process, or after the time."""
        ...

    async def audit(self, *, at: datetime, actor: str, act: str, target: str, detail: Mapping[str, Any]) -> None:
        """Write down an operator's act."""
        ...

    async def audit_log(
        self, which: AuditFilter = EVERY_ACT, *, after: int | None = None, limit: int = LIST_LIMIT
    ) -> Sequence[AuditEntry]:
        """Acts that match, newest first."""
        ...

    async def examine(self) -> Sequence[Finding]:
        """The store's own facts for `doctor`: versions, integrity, schema, size."""
        ...

    async def purge(self, *, deliveries_before: datetime, runs_before: datetime) -> Purged:
        """Remove finished deliveries with their keys, old runs with their pages, and old log lines.

        Records and versions stay.
        """
        ...
