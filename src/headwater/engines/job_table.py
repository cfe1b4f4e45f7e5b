"""Procrastinate's own tables, in a PostgreSQL schema of their own, and how its worker bears a database that goes away.

Nothing that must last is kept here: what is lost with a job is admitted anew from the store.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path

import psycopg
from procrastinate import exceptions, jobs, manager
from procrastinate.schema import SchemaManager
from psycopg.rows import DictRow, dict_row

from headwater.backoff import Backoff
from headwater.clock import Clock
from headwater.errors import StartError, StoreUnavailableError

SCHEMA = "headwater_engine"
CONNECT_SECONDS = 10
LISTEN_AGAIN = Backoff(wait_initial=0.5, wait_max=10.0, wait_min=0.1)

# The statements of this module and of the engine begin with these: its tables are found first, then the store's.
ENTER = f"SELECT set_config('search_path', '{SCHEMA},' || current_setting('search_path'), true)"
LEAVE = f"SELECT set_config('search_path', substr(current_setting('search_path'), {len(SCHEMA) + 2}), true)"

_MIGRATIONS_LOCK = "SELECT pg_advisory_xact_lock(5252, 5)"  # the store's own: one node migrates at a time

Connection = psycopg.AsyncConnection[DictRow]

_log = logging.getLogger("headwater.engines.procrastinate")


async def connect(url: str) -> Connection:
    """A connection of its own, with autocommit."""
    return await psycopg.AsyncConnection.connect(
        url, autocommit=True, row_factory=dict_row, connect_timeout=CONNECT_SECONDS
    )


async def install(url: str) -> None:
    """Make the engine's tables, or bring them up to the installed version; nodes that do so at once follow each other.

    One transaction; `StartError` when it fails.
    """
    try:
        async with await connect(url) as db, db.transaction():
            await db.execute(_MIGRATIONS_LOCK)
            await db.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}".encode())
            await db.execute(f"SET LOCAL search_path = {SCHEMA}".encode())
            await _bring_up(db)
    except psycopg.Error as error:
        raise StartError(
            f"The engine's tables could not be made: {str(error).strip() or type(error).__name__}.",
            hint=f"The database's user must be allowed to create the schema {SCHEMA}.",
        ) from error


async def _bring_up(db: Connection) -> None:
    await db.execute("CREATE TABLE IF NOT EXISTS migrations (name text PRIMARY KEY)")
    done = {found["name"] for found in await (await db.execute("SELECT name FROM migrations")).fetchall()}
    new = {name: text for name, text in (await asyncio.to_thread(_migrations)).items() if name not in done}
    if done:
        for text in new.values():
            await db.execute(text)
    else:
        await db.execute(SchemaManager.get_schema().encode())  # all of them at once
    await db.execute("INSERT INTO migrations SELECT unnest(%s::text[])", [list(new)])


def _migrations() -> dict[str, bytes]:
    folder = Path(SchemaManager.get_migrations_path())
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.sql"))}


def translated(error: Exception) -> StoreUnavailableError:
    """An error of the database as the platform knows it, with the driver's own as its cause."""
    cause = error.__cause__ if isinstance(error, exceptions.ConnectorException) else error
    found = StoreUnavailableError(f"The engine's tables could not be used: {cause or type(error).__name__}.")
    found.__cause__ = cause
    return found


def is_away(error: exceptions.ConnectorException) -> bool:
    """Whether the database could not be reached, rather than refused what it was asked."""
    return isinstance(error.__cause__, psycopg.OperationalError)


class PatientJobManager(manager.JobManager):
    """Procrastinate's own, save that a worker outlives a database that is away and a job that is gone.

    As it is shipped, a worker whose fetch, heartbeat or listener fails takes no job any more, and ends only when its
    last run has ended: that may be hours.
    """

    def __init__(self, connector: object, clock: Clock) -> None:
        super().__init__(connector)  # type: ignore[arg-type]  # whatever the app has
        self._clock = clock

    async def fetch_job(self, queues: Iterable[str] | None, worker_id: int) -> jobs.Job | None:
        """As the original; None while the database is away."""
        try:
            return await super().fetch_job(queues, worker_id)
        except exceptions.ConnectorException as error:
            if not is_away(error):
                raise
            _log.warning("no run can be fetched: %s", translated(error))
            return None

    async def update_heartbeat(self, worker_id: int) -> None:
        """As the original; one that fails is made up for by the next."""
        try:
            await super().update_heartbeat(worker_id)
        except exceptions.ConnectorException as error:
            if not is_away(error):
                raise

    async def finish_job(self, job: jobs.Job, status: jobs.Status, delete_job: bool) -> None:
        """As the original; a job that is gone, or cannot be removed now, is the next tick's to sweep."""
        try:
            await super().finish_job(job, status, delete_job)
        except exceptions.ConnectorException as error:
            _log.debug("job %s was not removed: %s", job.id, translated(error))

    async def listen_for_jobs(
        self, *, on_notification: manager.NotificationCallback, queues: Iterable[str] | None = None
    ) -> None:
        """As the original, again and again; meanwhile the worker looks by itself."""
        failures = 0
        while True:
            try:
                await super().listen_for_jobs(on_notification=on_notification, queues=queues)
            except exceptions.ConnectorException as error:
                failures += 1
                _log.debug("the engine does not hear of new runs: %s", translated(error))
            await self._clock.sleep(LISTEN_AGAIN.delay_seconds(failures, random=self._clock.random()))
