"""What is to be told now: rules over the verdicts of health, held against what stands. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from headwater.alert import Alert, AlertChanges, AlertRule, Condition, Message, Mute, Subject, Turn
from headwater.health import StreamReport
from headwater.verdict import Status

THRESHOLDS: Mapping[Condition, float] = {"dead letters": 0.0, "drift": 0.2, "rejected": 10.0}  # more than that
OF_CONNECTION: frozenset[Condition] = frozenset({"dead letters", "rejected"})  # told once for all of its streams

_IS_SO: Mapping[Condition, Callable[[StreamReport, float], bool]] = {
    "late": lambda one, _: one.status in (Status.LATE, Status.FAILING),
    "failing": lambda one, _: one.status is Status.FAILING,
    "needs attention": lambda one, _: one.status is Status.NEEDS_ATTENTION,
    "dead letters": lambda one, most: one.mode == "webhook" and one.dead > most,
    "drift": lambda one, most: one.drift is not None and one.drift > most,
    "rejected": lambda one, most: one.mode == "webhook" and one.rejected_24h > most,
}


def weigh(
    rules: Sequence[AlertRule],
    reports: Sequence[StreamReport],
    standing: Sequence[Alert],
    mutes: Sequence[Mute],
    *,
    at: datetime,
    base_url: str,
) -> AlertChanges:
    """What begins, fires and is resolved at `at`.

    An alert fires at the second look at the earliest, and not while it is muted; one that never fired is resolved
    without a word.
    """
    by_id = {rule.id: rule for rule in rules}
    found = {subject: sentence for rule in rules for subject, sentence in _true_of(rule, reports)}
    known = {alert.subject: alert for alert in standing}
    fire, resolve = [], []
    for alert in standing:
        rule = by_id.get(alert.subject.rule_id)
        if rule is None:
            continue  # it goes with its rule
        sentence = found.get(alert.subject)
        if sentence is None:
            told = alert.fired_at is not None
            resolve.append(_turn(alert, rule, _resolved(alert), "resolved", at, base_url, is_told=told))
        elif (
            alert.fired_at is None
            and at - alert.began_at >= timedelta(seconds=rule.hold_seconds)
            and not is_muted(alert.subject, mutes)
        ):
            fire.append(_turn(alert, rule, sentence, "firing", at, base_url))
    return AlertChanges(
        begin=[(subject, sentence) for subject, sentence in found.items() if subject not in known],
        fire=fire,
        resolve=resolve,
    )


def is_muted(subject: Subject, mutes: Sequence[Mute]) -> bool:
    """Whether nobody is told of it."""
    return any(mute.connection == subject.connection and mute.stream in ("", subject.stream) for mute in mutes)


def test_message(target: str, *, at: datetime, base_url: str) -> Message:
    """A message that shows that messages arrive."""
    return Message(target=target, body=_event("alert.test", {"sentence": "This is a test.", "url": base_url}, at))


test_message.__test__ = False  # type: ignore[attr-defined]  # to pytest, this is no test


def _true_of(rule: AlertRule, reports: Sequence[StreamReport]) -> Iterator[tuple[Subject, str]]:
    for one in reports:
        if rule.connection not in (None, one.connection) or rule.stream not in (None, one.stream):
            continue
        for condition in rule.conditions:
            most = THRESHOLDS.get(condition, 0.0) if rule.threshold is None else rule.threshold
            if _IS_SO[condition](one, most):
                whole = condition in OF_CONNECTION
                subject = Subject(
                    rule_id=rule.id,
                    condition=condition,
                    connection=one.connection,
                    stream="" if whole else one.stream,
                    partition="" if whole else one.partition,
                )
                yield subject, _sentence(condition, one)


def _sentence(condition: Condition, one: StreamReport) -> str:
    if condition == "dead letters":
        return f"{one.connection} has {one.dead:,} dead {'delivery' if one.dead == 1 else 'deliveries'}."
    if condition == "rejected":
        return f"{one.connection} refused {one.rejected_24h:,} requests in 24 h."
    if condition == "drift":
        return f"{one.connection} {one.name}: webhooks missed {one.drift:.0%} of the changes of 24 h."
    return f"{one.connection} {one.name}: {one.sentence}"


def _resolved(alert: Alert) -> str:
    subject = alert.subject
    name = " ".join(word for word in (subject.connection, subject.stream) if word)
    return (
        f"{name} is no longer {subject.condition}."
        if not _is_noun(subject.condition)
        else f"{name}: {subject.condition} no more."
    )


def _is_noun(condition: Condition) -> bool:
    return condition in ("dead letters", "drift", "needs attention")


def _turn(
    alert: Alert, rule: AlertRule, sentence: str, word: str, at: datetime, base_url: str, *, is_told: bool = True
) -> Turn:
    subject = alert.subject
    where = f"/connections/{subject.connection}" + (f"/streams/{subject.stream}" if subject.stream else "")
    data = {
        "alert": alert.id, "rule": rule.id, "condition": subject.condition, "connection": subject.connection,
        "stream": subject.stream or None, "partition": subject.partition or None, "sentence": sentence,
        "since": alert.began_at, "url": base_url + where,
    }  # fmt: skip
    body = _event(f"alert.{word}", data, at)
    messages = [Message(target=target, body=body) for target in rule.targets] if is_told else []
    return Turn(alert_id=alert.id, sentence=sentence, messages=messages)


def _event(kind: str, data: Mapping[str, Any], at: datetime) -> str:
    return msgspec.json.encode({"type": kind, "timestamp": at, "data": data}).decode()
