"""Acts on backfills: a span of the past, beside the live stream."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, ClassVar

import msgspec

from headwater import backfill as backfills
from headwater.acts.act import SAMPLE_MAX, Act, Desk, Done, Place, Plan, counted, options, stream_words
from headwater.acts.streams import Id, StreamAct
from headwater.errors import UsageError
from headwater.run import BackfillWindow, Window

DAYS_MAX = 36_500

Instant = Annotated[datetime, msgspec.Meta(tz=True)]


class StartBackfill(StreamAct, frozen=True, kw_only=True):
    """Ingest a span of history beside the live stream, window by window."""

    name: ClassVar[str] = "backfills.start"
    title: ClassVar[str] = "Backfill"
    inputs: ClassVar = ("start", "end", "days")

    start: Annotated[Instant, msgspec.Meta(title="From")]
    end: Annotated[Instant, msgspec.Meta(title="To", description="Excluded. Empty: now.")] | None = None
    days: (
        Annotated[
            int, msgspec.Meta(ge=1, le=DAYS_MAX, title="Days in a window", description="Empty: the stream's own.")
        ]
        | None
    ) = None

    async def plan(self, desk: Desk) -> Plan:
        """See `Act.plan`."""
        state = await self.pulled(desk)
        declared = desk.project(state.connector).connector.stream(self.stream)
        assert declared is not None, "stored streams are declared"
        windows = backfills.split(self._span(desk), days=self.days or declared.backfill_window_days)
        return Plan(
            sentence=f"{self.words()} is asked for {counted(len(windows), 'window')} of the past, the oldest first.",
            consequences=(
                "Live polls come first, and go on meanwhile.",
                "What is stored already and has not changed, stays as it is; nothing older overwrites what is newer.",
                "It can be paused and cancelled; each window can be done again.",
            ),
            count=len(windows),
            columns=("from", "to"),
            sample=[(one.start, one.end) for one in windows[:SAMPLE_MAX]],
        )

    async def carry_out(self, desk: Desk) -> Done:
        """See `Act.carry_out`."""
        state = await self.pulled(desk)
        made = await backfills.start(
            desk.store,
            connector=desk.project(state.connector).connector,
            connection=state.connection,
            stream=self.stream,
            span=self._span(desk),
            at=desk.clock.now(),
            partition=self.partition,
            days=self.days,
        )
        windows = sum(made.windows.values())
        return Done(
            sentence=f"Backfill {made.id} of {self.words()} has begun: {counted(windows, 'window')}.",
            value={"backfill_id": made.id, "windows": windows},
            target=self.words(),
            place=Place(("backfills", made.id)),
        )

    def command(self) -> list[str]:
        """See `Act.command`."""
        words = ["backfill", "start", self.connection, self.stream, "--from", self.start.isoformat()]
        return [*words, *options(to=self.end, window=self.days, partition=self.partition)]

    def _span(self, desk: Desk) -> Window:
        return Window(self.start, self.end or desk.clock.now())


class BackfillAct(Act, frozen=True, kw_only=True):
    """An act on one backfill."""

    word: ClassVar[str]  # on the command line

    backfill: Id

    async def change(self, desk: Desk) -> str:
        """Change it; what it is now, in words."""
        raise NotImplementedError

    async def carry_out(self, desk: Desk) -> Done:
        """See `Act.carry_out`."""
        found = await desk.backfill(self.backfill)
        now = await self.change(desk)
        return Done(
            sentence=f"Backfill {found.id} is {now}.",
            value={"backfill_id": found.id},
            target=f"backfill {found.id} of {stream_words(found.connection, found.stream, found.partition)}",
            place=self.about(),
        )

    def command(self) -> list[str]:
        """See `Act.command`."""
        return ["backfill", self.word, str(self.backfill)]

    def about(self) -> Place:
        """See `Act.about`."""
        return Place(("backfills", self.backfill))


class PauseBackfill(BackfillAct, frozen=True, kw_only=True):
    """Begin no further window; those under way finish."""

    name: ClassVar[str] = "backfills.pause"
    title: ClassVar[str] = "Pause"
    word: ClassVar[str] = "pause"
    is_at_once: ClassVar[bool] = True

    async def plan(self, desk: Desk) -> Plan:
        """See `Act.plan`."""
        found = await desk.backfill(self.backfill)
        return Plan(sentence=f"Backfill {found.id} begins no further window.", is_possible=found.state == "running")

    async def change(self, desk: Desk) -> str:
        """See `BackfillAct.change`."""
        await backfills.pause(desk.store, self.backfill, at=desk.clock.now())
        return "paused"


class ResumeBackfill(BackfillAct, frozen=True, kw_only=True):
    """Go on after a pause."""

    name: ClassVar[str] = "backfills.resume"
    title: ClassVar[str] = "Resume"
    word: ClassVar[str] = "resume"
    is_at_once: ClassVar[bool] = True

    async def plan(self, desk: Desk) -> Plan:
        """See `Act.plan`."""
        found = await desk.backfill(self.backfill)
        return Plan(sentence=f"Backfill {found.id} goes on.", is_possible=found.state == "paused")

    async def change(self, desk: Desk) -> str:
        """See `BackfillAct.change`."""
        await backfills.resume(desk.store, self.backfill, at=desk.clock.now())
        return "resumed"


class CancelBackfill(BackfillAct, frozen=True, kw_only=True):
    """End a backfill; what was ingested stays."""

    name: ClassVar[str] = "backfills.cancel"
    title: ClassVar[str] = "Cancel"
    word: ClassVar[str] = "cancel"
    is_grave: ClassVar[bool] = True

    async def plan(self, desk: Desk) -> Plan:
        """See `Act.plan`."""
        found = await desk.backfill(self.backfill)
        left = found.windows.get("todo", 0) + found.windows.get("running", 0)
        return Plan(
            sentence=f"Backfill {found.id} ends with {counted(left, 'window')} not done.",
            consequences=("It cannot be resumed.", "What was ingested stays."),
            is_possible=found.state in ("running", "paused"),
        )

    async def change(self, desk: Desk) -> str:
        """See `BackfillAct.change`."""
        await backfills.cancel(desk.store, self.backfill, at=desk.clock.now())
        return "cancelled"

    def command(self) -> list[str]:
        """See `Act.command`."""
        return ["backfill", self.word, str(self.backfill), "--yes"]


class RetryWindows(BackfillAct, frozen=True, kw_only=True):
    """Do windows again from their beginning: one of them, or all that failed."""

    name: ClassVar[str] = "backfills.retry"
    title: ClassVar[str] = "Retry the failed windows"
    word: ClassVar[str] = "retry-window"

    number: Annotated[int, msgspec.Meta(ge=1, le=backfills.WINDOWS_MAX)] | None = None  # 1 is the oldest

    async def plan(self, desk: Desk) -> Plan:
        """See `Act.plan`."""
        await desk.backfill(self.backfill)
        chosen = self._chosen(await desk.store.windows(self.backfill))
        return Plan(
            sentence=f"{counted(len(chosen), 'window')} of backfill {self.backfill} begin anew.",
            consequences=("What is stored already and has not changed, stays as it is.",),
            count=len(chosen),
            columns=("window", "from", "to", "state", "error"),
            sample=[
                (number, one.window.start, one.window.end, one.state, one.error or "")
                for number, one in chosen[:SAMPLE_MAX]
            ],
            is_possible=bool(chosen),
        )

    async def change(self, desk: Desk) -> str:
        """See `BackfillAct.change`."""
        chosen = self._chosen(await desk.store.windows(self.backfill))
        if not chosen:
            raise UsageError(f"No window of backfill {self.backfill} failed.")
        for number, _ in chosen:
            await backfills.retry_window(desk.store, self.backfill, number, at=desk.clock.now())
        return f"doing {counted(len(chosen), 'window')} again"

    def command(self) -> list[str]:
        """See `Act.command`."""
        return ["backfill", self.word, str(self.backfill), str(self.number) if self.number else "--failed"]

    def _chosen(self, windows: Sequence[BackfillWindow]) -> list[tuple[int, BackfillWindow]]:
        numbered = list(enumerate(windows, 1))
        if self.number is None:
            return [(number, one) for number, one in numbered if one.state == "failed"]
        return [(number, one) for number, one in numbered if number == self.number]
