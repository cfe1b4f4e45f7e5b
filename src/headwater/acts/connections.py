"""Acts on whole connections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, ClassVar

import msgspec

from headwater.acts.act import INTEGER_MAX, SAMPLE_MAX, Act, Desk, Done, Place, Plan, counted, options, require_expected
from headwater.acts.streams import Name
from headwater.errors import UsageError, near_miss

REASON_CHARACTERS_MAX = 500
FORGET_LIMIT = 2_000  # records in one transaction


class ConnectionAct(Act, frozen=True, kw_only=True):
    """An act on one connection."""

    connection: Name

    def about(self) -> Place:
        """See `Act.about`."""
        return Place(("connections", self.connection))


class PauseConnection(ConnectionAct, frozen=True, kw_only=True):
    """Run nothing of a connection until it is resumed; its deliveries are still stored."""

    name: ClassVar[str] = "connections.pause"
    title: ClassVar[str] = "Pause"
    inputs: ClassVar = ("reason",)

    reason: Annotated[
        str,
        msgspec.Meta(max_length=REASON_CHARACTERS_MAX, title="Why", description="Shown wherever its status is."),
    ] = "paused by an operator"

    async def plan(self, desk: Desk) -> Plan:
        """See `Act.plan`."""
        stored = await desk.connection(self.connection)
        own = await desk.store.streams(at=desk.clock.now(), connection=stored.key)
        return Plan(
            sentence=f"{counted(len(own), 'stream')} of {stored.key} start nothing until it is resumed.",
            consequences=("Runs under way finish.", "Deliveries are still verified and stored, and wait."),
        )

    async def carry_out(self, desk: Desk) -> Done:
        """See `Act.carry_out`."""
        stored = await desk.connection(self.connection)
        at = desk.clock.now()
        reason = self.reason.strip() or "paused by an operator"
        await desk.store.pause_connection(stored.id, reason=reason, needs_attention=False, at=at)
        value = {"key": stored.key, "paused_at": at, "paused_reason": reason}
        return Done(sentence=f"{stored.key} is paused.", value=value, target=stored.key, place=self.about())

    def command(self) -> list[str]:
        """See `Act.command`."""
        return ["connections", "pause", self.connection, *options(reason=self.reason)]


class ResumeConnection(ConnectionAct, frozen=True, kw_only=True):
    """Undo a pause, or say that what needed attention is mended."""

    name: ClassVar[str] = "connections.resume"
    title: ClassVar[str] = "Resume"
    is_at_once: ClassVar[bool] = True

    async def plan(self, desk: Desk) -> Plan:
        """See `Act.plan`."""
        stored = await desk.connection(self.connection)
        return Plan(sentence=f"{stored.key} goes on: what was due meanwhile runs at once.")

    async def carry_out(self, desk: Desk) -> Done:
        """See `Act.carry_out`."""
        stored = await desk.connection(self.connection)
        await desk.store.resume_connection(stored.id, at=desk.clock.now())
        value = {"key": stored.key, "paused_at": None, "paused_reason": None}
        return Done(sentence=f"{stored.key} is resumed.", value=value, target=stored.key, place=self.about())

    def command(self) -> list[str]:
        """See `Act.command`."""
        return ["connections", "resume", self.connection]


class ForgetRecords(ConnectionAct, frozen=True, kw_only=True):
    """Forget what is stored of a connection's records; checkpoints stay, and are reset apart."""

    name: ClassVar[str] = "records.forget"
    title: ClassVar[str] = "Forget stored records"
    inputs: ClassVar = ("type",)
    is_grave: ClassVar[bool] = True

    type: Annotated[Name, msgspec.Meta(title="Type", description="Empty: of every type.")] | None = None
    expected: Annotated[int, msgspec.Meta(ge=0, le=INTEGER_MAX)] | None = None

    async def plan(self, desk: Desk) -> Plan:
        """See `Act.plan`."""
        own = await self._populations(desk)
        count = sum(live for _, live in own)
        return Plan(
            sentence=f"{counted(count, 'live record')} of {self.connection} and all their versions are removed.",
            consequences=(
                "It cannot be undone.",
                "Whoever reads the change feed sees what comes again as new.",
                "The checkpoints stay: only what the provider tells again comes back. Reset them for all of it.",
                "Deliveries, runs and quarantined records stay; a delivery that is replayed brings its records back.",
            ),
            count=count,
            columns=("type", "live records"),
            sample=own[:SAMPLE_MAX],
            is_possible=bool(own),
        )

    async def carry_out(self, desk: Desk) -> Done:
        """See `Act.carry_out`."""
        stored = await desk.connection(self.connection)
        count = sum(live for _, live in await self._populations(desk))
        require_expected(self.expected, count, "records")
        while await desk.store.forget_records(stored.id, type=self.type, limit=FORGET_LIMIT):
            pass
        return Done(
            sentence=f"{counted(count, 'record')} of {stored.key} forgotten.",
            value={"records": count, "type": self.type},
            target=stored.key,
            place=self.about(),
        )

    def command(self) -> list[str]:
        """See `Act.command`."""
        return ["records", "forget", self.connection, *options(type=self.type), "--yes"]

    @classmethod
    async def choices(cls, given: Mapping[str, str], desk: Desk) -> Mapping[str, Sequence[str]]:
        """See `Act.choices`."""
        return {"type": [kind for key, kind, _ in await desk.store.populations() if key == given.get("connection")]}

    async def _populations(self, desk: Desk) -> list[tuple[str, int]]:
        stored = await desk.connection(self.connection)
        own = [(kind, live) for key, kind, live in await desk.store.populations() if key == stored.key]
        if self.type is not None and self.type not in dict(own):
            hint = near_miss(self.type, dict(own))
            raise UsageError(f"{stored.key} has no records of the type `{self.type}`.", hint=hint)
        return [(kind, live) for kind, live in own if self.type in (None, kind)]


class TestConnection(ConnectionAct, frozen=True, kw_only=True):
    """Try the credentials of a connection with its connector's own test."""

    __test__ = False  # to pytest, this is no test

    name: ClassVar[str] = "connections.test"
    title: ClassVar[str] = "Test the connection"
    is_at_once: ClassVar[bool] = True

    async def plan(self, desk: Desk) -> Plan:
        """See `Act.plan`."""
        stored = await desk.connection(self.connection)
        return Plan(sentence=f"The provider is asked whether the credentials of {stored.key} work.")

    async def carry_out(self, desk: Desk) -> Done:
        """See `Act.carry_out`."""
        from headwater.invoke import test_connection

        came = await test_connection(await desk.live(self.connection))
        return Done(
            sentence=f"{self.connection}: {came.message}",
            value=asdict(came),
            target=self.connection,
            ok=came.ok,
        )

    def command(self) -> list[str]:
        """See `Act.command`."""
        return ["connections", "test", self.connection]
