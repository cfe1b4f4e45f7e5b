"""What a row of the alerts says: the same columns in every dialect."""

from __future__ import annotations

from typing import Any

import msgspec

from headwater.alert import Alert, AlertRule, Mute, Notification, Subject
from headwater.clock import from_micros
from headwater.stores.row import Row, instant


def as_alert_rule(found: Row) -> AlertRule:
    """An alert rule."""
    return AlertRule(
        id=found["id"],
        conditions=tuple(_json(found["conditions"])),
        connection=found["connection"],
        stream=found["stream"],
        threshold=None if found["threshold"] is None else float(found["threshold"]),
        hold_seconds=found["hold_seconds"],
        targets=tuple(_json(found["targets"])),
        created_at=from_micros(found["created_at"]),
    )


def as_alert(found: Row) -> Alert:
    """An alert."""
    return Alert(
        id=found["id"],
        subject=Subject(
            rule_id=found["rule_id"],
            condition=found["condition"],
            connection=found["connection"],
            stream=found["stream"],
            partition=found["partition"],
        ),
        sentence=found["sentence"],
        began_at=from_micros(found["began_at"]),
        fired_at=instant(found["fired_at"]),
        resolved_at=instant(found["resolved_at"]),
    )


def as_mute(found: Row) -> Mute:
    """A mute."""
    return Mute(
        id=found["id"],
        connection=found["connection"],
        stream=found["stream"],
        until=instant(found["until"]),
        reason=found["reason"],
        actor=found["actor"],
        created_at=from_micros(found["created_at"]),
    )


def as_notification(found: Row) -> Notification:
    """A message on its way."""
    return Notification(
        id=found["id"],
        target=found["target"],
        body=found["body"],
        attempts=found["attempts"],
        created_at=from_micros(found["created_at"]),
        sent_at=instant(found["sent_at"]),
        given_up_at=instant(found["given_up_at"]),
        error=found["error"],
    )


def _json(value: Any) -> Any:
    return value if isinstance(value, list) else msgspec.json.decode(value)
