"""`SQLiteStore`: the store contract over one SQLite file (or memory), each method delegated to a function.

    write ──> writer's queue ──> group commit          read ──> a reader's own connection

In memory there is one connection, and reads are operations of the writer too: they see what is committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial, update_wrapper
from threading import Lock
from typing import Any, Concatenate, ParamSpec, TypeVar

import apsw

from headwater.clock import Clock
from headwater.delivery import Appended, NewDelivery
from headwater.errors import StoreUnavailableError
from headwater.intention import CommitResult, DeliveryCommit, Finding, PageCommit, Purged
from headwater.stores.sqlite import (
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
    pages,
    quarantine,
    records,
    runs,
    streams,
    system,
    ticks,
    views,
)
from headwater.stores.sqlite.database import MEMORY, cannot_be_opened, connect_reader, connect_writer
from headwater.stores.sqlite.examine import examine
from headwater.stores.sqlite.migrate import known, migrate
from headwater.stores.sqlite.readers import Readers
from headwater.stores.sqlite.writer import SINGLE, Kind, Writer

P = ParamSpec("P")
R = TypeVar("R")

_PAGE = Kind(group=pages.commit_pages, before_commit="page.before_commit", after_commit="page.after_commit", feeds=True)
_APPEND = Kind(
    group=inbox.append_deliveries, before_commit="delivery.before_commit", after_commit="delivery.after_commit"
)
_FINISH = Kind(
    group=inbox.finish_deliveries,
    before_commit="dispatch.before_commit",
    after_commit="dispatch.after_commit",
    feeds=True,
)
_TICK = Kind(before_commit="tick.before_commit", after_commit="tick.after_commit")
_FEEDING = Kind(feeds=True)


def _writes(
    function: Callable[Concatenate[apsw.Connection, P], R], kind: Kind = SINGLE
) -> Callable[Concatenate[SQLiteStore, P], Coroutine[Any, Any, R]]:
    """The method that carries the function out in the writer's next transaction."""

    async def method(self: SQLiteStore, /, *args: P.args, **kwargs: P.kwargs) -> R:
        result: R = await self._writer.submit(kind, lambda db: function(db, *args, **kwargs))
        return result

    update_wrapper(method, function)
    return method


def _reads(
    function: Callable[Concatenate[apsw.Connection, P], R],
) -> Callable[Concatenate[SQLiteStore, P], Coroutine[Any, Any, R]]:
    """The method that carries the function out on a reader's connection."""

    async def method(self: SQLiteStore, /, *args: P.args, **kwargs: P.kwargs) -> R:
        result: R = await self._read(lambda db: function(db, *args, **kwargs))
        return result

    update_wrapper(method, function)
    return method


class SQLiteStore:
    """Everything durable, in one SQLite file: WAL, `synchronous=FULL`, group commit."""

    name = "sqlite"

    def __init__(self, path: str, clock: Clock) -> None:
        self._path = str(path)
        self._clock = clock
        self._watchers: list[_Watcher] = []
        self._lock = Lock()
        self._writer = Writer(self._connect, self._note_commit)
        self._readers: Readers | None = None

    async def open(self) -> None:
        """See `Store.open`."""
        await self._writer.open()
        if self._path != MEMORY:
            self._readers = Readers(partial(connect_reader, self._path))

    async def close(self) -> None:
        """See `Store.close`."""
        if self._readers is not None:
            readers, self._readers = self._readers, None
            await asyncio.get_running_loop().run_in_executor(None, readers.close)
        await self._writer.close()

    @property
    def broken(self) -> str | None:
        """Why nothing can be written any more: a failed fsync, an I/O error, a full disk. The process should stop."""
        return self._writer.broken

    # Within the class, a method named as its module hides it: it comes last of its block.
    add_connection = _writes(connections.add_connection)
    update_settings = _writes(connections.update_settings)
    remove_connection = _writes(connections.remove_connection)
    connection = _reads(connections.connection)
    pause_connection = _writes(connections.pause_connection)
    resume_connection = _writes(connections.resume_connection)
    put_secret = _writes(connections.put_secret)
    secrets = _reads(connections.secrets)
    all_secrets = _reads(connections.all_secrets)
    replace_ciphertexts = _writes(connections.replace_ciphertexts)
    connections = _reads(connections.connections)
    declare_streams = _writes(streams.declare_streams)
    pause_stream = _writes(streams.pause_stream)
    resume_stream = _writes(streams.resume_stream)
    set_checkpoint = _writes(streams.set_checkpoint)
    streams = _reads(streams.streams)

    tick = _writes(ticks.tick, _TICK)
    readmit = _writes(ticks.readmit)
    last_instant = _reads(ticks.last_instant)
    bring_back = _writes(ticks.bring_back)
    admit_run = _writes(ticks.admit_run)
    trigger_run = _writes(runs.trigger_run)
    begin_run = _writes(runs.begin_run)
    extend_lease = _writes(runs.extend_lease)
    finish_run = _writes(runs.finish_run)
    cancel_run = _writes(runs.cancel_run)
    run = _reads(runs.run)
    pages = _reads(runs.pages)
    requests = _reads(runs.requests)
    tick_runs = _reads(runs.tick_runs)
    runs = _reads(runs.runs)

    add_backfill = _writes(backfills.add_backfill)
    backfill = _reads(backfills.backfill)
    windows = _reads(backfills.windows)
    set_backfill_state = _writes(backfills.set_backfill_state)
    retry_window = _writes(backfills.retry_window)
    backfills = _reads(backfills.backfills)

    reject_delivery = _writes(deliveries.reject_delivery)
    rejections = _reads(deliveries.rejections)
    claim_deliveries = _writes(inbox.claim_deliveries)
    fail_delivery = _writes(inbox.fail_delivery)
    replay_deliveries = _writes(deliveries.replay_deliveries)
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
    release_quarantined = _writes(quarantine.release_quarantined, _FEEDING)
    drop_quarantined = _writes(quarantine.drop_quarantined)
    declare_types = _writes(views.declare_types)
    position = _reads(system.position)
    set_position = _writes(system.set_position)

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

    _trim_log_lines = _writes(log_lines.trim_log_lines)
    log_lines = _reads(log_lines.log_lines)
    audit = _writes(system.audit)
    audit_log = _reads(system.audit_log)
    add_api_key = _writes(system.add_api_key)
    api_key = _reads(system.api_key)
    _purge_some = _writes(system.purge_some)
    _purge_figures = _writes(system.purge_figures)

    async def commit_page(self, page: PageCommit) -> CommitResult:
        """See `RunStore.commit_page`; pages that wait together are written together."""
        result: CommitResult = await self._writer.submit(_PAGE, page, weight=len(page.emissions) + 1)
        if not page.dry:
            _tell(page, result)
        return result

    async def append_deliveries(self, deliveries: Sequence[NewDelivery]) -> Sequence[Appended]:
        """See `DeliveryStore.append_deliveries`."""
        if not deliveries:
            return []
        appended: Sequence[Appended] = await self._writer.submit(_APPEND, deliveries, weight=len(deliveries))
        return appended

    async def finish_delivery(self, done: DeliveryCommit) -> CommitResult:
        """See `DeliveryStore.finish_delivery`."""
        result = (await self.finish_deliveries([done]))[0]
        if isinstance(result, Exception):
            raise result
        return result

    async def finish_deliveries(self, done: Sequence[DeliveryCommit]) -> Sequence[CommitResult | Exception]:
        """See `DeliveryStore.finish_deliveries`."""
        if not done:
            return []
        weight = sum(len(one.emissions) + 1 for one in done)
        results: Sequence[CommitResult | Exception] = await self._writer.submit(_FINISH, done, weight=weight)
        for one, result in zip(done, results, strict=True):
            if isinstance(result, CommitResult):
                _tell(one, result)
        return results

    async def wait_for_changes(self, after: int, *, timeout_seconds: float) -> None:
        """See `Store.wait_for_changes`."""
        loop = asyncio.get_running_loop()
        watcher = _Watcher(after, loop, loop.create_future())
        with self._lock:
            self._watchers.append(watcher)
        alarm = asyncio.ensure_future(self._clock.sleep(timeout_seconds))
        try:
            if await self._read(records.high_water) <= after:
                await asyncio.wait({watcher.woken, alarm}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            alarm.cancel()
            with self._lock:
                self._watchers = [one for one in self._watchers if one is not watcher]

    async def examine(self) -> Sequence[Finding]:
        """See `Store.examine`."""
        findings: Sequence[Finding] = await self._read(lambda db: examine(db, self._path))
        broken = Finding(name="writable", ok=not self.broken, fact=self.broken or "yes")
        return [*findings, broken]

    async def purge(self, *, deliveries_before: datetime, runs_before: datetime) -> Purged:
        """See `Store.purge`; in transactions of `PURGE_MAX` rows, so that it may be interrupted and goes on later."""
        await self._purge_figures(deliveries_before=deliveries_before, at=self._clock.now())
        total = Purged()
        while True:
            some = await self._purge_some(deliveries_before=deliveries_before, runs_before=runs_before)
            total += some
            if max(some.deliveries, some.runs, some.log_lines) < system.PURGE_MAX:
                break
        # Counting a connection's lines passes over as many: each has a transaction of its own, and pages come between.
        for one in await self.connections():
            while trimmed := await self._trim_log_lines(one.id, limit=system.PURGE_MAX):
                total += Purged(log_lines=trimmed)
        return total

    async def _read(self, work: Callable[[apsw.Connection], Any]) -> Any:
        if self._path == MEMORY:
            return await self._writer.submit(SINGLE, work)
        if self._readers is None:
            raise StoreUnavailableError("The store is closed.")
        return await self._readers.read(work)

    def _connect(self) -> apsw.Connection:
        db = connect_writer(self._path)
        try:
            migrate(db, known())
        except apsw.Error as error:
            db.close()
            raise cannot_be_opened(self._path, error) from error
        except BaseException:
            db.close()
            raise
        return db

    def _note_commit(self, db: apsw.Connection) -> None:
        if not self._watchers:  # one that comes now looks for itself
            return
        newest = records.high_water(db)
        with self._lock:
            watchers = [one for one in self._watchers if one.after < newest]
        for watcher in watchers:
            try:
                watcher.loop.call_soon_threadsafe(_wake, watcher.woken)
            except RuntimeError:  # that loop is gone
                continue


@dataclass(frozen=True, eq=False)
class _Watcher:
    """Somebody who waits for what comes after a sequence."""

    after: int
    loop: asyncio.AbstractEventLoop
    woken: asyncio.Future[None]


def _wake(watcher: asyncio.Future[None]) -> None:
    if not watcher.done():
        watcher.set_result(None)


def _tell(commit: PageCommit | DeliveryCommit, result: CommitResult) -> None:
    for emission, outcome in zip(commit.emissions, result.outcomes, strict=True):
        emission.outcome = outcome
