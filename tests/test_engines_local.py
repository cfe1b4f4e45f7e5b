"""The embedded engine: priority, slots, idempotence, cancellation and drain, without any clock or store."""

import asyncio
import logging

import pytest

from builders import make_ref
from headwater.engines import local
from headwater.engines.local import LocalEngine
from headwater.run import Priority
from headwater.testing.clock import settle


class Work:
    """A handler whose runs last until they are let go."""

    def __init__(self):
        self.started, self.ended, self.cancelled = [], [], []
        self._gates = {}

    async def __call__(self, ref):
        self.started.append(ref.run_id)
        gate = self._gates.setdefault(ref.run_id, asyncio.Event())
        try:
            await gate.wait()
        except asyncio.CancelledError:
            self.cancelled.append(ref.run_id)
            raise
        self.ended.append(ref.run_id)

    async def let_go(self, *run_ids):
        for run_id in run_ids:
            self._gates.setdefault(run_id, asyncio.Event()).set()
        await settle()


def with_engine(body, *, slots=2):
    async def main():
        engine, work = LocalEngine(), Work()
        serving = asyncio.create_task(engine.serve(work, slots=slots))
        try:
            await body(engine, work)
        finally:
            serving.cancel()
            await asyncio.wait({serving})

    asyncio.run(main())


async def submit(engine, *refs):
    await engine.submit(None, refs)
    await settle()


def test_no_more_runs_than_slots_are_under_way():
    async def body(engine, work):
        await submit(engine, *[make_ref(run_id=number) for number in range(1, 6)])
        assert (work.started, engine.depth) == ([1, 2], 5)
        await work.let_go(1)
        assert (work.started, engine.depth) == ([1, 2, 3], 4)

    with_engine(body)


def test_smaller_priority_first_and_within_one_in_the_order_of_submission():
    async def body(engine, work):
        await submit(
            engine,
            make_ref(run_id=1, priority=Priority.BACKFILL),
            make_ref(run_id=2, priority=Priority.BACKFILL),
            make_ref(run_id=3, priority=Priority.POLL),
            make_ref(run_id=4, priority=Priority.POLL),
            make_ref(run_id=5, priority=Priority.OPERATOR),
        )
        for run_id in (5, 3, 4, 1, 2):
            await work.let_go(run_id)
        assert work.ended == [5, 3, 4, 1, 2]

    with_engine(body, slots=1)


def test_the_same_run_and_epoch_submitted_again_runs_once():
    async def body(engine, work):
        await submit(engine, make_ref(run_id=1), make_ref(run_id=1))
        await submit(engine, make_ref(run_id=1))
        await work.let_go(1)
        await submit(engine, make_ref(run_id=1))
        assert (work.started, engine.depth) == ([1], 0)

    with_engine(body)


def test_a_higher_epoch_of_a_run_is_another_attempt_and_replaces_one_that_waits():
    async def body(engine, work):
        await submit(engine, make_ref(run_id=7), make_ref(run_id=1, epoch=1), make_ref(run_id=1, epoch=2))
        assert engine.depth == 2
        await work.let_go(7)
        await work.let_go(1)
        assert work.ended == [7, 1]
        await submit(engine, make_ref(run_id=1, epoch=3))
        assert work.started == [7, 1, 1]

    with_engine(body, slots=1)


def test_a_waiting_run_is_dropped_and_a_running_one_interrupted():
    async def body(engine, work):
        await submit(engine, make_ref(run_id=1), make_ref(run_id=2))
        await engine.cancel(2)
        await engine.cancel(1)
        await engine.cancel(99)
        await settle()
        assert (work.started, work.cancelled, engine.depth) == ([1], [1], 0)
        await submit(engine, make_ref(run_id=3))
        assert work.started == [1, 3]

    with_engine(body, slots=1)


def test_a_drained_engine_ends_what_runs_and_starts_nothing():
    async def main():
        engine, work = LocalEngine(), Work()
        serving = asyncio.create_task(engine.serve(work, slots=1))
        await submit(engine, make_ref(run_id=1), make_ref(run_id=2))
        engine.drain()
        await submit(engine, make_ref(run_id=3))
        assert not serving.done()
        await work.let_go(1)
        await serving
        assert (work.started, work.ended, engine.depth) == ([1], [1], 0)

    asyncio.run(main())


def test_an_engine_drained_before_it_serves_returns_at_once():
    async def main():
        engine, work = LocalEngine(), Work()
        await submit(engine, make_ref())
        engine.drain()
        await engine.serve(work, slots=1)
        assert work.started == []

    asyncio.run(main())


def test_a_serve_that_is_cancelled_interrupts_its_runs_and_waits_for_them():
    async def main():
        engine, work = LocalEngine(), Work()
        serving = asyncio.create_task(engine.serve(work, slots=2))
        await submit(engine, make_ref(run_id=1), make_ref(run_id=2))
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert (sorted(work.cancelled), engine.depth) == ([1, 2], 0)

    asyncio.run(main())


def test_a_handler_that_raises_is_logged_once_and_the_others_go_on(caplog):
    async def main():
        engine, done = LocalEngine(), []

        async def handler(ref):
            if ref.run_id == 1:
                raise RuntimeError("a bug of ours")
            done.append(ref.run_id)

        serving = asyncio.create_task(engine.serve(handler, slots=1))
        await submit(engine, make_ref(run_id=1), make_ref(run_id=2))
        engine.drain()
        await serving
        assert done == [2]

    with caplog.at_level(logging.ERROR):
        asyncio.run(main())
    assert [record.getMessage() for record in caplog.records] == ["run 1 of stream customers was left without an end"]


def test_the_memory_of_finished_runs_is_bounded(monkeypatch):
    monkeypatch.setattr(local, "RUNS_REMEMBERED_MAX", 10)

    async def body(engine, work):
        for number in range(1, 40):
            await work.let_go(number)
            await submit(engine, make_ref(run_id=number))
        assert len(engine._epochs) == 10
        assert engine.depth == 0

    with_engine(body)
