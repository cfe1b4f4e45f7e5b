"""What is the shared engine's own: one queue for many processes, the tick's transaction, a database that goes away."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import psycopg
import pytest

from builders import make_ref
from engine_worker import LEASE_SECONDS
from headwater.clock import SystemClock
from headwater.engines import procrastinate as engine_module
from headwater.engines.job_table import install
from headwater.engines.procrastinate import ProcrastinateEngine, packed, unpacked
from headwater.errors import StoreUnavailableError
from headwater.failpoint import arm, disarm
from headwater.run import RunState, Window
from headwater.schedule import Ticker
from headwater.stores.postgres.store import PostgresStore
from headwater.testing.clock import FakeClock
from headwater.testing.engine_conformance import Ground

LIMIT_SECONDS = 30.0
TERMINATE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'"


@asynccontextmanager
async def grounded(url, clock=None) -> AsyncIterator[Ground]:
    clock = clock or FakeClock()
    await install(url)
    store = PostgresStore(url, clock)
    await store.open()
    try:
        yield Ground(store, clock, lambda: ProcrastinateEngine(url, SystemClock()))
    finally:
        await store.close()


def ask(url, sql):
    with psycopg.connect(url, autocommit=True) as db:
        return db.execute(sql).fetchall()


def jobs(url, state="doing', 'todo"):
    return ask(url, f"SELECT args FROM headwater_engine.procrastinate_jobs WHERE status IN ('{state}')")


async def until(holds) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        while not holds():
            await asyncio.sleep(0.02)


def test_two_workers_on_one_queue_share_the_work_and_leave_nothing_behind(postgres_url):
    async def main():
        async with grounded(postgres_url) as ground:
            streams = [f"stream_{number:02}" for number in range(12)]
            await ground.connect("acme", streams)
            engines, worker = [ground.make_engine(), ground.make_engine()], ground.worker()
            ticker = ground.ticker(engines[0], slots=20)
            async with ground.serving(engines[0], worker, slots=2), ground.serving(engines[1], worker, slots=2):
                await ground.tick_after(60, ticker)
                await worker.until(lambda: len(worker.ended) == len(streams))
                await until(lambda: not jobs(postgres_url, "todo', 'doing', 'succeeded', 'failed', 'aborted"))
            assert sorted(ref.stream_key for ref in worker.started) == streams
            assert worker.overlaps == 0
            assert worker.most_at_once <= 4
        assert ask(postgres_url, "SELECT count(*) FROM headwater_engine.procrastinate_events") == [(0,)]
        assert ask(postgres_url, "SELECT count(*) FROM headwater_engine.procrastinate_workers") == [(0,)]

    asyncio.run(main())


def test_a_tick_that_is_not_committed_leaves_no_job(postgres_url):
    async def main():
        async with grounded(postgres_url) as ground:
            await ground.connect("acme", ["things"])
            ticker = ground.ticker(ground.make_engine())

            def fail():
                raise StoreUnavailableError("the power went")

            arm("tick.before_commit", fail)
            try:
                with pytest.raises(StoreUnavailableError):
                    await ground.tick_after(60, ticker)
            finally:
                disarm()
            assert not jobs(postgres_url)
            assert not await ground.store.runs()
            await ticker.tick()
            assert [found[0]["run_id"] for found in jobs(postgres_url, "todo")] == [
                run.id for run in await ground.store.runs()
            ]

    asyncio.run(main())


def test_the_queue_is_as_deep_as_all_tickers_together_may_make_it(postgres_url):
    async def main():
        async with grounded(postgres_url) as ground:
            await ground.connect("acme", [f"stream_{number:02}" for number in range(40)])
            tickers = [ground.ticker(ground.make_engine(), slots=2) for _ in range(3)]
            await ground.clock.advance(60)
            await asyncio.gather(*(ticker.tick() for ticker in tickers))
            assert len(jobs(postgres_url, "todo")) == 8

    asyncio.run(main())


def test_a_run_that_waits_in_the_queue_keeps_its_lease_and_its_attempts(postgres_url):
    async def main():
        async with grounded(postgres_url) as ground:
            await ground.connect("acme", ["things"], schedule=None)
            engine, worker = ground.make_engine(), ground.worker()
            ticker = ground.ticker(engine)
            await ground.store.trigger_run(await ground.stream_id("things"), at=ground.clock.now())
            await ticker.tick()
            for _ in range(20):
                await ground.tick_after(16, ticker)
            async with ground.serving(engine, worker):
                await worker.until(lambda: len(worker.ended) == 1)
            assert (worker.started[0].attempt, worker.started[0].epoch) == (1, 1)

    asyncio.run(main())


def test_a_job_whose_run_is_over_is_swept_by_the_next_tick(postgres_url):
    async def main():
        async with grounded(postgres_url) as ground:
            await ground.connect("acme", ["things"])
            ticker = ground.ticker(ground.make_engine())
            await ground.tick_after(60, ticker)
            await ground.store.cancel_run((await ground.run_of("things")).id, at=ground.clock.now())
            assert len(jobs(postgres_url)) == 1
            await ticker.tick()
            assert not jobs(postgres_url)

    asyncio.run(main())


def test_a_cursor_that_json_in_the_database_cannot_hold_comes_through(postgres_url):
    async def main():
        async with grounded(postgres_url) as ground:
            await ground.connect("acme", ["things"], schedule=None)
            stream = await ground.stream_id("things")
            cursor = "\0 \\u0000 “\U0001f40d”"
            await ground.store.set_checkpoint(stream, cursor, at=ground.clock.now())
            await ground.store.trigger_run(stream, at=ground.clock.now())
            engine, seen = ground.make_engine(), []
            (admitted,) = (await ground.ticker(engine).tick()).admitted

            async def handler(ref):
                seen.append(ref)

            serving = asyncio.create_task(engine.serve(handler, slots=1))
            await until(lambda: seen)
            engine.drain()
            await serving
            assert seen == [admitted]
            assert seen[0].cursor == cursor

    asyncio.run(main())


def test_a_worker_outlives_a_database_that_goes_away(postgres_url, postgres_server):
    async def main():
        async with grounded(postgres_url) as ground:
            await ground.connect("acme", ["first", "second"])
            engine, worker = ground.make_engine(), ground.worker()
            ticker = ground.ticker(engine)
            worker.hold("first", 2)
            worker.hold("second", 2)
            name = psycopg.conninfo.conninfo_to_dict(postgres_url)["dbname"]
            async with ground.serving(engine, worker) as serving:
                await ground.tick_after(60, ticker)
                await worker.until(lambda: len(worker.waiting) == 2)
                postgres_server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
                postgres_server.execute(
                    f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
                )
                postgres_server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
                worker.let_go("first", 2)
                worker.let_go("second", 2)
                await worker.until(lambda: len(worker.ended) == 2)
                await ground.tick_after(60, ticker)
                await worker.until(lambda: len(worker.ended) == 4)
                assert not serving.done()
            await ground.assert_whole("acme", "first")

    asyncio.run(main())


def test_a_handler_that_blocks_its_thread_does_not_stall_the_heartbeat(postgres_url, monkeypatch):
    monkeypatch.setattr(engine_module, "HEARTBEAT_SECONDS", 0.05)
    free = threading.Event()

    async def main():
        async with grounded(postgres_url) as ground:
            await ground.connect("acme", ["things"])
            engine = ground.make_engine()

            async def handler(ref):
                await asyncio.to_thread(free.wait, LIMIT_SECONDS)

            serving = asyncio.create_task(engine.serve(handler, slots=1))
            await ground.tick_after(60, ground.ticker(engine))
            await until(lambda: engine.depth == 1)
            beat = "SELECT last_heartbeat FROM headwater_engine.procrastinate_workers"
            first = ask(postgres_url, beat)
            await until(lambda: ask(postgres_url, beat) > first)
            free.set()
            engine.drain()
            await serving

    asyncio.run(main())


def test_nodes_that_install_at_once_make_the_tables_once_and_apart_from_the_stores(postgres_url):
    async def main():
        await asyncio.gather(*(install(postgres_url) for _ in range(3)))

    asyncio.run(main())
    found = ask(postgres_url, "SELECT DISTINCT schemaname FROM pg_tables WHERE tablename LIKE 'procrastinate%'")
    assert found == [("headwater_engine",)]


@asynccontextmanager
async def process(url, hold="") -> AsyncIterator[tuple[subprocess.Popen, set[str]]]:
    """A worker process and what it has told; killed at the end."""
    script = Path(__file__).with_name("engine_worker.py")
    worker = subprocess.Popen(
        [sys.executable, str(script), url, hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    told: set[str] = set()
    reader = threading.Thread(target=lambda: told.update(line.strip() for line in worker.stdout))
    reader.start()
    try:
        await until(lambda: "serving" in told)
        yield worker, told
    finally:
        worker.kill()
        worker.wait()
        reader.join()
        worker.stdin.close()
        worker.stdout.close()


@asynccontextmanager
async def ticking(ground, engine) -> AsyncIterator[None]:
    ticker = Ticker(
        store=ground.store, engine=engine, clock=ground.clock, slots=4, per_connection_max=10,
        lease_seconds=LEASE_SECONDS,
    )  # fmt: skip

    async def tick():
        while True:
            await ticker.tick()
            await asyncio.sleep(0.1)

    task = asyncio.create_task(tick())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def state_of(ground, stream):
    return (await ground.run_of(stream)).state


@asynccontextmanager
async def a_run_held_in_a_process(url) -> AsyncIterator:
    """A run that a worker process holds before its third page, a ticker, and a second process that waits."""
    async with grounded(url, SystemClock()) as ground, process(url, "things:3") as (first, told):
        await ground.connect("acme", ["things"], schedule=None)
        await ground.store.trigger_run(await ground.stream_id("things"), at=ground.clock.now())
        async with ticking(ground, ground.make_engine()):
            await until(lambda: "held" in told)
            async with process(url) as (_, others):
                yield ground, first, told, others


def test_a_worker_killed_in_its_run_is_followed_by_another_within_the_lease(postgres_url):
    async def main():
        async with a_run_held_in_a_process(postgres_url) as (ground, first, _, others):
            killed_at = ground.clock.monotonic()
            first.kill()
            await until(lambda: "ended" in others)
            assert ground.clock.monotonic() - killed_at < LEASE_SECONDS + 5
            assert await state_of(ground, "things") is RunState.SUCCEEDED
            run = await ground.run_of("things")
            assert [page.number for page in await ground.store.pages(run.id)] == [1, 2, 3, 4]
            await ground.assert_whole("acme", "things")

    asyncio.run(main())


def test_a_worker_that_was_stopped_and_woken_is_fenced_and_drains(postgres_url):
    async def main():
        async with a_run_held_in_a_process(postgres_url) as (ground, first, told, others):
            first.send_signal(signal.SIGSTOP)
            await until(lambda: "ended" in others)
            first.send_signal(signal.SIGCONT)
            first.stdin.write("go\n")
            first.stdin.flush()
            await until(lambda: "fenced" in told)
            await ground.assert_whole("acme", "things")
            assert "ended" not in told
            first.stdin.write("drain\n")
            first.stdin.flush()
            await until(lambda: "drained" in told)
            assert await asyncio.to_thread(first.wait, LIMIT_SECONDS) == 0

    asyncio.run(main())


def test_a_job_carries_its_run_in_few_bytes_and_whole():
    at = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
    plain = make_ref(run_id=12, cursor="c1", checkpoint_at=at)
    odd = make_ref(cursor='nul \0 "quoted" \u2603', window=Window(at, at + timedelta(days=1)), window_id=7, attempt=3)
    for ref in (plain, odd):
        assert unpacked(packed(ref)) == ref
        named = b64encode(msgspec.msgpack.encode(ref)).decode()  # as the version before wrote it
        assert unpacked(named) == ref
    assert len(packed(plain)) < 100
