"""The verdict on a stream: one word and one sentence, by its state and an instant.

Pure: values and an instant in, values out. A poll stream is measured against the ticks of its own schedule:

last success ──── expected tick ──grace──> late ──── next tick ──grace──> failing
    fresh               on track            1 missed        2 missed
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, tzinfo
from enum import StrEnum
from functools import lru_cache
from zoneinfo import ZoneInfo

import msgspec
from msgspec.structs import replace

from headwater import cron
from headwater.run import RunState, StreamState

GRACE_SECONDS_MIN = 120.0

GRACE_SHARE = 0.25  # of the interval

PENDING_ON_TRACK_SECONDS = 60.0  # deliveries that wait since before the last arrival plus this are worth a word

PENDING_LATE_SECONDS = 900.0

MISSED_COUNTED_MAX = 100

ERROR_CHARACTERS_MAX = 160

DRIFT_WORTH_A_WORD = 0.01

LOCAL_TIMES_REMEMBERED_MAX = 16_384


class Status(StrEnum):
    """The one word for a stream; the order here is worst first."""

    NEEDS_ATTENTION = "needs attention"  # credentials or settings: nothing moves until an operator acts
    FAILING = "failing"  # over two intervals late, or retries exhausted
    LATE = "late"  # over one interval
    ON_TRACK = "on track"  # late but inside its grace, or a retry is pending
    NEVER_RAN = "never ran"
    PAUSED = "paused"  # by an operator
    FRESH = "fresh"


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What can be said of a stream at an instant."""

    status: Status
    sentence: str  # the status with its reason
    age_seconds: float | None = None  # since it was last known complete: last success, or last delivery
    age_ratio: float | None = None  # age as a share of what is expected: 1.0 when the next success is due
    expected_at: datetime | None = None  # of the next success; in the past when it is overdue
    grace_seconds: float | None = None  # past `expected_at`, before it counts as late
    interval_seconds: float | None = None  # between two ticks
    missed: int = 0  # ticks whose grace is over, without a success since; counted up to MISSED_COUNTED_MAX
    next_at: datetime | None = None  # of the next attempt: retry or tick
    lag_seconds: float = 0.0  # past `expected_at`


def verdict(state: StreamState, at: datetime) -> Verdict:
    """The verdict on a stream at `at`."""
    if state.mode == "poll" and state.schedule:
        found = _poll(state, _Expectation.of(state), at)
    elif state.mode == "webhook":
        found = _webhook(state, at)
    else:
        found = _on_demand(state, at)
    return _held(state, found, at) or found


def brief(state: StreamState, at: datetime) -> tuple[Status, float]:
    """The status and the lag of a verdict, at a third of its cost."""
    if state.mode == "poll" and state.schedule:
        due = _Expectation.of(state)
        status, lag = _poll_status(state, due, at)[0], max(0.0, (at - due.expected_at).total_seconds())
    elif state.mode == "webhook":
        status, lag = _webhook_standing(state, at)
    else:
        status, lag = _on_demand_status(state), 0.0
    held = _held_status(state)
    return held or status, 0.0 if held is Status.PAUSED else lag


def duration(seconds: float) -> str:
    """A span in the one unit that a reader needs: "40 s", "12 min", "3 h", "2 days"."""
    seconds = max(0, round(seconds))
    if seconds < 90:
        return f"{seconds} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    if seconds < 48 * 3600:
        return f"{round(seconds / 3600)} h"
    return f"{round(seconds / 86400)} days"


class _Expectation(msgspec.Struct, frozen=True, kw_only=True):
    """When a poll stream should succeed, and from when on it is late and failing."""

    since: datetime  # the last success, or the declaration
    expected_at: datetime
    late_at: datetime
    failing_at: datetime
    interval_seconds: float

    @classmethod
    def of(cls, state: StreamState) -> _Expectation:
        line, zone = state.schedule or "", state.timezone
        since = state.last_success_at or state.registered_at
        last, first, second = cron.ticks_around(line, zone, since)
        # The shorter of the two gaps, so that the night before a working day does not count as its interval.
        interval = min(first - last, second - first).total_seconds()
        if state.expect_within_seconds is not None:
            silence = timedelta(seconds=state.expect_within_seconds)
            late, failing = since + silence, since + 2 * silence
            first = min(first, late)
        else:
            grace = timedelta(seconds=max(GRACE_SECONDS_MIN, GRACE_SHARE * interval))
            # With a grace beyond the interval the second tick may be in sight before the first counts as missed.
            late, failing = first + grace, second + grace
        return cls(since=since, expected_at=first, late_at=late, failing_at=failing, interval_seconds=interval)

    @property
    def grace_seconds(self) -> float:
        return (self.late_at - self.expected_at).total_seconds()

    def missed(self, state: StreamState, at: datetime) -> int:
        until = at - timedelta(seconds=self.grace_seconds)
        if at <= self.late_at or until <= self.since:
            return 0
        return cron.ticks_between(state.schedule or "", state.timezone, self.since, until, limit=MISSED_COUNTED_MAX)


def _poll(state: StreamState, due: _Expectation, at: datetime) -> Verdict:
    age = (at - state.last_success_at).total_seconds() if state.last_success_at else None
    span = (due.expected_at - due.since).total_seconds()
    status, reason = _poll_status(state, due, at)
    missed, next_at = due.missed(state, at), _next_attempt(state)
    return Verdict(
        status=status,
        sentence=_poll_sentence(state, status, due.expected_at, missed, next_at, reason, at),
        age_seconds=age,
        age_ratio=age / span if age is not None and span > 0 else None,
        expected_at=due.expected_at,
        grace_seconds=due.grace_seconds,
        interval_seconds=due.interval_seconds,
        missed=missed,
        next_at=next_at,
        lag_seconds=max(0.0, (at - due.expected_at).total_seconds()),
    )


def _poll_status(state: StreamState, due: _Expectation, at: datetime) -> tuple[Status, str]:
    """The status, and the error behind it where there is one."""
    error = _error(state)
    if _is_first(state):
        return Status.NEVER_RAN, ""
    if at > due.failing_at:
        return Status.FAILING, error
    if (
        state.consecutive_failures
    ):  # runs that ended failed: it stays so until one succeeds, whatever is tried meanwhile
        return Status.FAILING, error
    if at > due.late_at:
        return Status.LATE, error
    if state.running_state is RunState.RETRYING or at > due.expected_at:
        return Status.ON_TRACK, error if state.running_state is RunState.RETRYING else ""
    return (Status.FRESH if state.last_success_at else Status.NEVER_RAN), ""


def _is_first(state: StreamState) -> bool:
    """It waits for its first run, or that is under way: a first load may take longer than an interval."""
    if state.last_success_at is not None or state.consecutive_failures:
        return False
    return state.last_attempt_at is None or state.running_state is RunState.RUNNING


def _poll_sentence(
    state: StreamState,
    status: Status,
    expected_at: datetime,
    missed: int,
    next_at: datetime | None,
    reason: str,
    at: datetime,
) -> str:
    expected = _clock_time(expected_at, at, state.timezone)
    last = _clock_time(state.last_success_at, at, state.timezone) if state.last_success_at else None
    head = _head(status)
    if status is Status.FRESH:
        return f"{head}: last success {last}, next {expected}."
    if status is Status.NEVER_RAN:
        under_way = state.running_state is RunState.RUNNING
        cancelled = "no success yet, " if state.last_attempt_at else ""
        words = "the first run is under way" if under_way else f"{cancelled}expected {expected}{_missed(missed)}"
        return f"{head}: {words}."
    overdue = f"expected {expected}, " if at > expected_at else ""
    facts = f"{overdue}{f'last success {last}' if last else 'never succeeded'}{_missed(missed)}"
    if state.consecutive_failures > 1:
        facts += f"; {state.consecutive_failures} failures in a row"
    return " ".join(filter(None, [f"{head}: {facts}.", reason, _next_try(state, next_at, at)]))


def _next_try(state: StreamState, next_at: datetime | None, at: datetime) -> str:
    if state.running_state is RunState.RUNNING:
        return "A run is under way."
    if next_at is None:
        return ""
    if next_at <= at:
        return "The next try is due."
    silence = " (the provider asked for silence)" if state.blocked_until == next_at else ""
    return f"Next try in {duration((next_at - at).total_seconds())}{silence}."


def _next_attempt(state: StreamState) -> datetime | None:
    attempt = state.retry_at if state.running_state is RunState.RETRYING else state.next_tick_at
    if attempt and state.blocked_until:
        return max(attempt, state.blocked_until)
    return attempt


def _webhook(state: StreamState, at: datetime) -> Verdict:
    """Dead letters are retries exhausted, hence failing; silence is late only where a rate is expected."""
    last, silence = state.last_delivery_at, state.expect_within_seconds
    expected = _expected_delivery(state)
    age = (at - last).total_seconds() if last else None
    status, lag = _webhook_standing(state, at)
    return Verdict(
        status=status,
        sentence=_webhook_sentence(state, status, expected if expected and at > expected else None, at),
        age_seconds=age,
        age_ratio=age / silence if age is not None and silence else None,
        expected_at=expected,
        grace_seconds=0.0 if silence else None,
        next_at=state.retry_at,
        lag_seconds=lag,
    )


def _expected_delivery(state: StreamState) -> datetime | None:
    silence = state.expect_within_seconds
    return (state.last_delivery_at or state.registered_at) + timedelta(seconds=silence) if silence else None


def _webhook_standing(state: StreamState, at: datetime) -> tuple[Status, float]:
    """The status, and the lag: past what is expected, or the time that deliveries wait."""
    last, expected = state.last_delivery_at, _expected_delivery(state)
    age = (at - last).total_seconds() if last else None
    lag = max(0.0, (at - expected).total_seconds()) if expected else 0.0
    return _webhook_status(state, age, lag), lag or (age if state.pending and age else 0.0)


def _webhook_status(state: StreamState, age: float | None, lag: float) -> Status:
    if state.dead:
        return Status.FAILING
    if age is None:
        return Status.NEVER_RAN
    silence = state.expect_within_seconds
    if silence and age > 2 * silence:
        return Status.FAILING
    # The last arrival is the youngest that waits: the oldest has waited at least as long.
    waited = age if state.pending else 0.0
    if lag or waited > PENDING_LATE_SECONDS:
        return Status.LATE
    return Status.ON_TRACK if waited > PENDING_ON_TRACK_SECONDS else Status.FRESH


def _webhook_sentence(state: StreamState, status: Status, expected_by: datetime | None, at: datetime) -> str:
    last = (
        f"last delivery {_clock_time(state.last_delivery_at, at, 'UTC')}"
        if state.last_delivery_at
        else "no delivery yet"
    )
    facts = [f"expected by {_clock_time(expected_by, at, 'UTC')}"] if expected_by else []
    facts.append(last)
    if state.dead:
        facts.append(f"{_count(state.dead, 'dead letter', 'dead letters')} to replay")
    if state.pending:
        facts.append(f"{state.pending} pending")
    if state.rejected_24h:
        facts.append(f"{state.rejected_24h} rejected in 24 h")
    sentence = f"{_head(status)}: {', '.join(facts)}."
    if state.drift is not None and state.drift >= DRIFT_WORTH_A_WORD:
        sentence += f" Polls found {state.drift:.0%} of changes that no webhook had told."
    if state.rejected_24h and not state.last_delivery_at:
        sentence += " Check the signing secret."
    return f"{sentence} {_error(state)}".strip() if status is Status.FAILING else sentence


def _on_demand(state: StreamState, at: datetime) -> Verdict:
    last = state.last_success_at
    age = (at - last).total_seconds() if last else None
    status = _on_demand_status(state)
    if _is_first(state):
        under_way = state.running_state is RunState.RUNNING
        words = "the first run is under way" if under_way else "runs when a backfill or an operator asks for it"
    elif status is Status.ON_TRACK:
        words = "a retry is pending"
    elif last is not None:
        words = f"last success {_clock_time(last, at, 'UTC')}"
    else:
        words = "never succeeded" if status is Status.FAILING else "no success yet"
    failed = status is Status.FAILING or state.running_state is RunState.RETRYING
    next_at = _next_attempt(state)
    later = "" if status is Status.NEVER_RAN else _next_try(state, next_at, at)
    parts = [f"{_head(status)}: {words}.", _error(state) if failed else "", later]
    return Verdict(status=status, sentence=" ".join(filter(None, parts)), age_seconds=age, next_at=next_at)


def _on_demand_status(state: StreamState) -> Status:
    if _is_first(state):
        return Status.NEVER_RAN
    if state.consecutive_failures:
        return Status.FAILING
    if state.running_state is RunState.RETRYING:
        return Status.ON_TRACK
    return Status.FRESH if state.last_success_at else Status.NEVER_RAN


def _held_status(state: StreamState) -> Status | None:
    """The status of a stream that is kept from running, whatever it did before."""
    if state.connection_needs_attention:
        return Status.NEEDS_ATTENTION
    is_paused = state.connection_paused_reason is not None or state.paused_at is not None
    return Status.PAUSED if is_paused else None


def _held(state: StreamState, found: Verdict, at: datetime) -> Verdict | None:
    """The verdict on a stream that is paused, or whose connection is; the figures stay as they were."""
    waits = (
        f" {state.pending} {'delivery waits' if state.pending == 1 else 'deliveries wait'}." if state.pending else ""
    )
    if state.connection_needs_attention:
        reason = _sentence(state.connection_paused_reason or state.last_error or "the connection needs its operator")
        sentence = f"{_head(Status.NEEDS_ATTENTION)}: {reason} Mend it, then resume.{waits}"
        return replace(found, status=Status.NEEDS_ATTENTION, sentence=sentence, next_at=None)
    if state.connection_paused_reason is not None:
        reason = _sentence(state.connection_paused_reason or "the connection is paused")
        return replace(found, status=Status.PAUSED, sentence=f"Paused: {reason}{waits}", next_at=None, lag_seconds=0.0)
    if state.paused_at is not None:
        sentence = (
            f"Paused: an operator paused this stream at {_clock_time(state.paused_at, at, state.timezone)}.{waits}"
        )
        return replace(found, status=Status.PAUSED, sentence=sentence, next_at=None, lag_seconds=0.0)
    return None


def _head(status: Status) -> str:
    return status.value.capitalize()


def _missed(count: int) -> str:
    if not count:
        return ""
    return f" (over {MISSED_COUNTED_MAX - 1} missed)" if count >= MISSED_COUNTED_MAX else f" ({count} missed)"


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _error(state: StreamState) -> str:
    return _sentence(state.last_error) if state.last_error else ""


def _sentence(text: str) -> str:
    """The first line of a text, of bearable length, closed like a sentence."""
    line = (text.strip().splitlines() or [""])[0]
    if len(line) > ERROR_CHARACTERS_MAX:
        return line[: ERROR_CHARACTERS_MAX - 1].rstrip() + "…"
    return line if line.endswith((".", "!", "?", "…")) else f"{line}."


def _clock_time(instant: datetime, at: datetime, zone: str) -> str:
    """`13:45`, with the day where it is not that of `at`, and the zone where it is not UTC."""
    day, time = _local_words(instant.replace(second=0, microsecond=0), zone)
    today, _ = _local_words(at.replace(second=0, microsecond=0), zone)
    return time if day == today else f"{day[0]} {time}"


@lru_cache(maxsize=LOCAL_TIMES_REMEMBERED_MAX)
def _local_words(minute: datetime, zone: str) -> tuple[tuple[str, date], str]:
    """The day, in words and as it is, and the time of a minute in its zone."""
    local = minute.astimezone(_zone(zone))
    time = f"{local.hour:02}:{local.minute:02}" + ("" if zone == "UTC" else f" {local:%Z}")
    return (f"{local.day} {local:%b}", local.date()), time


def _zone(zone: str) -> tzinfo:
    return UTC if zone == "UTC" else ZoneInfo(zone)
