"""Acts on alert rules and mutes, and sending a test message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, ClassVar

import msgspec

from headwater.acts.act import Act, Desk, Done, Place, Plan, counted, options
from headwater.acts.streams import Id, Name
from headwater.alert import CONDITIONS, WEBHOOK, AlertRule, Condition
from headwater.alerting import test_message
from headwater.door import email_of
from headwater.errors import NotFoundError, UsageError

TARGETS_MAX = 20
HOLD_MINUTES_MAX = 7 * 24 * 60
HOURS_MAX = 365 * 24
REASON_CHARACTERS_MAX = 500


class _AlertAct(Act, frozen=True, kw_only=True):
    def about(self) -> Place:
        """See `Act.about`."""
        return Place(("alerts",))


class AddAlertRule(_AlertAct, frozen=True, kw_only=True):
    """Tell somebody when streams are not as they should be, and when they are well again."""

    name: ClassVar[str] = "alerts.add"
    title: ClassVar[str] = "Add a rule"
    inputs: ClassVar = ("conditions", "connection", "stream", "threshold", "hold_minutes", "targets")

    conditions: Annotated[tuple[Condition, ...], msgspec.Meta(min_length=1, title="When something is")]
    connection: Annotated[Name, msgspec.Meta(title="Connection", description="Empty: every one.")] | None = None
    stream: Annotated[Name, msgspec.Meta(title="Stream", description="Empty: every one.")] | None = None
    threshold: (
        Annotated[
            float,
            msgspec.Meta(
                ge=0,
                title="More than",
                description="Dead letters (0), drift as a share (0.2), requests rejected in 24 h (10).",
            ),
        ]
        | None
    ) = None
    hold_minutes: Annotated[
        int, msgspec.Meta(ge=0, le=HOLD_MINUTES_MAX, title="For so many minutes", description="Before anybody is told.")
    ] = 5
    targets: Annotated[
        tuple[str, ...],
        msgspec.Meta(
            min_length=1,
            max_length=TARGETS_MAX,
            title="Tell",
            description=f"{WEBHOOK} (to the configured alert_url), and email addresses; with commas between.",
        ),
    ] = (WEBHOOK,)

    async def plan(self, desk: Desk) -> Plan:
        """See `Act.plan`."""
        await self._check(desk)
        where = " ".join(word for word in (self.connection or "any connection", self.stream) if word)
        return Plan(
            sentence=f"{', '.join(self._targets())} is told when {where} is {' or '.join(self.conditions)}"
            + (f" for {counted(self.hold_minutes, 'minute')}." if self.hold_minutes else ".")
        )

    async def carry_out(self, desk: Desk) -> Done:
        """See `Act.carry_out`."""
        await self._check(desk)
        made = await desk.store.add_alert_rule(
            conditions=self.conditions,
            connection=self.connection,
            stream=self.stream,
            threshold=self.threshold,
            hold_seconds=self.hold_minutes * 60,
            targets=self._targets(),
            at=desk.clock.now(),
        )
        return Done(
            sentence=f"Rule {made.id} holds from now on.",
            value={"rule": made.id, "conditions": self.conditions, "targets": self._targets()},
            target=" ".join(word for word in (self.connection or "every connection", self.stream) if word),
            place=self.about(),
        )

    def command(self) -> list[str]:
        """See `Act.command`."""
        words = [word for one in self.conditions for word in ("--when", one)]
        words += [word for one in self.targets for word in ("--to", one.strip())]
        more = options(
            connection=self.connection, stream=self.stream, threshold=self.threshold, hold=self.hold_minutes or "0"
        )
        return ["alerts", "add", *words, *more]

    @classmethod
    async def choices(cls, given: Mapping[str, str], desk: Desk) -> Mapping[str, Sequence[str]]:  # noqa: ARG003
        """See `Act.choices`."""
        own = [one.key for one in await desk.store.connections() if desk.may_see(one)]
        return {"connection": own, "conditions": CONDITIONS}

    def _targets(self) -> list[str]:
        return [one if one == WEBHOOK else email_of(one) for one in map(str.strip, self.targets)]

    async def _check(self, desk: Desk) -> None:
        self._targets()
        if self.connection is not None:
            await desk.connection(self.connection)
        elif desk.tenant is not None:
            raise UsageError("Name one of your connections.")
        if self.stream is not None and self.connection is not None:
            await desk.stream(self.connection, self.stream, "")


class RemoveAlertRule(_AlertAct, frozen=True, kw_only=True):
    """Let a rule hold no longer; its alerts go with it."""

    name: ClassVar[str] = "alerts.remove"
    title: ClassVar[str] = "Remove"
    is_at_once: ClassVar[bool] = True

    rule: Id

    async def plan(self, desk: Desk) -> Plan:
        """See `Act.plan`."""
        await self._rule(desk)
        return Plan(sentence=f"Nobody is told by rule {self.rule} any more.")

    async def carry_out(self, desk: Desk) -> Done:
        """See `Act.carry_out`."""
        await self._rule(desk)
        await desk.store.remove_alert_rule(self.rule)
        return Done(sentence=f"Rule {self.rule} is removed.", target=f"rule {self.rule}", place=self.about())

    def command(self) -> list[str]:
        """See `Act.command`."""
        return ["alerts", "remove", str(self.rule)]

    async def _rule(self, desk: Desk) -> AlertRule:
        for one in await desk.store.alert_rules():
            if one.id == self.rule:
                if desk.tenant is not None:
                    await desk.connection(one.connection or "")
                return one
        raise NotFoundError(f"There is no alert rule {self.rule}.", hint="`headwater alerts rules` lists them.")


class MuteStream(_AlertAct, frozen=True, kw_only=True):
    """Tell nobody anything new of a stream, or of a whole connection; it goes on as ever."""

    name: ClassVar[str] = "alerts.mute"
    title: ClassVar[str] = "Mute"
    inputs: ClassVar = ("hours", "reason")

    connection: Name
    stream: Name | None = None
    hours: (
        Annotated[int, msgspec.Meta(ge=1, le=HOURS_MAX, title="Hours", description="Empty: until it is taken back.")]
        | None
    ) = None
    reason: Annotated[str, msgspec.Meta(max_length=REASON_CHARACTERS_MAX, title="Why")] = ""

    async def plan(self, desk: Desk) -> Plan:
        """See `Act.plan`."""
        await self._check(desk)
        until = f"for {counted(self.hours, 'hour')}" if self.hours else "until it is taken back"
        return Plan(
            sentence=f"Nobody is told anything new of {self._words()}, {until}.",
            consequences=("It runs, polls and receives as ever, and its status is shown as ever.",),
        )

    async def carry_out(self, desk: Desk) -> Done:
        """See `Act.carry_out`."""
        await self._check(desk)
        at = desk.clock.now()
        made = await desk.store.add_mute(
            connection=self.connection,
            stream=self.stream or "",
            until=at + timedelta(hours=self.hours) if self.hours else None,
            reason=self.reason,
            actor=desk.actor,
            at=at,
        )
        value = {"mute": made.id, "until": made.until, "reason": self.reason}
        return Done(sentence=f"{self._words()} is muted.", value=value, target=self._words(), place=self.about())

    def command(self) -> list[str]:
        """See `Act.command`."""
        words = [self.connection, *([self.stream] if self.stream else [])]
        return ["alerts", "mute", *words, *options(hours=self.hours, reason=self.reason)]

    def _words(self) -> str:
        return f"{self.connection} {self.stream}" if self.stream else self.connection

    async def _check(self, desk: Desk) -> None:
        stored = await desk.connection(self.connection)
        known = {one.stream for one in await desk.store.streams(at=desk.clock.now(), connection=stored.key)}
        if self.stream is not None and self.stream not in known:
            raise NotFoundError(f"The connection {stored.key} has no stream `{self.stream}`.")


class Unmute(_AlertAct, frozen=True, kw_only=True):
    """Take a mute back."""

    name: ClassVar[str] = "alerts.unmute"
    title: ClassVar[str] = "Unmute"
    is_at_once: ClassVar[bool] = True

    mute: Id

    async def plan(self, desk: Desk) -> Plan:
        """See `Act.plan`."""
        return Plan(sentence=f"{await self._words(desk)} is told of again.")

    async def carry_out(self, desk: Desk) -> Done:
        """See `Act.carry_out`."""
        words = await self._words(desk)
        await desk.store.remove_mute(self.mute)
        return Done(sentence=f"{words} is told of again.", target=words, place=self.about())

    def command(self) -> list[str]:
        """See `Act.command`."""
        return ["alerts", "unmute", str(self.mute)]

    async def _words(self, desk: Desk) -> str:
        for one in await desk.store.mutes(at=desk.clock.now()):
            if one.id == self.mute:
                await desk.connection(one.connection)
                return f"{one.connection} {one.stream}".strip()
        raise NotFoundError(f"There is no mute {self.mute}.", hint="`headwater alerts` lists them.")


class SendTestMessage(_AlertAct, frozen=True, kw_only=True):
    """Send a message that shows that messages arrive."""

    name: ClassVar[str] = "alerts.test"
    title: ClassVar[str] = "Send a test message"
    inputs: ClassVar = ("target",)

    target: Annotated[str, msgspec.Meta(min_length=1, title="To", description=f"{WEBHOOK}, or an email address.")] = (
        WEBHOOK
    )

    async def plan(self, desk: Desk) -> Plan:
        """See `Act.plan`."""
        return Plan(sentence=f"A test message goes to {self._target(desk)}.")

    async def carry_out(self, desk: Desk) -> Done:
        """See `Act.carry_out`."""
        at, target = desk.clock.now(), self._target(desk)
        number = await desk.store.add_notification(test_message(target, at=at, base_url=desk.base_url), at=at)
        return Done(
            sentence=f"Message {number} to {target} is on its way: what becomes of it stands among the messages.",
            value={"message": number},
            target=target,
            place=self.about(),
        )

    def command(self) -> list[str]:
        """See `Act.command`."""
        return ["alerts", "test", self.target]

    def _target(self, desk: Desk) -> str:
        if desk.tenant is not None:
            raise UsageError("This is for those who see every tenant.")
        return self.target if self.target == WEBHOOK else email_of(self.target)
