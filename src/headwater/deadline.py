"""Limits on how long a task may wait, by the clock that is passed in, with no timer and no task for each.

One sweeper looks at all limits once in `SWEEP_SECONDS`, until there are none: a limit costs an entry in a set, and
holds to that precision.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from headwater.clock import Clock

SWEEP_SECONDS = 1.0


class Deadlines:
    """The limits of one event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._limits: set[Limit] = set()
        self._sweeper: asyncio.Task[None] | None = None

    def limit(self, seconds: float) -> Limit:
        """A context that cancels what its task awaits after so many seconds, and raises `TimeoutError` in its place."""
        if self._sweeper is None or self._sweeper.done():
            self._loop = asyncio.get_running_loop()
            self._sweeper = self._loop.create_task(self._sweep())
        task = asyncio.current_task(self._loop)
        assert task is not None, "a limit is of a task"
        return Limit(self._limits, task, self._clock.monotonic() + seconds)

    async def _sweep(self) -> None:
        # It begins with a rest: most limits are over before they were ever looked at.
        while True:
            await self._clock.sleep(SWEEP_SECONDS)
            now = self._clock.monotonic()
            for limit in [limit for limit in self._limits if limit.due <= now]:
                limit.expire()
            if not self._limits:
                return


class Limit:
    """One limit on a task, in force within the block."""

    __slots__ = ("_cancelled", "_cancelling", "_limits", "_task", "due")

    def __init__(self, limits: set[Limit], task: asyncio.Task[object], due: float) -> None:
        self.due = due
        self._limits = limits
        self._task = task
        self._cancelling = task.cancelling()  # requests to cancel the task that came before
        self._cancelled = 0  # our own

    @property
    def is_expired(self) -> bool:
        """Its time was up before it was left."""
        return self._cancelled > 0

    def expire(self) -> None:
        """Cancel what the task awaits; a task that swallows it is told again at the next sweep."""
        self._cancelled += 1
        self._task.cancel()

    def __enter__(self) -> Limit:
        self._limits.add(self)
        return self

    def __exit__(
        self, type: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._limits.discard(self)
        if not self._cancelled:
            return
        for _ in range(self._cancelled):
            remaining = self._task.uncancel()
        # Somebody else's cancellation goes on; only our own becomes a timeout.
        if remaining <= self._cancelling and type is asyncio.CancelledError:
            raise TimeoutError from value
