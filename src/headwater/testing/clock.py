"""A clock that stands still until it is told to move."""

from __future__ import annotations

import asyncio
import heapq
import random
from datetime import UTC, datetime, timedelta

START = datetime(2026, 1, 1, tzinfo=UTC)


class FakeClock:
    """A `Clock` whose time is an argument: `advance` moves it and wakes the sleepers whose time has come."""

    def __init__(self, start: datetime = START, *, seed: int = 0) -> None:
        self._start = start
        self._elapsed = 0.0
        self._random = random.Random(seed)  # noqa: S311  a test's jitter
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def now(self) -> datetime:
        """See `Clock`."""
        return self._start + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        """See `Clock`."""
        return self._elapsed

    def random(self) -> float:
        """See `Clock`."""
        return self._random.random()

    async def sleep(self, seconds: float) -> None:
        """See `Clock`."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        waiter = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._sleepers, (self._elapsed + seconds, self._count, waiter))
        await waiter

    @property
    def sleepers(self) -> int:
        """How many wait."""
        return len(self._sleepers)

    async def advance(self, seconds: float) -> None:
        """Move on, waking each sleeper at its own instant, and let what they do settle."""
        end = self._elapsed + seconds
        while self._sleepers and self._sleepers[0][0] <= end:
            at, _, waiter = heapq.heappop(self._sleepers)
            self._elapsed = max(self._elapsed, at)
            if not waiter.done():
                waiter.set_result(None)
            await settle()
        self._elapsed = end
        await settle()


async def settle(turns: int = 20) -> None:
    """Let everything that is ready run."""
    for _ in range(turns):
        await asyncio.sleep(0)
