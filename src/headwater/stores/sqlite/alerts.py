"""Alert rules, alerts, messages and mutes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import apsw

from headwater.alert import (
    MUTES_MAX,
    RULES_MAX,
    Alert,
    AlertChanges,
    AlertRule,
    Condition,
    Message,
    Mute,
    Notification,
    Turn,
)
from headwater.clock import to_micros
from headwater.errors import UsageError
from headwater.stores.alert_row import as_alert, as_alert_rule, as_mute, as_notification
from headwater.stores.sqlite.database import execute, json_text, queries, row, rows

_sql = queries("alerts.sql")


def alert_rules(db: apsw.Connection) -> Sequence[AlertRule]:
    """See `AlertStore.alert_rules`."""
    return [as_alert_rule(found) for found in rows(db, _sql["rules"])]


def add_alert_rule(
    db: apsw.Connection,
    *,
    conditions: Sequence[Condition],
    connection: str | None,
    stream: str | None,
    threshold: float | None,
    hold_seconds: int,
    targets: Sequence[str],
    at: datetime,
) -> AlertRule:
    """See `AlertStore.add_alert_rule`."""
    counted = row(db, _sql["count_rules"])
    if counted and counted["count"] >= RULES_MAX:
        raise UsageError(f"There are {RULES_MAX:,} alert rules, and there may be no more.")
    found = row(
        db,
        _sql["add_rule"],
        conditions=json_text(list(conditions)),
        connection=connection,
        stream=stream,
        threshold=None if threshold is None else repr(threshold),
        hold_seconds=hold_seconds,
        targets=json_text(list(targets)),
        at=to_micros(at),
    )
    assert found is not None, "it was added"
    return as_alert_rule(found)


def remove_alert_rule(db: apsw.Connection, rule_id: int) -> bool:
    """See `AlertStore.remove_alert_rule`."""
    return execute(db, _sql["remove_rule"], rule_id=rule_id) > 0


def mutes(db: apsw.Connection, *, at: datetime) -> Sequence[Mute]:
    """See `AlertStore.mutes`."""
    return [as_mute(found) for found in rows(db, _sql["mutes"], at=to_micros(at))]


def add_mute(
    db: apsw.Connection, *, connection: str, stream: str, until: datetime | None, reason: str, actor: str, at: datetime
) -> Mute:
    """See `AlertStore.add_mute`."""
    execute(db, _sql["forget_mutes"], at=to_micros(at))
    counted = row(db, _sql["count_mutes"])
    if counted and counted["count"] >= MUTES_MAX:
        raise UsageError(f"There are {MUTES_MAX:,} mutes, and there may be no more.")
    found = row(
        db,
        _sql["add_mute"],
        connection=connection,
        stream=stream,
        until=until and to_micros(until),
        reason=reason,
        actor=actor,
        at=to_micros(at),
    )
    assert found is not None, "it was added"
    return as_mute(found)


def remove_mute(db: apsw.Connection, mute_id: int) -> bool:
    """See `AlertStore.remove_mute`."""
    return execute(db, _sql["remove_mute"], mute_id=mute_id) > 0


def standing_alerts(db: apsw.Connection) -> Sequence[Alert]:
    """See `AlertStore.standing_alerts`."""
    return [as_alert(found) for found in rows(db, _sql["standing"])]


def past_alerts(db: apsw.Connection, *, limit: int) -> Sequence[Alert]:
    """See `AlertStore.past_alerts`."""
    return [as_alert(found) for found in rows(db, _sql["past"], limit=limit)]


def change_alerts(db: apsw.Connection, changes: AlertChanges, *, at: datetime, keep_after: datetime) -> None:
    """See `AlertStore.change_alerts`."""
    for subject, sentence in changes.begin:
        execute(
            db,
            _sql["begin"],
            rule_id=subject.rule_id,
            condition=subject.condition,
            connection=subject.connection,
            stream=subject.stream,
            partition=subject.partition,
            sentence=sentence,
            at=to_micros(at),
        )
    for turn in changes.fire:
        _take(db, "fire", turn, at)
    for turn in changes.resolve:
        _take(db, "resolve", turn, at)
    before = to_micros(keep_after)
    execute(db, _sql["forget_alerts"], before=before)
    execute(db, _sql["forget_notifications"], before=before)


def _take(db: apsw.Connection, name: str, turn: Turn, at: datetime) -> None:
    now = to_micros(at)
    if execute(db, _sql[name], alert_id=turn.alert_id, sentence=turn.sentence, at=now):
        for message in turn.messages:
            row(db, _sql["notify"], alert_id=turn.alert_id, target=message.target, body=message.body, at=now)


def add_notification(db: apsw.Connection, message: Message, *, at: datetime) -> int:
    """See `AlertStore.add_notification`."""
    found = row(db, _sql["notify"], alert_id=None, target=message.target, body=message.body, at=to_micros(at))
    assert found is not None, "it was added"
    return int(found["id"])


def claim_notifications(
    db: apsw.Connection, *, at: datetime, lease_seconds: float, limit: int
) -> Sequence[Notification]:
    """See `AlertStore.claim_notifications`."""
    until = to_micros(at + timedelta(seconds=lease_seconds))
    claimed = []
    for due in rows(db, _sql["due"], at=to_micros(at), limit=limit):
        found = row(db, _sql["claim"], id=due["id"], lease_until=until)
        assert found is not None, "it is due"
        claimed.append(as_notification(found))
    return claimed


def finish_notification(
    db: apsw.Connection, notification_id: int, *, at: datetime, error: str | None, due_at: datetime | None
) -> None:
    """See `AlertStore.finish_notification`."""
    now = to_micros(at)
    execute(
        db,
        _sql["finish"],
        id=notification_id,
        error=error,
        sent_at=now if error is None else None,
        given_up_at=now if error is not None and due_at is None else None,
        due_at=due_at and to_micros(due_at),
    )


def notifications(db: apsw.Connection, *, limit: int) -> Sequence[Notification]:
    """See `AlertStore.notifications`."""
    return [as_notification(found) for found in rows(db, _sql["notifications"], limit=limit)]
