"""The only place that asks for the time, sleeps, or draws a random number: everything else is given a `Clock`.

Instants are aware UTC in Python and whole microseconds since 1970 in the store.
"""

from __future__ import annotations

import asyncio
import random
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
OFFSET_SECONDS_MIN = 0.25  # between two machines' clocks: less is not worth a step
_MICROSECOND = timedelta(microseconds=1)


def to_micros(instant: datetime) -> int:
    """Whole microseconds since 1970 of an aware instant; a naive one is an error of ours."""
    assert instant.tzinfo is not None, "instants are aware"
    return (instant - EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """The aware UTC instant of so many microseconds since 1970."""
    return EPOCH + timedelta(0, 0, micros)


class Clock(Protocol):
    """Time as the platform sees it: the real one, or a test's."""

    def now(self) -> datetime:
        """The present instant, aware UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back, for durations."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds of this clock."""
        ...

    def random(self) -> float:
        """A number in [0, 1), for jitter; seeded in tests."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """See `Clock`."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """See `Clock`."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """See `Clock`."""
        await asyncio.sleep(seconds)

    def random(self) -> float:
        """See `Clock`."""
        return random.random()  # noqa: S311  jitter is no secret


class SharedClock:
    """The time of a database that many machines share, told by this machine's steady clock.

    So a machine whose clock is wrong, or is put right meanwhile, decides nothing wrongly. What differs by less than
    `OFFSET_SECONDS_MIN` from what was learned before is the way there and back, and is left as it is.
    """

    def __init__(self, own: Clock) -> None:
        self._own = own
        self._zero = self._own_zero()

    def set_right(self, offset_seconds: float) -> None:
        """Learn how far the machine's own clock is ahead of the database's."""
        found = self._own_zero() - timedelta(seconds=offset_seconds)
        if abs(found - self._zero).total_seconds() >= OFFSET_SECONDS_MIN:
            self._zero = found

    def now(self) -> datetime:
        """See `Clock`."""
        return self._zero + timedelta(seconds=self._own.monotonic())

    def _own_zero(self) -> datetime:
        """When the machine's steady clock was at zero, by its other one."""
        return self._own.now() - timedelta(seconds=self._own.monotonic())

    def monotonic(self) -> float:
        """See `Clock`."""
        return self._own.monotonic()

    async def sleep(self, seconds: float) -> None:
        """See `Clock`."""
        await self._own.sleep(seconds)

    def random(self) -> float:
        """See `Clock`."""
        return self._own.random()
