"""Which streams are due at an instant (pure), and the loop that acts on it.

every wake: store.tick ──> decide (pure) ──> admitted runs ──> engine.submit ──> sleep until the next due instant

The store makes a tick one transaction, so that two racing tickers start each occurrence once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import cast

from headwater.backoff import Backoff
from headwater.clock import Clock
from headwater.cron import describe, next_tick, previous_ticks, ticks_between, validate
from headwater.engine import Engine, Handler, SharedEngine
from headwater.errors import ConfigError, StoreUnavailableError
from headwater.intention import DueStream, TickDecision, TickResult
from headwater.node import SharedRunStore
from headwater.run import LEASE_SECONDS, RunRef
from headwater.store import RunStore

__all__ = [
    "Ticker",
    "decide",
    "describe",
    "next_tick",
    "previous_ticks",
    "validate",
]

DEPTH_PER_SLOT = 4  # runs given to the engine, per slot: enough to keep it busy, few enough that priority stays ours
PER_CONNECTION_MAX = 4  # runs of one connection at a time
SLEEP_SECONDS_MAX = 5.0  # another process may trigger a run: look at least so often
TICK_SPACING_SECONDS = 0.02  # runs that end together are followed by one tick, not by one each
MISSED_TICKS_COUNTED_MAX = 100  # of one stream, after a downtime
UNUSABLE_SCHEDULE_PAUSE = timedelta(days=1)
STORE_BACKOFF = Backoff(wait_initial=0.5, wait_max=30.0, wait_min=0.1)

_log = logging.getLogger("headwater.schedule")


def decide(due: Sequence[DueStream], at: datetime) -> list[TickDecision]:
    """What the tick at `at` does with each due stream.

    A stream whose run is still under way is skipped; ticks missed in downtime coalesce into one start. The next tick
    lies strictly after `at`.
    """
    return [_decision(stream, at) for stream in due]


def _decision(stream: DueStream, at: datetime) -> TickDecision:
    try:
        following = next_tick(stream.schedule, stream.timezone, at)
        missed = ticks_between(
            stream.schedule, stream.timezone, stream.next_tick_at, at, limit=MISSED_TICKS_COUNTED_MAX
        )
    except ConfigError:
        # The check refuses such a line; should one get here, it must not keep the other streams from their ticks.
        return TickDecision(stream_id=stream.stream_id, start=False, next_tick_at=at + UNUSABLE_SCHEDULE_PAUSE)
    return TickDecision(stream_id=stream.stream_id, start=not stream.is_running, next_tick_at=following, missed=missed)


class Ticker:
    """The loop that starts what is due and keeps the engine supplied, until it is drained."""

    def __init__(
        self,
        *,
        store: RunStore,
        engine: Engine,
        clock: Clock,
        slots: int,
        per_connection_max: int = PER_CONNECTION_MAX,
        lease_seconds: float = LEASE_SECONDS,
        readmits: bool = False,
    ) -> None:
        """With `readmits`, runs that were under way when the process before this one died wait again at once: for an
        embedded engine, which is the only one on its store. A transactional engine's store is a `SharedRunStore`.
        """
        self._store = store
        self._engine = engine
        self._clock = clock
        self._depth_max = DEPTH_PER_SLOT * slots
        self._per_connection_max = per_connection_max
        self._lease_seconds = lease_seconds
        self._readmits = readmits
        self._failures = 0
        self._woken = asyncio.Event()
        self._draining = False

    async def serve(self) -> None:
        """Tick until `drain`; the store may be unavailable for a while."""
        while not self._draining:
            self._woken.clear()
            await self._sleep(await self._tick_or_wait_seconds())

    async def tick(self) -> TickResult:
        """One tick now: what is due is started, what may run is given to the engine."""
        if self._engine.transactional:
            return await cast("SharedRunStore", self._store).tick_shared(
                self._clock.now(),
                decide=decide,
                queue=cast("SharedEngine", self._engine),
                under_way_max=self._depth_max,
                per_connection_max=self._per_connection_max,
                lease_seconds=self._lease_seconds,
            )
        result = await self._store.tick(
            self._clock.now(),
            decide=decide,
            admit_max=max(0, self._depth_max - self._engine.depth),
            per_connection_max=self._per_connection_max,
            lease_seconds=self._lease_seconds,
        )
        if result.admitted:
            await self._engine.submit(None, result.admitted)
        return result

    def wake(self) -> None:
        """Tick soon: a run ended, or somebody made one."""
        self._woken.set()

    def resize(self, slots: int) -> None:
        """Keep the engine supplied for so many slots from now on: workers came or went."""
        if DEPTH_PER_SLOT * slots > self._depth_max:
            self._woken.set()
        self._depth_max = DEPTH_PER_SLOT * slots

    def drain(self) -> None:
        """Start nothing more; `serve` returns."""
        self._draining = True
        self._woken.set()

    def waking(self, handler: Handler) -> Handler:
        """`handler`, followed by a wake: the run that ended may be what another one waited for."""

        async def carry_out_and_wake(ref: RunRef) -> None:
            try:
                await handler(ref)
            finally:
                self.wake()

        return carry_out_and_wake

    async def _tick_or_wait_seconds(self) -> float:
        try:
            if self._readmits:
                await self._store.readmit(self._clock.now())
                self._readmits = False
            result = await self.tick()
        except StoreUnavailableError as error:
            self._failures += 1
            if self._failures == 1:
                _log.warning("the store is unavailable, no stream is started: %s", error)
            return STORE_BACKOFF.delay_seconds(self._failures, random=self._clock.random())
        if self._failures:
            _log.info("the store is available again after %d failed ticks", self._failures)
            self._failures = 0
        if result.next_due_at is None:
            return SLEEP_SECONDS_MAX
        return (result.next_due_at - self._clock.now()).total_seconds()

    async def _sleep(self, seconds: float) -> None:
        if self._draining:
            return
        pause = asyncio.ensure_future(self._clock.sleep(min(max(seconds, TICK_SPACING_SECONDS), SLEEP_SECONDS_MAX)))
        woken = asyncio.ensure_future(self._woken.wait())
        try:
            await asyncio.wait({pause, woken}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            pause.cancel()
            woken.cancel()
        if self._woken.is_set() and not self._draining:
            await self._clock.sleep(TICK_SPACING_SECONDS)
