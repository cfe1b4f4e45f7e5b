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
_MICROSECOND = timedelta(microseconds=1)


def to_micros(instant: datetime) -> int:
    """Whole microseconds since 1970 of an aware instant; a naive one is an error of ours."""
    assert instant.tzinfo is not None, "instants are aware"
    return (instant - EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """The aware UTC instant of so many microseconds since 1970."""
    return EPOCH + timedelta(microseconds=micros)


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
