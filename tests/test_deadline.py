from __future__ import annotations

import asyncio

import pytest

from headwater.deadline import SWEEP_SECONDS, Deadlines
from headwater.testing.clock import FakeClock, settle


def test_what_is_quick_is_left_alone() -> None:
    async def main() -> None:
        clock = FakeClock()
        with Deadlines(clock).limit(5) as limit:
            await asyncio.sleep(0)
        assert not limit.is_expired
        await clock.advance(60)
        assert not asyncio.current_task().cancelling()  # type: ignore[union-attr]

    asyncio.run(main())


def test_what_is_slow_becomes_a_timeout_and_the_task_lives_on() -> None:
    async def main() -> None:
        clock = FakeClock()
        deadlines = Deadlines(clock)

        async def slow() -> str:
            limit = deadlines.limit(5)
            with pytest.raises(TimeoutError), limit:
                await asyncio.get_running_loop().create_future()
            assert limit.is_expired
            await asyncio.sleep(0)
            return "on"

        task = asyncio.create_task(slow())
        await settle()
        await clock.advance(4)
        assert not task.done()
        await clock.advance(SWEEP_SECONDS + 1)
        assert task.result() == "on"
        assert not task.cancelling()

    asyncio.run(main())


def test_a_cancellation_from_elsewhere_stays_one() -> None:
    async def main() -> None:
        clock = FakeClock()
        deadlines = Deadlines(clock)

        async def slow() -> None:
            with deadlines.limit(5):
                await asyncio.get_running_loop().create_future()

        task = asyncio.create_task(slow())
        await settle()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_a_task_that_swallows_its_timeout_is_told_again() -> None:
    async def main() -> None:
        clock = FakeClock()
        deadlines = Deadlines(clock)
        swallowed = 0

        async def stubborn() -> None:
            nonlocal swallowed
            with deadlines.limit(5):
                for _ in range(3):
                    try:
                        await asyncio.get_running_loop().create_future()
                    except asyncio.CancelledError:
                        swallowed += 1
                await asyncio.get_running_loop().create_future()

        task = asyncio.create_task(stubborn())
        await settle()
        await clock.advance(20)
        with pytest.raises(TimeoutError):
            await task
        assert swallowed == 3
        assert not task.cancelling()

    asyncio.run(main())


def test_an_error_of_its_own_is_not_hidden_by_the_limit() -> None:
    async def main() -> None:
        with pytest.raises(KeyError), Deadlines(FakeClock()).limit(5):
            raise KeyError

    asyncio.run(main())


def test_the_sweeper_lives_only_while_something_is_limited() -> None:
    async def main() -> None:
        clock = FakeClock()
        deadlines = Deadlines(clock)
        assert clock.sleepers == 0
        with deadlines.limit(5):
            await settle()
            assert clock.sleepers == 1
        await clock.advance(2 * SWEEP_SECONDS)
        assert clock.sleepers == 0
        with deadlines.limit(5):
            await settle()
            assert clock.sleepers == 1

    asyncio.run(main())
