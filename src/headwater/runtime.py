"""Carry out one attempt of a run: invoke the route page after page, commit each, classify the end.

begin ──> fetch page n+1 ─┬─> … ──> no more ──> settle ──> succeeded
             ↑ commit n ──┘ └─────> failure ──> settle ──> retrying · failed (· connection paused)
                            └─────> fenced, cancelled ──> nothing more is written
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from headwater import trace
from headwater.backoff import Backoff, obeyed_seconds
from headwater.catalog import PAGE_SECONDS_MAX
from headwater.clock import Clock
from headwater.context import Invocation
from headwater.course import Course, Fetched, fetch, plot
from headwater.errors import (
    NotFoundError,
    RetryError,
    RunCancelledError,
    RunEndedError,
    near_miss,
)
from headwater.failpoint import failpoint
from headwater.failure import Failure, Next, judge
from headwater.intention import RunEnd
from headwater.invoke import LiveConnection, LiveConnections
from headwater.log_line import NewLogLine
from headwater.pipeline import Pipeline
from headwater.record import Counts, Emission, Outcome, Quarantined
from headwater.run import LEASE_SECONDS, Page, Priority, RequestLog, RunRef, RunState, StreamState, Window
from headwater.store import Store
from headwater.watch import Watch

RUN_ATTEMPTS_MAX = 8  # in a row without one committed page; then the run failed
RUN_BACKOFF = Backoff(wait_initial=5.0, wait_max=900.0, wait_min=1.0)
FINISH_ATTEMPTS_MAX = 5
FINISH_BACKOFF = Backoff(wait_initial=0.5, wait_max=5.0, wait_min=0.1)

_log = logging.getLogger("headwater.runtime")


@dataclass(frozen=True, kw_only=True)
class RunOutcome:
    """How one attempt of a run ended."""

    ref: RunRef
    state: RunState | None  # None: the run is no longer ours, and nothing was written about its end
    pages: int  # committed by this attempt
    counts: Counts
    failure: Failure | None = None
    due_at: datetime | None = None  # the next attempt, while retrying
    last_page: Page | None = None  # the last one committed


@dataclass(frozen=True, kw_only=True)
class OnePage:
    """One page carried out on demand."""

    stream: str
    imported: int  # emissions that made a new current version
    unchanged: int  # known before, or older than what is known
    failed: int  # quarantined
    cursor: str | None
    has_more: bool


@dataclass(frozen=True, kw_only=True)
class DryPage:
    """One page carried out without writing anything."""

    number: int
    emissions: Sequence[Emission]
    outcomes: Sequence[Outcome]  # what each would have come to
    quarantined: Sequence[Quarantined]
    requests: Sequence[RequestLog]
    log: Sequence[NewLogLine]
    counts: Counts
    cursor: str | None  # the provider's token for the next page
    has_more: bool
    checkpoint: str | None  # what the checkpoint would be after it


class Runner:
    """Carries out runs for an engine, and single pages on demand."""

    def __init__(
        self,
        *,
        store: Store,
        connections: LiveConnections,
        clock: Clock,
        lease_seconds: float = LEASE_SECONDS,
        page_seconds_max: float = PAGE_SECONDS_MAX,
    ) -> None:
        self._store = store
        self._connections = connections
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._page_seconds_max = page_seconds_max
        self._draining = False

    async def carry_out(self, ref: RunRef) -> RunOutcome:
        """Carry out one attempt and write down how it ended; whatever the route does, this raises nothing but a
        cancellation.

        Cancelled, the run ends cancelled, unless the runner drains: then it stays as it is, to be admitted anew.
        """
        return await self._attempt(ref)

    def drain(self) -> None:
        """Let each run finish the page under way and wait again, due at once: for a process that is to stop."""
        self._draining = True

    async def one_page(
        self,
        live: LiveConnection,
        stream_key: str,
        *,
        cursor: str | None = None,
        window: Window | None = None,
        limit: int | None = None,
        partition: str = "",
    ) -> OnePage:
        """Fetch and commit one page of a stream on demand; its checkpoint stays where it is.

        Raises what the page raised, as one of our errors, and `UsageError` while a run of the stream is under way.
        """
        state = await self._stream_state(live, stream_key, partition)
        at = self._clock.now()
        run_id = await self._store.trigger_run(state.id, at=at, window=window, pages_limit=1)
        ref = await self._store.admit_run(run_id, at=at, lease_seconds=self._lease_seconds)
        outcome = await self._attempt(replace(ref, cursor=cursor), on_demand=True, limit=limit)
        if outcome.failure is not None:
            raise outcome.failure.error
        assert outcome.last_page is not None, "a run that did not fail has committed its page"
        counts = outcome.counts
        return OnePage(
            stream=stream_key,
            imported=counts.changed,
            unchanged=counts.unchanged + counts.duplicate + counts.stale,
            failed=counts.quarantined,
            cursor=outcome.last_page.cursor,
            has_more=outcome.last_page.has_more,
        )

    async def dry_run(
        self,
        live: LiveConnection,
        stream_key: str,
        *,
        window: Window | None = None,
        pages_limit: int | None = None,
        partition: str = "",
    ) -> AsyncIterator[DryPage]:
        """The pages of a run from the stream's checkpoint on, each with what it would have come to; writes nothing.

        Every page is judged against the store as it is, not against the dry pages before it. Raises what a page raises.
        """
        state = await self._stream_state(live, stream_key, partition)
        ref = _dry_ref(state, window=window, pages_limit=pages_limit)
        course = plot(live, ref, at=self._clock.now())
        async with self._watch(course) as watch, aclosing(self._fetch(course, watch)) as pages:
            async for fetched in pages:
                commit = fetched.commit
                result = await self._store.commit_page(replace(commit, dry=True))
                yield DryPage(
                    number=commit.number,
                    emissions=commit.emissions,
                    outcomes=result.outcomes,
                    quarantined=commit.quarantined,
                    requests=commit.requests,
                    log=commit.log,
                    counts=result.counts,
                    cursor=fetched.page.cursor,
                    has_more=fetched.page.has_more,
                    checkpoint=commit.cursor,
                )

    async def _attempt(self, ref: RunRef, *, on_demand: bool = False, limit: int | None = None) -> RunOutcome:
        facts = {"stream": ref.stream_key, "partition": ref.partition, "trigger": ref.trigger, "attempt": ref.attempt}
        with trace.span("headwater.run", run_id=ref.run_id, **facts) as span:
            outcome = await self._attempted(ref, span, on_demand=on_demand, limit=limit)
            failure = outcome.failure
            span.tell(
                state=outcome.state,
                pages=outcome.pages,
                records=outcome.counts.total,
                error=failure.code if failure else None,
            )
            return outcome

    async def _attempted(self, ref: RunRef, span: trace.Span, *, on_demand: bool, limit: int | None) -> RunOutcome:
        progress = _Progress(ref, self._store, self._clock)
        try:
            await self._store.begin_run(ref, at=self._clock.now(), lease_seconds=self._lease_seconds)
            failpoint("run.started")
            progress.live = await self._connections.get(ref.connection_id)
            span.tell(connection=progress.live.stored.key, connector=progress.live.stored.connector)
            course = plot(progress.live, ref, at=self._clock.now(), on_demand=on_demand, limit=limit)
            is_finished = await self._carry_pages(progress, course)
        except asyncio.CancelledError:
            await self._cancelled(progress)
            raise
        except Exception as error:
            return await self._failed(progress, error, retries=not on_demand)
        failpoint("run.before_finish")
        if is_finished:
            return await self._end(progress, RunEnd(ref=ref, at=self._clock.now(), state=RunState.SUCCEEDED))
        at = self._clock.now()
        return await self._end(progress, RunEnd(ref=ref, at=at, state=RunState.RETRYING, due_at=at))

    async def _carry_pages(self, progress: _Progress, course: Course) -> bool:
        # True when the run has all its pages, False when it was stopped after one of them. Whatever ends it, it ends
        # when all that was submitted is durable; where an earlier page fails to be, its failure is the one to tell.
        pipeline, is_stopped = progress.pipeline, False
        async with self._watch(course) as watch, aclosing(self._fetch(course, watch, progress)) as pages:
            pipeline.on_commit = watch.renewed
            try:
                async for fetched in pages:
                    await pipeline.submit(fetched.commit)
                    progress.invocation, progress.last_page = None, fetched.page
                    is_stopped = self._draining and course.goes_on(fetched)
                    if is_stopped:
                        break
            except asyncio.CancelledError:
                with suppress(Exception):
                    await pipeline.settle()
                raise
            except Exception:
                await pipeline.settle()
                raise
            await pipeline.settle()
        return not is_stopped

    def _fetch(self, course: Course, watch: Watch, progress: _Progress | None = None) -> AsyncGenerator[Fetched, None]:
        return fetch(
            course,
            watch=watch,
            clock=self._clock,
            lease_seconds=self._lease_seconds,
            invoked=None if progress is None else progress.invoked,
        )

    def _watch(self, course: Course) -> Watch:
        return Watch(
            course.ref,
            store=self._store,
            clock=self._clock,
            lease_seconds=self._lease_seconds,
            run_seconds_max=course.stream.run_seconds_max,
            page_seconds_max=self._page_seconds_max,
        )

    async def _stream_state(self, live: LiveConnection, stream_key: str, partition: str) -> StreamState:
        rows = await self._store.streams(at=self._clock.now(), connection=live.stored.key, stream=stream_key)
        for row in rows:
            if row.partition == partition:
                return row
        declared = [stream.key for stream in live.project.connector.streams]
        raise NotFoundError(
            f"The connection {live.stored.key} has no stream `{stream_key}`"
            + (f" with a partition `{partition}`." if partition else "."),
            hint=near_miss(partition, [row.partition for row in rows]) if rows else near_miss(stream_key, declared),
        )

    async def _failed(self, progress: _Progress, error: Exception, *, retries: bool) -> RunOutcome:
        failure = judge(error, secrets=progress.live.redactor.secrets if progress.live else ())
        at, ref = self._clock.now(), progress.ref
        if failure.next is Next.NOTHING:
            return progress.outcome(None, failure=failure)
        delay = self._delay(progress, failure) if failure.next is Next.RETRY else None
        is_retried = delay is not None and retries and (progress.pipeline.pages > 0 or ref.attempt < RUN_ATTEMPTS_MAX)
        silence = obeyed_seconds(failure.retry_after_seconds) or delay
        state = RunState.RETRYING if is_retried else RunState.FAILED
        _log.warning("run %d of stream %s is %s: %s", ref.run_id, ref.stream_key, state, failure.message)
        if failure.next is Next.PAUSE:
            self._connections.forget(ref.connection_id)
        if is_retried:
            failpoint("run.before_retry")
        end = RunEnd(
            ref=ref,
            at=at,
            state=state,
            due_at=at + timedelta(seconds=delay) if is_retried and delay is not None else None,
            blocked_until=at + timedelta(seconds=silence) if failure.is_rate_limit and silence is not None else None,
            error_code=failure.code,
            error=failure.message,
            traceback=failure.traceback,
            pause_reason=failure.message if failure.next is Next.PAUSE else None,
            requests=progress.requests,
            log=progress.log,
        )
        return await self._end(progress, end, failure)

    def _delay(self, progress: _Progress, failure: Failure) -> float:
        # An attempt that got somewhere is followed as the first one is: only standing still is waited for longer.
        attempt = 1 if progress.pipeline.pages else progress.ref.attempt
        return RUN_BACKOFF.delay_seconds(
            attempt, random=self._clock.random(), retry_after_seconds=failure.retry_after_seconds
        )

    async def _cancelled(self, progress: _Progress) -> None:
        if self._draining:
            return
        await self._end(
            progress,
            RunEnd(
                ref=progress.ref,
                at=self._clock.now(),
                state=RunState.CANCELLED,
                error_code=RunCancelledError.code,
                error="The run was cancelled.",
                requests=progress.requests,
                log=progress.log,
            ),
        )

    async def _end(self, progress: _Progress, end: RunEnd, failure: Failure | None = None) -> RunOutcome:
        for attempt in range(1, FINISH_ATTEMPTS_MAX + 1):
            try:
                await self._store.finish_run(end)
                return progress.outcome(end.state, failure=failure, due_at=end.due_at)
            except RunEndedError:
                return progress.outcome(None, failure=failure)
            except RetryError as error:
                _log.warning("the end of run %d could not be written: %s", end.ref.run_id, error)
            await self._clock.sleep(FINISH_BACKOFF.delay_seconds(attempt, random=self._clock.random()))
        # Its lease runs out, and the tick admits it anew where its last committed page left off.
        return progress.outcome(None, failure=failure)


class _Progress:
    """What is known of an attempt, for its end."""

    def __init__(self, ref: RunRef, store: Store, clock: Clock) -> None:
        self.ref = ref
        self.pipeline = Pipeline(store, clock)
        self.live: LiveConnection | None = None
        self.last_page: Page | None = None
        self.invocation: Invocation | None = None  # of the page under way

    def invoked(self, invocation: Invocation) -> None:
        self.invocation = invocation

    @property
    def requests(self) -> Sequence[RequestLog]:
        return self.invocation.requests if self.invocation else ()

    @property
    def log(self) -> Sequence[NewLogLine]:
        return self.invocation.log if self.invocation else ()

    def outcome(
        self, state: RunState | None, *, failure: Failure | None = None, due_at: datetime | None = None
    ) -> RunOutcome:
        return RunOutcome(
            ref=self.ref,
            state=state,
            pages=self.pipeline.pages,
            counts=self.pipeline.counts,
            failure=failure,
            due_at=due_at,
            last_page=self.last_page,
        )


def _dry_ref(state: StreamState, *, window: Window | None, pages_limit: int | None) -> RunRef:
    return RunRef(
        run_id=0,
        connection_id=state.connection_id,
        stream_id=state.id,
        stream_key=state.stream,
        partition=state.partition,
        trigger="operator",
        priority=Priority.OPERATOR,
        epoch=0,
        attempt=1,
        cursor=None if window else state.cursor,
        window=window,
        pages_limit=pages_limit,
        checkpoint_at=state.checkpoint_at,
    )
