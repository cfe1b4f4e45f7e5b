"""Every engine over every store that it may meet passes the same suite."""

import asyncio
from contextlib import asynccontextmanager
from functools import partial
from itertools import count

import pytest

from builders import open_memory_store, open_store_at
from headwater.clock import SystemClock
from headwater.engines.job_table import install
from headwater.engines.local import LocalEngine
from headwater.engines.procrastinate import ProcrastinateEngine
from headwater.stores.postgres.store import PostgresStore
from headwater.testing.engine_conformance import CASES, exercise


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_the_local_engine_over_sqlite_in_memory(case):
    asyncio.run(exercise(case, make_engine=LocalEngine, open_store=open_memory_store))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_the_local_engine_over_a_sqlite_file(case, tmp_path):
    open_store = partial(open_store_at, path=str(tmp_path / "headwater.db"))
    asyncio.run(exercise(case, make_engine=LocalEngine, open_store=open_store))


@asynccontextmanager
async def open_postgres_store(clock, url):
    store = PostgresStore(url, clock)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_the_local_engine_over_postgres(case, postgres_url):
    open_store = partial(open_postgres_store, url=postgres_url)
    asyncio.run(exercise(case, make_engine=LocalEngine, open_store=open_store))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_the_procrastinate_engine_over_postgres(case, postgres_url):
    numbers = count(1)

    def make_engine():
        # A case says which engine carries a run out: each has a queue of its own, in the same tables.
        return ProcrastinateEngine(postgres_url, SystemClock(), queue=f"queue {next(numbers)}")

    asyncio.run(install(postgres_url))
    asyncio.run(exercise(case, make_engine=make_engine, open_store=partial(open_postgres_store, url=postgres_url)))


def test_the_suite_tells_an_engine_that_runs_a_submission_twice():
    class Forgetful(LocalEngine):
        async def submit(self, transaction, runs):
            self._epochs.clear()
            await super().submit(transaction, runs)

    case = next(case for case in CASES if case.__name__ == "the_same_admission_submitted_again_runs_once")
    with pytest.raises(AssertionError):
        asyncio.run(exercise(case, make_engine=Forgetful, open_store=open_memory_store))


def test_the_suite_tells_an_engine_that_knows_no_priority():
    class Flat(LocalEngine):
        async def submit(self, transaction, runs):
            from dataclasses import replace

            await super().submit(transaction, [replace(ref, priority=0) for ref in runs])

    case = next(case for case in CASES if case.__name__.startswith("operators_come_before"))
    with pytest.raises(AssertionError):
        asyncio.run(exercise(case, make_engine=Flat, open_store=open_memory_store))
