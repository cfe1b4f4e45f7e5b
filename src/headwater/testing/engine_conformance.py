"""What every engine must show, over a real store: one trigger per occurrence, no overlap, fencing, resumption, cancel,
drain, priority, caps, fairness.

A test of an engine is one line a case: `asyncio.run(exercise(case, make_engine=…, open_store=…))` for each of `CASES`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import timedelta

from headwater.clock import to_micros
from headwater.cron import next_tick
from headwater.engine import Engine
from headwater.errors import FencedError
from headwater.intention import PageCommit, RunEnd, StreamDeclaration, TickResult
from headwater.jsonvalue import canonical_bytes
from headwater.record import Emission
from headwater.run import Priority, Run, RunRef, RunState, Window
from headwater.schedule import Ticker
from headwater.store import Store
from headwater.testing.clock import FakeClock

LEASE_SECONDS = 30.0
PAGES = 4  # of every run
WAIT_SECONDS_MAX = 20.0  # real time: a case that hangs fails
SCHEDULE = "* * * * *"

MakeEngine = Callable[[], Engine]
OpenStore = Callable[[FakeClock], AbstractAsyncContextManager[Store]]


class Worker:
    """A handler that carries out runs as the runtime does, page by page, and can be held before any page.

    Of a cancelled run it writes no end, as a worker whose process was killed.
    """

    def __init__(self, store: Store, clock: FakeClock) -> None:
        self._store = store
        self._clock = clock
        self._held: dict[tuple[str, int], asyncio.Event] = {}
        self._changed = asyncio.Condition()
        self.started: list[RunRef] = []
        self.waiting: set[tuple[str, int]] = set()  # held now: stream key and page
        self.ended: list[RunRef] = []
        self.fenced: list[RunRef] = []
        self.under_way: Counter[int] = Counter()  # by stream id
        self.most_at_once = 0
        self.overlaps = 0

    def hold(self, stream: str, page: int) -> None:
        """Stop runs of `stream` before they commit `page`."""
        self._held[stream, page] = asyncio.Event()

    def let_go(self, stream: str, page: int) -> None:
        """Undo `hold`, for those that wait too."""
        self._held.pop((stream, page)).set()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Return once the condition holds; fail when it does not come to that."""
        async with self._changed, asyncio.timeout(WAIT_SECONDS_MAX):
            await self._changed.wait_for(holds)

    async def __call__(self, ref: RunRef) -> None:
        """Carry out one attempt."""
        self.overlaps += self.under_way[ref.stream_id] > 0
        self.under_way[ref.stream_id] += 1
        self.most_at_once = max(self.most_at_once, self.under_way.total())
        try:
            await self._note(self.started, ref)
            await self._carry_out(ref)
            await self._note(self.ended, ref)
        except FencedError:
            await self._note(self.fenced, ref)
        finally:
            self.under_way[ref.stream_id] -= 1

    async def _carry_out(self, ref: RunRef) -> None:
        await self._store.begin_run(ref, at=self._clock.now(), lease_seconds=LEASE_SECONDS)
        for page in range(int(ref.cursor or 0) + 1, PAGES + 1):
            await self._pass(ref.stream_key, page)
            await self._store.commit_page(self._page(ref, page))
        await self._store.finish_run(
            RunEnd(ref=ref, at=self._clock.now(), state=RunState.SUCCEEDED, keep_cursor=False, checkpoint_cursor=None)
        )

    async def _pass(self, stream: str, page: int) -> None:
        gate = self._held.get((stream, page))
        if gate is None:
            return
        self.waiting.add((stream, page))
        await self._notify()
        try:
            await gate.wait()
        finally:
            self.waiting.discard((stream, page))

    def _page(self, ref: RunRef, page: int) -> PageCommit:
        at = self._clock.now()
        payload = canonical_bytes({"id": f"{ref.stream_key}-{page}"})
        emission = Emission.of(
            type="thing", stream=ref.stream_key, source_id=f"{ref.stream_key}-{page}", payload=payload, key=None,
            as_of=to_micros(at),
        )  # fmt: skip
        return PageCommit(
            ref=ref, number=ref.page_number + page - int(ref.cursor or 0), emissions=[emission], quarantined=(),
            cursor=str(page), has_more=page < PAGES, origin="poll", connector_version="1", started_at=at, at=at,
            lease_seconds=LEASE_SECONDS,
        )  # fmt: skip

    async def _note(self, where: list[RunRef], ref: RunRef) -> None:
        where.append(ref)
        await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


class Ground:
    """A store with connections and minutely streams, a clock that stands still, and engines made at will."""

    def __init__(self, store: Store, clock: FakeClock, make_engine: MakeEngine) -> None:
        self.store = store
        self.clock = clock
        self.make_engine = make_engine

    def worker(self) -> Worker:
        """A handler of its own."""
        return Worker(self.store, self.clock)

    async def connect(self, key: str, streams: Sequence[str], *, schedule: str | None = SCHEDULE) -> None:
        """A connection whose streams are due a minute from now; without a schedule, only when they are asked for."""
        at = self.clock.now()
        connection = await self.store.add_connection(
            key=key, connector="fake", tenant=None, endpoint_id=f"endpoint-{key}", settings={}, secrets={}, at=at
        )
        declarations = [
            StreamDeclaration(
                stream=stream, partition="", mode="poll" if schedule else "backfill", schedule=schedule, timezone="UTC",
                expect_within_seconds=None, next_tick_at=next_tick(schedule, "UTC", at) if schedule else None,
            )
            for stream in streams
        ]  # fmt: skip
        await self.store.declare_streams(connection.id, declarations, at=at)

    def ticker(self, engine: Engine, *, slots: int = 10, per_connection_max: int = 100) -> Ticker:
        """A ticker that supplies `engine`."""
        return Ticker(
            store=self.store, engine=engine, clock=self.clock, slots=slots, per_connection_max=per_connection_max,
            lease_seconds=LEASE_SECONDS,
        )  # fmt: skip

    async def tick_after(self, seconds: float, ticker: Ticker) -> TickResult:
        """Move the clock, then tick."""
        await self.clock.advance(seconds)
        return await ticker.tick()

    async def stream_id(self, stream: str) -> int:
        """The row of a stream."""
        return (await self.store.streams(at=self.clock.now(), stream=stream))[0].id

    async def run_of(self, stream: str) -> Run:
        """The newest run of a stream."""
        return (await self.store.runs(stream=stream))[0]

    async def assert_whole(self, connection: str, stream: str) -> None:
        """Every record of the stream is there, each with one version: no loss, no duplicate."""
        for page in range(1, PAGES + 1):
            versions = await self.store.versions(connection, "thing", f"{stream}-{page}")
            assert len(versions) == 1, f"{stream}-{page} has {len(versions)} versions"

    @asynccontextmanager
    async def serving(self, engine: Engine, worker: Worker, *, slots: int = 10) -> AsyncIterator[asyncio.Task[None]]:
        """The engine at work; at the end of the block it is stopped as a killed process is."""
        task = asyncio.create_task(engine.serve(worker, slots=slots))
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait({task})


async def each_occurrence_starts_once_though_tickers_race(ground: Ground) -> None:
    """Two tickers that see the same due streams start each of them once."""
    streams = [f"stream_{number}" for number in range(12)]
    await ground.connect("acme", streams)
    engines, worker = [ground.make_engine(), ground.make_engine()], ground.worker()
    tickers = [ground.ticker(engine, slots=20) for engine in engines]
    await ground.clock.advance(60)
    await asyncio.gather(*(ticker.tick() for ticker in tickers for _ in range(3)))
    async with ground.serving(engines[0], worker), ground.serving(engines[1], worker):
        await worker.until(lambda: len(worker.ended) == len(streams))
    assert sorted(ref.stream_key for ref in worker.started) == sorted(streams)
    assert len(await ground.store.runs()) == len(streams)


async def a_stream_never_overlaps_itself(ground: Ground) -> None:
    """Ticks during a run are skipped and counted; the next one after it starts."""
    await ground.connect("acme", ["things"])
    engine, worker = ground.make_engine(), ground.worker()
    ticker = ground.ticker(engine)
    worker.hold("things", 2)
    async with ground.serving(engine, worker):
        await ground.tick_after(60, ticker)
        await worker.until(lambda: ("things", 2) in worker.waiting)
        for _ in range(3):
            await ground.clock.advance(LEASE_SECONDS - 10)
            await ground.store.extend_lease(worker.started[0], at=ground.clock.now(), lease_seconds=LEASE_SECONDS)
            await ground.clock.advance(LEASE_SECONDS - 10)
            await ground.store.extend_lease(worker.started[0], at=ground.clock.now(), lease_seconds=LEASE_SECONDS)
            await ground.tick_after(LEASE_SECONDS - 10, ticker)
        worker.let_go("things", 2)
        await worker.until(lambda: len(worker.ended) == 1)
        await ground.tick_after(60, ticker)
        await worker.until(lambda: len(worker.ended) == 2)
    assert worker.overlaps == 0
    assert (await ground.store.streams(at=ground.clock.now()))[0].skipped_ticks == 3


async def a_worker_that_lost_its_lease_commits_nothing_more(ground: Ground) -> None:
    """A worker that was stopped and woken finds its stream with another, and is fenced (Invariant 9)."""
    await ground.connect("acme", ["things"])
    sleepy, lively = ground.worker(), ground.worker()
    first, second = ground.make_engine(), ground.make_engine()
    sleepy.hold("things", 3)
    async with ground.serving(first, sleepy), ground.serving(second, lively):
        await ground.tick_after(60, ground.ticker(first))
        await sleepy.until(lambda: ("things", 3) in sleepy.waiting)
        await ground.tick_after(LEASE_SECONDS + 1, ground.ticker(second))
        await lively.until(lambda: len(lively.ended) == 1)
        sleepy.let_go("things", 3)
        await sleepy.until(lambda: len(sleepy.fenced) == 1)
    assert (lively.started[0].run_id, lively.started[0].cursor) == (sleepy.started[0].run_id, "2")
    assert lively.started[0].epoch > sleepy.started[0].epoch
    pages = await ground.store.pages(lively.started[0].run_id)
    assert [page.number for page in pages] == [1, 2, 3, 4]
    await ground.assert_whole("acme", "things")


async def a_run_goes_on_where_a_killed_process_left_it(ground: Ground) -> None:
    """A process dies in the middle of a run; the next one resumes from the last committed page."""
    await ground.connect("acme", ["things", "others"])
    dying, worker = ground.worker(), ground.worker()
    engine = ground.make_engine()
    dying.hold("things", 3)
    dying.hold("others", 1)
    async with ground.serving(engine, dying):
        await ground.tick_after(60, ground.ticker(engine))
        await dying.until(lambda: len(dying.waiting) == 2)
    assert dying.ended == []
    assert await ground.store.readmit(ground.clock.now()) == 2
    engine = ground.make_engine()
    async with ground.serving(engine, worker):
        await ground.tick_after(1, ground.ticker(engine))
        await worker.until(lambda: len(worker.ended) == 2)
    assert {ref.stream_key: ref.cursor for ref in worker.started} == {"things": "2", "others": None}
    for stream in ("things", "others"):
        await ground.assert_whole("acme", stream)
        assert (await ground.run_of(stream)).state is RunState.SUCCEEDED


async def a_waiting_run_can_be_cancelled(ground: Ground) -> None:
    """A run that was submitted and has not begun never begins."""
    await ground.connect("acme", ["first", "second"])
    engine, worker = ground.make_engine(), ground.worker()
    for stream in ("first", "second"):
        worker.hold(stream, 1)
    async with ground.serving(engine, worker, slots=1):
        await ground.tick_after(60, ground.ticker(engine))
        await worker.until(lambda: len(worker.waiting) == 1)
        (running,) = worker.started
        waiting = "second" if running.stream_key == "first" else "first"
        run = await ground.run_of(waiting)
        assert await ground.store.cancel_run(run.id, at=ground.clock.now())
        await engine.cancel(run.id)
        worker.let_go(running.stream_key, 1)
        await worker.until(lambda: len(worker.ended) == 1)
    assert [ref.stream_key for ref in worker.started] == [running.stream_key]
    assert (await ground.run_of(waiting)).state is RunState.CANCELLED
    assert not await ground.store.cancel_run(run.id, at=ground.clock.now())


async def a_running_run_can_be_cancelled(ground: Ground) -> None:
    """A run under way is interrupted, commits nothing more, and its stream starts again at its next tick."""
    await ground.connect("acme", ["things"])
    engine, worker = ground.make_engine(), ground.worker()
    ticker = ground.ticker(engine)
    worker.hold("things", 2)
    async with ground.serving(engine, worker):
        await ground.tick_after(60, ticker)
        await worker.until(lambda: ("things", 2) in worker.waiting)
        run = await ground.run_of("things")
        await ground.store.cancel_run(run.id, at=ground.clock.now())
        await engine.cancel(run.id)
        worker.let_go("things", 2)
        await ground.tick_after(60, ticker)
        await worker.until(lambda: len(worker.ended) == 1)
    assert worker.ended[0].run_id != run.id
    cancelled = await ground.store.run(run.id)
    assert cancelled is not None
    assert (cancelled.state, cancelled.pages) == (RunState.CANCELLED, 1)
    await ground.assert_whole("acme", "things")


async def a_drained_engine_ends_what_runs_and_leaves_the_rest(ground: Ground) -> None:
    """Draining lets the runs under way end; those that wait are carried out by the next process."""
    await ground.connect("acme", ["first", "second"])
    engine, worker = ground.make_engine(), ground.worker()
    for stream in ("first", "second"):
        worker.hold(stream, 2)
    async with ground.serving(engine, worker, slots=1) as serving:
        await ground.tick_after(60, ground.ticker(engine))
        await worker.until(lambda: len(worker.waiting) == 1)
        engine.drain()
        ((stream, page),) = worker.waiting
        worker.let_go(stream, page)
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            await serving
        assert [ref.stream_key for ref in worker.ended] == [stream]
    await ground.store.readmit(ground.clock.now())
    engine, following = ground.make_engine(), ground.worker()
    async with ground.serving(engine, following):
        await ground.tick_after(1, ground.ticker(engine))
        await following.until(lambda: len(following.ended) == 1)
    assert following.ended[0].stream_key != stream
    await ground.assert_whole("acme", "first")
    await ground.assert_whole("acme", "second")


async def operators_come_before_polls_and_polls_before_backfills(ground: Ground) -> None:
    """Smaller priority first, whatever was submitted first."""
    await ground.connect("acme", ["polled"])
    await ground.connect("other", ["blocker", "history", "asked"], schedule=None)
    engine, worker = ground.make_engine(), ground.worker()
    ticker = ground.ticker(engine, slots=4)
    worker.hold("blocker", 1)
    async with ground.serving(engine, worker, slots=1):
        await ground.store.trigger_run(await ground.stream_id("blocker"), at=ground.clock.now())
        await ticker.tick()
        await worker.until(lambda: ("blocker", 1) in worker.waiting)
        await ground.store.extend_lease(worker.started[0], at=ground.clock.now(), lease_seconds=300)
        span = Window(ground.clock.now() - timedelta(days=1), ground.clock.now())
        await ground.store.add_backfill(
            await ground.stream_id("history"), span=span, windows=[span], at=ground.clock.now()
        )
        await ticker.tick()
        await ground.tick_after(60, ticker)
        await ground.store.trigger_run(await ground.stream_id("asked"), at=ground.clock.now())
        await ticker.tick()
        worker.let_go("blocker", 1)
        await worker.until(lambda: len(worker.ended) == 4)
    assert [ref.stream_key for ref in worker.ended] == ["blocker", "asked", "polled", "history"]
    assert [ref.priority for ref in worker.ended[1:]] == [Priority.OPERATOR, Priority.POLL, Priority.BACKFILL]


async def a_connection_keeps_to_its_cap(ground: Ground) -> None:
    """No more runs of one connection are under way than allowed, and all of them get their turn."""
    streams = [f"stream_{number}" for number in range(6)]
    await ground.connect("acme", streams)
    engine, worker = ground.make_engine(), ground.worker()
    ticker = ground.ticker(engine, per_connection_max=2)
    async with ground.serving(engine, worker):
        await ground.clock.advance(60)
        for ended in (2, 4, 6):
            await ticker.tick()
            await worker.until(lambda ended=ended: len(worker.ended) >= ended)  # type: ignore[misc]
    assert worker.most_at_once <= 2
    assert sorted(ref.stream_key for ref in worker.ended) == streams


async def a_noisy_connection_does_not_starve_a_quiet_one(ground: Ground) -> None:
    """Connections are served in turn: one with many due streams leaves room for one with a single stream."""
    await ground.connect("noisy", [f"noisy_{number:02}" for number in range(40)])
    await ground.connect("quiet", ["quiet"])
    engine, worker = ground.make_engine(), ground.worker()
    result = await ground.tick_after(60, ground.ticker(engine, slots=1))
    assert 2 <= len(result.admitted) < 10
    assert "quiet" in {ref.stream_key for ref in result.admitted}
    async with ground.serving(engine, worker, slots=1):
        await worker.until(lambda: len(worker.ended) == len(result.admitted))


async def the_same_admission_submitted_again_runs_once(ground: Ground) -> None:
    """A submission whose answer was lost is repeated without harm."""
    await ground.connect("acme", ["things"])
    engine, worker = ground.make_engine(), ground.worker()
    ticker = ground.ticker(engine)
    admitted = (await ground.tick_after(60, ticker)).admitted
    await engine.submit(None, [replace(ref) for ref in admitted])
    async with ground.serving(engine, worker, slots=1):
        await worker.until(lambda: len(worker.ended) == 1)
        await engine.submit(None, [replace(ref) for ref in admitted])
        await ground.tick_after(60, ticker)
        await worker.until(lambda: len(worker.ended) == 2)
    assert len({ref.run_id for ref in worker.started}) == len(worker.started) == 2


async def a_handler_that_raises_stops_nobody_else(ground: Ground) -> None:
    """A run that was left without an end loses its lease and is carried out again."""
    await ground.connect("acme", ["broken", "sound"])
    engine, worker = ground.make_engine(), ground.worker()
    ticker = ground.ticker(engine)
    failed: list[int] = []

    async def handler(ref: RunRef) -> None:
        if ref.stream_key == "broken" and not failed:
            failed.append(ref.run_id)
            raise RuntimeError("a bug of the platform")
        await worker(ref)

    serving = asyncio.create_task(engine.serve(handler, slots=1))
    try:
        await ground.tick_after(60, ticker)
        await worker.until(lambda: len(worker.ended) == 1)
        await ground.tick_after(LEASE_SECONDS + 1, ticker)
        await worker.until(lambda: failed[0] in {ref.run_id for ref in worker.ended})
    finally:
        serving.cancel()
        await asyncio.wait({serving})
    await ground.assert_whole("acme", "broken")


Case = Callable[[Ground], Awaitable[None]]

CASES: tuple[Case, ...] = (
    each_occurrence_starts_once_though_tickers_race,
    a_stream_never_overlaps_itself,
    a_worker_that_lost_its_lease_commits_nothing_more,
    a_run_goes_on_where_a_killed_process_left_it,
    a_waiting_run_can_be_cancelled,
    a_running_run_can_be_cancelled,
    a_drained_engine_ends_what_runs_and_leaves_the_rest,
    operators_come_before_polls_and_polls_before_backfills,
    a_connection_keeps_to_its_cap,
    a_noisy_connection_does_not_starve_a_quiet_one,
    the_same_admission_submitted_again_runs_once,
    a_handler_that_raises_stops_nobody_else,
)


async def exercise(case: Case, *, make_engine: MakeEngine, open_store: OpenStore) -> None:
    """Carry out one case against a fresh store and engines of that kind."""
    clock = FakeClock()
    async with open_store(clock) as store:
        await case(Ground(store, clock, make_engine))
