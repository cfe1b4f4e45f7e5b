"""Five-field cron lines in their IANA zone: the next tick, the ticks before, and the cadence in words. Pure.

Around a change of the clocks they behave as Debian's cron: a job at a fixed time fires once in the autumn fold and once
in the spring gap; one with a wildcard minute or hour follows the elapsed time.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from headwater.errors import ConfigError, near_miss

FIELDS = 5
NEXT_REMEMBERED_MAX = 16_384  # computing one takes some 70 microseconds, and streams share lines
PREVIOUS_REMEMBERED_MAX = 512  # each holds up to a strip of ticks
_MINUTE = timedelta(minutes=1)
# Longer than any change of the clocks: a search backwards begins this much later, so that the fold hides no tick.
_FOLD = timedelta(hours=3)


def validate(line: str, zone: str = "UTC") -> None:
    """Raise `ConfigError`, saying what is wrong, unless `line` is a five-field cron line that ticks in a known zone."""
    next_tick(line, zone, datetime(2026, 1, 1, tzinfo=UTC))


def next_tick(line: str, zone: str, after: datetime) -> datetime:
    """The first tick strictly after `after`, aware UTC.

    Raises `ConfigError` for a line that is none, never ticks, or names an unknown zone.
    """
    # Ticks fall on whole minutes, so the answer is the same for every instant of one minute.
    return _next_tick(line, zone, after.replace(second=0, microsecond=0))


def previous_ticks(line: str, zone: str, before: datetime, count: int) -> tuple[datetime, ...]:
    """The last `count` ticks strictly before `before`, oldest first, aware UTC."""
    minute = before.replace(second=0, microsecond=0)
    return _previous_ticks(line, zone, minute if minute == before else minute + _MINUTE, count)


@lru_cache(maxsize=NEXT_REMEMBERED_MAX)
def ticks_between(line: str, zone: str, start: datetime, end: datetime, *, limit: int) -> int:
    """How many ticks lie in `(start, end]`, counted up to `limit`."""
    count = 0
    tick = start
    while count < limit and (tick := next_tick(line, zone, tick)) <= end:
        count += 1
    return count


def ticks_around(line: str, zone: str, at: datetime) -> tuple[datetime, datetime, datetime]:
    """The last tick up to `at`, and the two after it, aware UTC."""
    return _ticks_around(line, zone, at.replace(second=0, microsecond=0))


@lru_cache(maxsize=NEXT_REMEMBERED_MAX)
def _ticks_around(line: str, zone: str, minute: datetime) -> tuple[datetime, datetime, datetime]:
    following = next_tick(line, zone, minute)
    (last,) = previous_ticks(line, zone, following, 1)
    return last, following, next_tick(line, zone, following)


@lru_cache(maxsize=NEXT_REMEMBERED_MAX)
def describe(line: str, zone: str = "UTC") -> str:
    """The cadence in words: "every 15 minutes", "at 02:30 every day (Europe/Berlin)"."""
    minute, hour, *days = _fields(line)
    if days == ["*", "*", "*"]:
        if hour == "*" and (step := _step(minute, 60)):
            return "every minute" if step == 1 else f"every {step} minutes"
        if minute == "0" and (step := _step(hour, 24)):
            return "every hour" if step == 1 else f"every {step} hours ({zone})"
    words = _parsed(line, zone, datetime(2026, 1, 1, tzinfo=UTC)).explain()
    words = words[:1].lower() + words[1:]
    return words if hour == "*" else f"{words} ({zone})"


def _step(field: str, size: int) -> int | None:
    if field == "*":
        return 1
    step = field.removeprefix("*/")
    return int(step) if step != field and step.isdecimal() and int(step) and size % int(step) == 0 else None


@lru_cache(maxsize=NEXT_REMEMBERED_MAX)
def _next_tick(line: str, zone: str, after: datetime) -> datetime:
    for tick in _parsed(line, zone, after):
        # In the second pass through a fold a fixed time is answered with its first pass, which is over.
        if (instant := tick.astimezone(UTC)) > after:
            return instant
    raise ConfigError(f"The schedule `{line}` never ticks.", hint="Check its day and month.")


@lru_cache(maxsize=PREVIOUS_REMEMBERED_MAX)
def _previous_ticks(line: str, zone: str, before: datetime, count: int) -> tuple[datetime, ...]:
    found: list[datetime] = []
    limit = before
    for tick in _parsed(line, zone, before + _FOLD, reverse=True):
        if len(found) >= count:
            break
        # A gap gathers several fixed times into one instant: it is one tick.
        if (instant := tick.astimezone(UTC)) < limit:
            found.append(instant)
            limit = instant
    return tuple(reversed(found))


def _parsed(line: str, zone: str, at: datetime, *, reverse: bool = False) -> CronSim:
    _fields(line)
    try:
        return CronSim(line, at.astimezone(_zone(zone)), reverse)
    except CronSimError as error:
        raise ConfigError(f"The schedule `{line}` is no cron line: {_lower(str(error))}.") from error


def _fields(line: str) -> list[str]:
    fields = line.split()
    if len(fields) != FIELDS:
        raise ConfigError(
            f"The schedule `{line}` has {len(fields)} fields, not {FIELDS}.",
            hint="Write minute, hour, day of month, month, day of week: `*/15 * * * *`.",
        )
    return fields


@lru_cache(maxsize=1024)
def _zone(zone: str) -> tzinfo:
    if zone == "UTC":
        return UTC
    try:
        return ZoneInfo(zone)
    except (KeyError, ValueError, OSError) as error:
        raise ConfigError(f"There is no time zone `{zone}`.", hint=near_miss(zone, available_timezones())) from error


def _lower(words: str) -> str:
    return words[:1].lower() + words[1:]
