"""Limits on how long a task may wait, by the clock that is passed in, with no timer and no task for each.

One sweeper looks at all limits once in `SWEEP_SECONDS`, and lives only while there are any: a limit costs an entry in a
set, and holds to that precision.
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
        return Limit(self, self._clock.monotonic() + seconds)

    def add(self, limit: Limit) -> None:
        """Watch a limit; its context does this."""
        self._limits.add(limit)
        if self._sweeper is None or self._sweeper.done():
            self._sweeper = asyncio.get_running_loop().create_task(self._sweep())

    def remove(self, limit: Limit) -> None:
        """Watch it no longer; its context does this."""
        self._limits.discard(limit)

    async def _sweep(self) -> None:
        while self._limits:
            await self._clock.sleep(SWEEP_SECONDS)
            now = self._clock.monotonic()
            for limit in [limit for limit in self._limits if limit.due <= now]:
                limit.expire()


class Limit:
    """One limit, entered by the task that it limits."""

    __slots__ = ("_cancelled", "_cancelling", "_deadlines", "_task", "due")

    def __init__(self, deadlines: Deadlines, due: float) -> None:
        self.due = due
        self._deadlines = deadlines
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0  # requests to cancel the task that came before
        self._cancelled = 0  # our own

    @property
    def is_expired(self) -> bool:
        """Its time was up before it was left."""
        return self._cancelled > 0

    def expire(self) -> None:
        """Cancel what the task awaits; a task that swallows it is told again at the next sweep."""
        assert self._task is not None
        self._cancelled += 1
        self._task.cancel()

    def __enter__(self) -> Limit:
        self._task = asyncio.current_task()
        assert self._task is not None, "a limit is entered inside a task"
        self._cancelling = self._task.cancelling()
        self._deadlines.add(self)
        return self

    def __exit__(
        self, type: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._deadlines.remove(self)
        if not self._cancelled:
            return
        assert self._task is not None
        for _ in range(self._cancelled):
            remaining = self._task.uncancel()
        # Somebody else's cancellation goes on; only our own becomes a timeout.
        if remaining <= self._cancelling and type is asyncio.CancelledError:
            raise TimeoutError from value
