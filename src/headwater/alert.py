"""What operators want to be told: rules, alerts, notifications, mutes, and what a store promises of them.

rule ──> alert: begun ── still so at the next look, for `hold_seconds` ──> fired ──> resolved
                  └── over before that: forgotten, nobody is told             └─ notification ─┘ to each target, retried
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol, get_args

Condition = Literal["late", "failing", "needs attention", "dead letters", "drift", "rejected"]
CONDITIONS: tuple[Condition, ...] = get_args(Condition)
WEBHOOK = "webhook"  # the target that stands for the configured `alert_url`; any other is an email address

RULES_MAX = 1_000
MUTES_MAX = 10_000
KEEP_DAYS = 90  # resolved alerts, and what was sent of them


@dataclass(frozen=True, kw_only=True)
class AlertRule:
    """When somebody is told, about which streams, and by which ways."""

    id: int
    conditions: Sequence[Condition]
    connection: str | None  # None: every connection
    stream: str | None  # None: every stream
    threshold: float | None  # of dead letters, drift, rejected; None: as `alerting` has it
    hold_seconds: int  # it must be so for so long
    targets: Sequence[str]
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What an alert is about: a stream, or a whole connection where `stream` is empty."""

    rule_id: int
    condition: Condition
    connection: str
    stream: str = ""
    partition: str = ""


@dataclass(frozen=True, kw_only=True)
class Alert:
    """Something that is not as it should be, from when on, and until when."""

    id: int
    subject: Subject
    sentence: str
    began_at: datetime
    fired_at: datetime | None  # somebody was told; None: it has not been so for long enough, or it is muted
    resolved_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Mute:
    """Streams of which nobody is told anything new; they go on as ever."""

    id: int
    connection: str
    stream: str  # "": the whole connection
    until: datetime | None  # None: until it is taken back
    reason: str
    actor: str
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class Message:
    """What is sent to one target."""

    target: str
    body: str  # JSON of the event


@dataclass(frozen=True, kw_only=True)
class Turn:
    """An alert that fires, or is resolved, with what is sent of it: one transaction, once however many nodes say it."""

    alert_id: int
    sentence: str
    messages: Sequence[Message] = ()


@dataclass(frozen=True, kw_only=True)
class AlertChanges:
    """What one look at the streams comes to."""

    begin: Sequence[tuple[Subject, str]] = ()  # with the sentence
    fire: Sequence[Turn] = ()
    resolve: Sequence[Turn] = ()

    def __bool__(self) -> bool:
        return bool(self.begin or self.fire or self.resolve)


@dataclass(frozen=True, kw_only=True)
class Notification:
    """A message on its way, or past it."""

    id: int
    target: str
    body: str
    attempts: int
    created_at: datetime
    sent_at: datetime | None
    given_up_at: datetime | None
    error: str | None


class AlertStore(Protocol):
    """Alerts."""

    async def alert_rules(self) -> Sequence[AlertRule]:
        """All rules, oldest first."""
        ...

    async def add_alert_rule(
        self,
        *,
        conditions: Sequence[Condition],
        connection: str | None,
        stream: str | None,
        threshold: float | None,
        hold_seconds: int,
        targets: Sequence[str],
        at: datetime,
    ) -> AlertRule:
        """Store a rule; `UsageError` beyond `RULES_MAX`."""
        ...

    async def remove_alert_rule(self, rule_id: int) -> bool:
        """Remove a rule with its alerts; False when there is none."""
        ...

    async def mutes(self, *, at: datetime) -> Sequence[Mute]:
        """The mutes that hold at `at`, newest first."""
        ...

    async def add_mute(
        self, *, connection: str, stream: str, until: datetime | None, reason: str, actor: str, at: datetime
    ) -> Mute:
        """Mute a stream, or a connection where `stream` is empty; `UsageError` beyond `MUTES_MAX`."""
        ...

    async def remove_mute(self, mute_id: int) -> bool:
        """Take a mute back; False when there is none."""
        ...

    async def standing_alerts(self) -> Sequence[Alert]:
        """Those that are not resolved, oldest first."""
        ...

    async def past_alerts(self, *, limit: int) -> Sequence[Alert]:
        """Those that were told and are resolved, newest first."""
        ...

    async def change_alerts(self, changes: AlertChanges, *, at: datetime, keep_after: datetime) -> None:
        """Take down what a look came to; what another node has taken down is left. Forgets what ended before
        `keep_after`.
        """
        ...

    async def add_notification(self, message: Message, *, at: datetime) -> int:
        """Send a message that belongs to no alert; its id."""
        ...

    async def claim_notifications(self, *, at: datetime, lease_seconds: float, limit: int) -> Sequence[Notification]:
        """Take messages that are due, oldest first, each with one attempt more."""
        ...

    async def finish_notification(
        self, notification_id: int, *, at: datetime, error: str | None, due_at: datetime | None
    ) -> None:
        """Note that a message was sent, or what hindered it: it is due again at `due_at`, or given up where None."""
        ...

    async def notifications(self, *, limit: int) -> Sequence[Notification]:
        """Messages, newest first."""
        ...
