"""How long to wait before the same work is tried again: exponential, capped, with full jitter. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

RETRY_AFTER_SECONDS_MAX = 24 * 3600.0  # a provider's word is obeyed up to here: a mad header must not silence for ever


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """A family of waits: the nth is drawn from `[wait_min, wait_initial * 2 ** (n - 1)]`, never above `wait_max`."""

    wait_initial: float  # seconds: the upper bound of the first wait
    wait_max: float  # seconds
    wait_min: float = 0.0  # seconds

    def ceiling_seconds(self, attempt: int) -> float:
        """The longest wait after so many attempts (1 for the first)."""
        # The exponent is bounded too: 2 ** 2000 does not fit a float.
        return max(self.wait_min, min(self.wait_max, self.wait_initial * 2.0 ** min(max(attempt, 1) - 1, 64)))

    def delay_seconds(self, attempt: int, *, random: float, retry_after_seconds: float | None = None) -> float:
        """The wait after so many attempts, for a `random` drawn from [0, 1).

        Never shorter than the provider's own `retry_after_seconds`, within `RETRY_AFTER_SECONDS_MAX`.
        """
        ceiling = self.ceiling_seconds(attempt)
        drawn = min(ceiling, self.wait_min + random * (ceiling - self.wait_min))
        return max(drawn, obeyed_seconds(retry_after_seconds))


def obeyed_seconds(retry_after_seconds: float | None) -> float:
    """A provider's `Retry-After` brought to a sane number of seconds; 0.0 where it said nothing usable."""
    if retry_after_seconds is None or math.isnan(retry_after_seconds):
        return 0.0
    return min(max(0.0, retry_after_seconds), RETRY_AFTER_SECONDS_MAX)
