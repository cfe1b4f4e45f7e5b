"""Acts on whole connections."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, ClassVar

import msgspec

from headwater.acts.act import Act, Desk, Done, Place, Plan, counted, options
from headwater.acts.streams import Name

REASON_CHARACTERS_MAX = 500


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
