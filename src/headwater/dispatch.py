"""Stored deliveries → webhook routes: claim, invoke, commit the emissions together with `done`.

claim ──> invoke ─┬─> emissions + done, many deliveries in one commit
                  ├─> passing fault: pending again, later; after `ATTEMPTS_MAX` dead
                  ├─> needs the operator: connection paused, delivery pending
                  └─> bug, or a record that does not fit: dead, with its traceback
A claim that is never finished (a crash) lapses, and the delivery is claimed again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from headwater import trace
from headwater.backoff import Backoff
from headwater.clock import Clock
from headwater.context import Invocation
from headwater.deadline import Deadlines
from headwater.delivery import ClaimedDelivery, DeliveryFilter, DeliveryState
from headwater.errors import FencedError, HandlerError, OperatorError, ProviderError, SettingsError, unforeseen
from headwater.failpoint import failpoint
from headwater.failure import Failure, Next, judge
from headwater.gather import Gather
from headwater.intention import CommitResult, DeliveryCommit, DeliveryFailure
from headwater.invoke import LiveConnection, LiveConnections, invocation_for, invoke
from headwater.log_line import NewLogLine
from headwater.route import Response, WebhookRequest
from headwater.store import DeliveryStore, Store

ATTEMPTS_MAX = 16  # of passing faults: about three hours of backoff
BACKOFF = Backoff(wait_initial=2.0, wait_max=3600.0)
CLAIM_MAX = 200  # deliveries in one claim
CLAIM_PAUSE_SECONDS = 0.01  # between two claims under load: what arrives meanwhile is claimed together
CLAIM_SECONDS = 90.0  # a crashed dispatcher's deliveries wait so long
COMMIT_MAX = 200  # deliveries in one commit
HANDLERS_MAX = 16  # invoked at once
HANDLER_SECONDS_MAX = 30.0
IDLE_SECONDS = 1.0  # between two looks for retries that fell due, and for what other processes stored
IN_FLIGHT_MAX = 2 * CLAIM_MAX  # claimed and not yet settled: one batch commits while the next is invoked
TURN_DELIVERIES = 10  # then the event loop's other tasks have theirs

logger = logging.getLogger("headwater.dispatch")


async def replay(
    store: DeliveryStore,
    which: DeliveryFilter,
    *,
    at: datetime,
    confirm: Callable[[int], Awaitable[bool]] | None = None,
) -> int:
    """Make the deliveries that match pending again, done ones included; how many.

    `confirm` is asked with their number first; where it says no, nothing is done and the answer is 0. What was already
    right stays as it is (Invariant 6).
    """
    count = await store.count_deliveries(which)
    if count == 0 or (confirm is not None and not await confirm(count)):
        return 0
    return await store.replay_deliveries(which, at=at)


class Dispatcher:
    """Hands stored deliveries to their connectors, oldest first, several at a time."""

    def __init__(
        self,
        store: Store,
        connections: LiveConnections,
        clock: Clock,
        *,
        claim_seconds: float = CLAIM_SECONDS,
        claim_pause_seconds: float = CLAIM_PAUSE_SECONDS,
        handler_seconds_max: float = HANDLER_SECONDS_MAX,
        handlers_max: int = HANDLERS_MAX,
        attempts_max: int = ATTEMPTS_MAX,
    ) -> None:
        assert handler_seconds_max < claim_seconds, "a handler ends before its claim does"
        self._store = store
        self._connections = connections
        self._clock = clock
        self._claim_seconds = claim_seconds
        self._claim_pause_seconds = claim_pause_seconds
        self._handler_seconds_max = handler_seconds_max
        self._handlers_max = handlers_max
        self._attempts_max = attempts_max
        self._slots = asyncio.Semaphore(handlers_max)
        self._deadlines = Deadlines(clock)
        self._commits: Gather[DeliveryCommit, CommitResult] = Gather(
            self._finish, items_max=COMMIT_MAX, settled=self._settled
        )
        self._batches: set[asyncio.Task[None]] = set()
        self._paused: dict[int, str] = {}  # connections that a delivery under way has paused, with the reason
        self._in_flight = 0
        self._wake = asyncio.Event()
        self._is_draining = False

    def wake(self) -> None:
        """Look for deliveries now: some were stored, or replayed."""
        self._wake.set()

    def drain(self) -> None:
        """Claim nothing more; `serve` returns once what was claimed is settled."""
        self._is_draining = True
        self._wake.set()

    async def serve(self) -> None:
        """Dispatch until `drain`."""
        try:
            while not self._is_draining:
                self._wake.clear()
                again_at = self._clock.monotonic() + self._claim_pause_seconds
                claimed = await self._claim() if self._in_flight <= IN_FLIGHT_MAX - CLAIM_MAX else ()
                if claimed:
                    batch = asyncio.create_task(self._dispatch(claimed))
                    self._batches.add(batch)
                    batch.add_done_callback(self._batches.discard)
                if len(claimed) < CLAIM_MAX:
                    await self._wait()
                    await self._clock.sleep(again_at - self._clock.monotonic())
            if self._batches:
                await asyncio.wait(self._batches)
        finally:
            for batch in self._batches:
                batch.cancel()

    async def dispatch_batch(self) -> int:
        """Claim once, and settle what was claimed; how many that were."""
        claimed = await self._claim()
        if claimed:
            await self._dispatch(claimed)
        return len(claimed)

    async def _claim(self) -> Sequence[ClaimedDelivery]:
        try:
            claimed = await self._store.claim_deliveries(
                self._clock.now(),
                limit=CLAIM_MAX,
                lease_seconds=self._claim_seconds,
                ordered_connections=await self._ordered(),
            )
        except Exception as error:
            logger.error(
                "No delivery could be claimed; the next look is in %g s: %s",
                IDLE_SECONDS,
                error,
                exc_info=unforeseen(error),
            )
            return ()
        for claim in claimed:
            self._paused.pop(claim.connection_id, None)  # nothing is claimed of a paused connection: it was resumed
        self._in_flight += len(claimed)
        return claimed

    async def _ordered(self) -> Sequence[int]:
        projects = self._connections.projects
        ordered = {
            key
            for key, project in projects.items()
            if project.connector.webhooks and project.connector.webhooks.ordered
        }
        if not ordered:
            return ()
        return sorted(one.id for one in await self._store.connections() if one.connector in ordered)

    async def _wait(self) -> None:
        sleeping = asyncio.ensure_future(self._clock.sleep(IDLE_SECONDS))
        woken = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait({sleeping, woken}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            woken.cancel()

    async def _dispatch(self, claimed: Sequence[ClaimedDelivery]) -> None:
        failpoint("dispatch.claimed")
        queue = iter(claimed)
        start_before = self._clock.monotonic() + self._claim_seconds - self._handler_seconds_max
        commits: list[tuple[DeliveryCommit, asyncio.Future[CommitResult]]] = []
        workers = [
            asyncio.create_task(self._work(queue, start_before, commits))
            for _ in range(min(self._handlers_max, len(claimed)))
        ]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
        for commit, answer in commits:
            try:
                await answer
            except FencedError:
                logger.info("Delivery %d was finished elsewhere.", commit.claim.id)
            except Exception as error:
                await self._fail(commit.claim, judge(error), log=commit.log)
        self._wake.set()  # more may wait: the next one in order, or what was too large for one claim

    async def _work(
        self,
        queue: Iterator[ClaimedDelivery],
        start_before: float,
        commits: list[tuple[DeliveryCommit, asyncio.Future[CommitResult]]],
    ) -> None:
        async with self._slots:
            for turn, claim in enumerate(queue, start=1):
                commit = None
                # Later than that, its claim could lapse while it runs: left alone, it lapses and is claimed again.
                if self._clock.monotonic() < start_before:
                    commit = await self._attempt(claim)
                if commit is None:
                    self._settled(1)
                else:
                    commits.append((commit, self._commits.add(commit)))
                if turn % TURN_DELIVERIES == 0:
                    await asyncio.sleep(0)

    def _settled(self, count: int) -> None:
        was_full = self._in_flight > IN_FLIGHT_MAX - CLAIM_MAX
        self._in_flight -= count
        if was_full and self._in_flight <= IN_FLIGHT_MAX - CLAIM_MAX:
            self._wake.set()

    async def _attempt(self, claim: ClaimedDelivery) -> DeliveryCommit | None:
        """Invoke the route; what there is to commit, or None where the delivery was put off or set aside."""
        if claim.connection_id in self._paused:
            await self._put_off(claim, "operator", self._paused[claim.connection_id])
            return None
        try:
            live = await self._connections.get(claim.connection_id)
            route = live.project.webhook_route
            if route is None:
                raise SettingsError(f"The connector {live.project.connector.key} has no webhook route any more.")
        except Exception as error:
            await self._unready(claim, error)
            return None
        with trace.span(
            "headwater.delivery",
            delivery_id=claim.id,
            connection=live.stored.key,
            connector=live.stored.connector,
            event_type=claim.event_type,
            attempt=claim.attempt,
        ) as span:
            invocation = invocation_for(live, stream=None, as_of=claim.received_at, delivery_id=claim.id)
            try:
                commit = await self._invoke(claim, live, route, invocation)
            except (Exception, SystemExit) as error:
                failure = judge(error, secrets=live.redactor.secrets)
                span.tell(error=failure.code)
                await self._fail(claim, failure, log=invocation.log)
                return None
            span.tell(records=len(commit.emissions), ignored=commit.ignored)
            return commit

    async def _invoke(
        self, claim: ClaimedDelivery, live: LiveConnection, route: Callable[[Any], Any], invocation: Invocation
    ) -> DeliveryCommit:
        request = WebhookRequest(
            delivery_id=claim.id,
            provider_id=claim.provider_id,
            event_type=claim.event_type,
            headers=claim.headers,
            body=claim.body,
            received_at=claim.received_at,
            attempt=claim.attempt,
        )
        limit = self._deadlines.limit(self._handler_seconds_max)
        try:
            with limit:
                response = await invoke(route, request, invocation)
        except TimeoutError as error:
            if not limit.is_expired:
                raise
            raise ProviderError(f"The handler took longer than {self._handler_seconds_max:g} s.") from error
        return DeliveryCommit(
            claim=claim,
            emissions=invocation.emissions,
            quarantined=invocation.quarantined,
            ignored=_is_ignored(response, invocation),
            origin="replay" if claim.is_replay else "webhook",
            connector_version=live.project.version,
            at=self._clock.now(),
            log=invocation.log,
        )

    async def _finish(self, commits: Sequence[DeliveryCommit]) -> Sequence[CommitResult | Exception]:
        return await self._store.finish_deliveries(commits)

    async def _unready(self, claim: ClaimedDelivery, error: Exception) -> None:
        # Its connector is not loaded, or its settings cannot be read: no fault of the delivery, which never dies of it.
        failure = judge(error)
        if failure.next is Next.PAUSE:
            await self._fail(claim, failure)
        else:
            delay = BACKOFF.delay_seconds(claim.attempt, random=self._clock.random())
            await self._put_off(claim, failure.code, failure.message, delay_seconds=delay)

    async def _fail(self, claim: ClaimedDelivery, failure: Failure, *, log: Sequence[NewLogLine] = ()) -> None:
        if failure.next is Next.NOTHING:
            return
        if failure.next is Next.PAUSE:
            assert isinstance(failure.error, OperatorError)
            await self._pause(claim.connection_id, failure.message)
            await self._put_off(claim, failure.code, failure.message, log=log)
        elif failure.next is Next.RETRY and claim.attempt < self._attempts_max:
            failpoint("dispatch.before_retry")
            delay = BACKOFF.delay_seconds(
                claim.attempt, random=self._clock.random(), retry_after_seconds=failure.retry_after_seconds
            )
            await self._put_off(
                claim, failure.code, failure.message, delay_seconds=delay, traceback=failure.traceback, log=log
            )
        else:
            await self._note(
                DeliveryFailure(
                    claim=claim,
                    at=self._clock.now(),
                    state=DeliveryState.DEAD,
                    due_at=None,
                    error_code=failure.code,
                    error=failure.message,
                    traceback=failure.traceback,
                    log=log,
                )
            )

    async def _pause(self, connection_id: int, reason: str) -> None:
        if connection_id in self._paused:
            return
        self._paused[connection_id] = reason
        await self._store.pause_connection(connection_id, reason=reason, needs_attention=True, at=self._clock.now())
        self._connections.forget(connection_id)

    async def _put_off(
        self,
        claim: ClaimedDelivery,
        code: str,
        message: str,
        *,
        delay_seconds: float = 0.0,
        traceback: str | None = None,
        log: Sequence[NewLogLine] = (),
    ) -> None:
        at = self._clock.now()
        await self._note(
            DeliveryFailure(
                claim=claim,
                at=at,
                state=DeliveryState.PENDING,
                due_at=at + timedelta(seconds=delay_seconds),
                error_code=code,
                error=message,
                traceback=traceback,
                log=log,
            )
        )

    async def _note(self, failure: DeliveryFailure) -> None:
        try:
            await self._store.fail_delivery(failure)
        except FencedError:
            logger.info("Delivery %d was finished elsewhere.", failure.claim.id)
        except Exception as error:
            logger.error(
                "The failure of delivery %d was not noted; its claim will lapse: %s",
                failure.claim.id,
                error,
                exc_info=unforeseen(error),
            )


def _is_ignored(response: object, invocation: Invocation) -> bool:
    """Whether no stream wanted the delivery: the handler says so, or it did nothing and says nothing."""
    is_empty = not invocation.emissions and not invocation.quarantined
    if response is None:
        return is_empty
    if not isinstance(response, Response):
        raise HandlerError(
            f"The webhook route returned a {type(response).__name__}.", hint="Return a `Response`, or None."
        )
    if response.status >= 500 or response.status == 429:
        raise ProviderError(f"The webhook route answered {response.status}.")
    if response.status >= 400:
        raise HandlerError(f"The webhook route answered {response.status}.")
    return response.ignored and is_empty
