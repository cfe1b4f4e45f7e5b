"""The tick of many nodes: what it admits is in the queue with the same commit, and waits there as long as it must."""

import asyncio

import pytest

from headwater.testing.conformance.world import LEASE_SECONDS, at, every_quarter
from worlds import opened


class Queue:
    """What was submitted, and which of it nobody has begun."""

    def __init__(self):
        self.submitted, self.unbegun, self.transactions = [], [], []
        self.error = None

    async def submit(self, transaction, runs):
        self.transactions.append(transaction)
        if self.error:
            raise self.error
        self.submitted += [(ref.run_id, ref.attempt) for ref in runs]

    async def waiting(self, transaction):
        self.transactions.append(transaction)
        return self.unbegun


async def tick(world, queue, seconds, *, under_way_max=1):
    return await world.store.tick_shared(
        at(seconds), decide=every_quarter, queue=queue, under_way_max=under_way_max, per_connection_max=10,
        lease_seconds=LEASE_SECONDS,
    )  # fmt: skip


def test_no_more_is_under_way_than_all_nodes_may_carry_out_and_what_waits_in_the_queue_keeps_its_lease(postgres_url):
    async def main():
        queue = Queue()
        async with opened(postgres_url) as world:
            await world.connect(streams=("a", "b"), due=at(0))
            (first,) = (await tick(world, queue, 0)).admitted
            assert queue.submitted == [(first.run_id, 1)]
            queue.unbegun = [first.run_id]
            for seconds in (LEASE_SECONDS / 2 - 1, LEASE_SECONDS / 2, LEASE_SECONDS, LEASE_SECONDS * 1.5 - 1):
                assert (await tick(world, queue, seconds)).admitted == []
            (second,) = (await tick(world, queue, 90, under_way_max=2)).admitted
            assert second.stream_key != first.stream_key
            queue.unbegun = []  # both were begun, and their workers are silent since
            found = {
                seconds: (await tick(world, queue, seconds, under_way_max=9)).admitted for seconds in (119, 120, 150)
            }
            assert {seconds: [(ref.run_id, ref.attempt) for ref in refs] for seconds, refs in found.items()} == {
                119: [], 120: [(first.run_id, 2)], 150: [(second.run_id, 2)]
            }  # fmt: skip
            assert all(transaction is not None for transaction in queue.transactions)

    asyncio.run(main())


def test_what_cannot_be_submitted_is_not_admitted(postgres_url):
    async def main():
        queue = Queue()
        async with opened(postgres_url) as world:
            await world.connect(due=at(0))
            queue.error = RuntimeError("the queue is full")
            with pytest.raises(RuntimeError, match="the queue is full"):
                await tick(world, queue, 0)
            queue.error = None
            (ref,) = (await tick(world, queue, 1)).admitted
            assert (ref.attempt, queue.submitted) == (1, [(ref.run_id, 1)])

    asyncio.run(main())
