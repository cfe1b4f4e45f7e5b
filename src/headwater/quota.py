"""How much of a provider one connection may take: its concurrency and its rate, learned from the provider's answers.

A refusal (429) halves the concurrency and opens a window in which nothing is asked; every success wins a little of it
back. Rate-limit headers that run low spread what is left over the time until the provider counts anew, so that the
refusal does not come. Who must wait is served by priority (webhooks, polls, backfills), then in order of arrival.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import count

from headwater.backoff import obeyed_seconds
from headwater.clock import Clock
from headwater.errors import RateLimitedError

CONCURRENCY_MAX = 32  # requests of one connection at once, before anything was learned
WAIT_SECONDS_MAX = 30.0  # a longer wait belongs on a row of the store, not in a sleeping task
BLOCK_SECONDS = 1.0  # silence after a refusal that names no time
SHARED_SECONDS_MIN = 5.0  # a silence this long is told to other nodes; a shorter one is over before they know
LOW_SHARE = 0.1  # of the provider's limit: below it, what is left is spread
LOW_REMAINING = 5  # likewise, where the provider does not tell its limit
EPOCH_SECONDS_MIN = 1e9  # a reset beyond this is an instant, not a number of seconds to go
EPOCH_MILLISECONDS_MIN = 1e12

_REMAINING = ("ratelimit-remaining", "x-ratelimit-remaining", "x-rate-limit-remaining")
_Place = tuple[int, int, asyncio.Event]  # priority, arrival, "look again"


@dataclass(frozen=True, kw_only=True)
class RateHint:
    """What an answer's headers say about the provider's limit."""

    remaining: int
    reset_seconds: float  # until it counts anew
    limit: int | None


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """What a connection may take now; instants are seconds of the monotonic clock."""

    concurrency_max: int = CONCURRENCY_MAX
    concurrency: float = CONCURRENCY_MAX
    reduced_at: float = float("-inf")  # of the last halving: what was asked before it does not halve again
    blocked_until: float = 0.0
    interval_seconds: float = 0.0  # between two requests
    interval_until: float = 0.0

    def refused(self, *, at: float, begun_at: float, retry_after_seconds: float | None) -> Allowance:
        """After the provider refused a request that was made at `begun_at`."""
        silence = BLOCK_SECONDS if retry_after_seconds is None else obeyed_seconds(retry_after_seconds)
        blocked = replace(self, blocked_until=max(self.blocked_until, at + silence))
        # The requests of one burst are refused together: they are one lesson, not many.
        if begun_at < self.reduced_at:
            return blocked
        return replace(blocked, concurrency=max(1.0, self.concurrency / 2), reduced_at=at)

    def accepted(self, hint: RateHint | None, *, at: float) -> Allowance:
        """After the provider answered."""
        more = min(float(self.concurrency_max), self.concurrency + 1 / self.concurrency)
        allowance = replace(self, concurrency=more)
        if hint is None:
            return allowance
        if hint.remaining <= 0:
            return replace(allowance, blocked_until=max(self.blocked_until, at + hint.reset_seconds))
        low = LOW_REMAINING if hint.limit is None else hint.limit * LOW_SHARE
        interval = hint.reset_seconds / hint.remaining if hint.remaining < low else 0.0
        return replace(allowance, interval_seconds=interval, interval_until=at + hint.reset_seconds)

    def delay_seconds(self, *, at: float, last_at: float) -> float:
        """How long from `at` nothing may be asked, when the last request was made at `last_at`."""
        until = self.blocked_until
        if self.interval_seconds and at < self.interval_until:
            until = max(until, last_at + self.interval_seconds)
        return max(0.0, until - at)


class Quota:
    """The gate that every request of one connection passes; while nothing limits it, it costs next to nothing."""

    def __init__(
        self,
        clock: Clock,
        *,
        concurrency_max: int = CONCURRENCY_MAX,
        on_silence: Callable[[float], None] = lambda _: None,
    ) -> None:
        """`on_silence` is told the seconds for which the provider wants nothing, from `SHARED_SECONDS_MIN` on."""
        self._clock = clock
        self._on_silence = on_silence
        self._allowance = Allowance(concurrency_max=concurrency_max, concurrency=concurrency_max)
        self._in_flight = 0
        self._last_at = float("-inf")
        self._queue: list[_Place] = []
        self._arrivals = count()

    @property
    def allowance(self) -> Allowance:
        """What was learned so far."""
        return self._allowance

    @property
    def in_flight(self) -> int:
        """How many requests are under way."""
        return self._in_flight

    async def take(self, priority: int = 0) -> float:
        """Wait for a slot and take it; the instant of it (monotonic), to be given to `refused`.

        Raises `RateLimitedError` where the provider's own word means a wait of over `WAIT_SECONDS_MAX`.
        """
        at = self._clock.monotonic()
        if self._queue or self._wait_seconds(at) > 0 or self._is_full():
            at = await self._wait(priority)
        self._in_flight += 1
        self._last_at = at
        return at

    def give_back(self) -> None:
        """Give back the slot of a request that is over, however it ended."""
        self._in_flight -= 1
        self._nudge()

    def accepted(self, headers: Mapping[str, str]) -> None:
        """Learn from an answer that was no refusal."""
        hint = None
        if any(name in headers for name in _REMAINING):
            hint = rate_hint(headers, now=self._clock.now())
        if hint is not None or self._allowance.concurrency < self._allowance.concurrency_max:
            self._allowance = self._allowance.accepted(hint, at=self._clock.monotonic())

    def refused(self, *, begun_at: float, retry_after_seconds: float | None) -> None:
        """Learn from a refusal."""
        self._allowance = self._allowance.refused(
            at=self._clock.monotonic(), begun_at=begun_at, retry_after_seconds=retry_after_seconds
        )
        if retry_after_seconds is not None and (silence := obeyed_seconds(retry_after_seconds)) >= SHARED_SECONDS_MIN:
            self._on_silence(silence)

    def block(self, seconds: float) -> None:
        """Ask nothing for so long: another process was told so."""
        until = max(self._allowance.blocked_until, self._clock.monotonic() + seconds)
        self._allowance = replace(self._allowance, blocked_until=until)

    def _is_full(self) -> bool:
        return self._in_flight >= int(self._allowance.concurrency)

    def _wait_seconds(self, at: float) -> float:
        return self._allowance.delay_seconds(at=at, last_at=self._last_at)

    async def _wait(self, priority: int) -> float:
        # Only the head of the queue sleeps or looks at the slots; the others wait until they are the head.
        mine = (priority, next(self._arrivals), asyncio.Event())
        insort(self._queue, mine)
        try:
            while True:
                mine[2].clear()
                at = self._clock.monotonic()
                delay = self._wait_seconds(at)
                if delay > WAIT_SECONDS_MAX:
                    raise RateLimitedError(
                        f"The provider allows this connection nothing for another {delay:.0f} s.",
                        retry_after_seconds=delay,
                    )
                if self._queue[0] is not mine or (delay == 0 and self._is_full()):
                    await mine[2].wait()
                elif delay > 0:
                    await self._clock.sleep(delay)
                else:
                    return at
        finally:
            self._queue.remove(mine)
            # The next one looks after the slot was taken: `take` goes on without a pause.
            self._nudge()

    def _nudge(self) -> None:
        if self._queue:
            self._queue[0][2].set()


def retry_after_seconds(headers: Mapping[str, str], *, now: datetime) -> float | None:
    """How long the provider wants silence: `Retry-After`, in seconds or as a date, or else when its limit is reset."""
    value = headers.get("retry-after")
    if value is not None:
        seconds = _number(value)
        if seconds is None:
            seconds = _until(value, now)
        if seconds is not None:
            return obeyed_seconds(seconds)
    hint = rate_hint(headers, now=now)
    return hint.reset_seconds if hint is not None and hint.remaining <= 0 else None


def rate_hint(headers: Mapping[str, str], *, now: datetime) -> RateHint | None:
    """`RateLimit-*` and `X-RateLimit-*` headers, where they say enough to act on."""
    for name in _REMAINING:
        prefix = name.removesuffix("remaining")
        remaining, reset = _number(headers.get(name)), _number(headers.get(prefix + "reset"))
        if remaining is None or reset is None:
            continue
        limit = _number(headers.get(prefix + "limit"))
        return RateHint(
            remaining=int(remaining),
            reset_seconds=obeyed_seconds(_to_go(reset, now)),
            limit=int(limit) if limit is not None else None,
        )
    return None


def _number(value: str | None) -> float | None:
    try:
        number = float(value) if value is not None else None
    except ValueError:
        return None
    return number if number is not None and abs(number) < float("inf") else None


def _to_go(reset: float, now: datetime) -> float:
    """Providers tell seconds to go, an instant in seconds, or one in milliseconds, all under the same name."""
    if reset < EPOCH_SECONDS_MIN:
        return reset
    return (reset / 1000 if reset >= EPOCH_MILLISECONDS_MIN else reset) - now.timestamp()


def _until(date: str, now: datetime) -> float | None:
    try:
        instant = parsedate_to_datetime(date)
    except (ValueError, TypeError, OverflowError):
        return None
    aware = instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)
    return (aware - now).total_seconds()
