"""Alerts: what stands, what was sent of it, and that it is sent once however many nodes look."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from headwater.alert import AlertChanges, AlertRule, Message, Subject, Turn
from headwater.testing.conformance.world import World, at

LONG_AGO = at(-1_000_000)


async def _rule(world: World, **changes: Any) -> AlertRule:
    words: dict[str, Any] = {
        "conditions": ("late", "dead letters"), "connection": None, "stream": None, "threshold": None,
        "hold_seconds": 60, "targets": ("webhook", "ann@example.com"), "at": at(0),
    }  # fmt: skip
    return await world.store.add_alert_rule(**{**words, **changes})


async def _change(world: World, now: float, **changes: Sequence[Any]) -> None:
    await world.store.change_alerts(AlertChanges(**changes), at=at(now), keep_after=LONG_AGO)


def _turn(alert_id: int, *targets: str) -> Turn:
    return Turn(alert_id=alert_id, sentence="Now.", messages=[Message(target=one, body='{"n":1}') for one in targets])


async def rules_are_kept_as_they_were_made(world: World) -> None:
    """And go with their alerts."""
    first = await _rule(world, connection="acme", stream="customers", threshold=0.25)
    second = await _rule(world)
    assert await world.store.alert_rules() == [first, second]
    assert (first.conditions, first.targets, first.threshold, first.hold_seconds) == (
        ("late", "dead letters"), ("webhook", "ann@example.com"), 0.25, 60,
    )  # fmt: skip
    subject = Subject(rule_id=first.id, condition="late", connection="acme", stream="customers")
    await _change(world, 1, begin=[(subject, "It is late.")])
    assert await world.store.remove_alert_rule(first.id)
    assert not await world.store.remove_alert_rule(first.id)
    assert await world.store.standing_alerts() == []
    await _change(world, 2, begin=[(subject, "Its rule is gone.")])
    assert await world.store.standing_alerts() == []


async def an_alert_fires_and_is_resolved_once_however_many_say_so(world: World) -> None:
    """And each time its messages are there with it."""
    rule = await _rule(world)
    subject = Subject(rule_id=rule.id, condition="late", connection="acme", stream="customers")
    await asyncio.gather(*[_change(world, 1, begin=[(subject, "It is late.")]) for _ in range(2)])
    (alert,) = await world.store.standing_alerts()
    assert (alert.subject, alert.sentence, alert.began_at, alert.fired_at) == (subject, "It is late.", at(1), None)
    turn = _turn(alert.id, "webhook", "ann@example.com")
    await asyncio.gather(*[_change(world, 70, fire=[turn]) for _ in range(2)])
    (alert,) = await world.store.standing_alerts()
    assert (alert.fired_at, alert.sentence) == (at(70), "Now.")
    sent = await world.store.notifications(limit=10)
    assert sorted(one.target for one in sent) == ["ann@example.com", "webhook"]
    assert {(one.body, one.attempts, one.sent_at) for one in sent} == {('{"n":1}', 0, None)}
    await asyncio.gather(*[_change(world, 80, resolve=[_turn(alert.id, "webhook")]) for _ in range(2)])
    assert await world.store.standing_alerts() == []
    (past,) = await world.store.past_alerts(limit=10)
    assert past.resolved_at == at(80)
    assert len(await world.store.notifications(limit=10)) == 3
    await _change(world, 90, fire=[turn], resolve=[turn])
    assert len(await world.store.notifications(limit=10)) == 3, "it is over"
    await _change(world, 91, begin=[(subject, "Again.")])
    (again,) = await world.store.standing_alerts()
    assert again.id != alert.id


async def what_ended_long_ago_is_forgotten(world: World) -> None:
    """And what ended before anybody was told, at once."""
    rule = await _rule(world)
    for number in range(2):
        subject = Subject(rule_id=rule.id, condition="late", connection=f"c{number}")
        await _change(world, number, begin=[(subject, "x")])
    told, untold = await world.store.standing_alerts()
    await _change(world, 10, fire=[_turn(told.id, "webhook")])
    await _change(world, 20, resolve=[_turn(told.id), _turn(untold.id)])
    assert [one.id for one in await world.store.past_alerts(limit=10)] == [told.id]
    (message,) = await world.store.claim_notifications(at=at(21), lease_seconds=10, limit=5)
    await world.store.change_alerts(AlertChanges(), at=at(30), keep_after=at(25))
    assert await world.store.past_alerts(limit=10) == []
    assert len(await world.store.notifications(limit=10)) == 1, "it is not sent yet"
    await world.store.finish_notification(message.id, at=at(31), error=None, due_at=None)
    await world.store.change_alerts(AlertChanges(), at=at(40), keep_after=at(25))
    assert await world.store.notifications(limit=10) == []


async def messages_that_a_clock_ahead_put_off_are_brought_back(world: World) -> None:
    """Those that wait and those that were claimed; what was sent stays sent."""
    for _ in range(3):
        await world.store.add_notification(Message(target="webhook", body="{}"), at=at(7200))
    failed, held, sent = await world.store.claim_notifications(at=at(7200), lease_seconds=10, limit=3)
    await world.store.finish_notification(failed.id, at=at(7201), error="503", due_at=at(7300))
    await world.store.finish_notification(sent.id, at=at(7201), error=None, due_at=None)
    await world.store.bring_back(at(10), lease_seconds=10)
    claims = [
        await world.store.claim_notifications(at=at(seconds), lease_seconds=99, limit=3) for seconds in (10, 19, 20)
    ]
    assert [[one.id for one in claimed] for claimed in claims] == [[failed.id], [], [held.id]]


async def a_message_is_claimed_retried_sent_or_given_up(world: World) -> None:
    """By one node at a time; a claim that lapses is another's."""
    first = await world.store.add_notification(Message(target="webhook", body="{}"), at=at(0))
    second = await world.store.add_notification(Message(target="ann@example.com", body="{}"), at=at(1))
    both = await asyncio.gather(
        *[world.store.claim_notifications(at=at(2), lease_seconds=10, limit=1) for _ in range(2)]
    )
    assert sorted(one.id for claimed in both for one in claimed) == [first, second]
    assert await world.store.claim_notifications(at=at(3), lease_seconds=10, limit=5) == []
    await world.store.finish_notification(first, at=at(4), error="503", due_at=at(30))
    again = await world.store.claim_notifications(at=at(20), lease_seconds=10, limit=5)
    assert [(one.id, one.attempts) for one in again] == [(second, 2)], "its claim lapsed"
    await world.store.finish_notification(second, at=at(21), error=None, due_at=None)
    (retried,) = await world.store.claim_notifications(at=at(31), lease_seconds=10, limit=5)
    assert (retried.id, retried.attempts, retried.error) == (first, 2, "503")
    await world.store.finish_notification(first, at=at(32), error="410", due_at=None)
    assert await world.store.claim_notifications(at=at(9999), lease_seconds=10, limit=5) == []
    newest, oldest = await world.store.notifications(limit=10)
    assert (newest.sent_at, newest.given_up_at, newest.error) == (at(21), None, None)
    assert (oldest.sent_at, oldest.given_up_at, oldest.error) == (None, at(32), "410")


async def mutes_hold_until_they_are_over(world: World) -> None:
    """Or are taken back."""
    words: dict[str, Any] = {"connection": "acme", "reason": "migration", "actor": "ann", "at": at(0)}
    short = await world.store.add_mute(stream="customers", until=at(60), **words)
    long = await world.store.add_mute(stream="", until=None, **words)
    assert await world.store.mutes(at=at(59)) == [long, short]
    assert await world.store.mutes(at=at(60)) == [long]
    assert (short.stream, short.until, short.reason, short.actor) == ("customers", at(60), "migration", "ann")
    assert await world.store.remove_mute(long.id)
    assert not await world.store.remove_mute(long.id)
    assert await world.store.mutes(at=at(60)) == []
