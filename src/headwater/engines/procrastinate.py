"""Beyond one machine: runs as jobs of Procrastinate, in the PostgreSQL that holds the store.

tick's transaction: runs admitted + jobs made ──> any node's worker ──> handler ──> job removed
                        └── superseded and stray jobs removed in the same transaction

A job names a run and its epoch, and these decide: under an epoch that is past nothing is committed (Invariant 9). So
Procrastinate's locks, retries and rescue of stalled jobs are not used: a lapsed lease is admitted anew by our tick.
"""

from __future__ import annotations

import asyncio
import logging
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import fields
from typing import Any

import msgspec
import psycopg
from procrastinate import App, PsycopgConnector, exceptions, jobs
from procrastinate.types import JSONValue

from headwater.backoff import Backoff
from headwater.clock import Clock
from headwater.engine import Handler
from headwater.engines.job_table import (
    CONNECT_SECONDS,
    ENTER,
    LEAVE,
    SCHEMA,
    Connection,
    PatientJobManager,
    connect,
    translated,
)
from headwater.intention import Transaction
from headwater.run import RunRef

QUEUE = "runs"
TASK = "headwater.run"
CONNECTIONS_MAX = 4  # of a worker, beside the one that listens
FETCH_SECONDS = 5.0  # between two looks for jobs where no notice came
HEARTBEAT_SECONDS = 10.0
STALLED_SECONDS = 120.0  # a worker that was silent for so long is forgotten; its runs do not depend on it
WORKER_AGAIN = Backoff(wait_initial=0.5, wait_max=15.0, wait_min=0.1)

# Jobs of these runs under an older epoch go; a job is made where the run is still admitted and has none yet.
_SUPERSEDE = """
WITH given AS (SELECT * FROM unnest(%(run_ids)s::bigint[], %(epochs)s::bigint[]) AS g (run_id, epoch)),
superseded AS (
    DELETE FROM procrastinate_jobs j USING given g
    WHERE (j.args ->> 'run_id')::bigint = g.run_id AND (j.args ->> 'epoch')::bigint < g.epoch)
SELECT g.run_id FROM given g JOIN runs r ON r.id = g.run_id AND r.epoch = g.epoch AND r.state = 'running'
WHERE NOT EXISTS (
    SELECT 1 FROM procrastinate_jobs j
    WHERE (j.args ->> 'run_id')::bigint = g.run_id AND (j.args ->> 'epoch')::bigint >= g.epoch)"""

# Jobs whose run is over, waits or was taken by another: what a killed worker or a cancelled run left behind.
_SWEEP = """
DELETE FROM procrastinate_jobs j WHERE NOT EXISTS (
    SELECT 1 FROM runs r
    WHERE r.id = (j.args ->> 'run_id')::bigint AND r.epoch = (j.args ->> 'epoch')::bigint AND r.state = 'running')"""

_WAITING = "SELECT (args ->> 'run_id')::bigint AS run_id FROM procrastinate_jobs WHERE status = 'todo'"
_FORGET = "DELETE FROM procrastinate_jobs WHERE status = 'todo' AND (args ->> 'run_id')::bigint = %(run_id)s"
_BEGUN = "SELECT id FROM procrastinate_jobs WHERE status = 'doing' AND (args ->> 'run_id')::bigint = %(run_id)s"

_FIELDS = tuple(field.name for field in fields(RunRef))

_log = logging.getLogger("headwater.engines.procrastinate")


def packed(ref: RunRef) -> str:
    """A reference as a job carries it: short, for each job's row is passed over again and again until it is vacuumed.

    A cursor may hold what a jsonb cannot, such as NUL, and each quote in it would be escaped three times over.
    """
    return b64encode(msgspec.msgpack.encode([getattr(ref, name) for name in _FIELDS])).decode()


def unpacked(text: str) -> RunRef:
    """The reference of `packed`, or of the version before, which wrote its fields' names."""
    found = msgspec.msgpack.decode(b64decode(text))
    return msgspec.convert(found if isinstance(found, dict) else dict(zip(_FIELDS, found, strict=True)), RunRef)


class ProcrastinateEngine:
    """Carries out runs on every node that serves it, smaller priority first; see `Engine`."""

    transactional = True

    def __init__(self, url: str, clock: Clock, *, queue: str = QUEUE) -> None:
        self._url = url
        self._clock = clock
        self._queue = queue
        self._handler: Handler | None = None
        self._running: dict[asyncio.Task[Any], RunRef] = {}
        self._stopping = asyncio.Event()
        self._is_interrupted = False
        self._app = App(
            connector=PsycopgConnector(
                conninfo=url,
                min_size=1,
                max_size=CONNECTIONS_MAX,
                timeout=CONNECT_SECONDS,
                reconnect_timeout=CONNECT_SECONDS,
                configure=_configure,
                name="headwater engine",
            )
        )
        self._app.job_manager = PatientJobManager(self._app.connector, clock)
        self._app.task(name=TASK, queue=queue)(self._carry_out)

    async def submit(self, transaction: Transaction | None, runs: Sequence[RunRef]) -> None:
        """See `Engine`. Strays of other runs are swept at the same time, so that giving no runs has its use."""
        async with self._within(transaction) as db:
            wanted = await self._unknown(db, runs) if runs else set()
            new = [self._job(ref) for ref in runs if ref.run_id in wanted]
            if new:
                await self._app.job_manager.batch_defer_jobs_async(new, connection=db)
            await db.execute(_SWEEP)

    async def waiting(self, transaction: Transaction) -> Sequence[int]:
        """The ids of the runs that no worker has begun."""
        async with self._within(transaction) as db:
            found = await (await db.execute(_WAITING)).fetchall()
        return [row["run_id"] for row in found]

    async def cancel(self, run_id: int) -> None:
        """See `Engine`; on whichever node it runs."""
        async with self._within(None) as db:
            await db.execute(_FORGET, {"run_id": run_id})
            for row in await (await db.execute(_BEGUN, {"run_id": run_id})).fetchall():
                await self._app.job_manager.cancel_job_by_id_async(row["id"], abort=True, connection=db)

    async def serve(self, handler: Handler, *, slots: int) -> None:
        """See `Engine`. When it is cancelled itself, it interrupts the runs under way and waits for their end."""
        assert slots > 0, "an engine without slots carries out nothing"
        self._handler = handler
        failures = 0
        try:
            while not self._stopping.is_set():
                begun = self._clock.monotonic()
                await self._serve_once(slots)
                if self._stopping.is_set():
                    break
                failures = 1 if self._clock.monotonic() - begun > WORKER_AGAIN.wait_max else failures + 1
                await self._pause(WORKER_AGAIN.delay_seconds(failures, random=self._clock.random()))
        finally:
            self._interrupt()
            await self._app.close_async()

    def drain(self) -> None:
        """See `Engine`. What waits stays in the queue, for other nodes."""
        self._stopping.set()

    @property
    def depth(self) -> int:
        """Runs under way in this process; those of all nodes are counted in the tick's transaction."""
        return len(self._running)

    async def _serve_once(self, slots: int) -> None:
        # Cancelled, Procrastinate's worker fetches no more and returns when what runs has ended.
        worker = asyncio.create_task(self._work(slots), name="engine worker")
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({worker, stopping}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._interrupt()
            raise
        finally:
            stopping.cancel()
            worker.cancel()
            await asyncio.wait({worker})
        if not worker.cancelled() and (error := worker.exception()) is not None:
            if not isinstance(error, exceptions.ConnectorException | psycopg.Error):
                raise error
            _log.warning("the engine's worker begins anew: %s", translated(error))

    async def _work(self, slots: int) -> None:
        await self._app.open_async()
        await self._app.run_worker_async(
            queues=[self._queue],
            concurrency=slots,
            delete_jobs="always",
            install_signal_handlers=False,
            fetch_job_polling_interval=FETCH_SECONDS,
            abort_job_polling_interval=FETCH_SECONDS,
            update_heartbeat_interval=HEARTBEAT_SECONDS,
            stalled_worker_timeout=STALLED_SECONDS,
        )

    async def _carry_out(self, run_id: int, epoch: int, ref: str) -> None:  # noqa: ARG002  what the tick looks for
        if self._is_interrupted or self._handler is None:
            return
        task = asyncio.current_task()
        assert task is not None
        run = unpacked(ref)
        self._running[task] = run
        try:
            await self._handler(run)
        except Exception:
            # The handler ends its runs itself: what comes out of it is a bug of ours, and must not stop the others.
            _log.exception("run %d of stream %s was left without an end", run.run_id, run.stream_key)
        finally:
            del self._running[task]

    def _interrupt(self) -> None:
        self._is_interrupted = True
        for task in list(self._running):
            task.cancel()

    async def _pause(self, seconds: float) -> None:
        waits = {asyncio.ensure_future(self._clock.sleep(seconds)), asyncio.ensure_future(self._stopping.wait())}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()

    async def _unknown(self, db: Connection, runs: Sequence[RunRef]) -> set[int]:
        given = {"run_ids": [ref.run_id for ref in runs], "epochs": [ref.epoch for ref in runs]}
        return {row["run_id"] for row in await (await db.execute(_SUPERSEDE, given)).fetchall()}

    def _job(self, ref: RunRef) -> jobs.Job:
        given: dict[str, JSONValue] = {"run_id": ref.run_id, "epoch": ref.epoch, "ref": packed(ref)}
        return jobs.Job(
            queue=self._queue, lock=None, queueing_lock=None, task_name=TASK, task_kwargs=given, priority=-ref.priority
        )

    @asynccontextmanager
    async def _within(self, transaction: Transaction | None) -> AsyncIterator[Connection]:
        """The transaction given, or one of its own, with the engine's tables in sight."""
        try:
            if transaction is not None:
                await transaction.execute(ENTER)
                yield transaction
                await transaction.execute(LEAVE)
                return
            async with await connect(self._url) as db, db.transaction():
                await db.execute(ENTER)
                yield db
        except (exceptions.ConnectorException, psycopg.Error) as error:
            raise translated(error) from error.__cause__ or error


async def _configure(db: psycopg.AsyncConnection[Any]) -> None:
    await db.execute(f"SET search_path = {SCHEMA}".encode())
    await db.commit()
