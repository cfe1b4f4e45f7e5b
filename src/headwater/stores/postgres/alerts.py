"""Alert rules, alerts, messages and mutes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

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
from headwater.stores.postgres.database import Connection, document, execute, queries, row, rows

_sql = queries("alerts.sql")


async def alert_rules(db: Connection) -> Sequence[AlertRule]:
    """See `AlertStore.alert_rules`."""
    return [as_alert_rule(found) for found in await rows(db, _sql["rules"])]


async def add_alert_rule(
    db: Connection,
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
    await execute(db, _sql["one_change"])
    counted = await row(db, _sql["count_rules"])
    if counted and counted["count"] >= RULES_MAX:
        raise UsageError(f"There are {RULES_MAX:,} alert rules, and there may be no more.")
    found = await row(
        db,
        _sql["add_rule"],
        conditions=document(list(conditions)),
        connection=connection,
        stream=stream,
        threshold=None if threshold is None else repr(threshold),
        hold_seconds=hold_seconds,
        targets=document(list(targets)),
        at=to_micros(at),
    )
    assert found is not None, "it was added"
    return as_alert_rule(found)


async def remove_alert_rule(db: Connection, rule_id: int) -> bool:
    """See `AlertStore.remove_alert_rule`."""
    return await execute(db, _sql["remove_rule"], rule_id=rule_id) > 0


async def mutes(db: Connection, *, at: datetime) -> Sequence[Mute]:
    """See `AlertStore.mutes`."""
    return [as_mute(found) for found in await rows(db, _sql["mutes"], at=to_micros(at))]


async def add_mute(
    db: Connection, *, connection: str, stream: str, until: datetime | None, reason: str, actor: str, at: datetime
) -> Mute:
    """See `AlertStore.add_mute`."""
    await execute(db, _sql["one_change"])
    await execute(db, _sql["forget_mutes"], at=to_micros(at))
    counted = await row(db, _sql["count_mutes"])
    if counted and counted["count"] >= MUTES_MAX:
        raise UsageError(f"There are {MUTES_MAX:,} mutes, and there may be no more.")
    found = await row(
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


async def remove_mute(db: Connection, mute_id: int) -> bool:
    """See `AlertStore.remove_mute`."""
    return await execute(db, _sql["remove_mute"], mute_id=mute_id) > 0


async def standing_alerts(db: Connection) -> Sequence[Alert]:
    """See `AlertStore.standing_alerts`."""
    return [as_alert(found) for found in await rows(db, _sql["standing"])]


async def past_alerts(db: Connection, *, limit: int) -> Sequence[Alert]:
    """See `AlertStore.past_alerts`."""
    return [as_alert(found) for found in await rows(db, _sql["past"], limit=limit)]


async def change_alerts(db: Connection, changes: AlertChanges, *, at: datetime, keep_after: datetime) -> None:
    """See `AlertStore.change_alerts`."""
    for subject, sentence in changes.begin:
        await execute(
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
        await _take(db, "fire", turn, at)
    for turn in changes.resolve:
        await _take(db, "resolve", turn, at)
    before = to_micros(keep_after)
    await execute(db, _sql["forget_alerts"], before=before)
    await execute(db, _sql["forget_notifications"], before=before)


async def _take(db: Connection, name: str, turn: Turn, at: datetime) -> None:
    now = to_micros(at)
    if await execute(db, _sql[name], alert_id=turn.alert_id, sentence=turn.sentence, at=now):
        for message in turn.messages:
            await row(db, _sql["notify"], alert_id=turn.alert_id, target=message.target, body=message.body, at=now)


async def add_notification(db: Connection, message: Message, *, at: datetime) -> int:
    """See `AlertStore.add_notification`."""
    found = await row(db, _sql["notify"], alert_id=None, target=message.target, body=message.body, at=to_micros(at))
    assert found is not None, "it was added"
    return int(found["id"])


async def claim_notifications(
    db: Connection, *, at: datetime, lease_seconds: float, limit: int
) -> Sequence[Notification]:
    """See `AlertStore.claim_notifications`."""
    until = to_micros(at + timedelta(seconds=lease_seconds))
    claimed = []
    for due in await rows(db, _sql["due"], at=to_micros(at), limit=limit):
        found = await row(db, _sql["claim"], id=due["id"], lease_until=until)
        assert found is not None, "it is due"
        claimed.append(as_notification(found))
    return claimed


async def finish_notification(
    db: Connection, notification_id: int, *, at: datetime, error: str | None, due_at: datetime | None
) -> None:
    """See `AlertStore.finish_notification`."""
    now = to_micros(at)
    await execute(
        db,
        _sql["finish"],
        id=notification_id,
        error=error,
        sent_at=now if error is None else None,
        given_up_at=now if error is not None and due_at is None else None,
        due_at=due_at and to_micros(due_at),
    )


async def notifications(db: Connection, *, limit: int) -> Sequence[Notification]:
    """See `AlertStore.notifications`."""
    return [as_notification(found) for found in await rows(db, _sql["notifications"], limit=limit)]
