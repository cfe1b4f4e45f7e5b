"""`PostgresStore`: the store contract over one PostgreSQL database, each method delegated to a function.

    write ──> a transaction of its own          pages, deliveries ──> whatever gathered, in one transaction
    read ──> a connection of the pool

Any number of processes on any number of machines may work on the same database.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from functools import update_wrapper
from typing import Any, Concatenate, ParamSpec, TypeVar

from headwater.clock import Clock
from headwater.delivery import Appended, ClaimedDelivery, NewDelivery
from headwater.gather import Gather
from headwater.intention import CommitResult, DeliveryCommit, Finding, PageCommit, Purged, TypeColumn
from headwater.node import Node, Topic
from headwater.record import Emission
from headwater.stores.postgres import (
    accounts,
    alerts,
    answers,
    backfills,
    bundles,
    connections,
    deliveries,
    forget,
    grants,
    inbox,
    log_lines,
    nodes,
    pages,
    quarantine,
    records,
    retention,
    runs,
    streams,
    system,
    ticks,
    views,
)
from headwater.stores.postgres.commit import commit_together
from headwater.stores.postgres.database import Connection, Database, translating
from headwater.stores.postgres.examine import examine, require
from headwater.stores.postgres.migrate import known, migrate
from headwater.stores.postgres.numbers import Numbers
from headwater.stores.postgres.signals import Signals
from headwater.stores.postgres.target import require_whole
from headwater.stores.postgres.watch import Watch

GATHERED_MAX = 500  # pages, or calls that append or finish deliveries, that are carried out together

P = ParamSpec("P")
R = TypeVar("R")


def _writes(
    function: Callable[Concatenate[Connection, P], Awaitable[R]],
    *,
    before_commit: str = "",
    after_commit: str = "",
    tells: Sequence[Topic] = (),
) -> Callable[Concatenate[PostgresStore, P], Coroutine[Any, Any, R]]:
    """The method that carries the function out in one transaction, and then tells all nodes what there is work of."""

    async def method(self: PostgresStore, /, *args: P.args, **kwargs: P.kwargs) -> R:
        result = await self._database.transact(
            lambda db: function(db, *args, **kwargs), before_commit=before_commit, after_commit=after_commit
        )
        for topic in tells:
            self._signals.send(topic)
        return result

    update_wrapper(method, function)
    return method


def _reads(
    function: Callable[Concatenate[Connection, P], Awaitable[R]],
) -> Callable[Concatenate[PostgresStore, P], Coroutine[Any, Any, R]]:
    """The method that carries the function out on a connection of the pool."""

    async def method(self: PostgresStore, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._database.read(lambda db: function(db, *args, **kwargs))

    update_wrapper(method, function)
    return method


class PostgresStore:
    """Everything durable, in one PostgreSQL database; many nodes may share it."""

    name = "postgres"

    def __init__(self, url: str, clock: Clock, *, allow_unsafe: bool = False) -> None:
        self._clock = clock
        self._allow_unsafe = allow_unsafe
        self._database = Database(url)
        self._numbers = Numbers(self._database)
        self._watch = Watch(self._database, clock)
        self._signals = Signals(self._database, clock)
        self._pages: Gather[PageCommit, CommitResult] = Gather(self._commit_pages, items_max=GATHERED_MAX)
        self._appends: Gather[Sequence[NewDelivery], Sequence[Appended]] = Gather(
            self._append_deliveries, items_max=GATHERED_MAX
        )
        self._dones: Gather[DeliveryCommit, CommitResult] = Gather(self._finish_deliveries, items_max=GATHERED_MAX)

    async def open(self) -> None:
        """See `Store.open`; `StartError` where the server may lose what it acknowledged, or holds half a copy."""
        async with self._database.alone() as db:
            with translating():
                await require(db, allow_unsafe=self._allow_unsafe)
                await require_whole(db)
                await migrate(db, known())
        await self._database.open()

    async def close(self) -> None:
        """See `Store.close`."""
        for gathered in (self._pages, self._appends, self._dones):
            await gathered.drain()
        await self._watch.close()
        await self._signals.close()
        await self._database.close()

    # Within the class, a method named as its module hides it: it comes last of its block.
    add_connection = _writes(connections.add_connection)
    update_settings = _writes(connections.update_settings)
    remove_connection = _writes(connections.remove_connection)
    connection = _reads(connections.connection)
    pause_connection = _writes(connections.pause_connection)
    resume_connection = _writes(connections.resume_connection, tells=("runs", "deliveries"))
    put_secret = _writes(connections.put_secret)
    secrets = _reads(connections.secrets)
    all_secrets = _reads(connections.all_secrets)
    replace_ciphertexts = _writes(connections.replace_ciphertexts)
    connections = _reads(connections.connections)
    declare_streams = _writes(streams.declare_streams, tells=("runs",))
    pause_stream = _writes(streams.pause_stream)
    resume_stream = _writes(streams.resume_stream, tells=("runs",))
    set_checkpoint = _writes(streams.set_checkpoint)
    streams = _reads(streams.streams)

    tick = _writes(ticks.tick, before_commit="tick.before_commit", after_commit="tick.after_commit")
    tick_shared = _writes(ticks.tick_shared, before_commit="tick.before_commit", after_commit="tick.after_commit")
    readmit = _writes(ticks.readmit)
    last_instant = _reads(ticks.last_instant)
    bring_back = _writes(ticks.bring_back, tells=("runs", "deliveries"))
    admit_run = _writes(ticks.admit_run)
    trigger_run = _writes(runs.trigger_run, tells=("runs",))
    begin_run = _writes(runs.begin_run)
    extend_lease = _writes(runs.extend_lease)
    finish_run = _writes(runs.finish_run, tells=("runs",))
    cancel_run = _writes(runs.cancel_run, tells=("runs",))
    silence = _writes(runs.silence, tells=("silences",))
    silences = _reads(runs.silences)
    run = _reads(runs.run)
    pages = _reads(runs.pages)
    requests = _reads(runs.requests)
    tick_runs = _reads(runs.tick_runs)
    runs = _reads(runs.runs)

    add_backfill = _writes(backfills.add_backfill, tells=("runs",))
    backfill = _reads(backfills.backfill)
    windows = _reads(backfills.windows)
    set_backfill_state = _writes(backfills.set_backfill_state, tells=("runs",))
    retry_window = _writes(backfills.retry_window, tells=("runs",))
    backfills = _reads(backfills.backfills)

    reject_delivery = _writes(deliveries.reject_delivery)
    rejections = _reads(deliveries.rejections)
    fail_delivery = _writes(inbox.fail_delivery)
    replay_deliveries = _writes(deliveries.replay_deliveries, tells=("deliveries",))
    cancel_replay = _writes(deliveries.cancel_replay)
    count_deliveries = _reads(deliveries.count_deliveries)
    delivery = _reads(deliveries.delivery)
    pending_deliveries = _reads(deliveries.pending_deliveries)
    deliveries = _reads(deliveries.deliveries)

    record = _reads(records.record)
    versions = _reads(records.versions)
    versions_of_delivery = _reads(records.versions_of_delivery)
    begin_authorization = _writes(grants.begin_authorization)
    take_authorization = _writes(grants.take_authorization)
    lease_grant = _writes(grants.lease_grant)
    put_grant = _writes(grants.put_grant)
    release_grant = _writes(grants.release_grant)
    alert_rules = _reads(alerts.alert_rules)
    add_alert_rule = _writes(alerts.add_alert_rule)
    remove_alert_rule = _writes(alerts.remove_alert_rule)
    mutes = _reads(alerts.mutes)
    add_mute = _writes(alerts.add_mute)
    remove_mute = _writes(alerts.remove_mute)
    standing_alerts = _reads(alerts.standing_alerts)
    past_alerts = _reads(alerts.past_alerts)
    change_alerts = _writes(alerts.change_alerts)
    add_notification = _writes(alerts.add_notification)
    claim_notifications = _writes(alerts.claim_notifications)
    finish_notification = _writes(alerts.finish_notification)
    notifications = _reads(alerts.notifications)
    claim_answer = _writes(answers.claim_answer)
    keep_answer = _writes(answers.keep_answer)
    release_answer = _writes(answers.release_answer)
    populations = _reads(records.populations)
    forget_records = _writes(forget.forget_records)
    changes = _reads(records.changes)
    records = _reads(records.records)
    quarantined = _reads(quarantine.quarantined)
    drop_quarantined = _writes(quarantine.drop_quarantined)
    position = _reads(system.position)
    set_position = _writes(system.set_position)

    forget_node = _writes(nodes.forget_node)
    nodes = _reads(nodes.nodes)
    add_bundle = _writes(bundles.add_bundle)
    bundle = _reads(bundles.bundle)
    activate_bundle = _writes(bundles.activate_bundle)
    deployments = _reads(bundles.deployments)
    active_bundles = _reads(bundles.active_bundles)
    bundles = _reads(bundles.bundles)

    add_account = _writes(accounts.add_account)
    change_account = _writes(accounts.change_account)
    set_password = _writes(accounts.set_password)
    renew_password_hash = _writes(accounts.renew_password_hash)
    add_session = _writes(accounts.add_session)
    note_session = _writes(accounts.note_session)
    end_sessions = _writes(accounts.end_sessions)
    count_login = _writes(accounts.count_login)
    add_invitation = _writes(accounts.add_invitation)
    accept_invitation = _writes(accounts.accept_invitation)
    begin_factor = _writes(accounts.begin_factor)
    confirm_factor = _writes(accounts.confirm_factor)
    use_factor_step = _writes(accounts.use_factor_step)
    use_recovery_code = _writes(accounts.use_recovery_code)
    put_recovery_codes = _writes(accounts.put_recovery_codes)
    recovery_codes_left = _reads(accounts.recovery_codes_left)
    remove_factor = _writes(accounts.remove_factor)
    replace_factor = _writes(accounts.replace_factor)
    revoke_api_key = _writes(accounts.revoke_api_key)
    note_api_key = _writes(accounts.note_api_key)
    has_account = _reads(accounts.has_account)
    account = _reads(accounts.account)
    session = _reads(accounts.session)
    sessions = _reads(accounts.sessions)
    invitation = _reads(accounts.invitation)
    api_keys = _reads(accounts.api_keys)
    accounts = _reads(accounts.accounts)

    log_lines = _reads(log_lines.log_lines)
    audit = _writes(system.audit)
    audit_log = _reads(system.audit_log)
    add_api_key = _writes(system.add_api_key)
    api_key = _reads(system.api_key)

    async def commit_page(self, page: PageCommit) -> CommitResult:
        """See `RunStore.commit_page`; pages that wait together are written together."""
        if page.dry:
            return await pages.rehearse(self._database, self._numbers, page)
        result = await self._pages.add(page)
        _tell(page, result)
        return result

    async def append_deliveries(self, deliveries: Sequence[NewDelivery]) -> Sequence[Appended]:
        """See `DeliveryStore.append_deliveries`; what gathered while the commit before ran is one commit."""
        appended = await self._appends.add(deliveries) if deliveries else []
        if any(not one.duplicate for one in appended):
            self._signals.send("deliveries")
        return appended

    async def claim_deliveries(
        self, at: datetime, *, limit: int, lease_seconds: float, ordered_connections: Sequence[int] = ()
    ) -> Sequence[ClaimedDelivery]:
        """See `DeliveryStore.claim_deliveries`."""
        if not await self._database.read(
            lambda db: inbox.is_any_claimable(db, at, ordered_connections=ordered_connections)
        ):
            return []
        return await self._database.transact(
            lambda db: inbox.claim_deliveries(
                db, at, limit=limit, lease_seconds=lease_seconds, ordered_connections=ordered_connections
            )
        )

    async def clock_offset_seconds(self) -> float:
        """See `SharedStore.clock_offset_seconds`."""
        return await self._database.read(lambda db: nodes.clock_offset_seconds(db, self._clock))

    async def note_node(self, node: Node) -> Sequence[Node]:
        """See `SharedStore.note_node`."""
        return await self._database.transact(lambda db: nodes.note_node(db, node, clock=self._clock))

    async def hear(self, on_topic: Callable[[Topic], None]) -> None:
        """See `SharedStore.hear`."""
        await self._signals.hear(on_topic)

    async def finish_delivery(self, done: DeliveryCommit) -> CommitResult:
        """See `DeliveryStore.finish_delivery`."""
        result = await self._dones.add(done)
        _tell(done, result)
        return result

    async def finish_deliveries(self, done: Sequence[DeliveryCommit]) -> Sequence[CommitResult | Exception]:
        """See `DeliveryStore.finish_deliveries`."""
        results = await self._finish_deliveries(done)
        for one, result in zip(done, results, strict=True):
            if isinstance(result, CommitResult):
                _tell(one, result)
        return results

    async def release_quarantined(
        self, releases: Sequence[tuple[int, Emission]], *, at: datetime, connector_version: str
    ) -> CommitResult:
        """See `RecordStore.release_quarantined`."""
        result = await quarantine.release_quarantined(
            self._database, self._numbers, releases, at=at, connector_version=connector_version
        )
        self._watch.note()
        return result

    async def declare_types(self, types: Mapping[str, Sequence[TypeColumn]]) -> None:
        """See `RecordStore.declare_types`."""
        await self._numbers.learn_types(types)
        numbers = self._numbers.types
        await self._database.transact(lambda db: views.declare_types(db, types, numbers=numbers))

    async def wait_for_changes(self, after: int, *, timeout_seconds: float) -> None:
        """See `Store.wait_for_changes`; a commit of another node ends the waiting too."""

        async def is_beyond() -> bool:
            return await self._database.read(records.high_water) > after

        await self._watch.wait(is_beyond, timeout_seconds=timeout_seconds)

    async def examine(self) -> Sequence[Finding]:
        """See `Store.examine`."""
        return await self._database.read(lambda db: examine(db, self._clock))

    async def purge(self, *, deliveries_before: datetime, runs_before: datetime) -> Purged:
        """See `Store.purge`."""
        return await retention.purge(
            self._database, deliveries_before=deliveries_before, runs_before=runs_before, at=self._clock.now()
        )

    async def _commit_pages(self, given: Sequence[PageCommit]) -> Sequence[CommitResult | Exception]:
        results = await commit_together(
            given,
            lambda some: pages.commit_pages(self._database, self._numbers, some),
            weigh=lambda page: len(page.emissions) + 1,
        )
        self._note(results)
        return results

    async def _append_deliveries(
        self, batches: Sequence[Sequence[NewDelivery]]
    ) -> Sequence[Sequence[Appended] | Exception]:
        return await commit_together(batches, lambda some: inbox.append_deliveries(self._database, some), weigh=len)

    async def _finish_deliveries(self, dones: Sequence[DeliveryCommit]) -> Sequence[CommitResult | Exception]:
        results = await commit_together(
            dones,
            lambda some: inbox.finish_deliveries(self._database, self._numbers, some),
            weigh=lambda done: len(done.emissions) + 1,
        )
        self._note(results)
        return results

    def _note(self, results: Sequence[CommitResult | Exception]) -> None:
        # A failure too: what it had taken back may have kept the feed from those who wait.
        if any(isinstance(result, Exception) or result.counts.changed for result in results):
            self._watch.note()


def _tell(commit: PageCommit | DeliveryCommit, result: CommitResult) -> None:
    for emission, outcome in zip(commit.emissions, result.outcomes, strict=True):
        emission.outcome = outcome
