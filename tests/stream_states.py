"""Builders of stored streams and runs: every field has a value, the test names those it is about."""

from datetime import UTC, datetime, timedelta

from headwater.clock import to_micros
from headwater.record import Counts
from headwater.run import Run, RunState, StreamState, TickRun

NOON = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)


def at(hour, minute=0, second=0, *, day=10):
    return datetime(2026, 3, day, hour, minute, second, tzinfo=UTC)


def make_state(**overrides):
    values = {
        "id": 1,
        "connection_id": 1,
        "connection": "acme",
        "connector": "stripe",
        "tenant": None,
        "stream": "customers",
        "partition": "",
        "mode": "poll",
        "schedule": "*/15 * * * *",
        "timezone": "UTC",
        "expect_within_seconds": None,
        "paused_at": None,
        "connection_paused_reason": None,
        "connection_needs_attention": False,
        "next_tick_at": None,
        "blocked_until": None,
        "cursor": None,
        "checkpoint_at": None,
        "running_run_id": None,
        "running_state": None,
        "retry_at": None,
        "registered_at": NOON - timedelta(days=3),
        "last_attempt_at": None,
        "last_success_at": None,
        "last_record_at": None,
        "last_error": None,
        "last_error_code": None,
        "consecutive_failures": 0,
        "skipped_ticks": 0,
        "runs_24h": 0,
        "failed_24h": 0,
        "counts_24h": Counts(),
    }
    if "last_success_at" in overrides:
        values["last_attempt_at"] = overrides["last_success_at"]
    return StreamState(**(values | overrides))


def make_webhook(**overrides):
    return make_state(**({"stream": "events", "mode": "webhook", "schedule": None} | overrides))


def make_run(scheduled_at, **overrides):
    values = {
        "id": int(scheduled_at.timestamp()),
        "connection": "acme",
        "connector": "stripe",
        "stream": "customers",
        "partition": "",
        "trigger": "tick",
        "state": RunState.SUCCEEDED,
        "attempt": 1,
        "scheduled_at": scheduled_at,
        "due_at": scheduled_at,
        "started_at": scheduled_at,
        "finished_at": scheduled_at + timedelta(seconds=5),
        "pages": 1,
        "counts": Counts(created=1),
        "cursor_before": None,
        "cursor_after": None,
        "window": None,
        "backfill_id": None,
        "connector_version": "0.1.0",
        "error_code": None,
        "error": None,
        "traceback": None,
    }
    return Run(**(values | overrides))


def make_tick_run(scheduled_at, **overrides):
    values = {
        "id": int(scheduled_at.timestamp()),
        "state": RunState.SUCCEEDED,
        "attempt": 1,
        "scheduled_at": scheduled_at,
        "finished_at": scheduled_at + timedelta(seconds=5),
        "changed": 1,
    } | overrides
    for name in ("scheduled_at", "finished_at"):
        values[name] = values[name] and to_micros(values[name])
    return TickRun(**values)
