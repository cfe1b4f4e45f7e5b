"""Which mark and colour a word of state has: the seven statuses of a stream are all the marks there are."""

from __future__ import annotations

# The state of a run, a delivery, a backfill, a window, a quarantined record → the status whose mark it borrows.
_BORROWED = {
    "succeeded": "fresh",
    "done": "fresh",
    "released": "fresh",
    "running": "on-track",
    "pending": "on-track",
    "retrying": "late",
    "waiting": "late",
    "rejected": "late",
    "failed": "failing",
    "dead": "failing",
    "scheduled": "never-ran",
    "todo": "never-ran",
    "cancelled": "paused",
    "ignored": "paused",
    "dropped": "paused",
    "duplicate": "paused",
    # Levels of a log line.
    "error": "failing",
    "warning": "late",
    "info": "never-ran",
    "debug": "paused",
}


def tone(word: str) -> str:
    """The name of a status or a state in the style sheet."""
    return _BORROWED.get(word) or word.replace(" ", "-")
