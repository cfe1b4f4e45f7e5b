from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from headwater.errors import StoreUnavailableError
from headwater.gather import Gather
from headwater.testing.clock import settle


class Calls:
    """Doubles numbers; refuses 13, and holds each call until it is let go."""

    def __init__(self, *, held: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        if not held:
            self.gate.set()
        self.error: Exception | None = None

    async def __call__(self, items: Sequence[int]) -> Sequence[int | Exception]:
        self.batches.append(list(items))
        await self.gate.wait()
        if self.error:
            raise self.error
        if 13 in items:
            raise ValueError("13")
        return [KeyError(item) if item == 404 else item * 2 for item in items]


def test_what_gathered_while_a_call_ran_goes_into_the_next_one() -> None:
    async def main() -> None:
        calls = Calls(held=True)
        gather: Gather[int, int] = Gather(calls, items_max=3)
        first = gather.add(1)
        await settle()
        others = [gather.add(item) for item in (2, 3, 4, 5)]
        await settle()
        assert calls.batches == [[1]]
        calls.gate.set()
        assert await first == 2
        assert await asyncio.gather(*others) == [4, 6, 8, 10]
        assert calls.batches == [[1], [2, 3, 4], [5]]

    asyncio.run(main())


def test_too_few_answers_leave_nobody_waiting() -> None:
    async def main() -> None:
        async def carry_out(items: Sequence[int]) -> Sequence[int]:
            return items[:1]

        gather: Gather[int, int] = Gather(carry_out, items_max=10)
        waiting = [gather.add(item) for item in (1, 2)]
        found = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 10)
        assert all(isinstance(one, asyncio.CancelledError) for one in found)
        assert gather._worker is not None
        with pytest.raises(AssertionError, match="each item has its answer"):
            await gather._worker

    asyncio.run(main())


def test_every_item_is_told_as_settled_however_it_ends() -> None:
    async def main() -> None:
        calls, told = Calls(), list[int]()
        gather: Gather[int, int] = Gather(calls, items_max=100, settled=told.append)
        await asyncio.gather(*(gather.add(item) for item in (1, 404, 2)), return_exceptions=True)
        await asyncio.gather(*(gather.add(item) for item in (1, 13)), return_exceptions=True)
        calls.error = StoreUnavailableError("down")
        await asyncio.gather(*(gather.add(item) for item in (1, 2)), return_exceptions=True)
        assert told == [3, 1, 1, 2]
        calls.error, calls.gate = None, asyncio.Event()
        waiting = [gather.add(item) for item in (1, 2)]
        await settle()
        waiting.append(gather.add(3))
        assert gather._worker is not None
        gather._worker.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert told == [3, 1, 1, 2, 3]

    asyncio.run(main())


def test_items_of_one_turn_of_the_loop_share_a_call() -> None:
    async def main() -> None:
        calls = Calls()
        gather: Gather[int, int] = Gather(calls, items_max=100)
        assert await asyncio.gather(*(gather.add(item) for item in range(20, 70))) == [
            item * 2 for item in range(20, 70)
        ]
        assert len(calls.batches) == 1

    asyncio.run(main())


def test_one_bad_item_does_not_fail_its_neighbours() -> None:
    async def main() -> None:
        calls = Calls()
        gather: Gather[int, int] = Gather(calls, items_max=100)
        answers = await asyncio.gather(*(gather.add(item) for item in (1, 13, 404, 2)), return_exceptions=True)
        assert answers[0] == 2
        assert isinstance(answers[1], ValueError)
        assert isinstance(answers[2], KeyError)
        assert answers[3] == 4

    asyncio.run(main())


def test_a_store_that_cannot_commit_is_not_asked_for_each_item_again() -> None:
    async def main() -> None:
        calls = Calls()
        calls.error = StoreUnavailableError()
        gather: Gather[int, int] = Gather(calls, items_max=100)
        answers = await asyncio.gather(*(gather.add(item) for item in (1, 2)), return_exceptions=True)
        assert all(isinstance(answer, StoreUnavailableError) for answer in answers)
        assert calls.batches == [[1, 2]]
        calls.error = None
        assert await gather.add(3) == 6

    asyncio.run(main())


def test_a_waiter_that_gave_up_does_not_disturb_the_others() -> None:
    async def main() -> None:
        calls = Calls(held=True)
        gather: Gather[int, int] = Gather(calls, items_max=100)
        gone, there = gather.add(1), gather.add(2)
        await settle()
        gone.cancel()
        calls.gate.set()
        assert await there == 4

    asyncio.run(main())


def test_drain_returns_once_nothing_waits() -> None:
    async def main() -> None:
        calls = Calls(held=True)
        gather: Gather[int, int] = Gather(calls, items_max=1)
        await gather.drain()
        answers = [gather.add(item) for item in (1, 2)]
        draining = asyncio.create_task(gather.drain())
        await settle()
        assert not draining.done()
        calls.gate.set()
        await draining
        assert [answer.result() for answer in answers] == [2, 4]

    asyncio.run(main())


def test_cancelled_work_leaves_nobody_waiting() -> None:
    async def main() -> None:
        calls = Calls(held=True)
        gather: Gather[int, int] = Gather(calls, items_max=1)
        answers = [gather.add(item) for item in (1, 2)]
        await settle()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        for answer in answers:
            with pytest.raises(asyncio.CancelledError):
                await answer

    asyncio.run(main())
