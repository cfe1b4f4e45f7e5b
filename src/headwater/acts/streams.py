"""Acts on streams, their runs and their checkpoints."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from headwater.acts.act import (
    INTEGER_MAX,
    NAME_CHARACTERS_MAX,
    Act,
    Desk,
    Done,
    Place,
    Plan,
    counted,
    options,
    stream_words,
)
from headwater.errors import UsageError
from headwater.record import COUNT_NAMES, Counts
from headwater.run import CURSOR_BYTES_MAX, StreamState

PAGES_MAX = 1_000_000
DRY_PAGES_MAX = 10  # of a dry run: its answer is held in memory
DRY_ROWS_SHOWN = 50

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_CHARACTERS_MAX)]
Partition = Annotated[str, msgspec.Meta(max_length=NAME_CHARACTERS_MAX)]
Id = Annotated[int, msgspec.Meta(ge=1, le=INTEGER_MAX)]
Pages = Annotated[
    int, msgspec.Meta(ge=1, le=PAGES_MAX, title="Pages at most", description="Empty: until the provider has no more.")
]


class StreamAct(Act, frozen=True, kw_only=True):
    """An act on one stream of a connection, or on one of its partitions."""

    connection: Name
    stream: Name
    partition: Partition = ""

    async def state(self, desk: Desk) -> StreamState:
        """The stream."""
        return await desk.stream(self.connection, self.stream, self.partition)

    async def pulled(self, desk: Desk) -> StreamState:
        """The stream, where it has runs."""
        found = await self.state(desk)
        if found.mode == "webhook":
            raise UsageError("A webhook stream has no runs.", hint="Replay deliveries instead.")
        return found

    def words(self) -> str:
        """The stream, by name."""
        return stream_words(self.connection, self.stream, self.partition)

    def about(self) -> Place:
        """See `Act.about`."""
        return Place(("connections", self.connection, "streams", self.stream), {"partition": self.partition})


class TriggerRun(StreamAct, frozen=True, kw_only=True):
    """Run a stream now, from its checkpoint, whatever its schedule says."""

    name: ClassVar[str] = "runs.trigger"
    title: ClassVar[str] = "Run now"
    is_at_once: ClassVar[bool] = True
    inputs: ClassVar = ("pages_limit", "allow_deletes")

    pages_limit: Pages | None = None
    allow_deletes: Annotated[
        bool,
        msgspec.Meta(title="Let deletions pass", description="Releases the mass-delete brake for this one run."),
    ] = False

    async def plan(self, desk: Desk) -> Plan:
        """See `Act.plan`."""
        state = await self.pulled(desk)
        if state.running_run_id is not None:
            sentence = f"Run {state.running_run_id} of {self.words()} is under way: another begins after it."
            return Plan(sentence=sentence, is_possible=False)
        where = "from the beginning" if state.cursor is None else f"from its checkpoint `{state.cursor}`"
        return Plan(sentence=f"{self.words()} runs now, {where}.")

    async def carry_out(self, desk: Desk) -> Done:
        """See `Act.carry_out`."""
        state = await self.pulled(desk)
        run_id = await desk.store.trigger_run(
            state.id, at=desk.clock.now(), pages_limit=self.pages_limit, allow_deletes=self.allow_deletes
        )
        return Done(
            sentence=f"Run {run_id} of {self.words()} waits for its turn.",
            value={"run_id": run_id, "pages_limit": self.pages_limit, "allow_deletes": self.allow_deletes},
            target=self.words(),
            place=Place(("runs", run_id)),
        )

    def command(self) -> list[str]:
        """See `Act.command`."""
        more = options(partition=self.partition, pages=self.pages_limit, allow_deletes=self.allow_deletes)
        return ["run", self.connection, self.stream, *more]


class TryRun(StreamAct, frozen=True, kw_only=True):
    """Fetch some pages of a stream and tell what they would change; nothing is written."""

    name: ClassVar[str] = "runs.try"
    title: ClassVar[str] = "Dry run"
    inputs: ClassVar = ("pages_limit",)

    pages_limit: Annotated[
        int, msgspec.Meta(ge=1, le=DRY_PAGES_MAX, title="Pages at most", description=f"At most {DRY_PAGES_MAX}.")
    ] = 1

    async def plan(self, desk: Desk) -> Plan:
        """See `Act.plan`."""
        await self.pulled(desk)
        pages = counted(self.pages_limit, "page")
        return Plan(sentence=f"The provider is asked for {pages} of {self.words()}. Nothing is written.")

    async def carry_out(self, desk: Desk) -> Done:
        """See `Act.carry_out`."""
        state = await self.pulled(desk)
        live = await desk.live(self.connection)
        total, pages, rows, checkpoint = Counts(), 0, [], state.cursor
        async for page in desk.at_work().runner.dry_run(
            live, self.stream, window=None, pages_limit=self.pages_limit, partition=self.partition
        ):
            pages, checkpoint = pages + 1, page.checkpoint
            total.add(page.counts)
            rows += [
                (outcome.value, one.type, one.source_id, "")
                for one, outcome in zip(page.emissions, page.outcomes, strict=True)
            ]
            rows += [("quarantined", one.type, one.source_id or "", one.reason) for one in page.quarantined]
        figures = [f"{getattr(total, name):,} {name}" for name in COUNT_NAMES if getattr(total, name)]
        return Done(
            sentence=f"{counted(pages, 'page')} would come to {', '.join(figures) or 'nothing'}. Nothing was written.",
            value={
                "pages": pages,
                "counts": {name: getattr(total, name) for name in COUNT_NAMES},
                "checkpoint": {"before": state.cursor, "after": checkpoint},
            },
            target=self.words(),
            columns=("would be", "type", "record", "why"),
            rows=rows[:DRY_ROWS_SHOWN],
        )

    def command(self) -> list[str]:
        """See `Act.command`."""
        more = options(partition=self.partition, dry_run=True, pages=self.pages_limit)
        return ["run", self.connection, self.stream, *more]


class PauseStream(StreamAct, frozen=True, kw_only=True):
    """Start no run of a stream until it is resumed; one under way finishes."""

    name: ClassVar[str] = "streams.pause"
    title: ClassVar[str] = "Pause"
    is_at_once: ClassVar[bool] = True

    async def plan(self, desk: Desk) -> Plan:
        """See `Act.plan`."""
        await self.state(desk)
        return Plan(sentence=f"{self.words()} starts no run until it is resumed. One that is under way finishes.")

    async def carry_out(self, desk: Desk) -> Done:
        """See `Act.carry_out`."""
        state = await self.state(desk)
        await desk.store.pause_stream(state.id, at=desk.clock.now())
        return Done(sentence=f"{self.words()} is paused.", target=self.words(), place=self.about())

    def command(self) -> list[str]:
        """See `Act.command`."""
        return ["streams", "pause", self.connection, self.stream, *options(partition=self.partition)]


class ResumeStream(StreamAct, frozen=True, kw_only=True):
    """Undo a stream's pause: ticks that were missed coalesce into one run, now."""

    name: ClassVar[str] = "streams.resume"
    title: ClassVar[str] = "Resume"
    is_at_once: ClassVar[bool] = True

    async def plan(self, desk: Desk) -> Plan:
        """See `Act.plan`."""
        await self.state(desk)
        return Plan(sentence=f"{self.words()} goes on; a poll stream runs at once.")

    async def carry_out(self, desk: Desk) -> Done:
        """See `Act.carry_out`."""
        state = await self.state(desk)
        next_tick_at = desk.clock.now() if state.mode == "poll" else None
        await desk.store.resume_stream(state.id, next_tick_at=next_tick_at)
        return Done(sentence=f"{self.words()} is resumed.", target=self.words(), place=self.about())

    def command(self) -> list[str]:
        """See `Act.command`."""
        return ["streams", "resume", self.connection, self.stream, *options(partition=self.partition)]


class CancelRun(Act, frozen=True, kw_only=True):
    """Cancel a run that waits or runs: nothing more of it is committed."""

    name: ClassVar[str] = "runs.cancel"
    title: ClassVar[str] = "Cancel"

    run: Id

    async def plan(self, desk: Desk) -> Plan:
        """See `Act.plan`."""
        run = await desk.run(self.run)
        words = stream_words(run.connection, run.stream, run.partition)
        if run.finished_at is not None:
            return Plan(sentence=f"Run {run.id} of {words} is over: it {run.state.value}.", is_possible=False)
        kept = f"{counted(run.pages, 'page')} of it {'is' if run.pages == 1 else 'are'} committed, and"
        return Plan(sentence=f"Run {run.id} of {words} ends.", consequences=(f"{kept} what they brought stays.",))

    async def carry_out(self, desk: Desk) -> Done:
        """See `Act.carry_out`."""
        run = await desk.run(self.run)
        cancelled = await desk.store.cancel_run(run.id, at=desk.clock.now())
        return Done(
            sentence=f"Run {run.id} is cancelled." if cancelled else f"Run {run.id} was over already.",
            value={"cancelled": cancelled},
            target=f"run {run.id}",
            place=self.about(),
            ok=cancelled,
        )

    def command(self) -> list[str]:
        """See `Act.command`."""
        return ["runs", "cancel", str(self.run)]

    def about(self) -> Place:
        """See `Act.about`."""
        return Place(("runs", self.run))


class _MoveCheckpoint(StreamAct, frozen=True, kw_only=True):
    """What setting and resetting a checkpoint have in common."""

    is_grave: ClassVar[bool] = True

    @property
    def target_cursor(self) -> str | None:
        """Where the stream goes on; None: at the beginning."""
        raise NotImplementedError

    async def plan(self, desk: Desk) -> Plan:
        """See `Act.plan`."""
        state = await self.pulled(desk)
        return Plan(
            sentence=f"{self.words()} goes on at {_place(self.target_cursor)}. It stands at {_place(state.cursor)}.",
            consequences=(
                "A run that is under way is ended.",
                "Records stay: what comes again and has not changed, changes nothing.",
                "What lies between the two is skipped, or asked for again.",
            ),
            is_possible=self.target_cursor != state.cursor,
        )

    async def carry_out(self, desk: Desk) -> Done:
        """See `Act.carry_out`."""
        state = await self.pulled(desk)
        if self.target_cursor is not None and len(self.target_cursor.encode()) > CURSOR_BYTES_MAX:
            raise UsageError(f"A cursor has at most {CURSOR_BYTES_MAX} bytes.")
        await desk.store.set_checkpoint(state.id, self.target_cursor, at=desk.clock.now())
        return Done(
            sentence=f"{self.words()} goes on at {_place(self.target_cursor)}. It stood at {_place(state.cursor)}.",
            value={
                "connection": state.connection,
                "stream": state.stream,
                "partition": state.partition,
                "before": state.cursor,
                "after": self.target_cursor,
            },
            target=self.words(),
            place=self.about(),
        )


class SetCheckpoint(_MoveCheckpoint, frozen=True, kw_only=True):
    """Let a stream go on elsewhere; a run under way is ended."""

    name: ClassVar[str] = "checkpoints.set"
    title: ClassVar[str] = "Set the checkpoint"
    inputs: ClassVar = ("cursor",)

    cursor: Annotated[
        str,
        msgspec.Meta(
            min_length=1,
            max_length=CURSOR_BYTES_MAX,
            title="Go on after",
            description="A cursor of the provider's.",
        ),
    ]

    @property
    def target_cursor(self) -> str | None:
        """See `_MoveCheckpoint`."""
        return self.cursor

    def command(self) -> list[str]:
        """See `Act.command`."""
        more = options(partition=self.partition, yes=True)
        return ["checkpoints", "set", *more, "--", self.connection, self.stream, self.cursor]


class ResetCheckpoint(_MoveCheckpoint, frozen=True, kw_only=True):
    """Forget a stream's checkpoint: its next run begins at the beginning. Records stay."""

    name: ClassVar[str] = "checkpoints.reset"
    title: ClassVar[str] = "Reset the checkpoint"

    @property
    def target_cursor(self) -> str | None:
        """See `_MoveCheckpoint`."""
        return None

    def command(self) -> list[str]:
        """See `Act.command`."""
        more = options(partition=self.partition, yes=True)
        return ["checkpoints", "reset", self.connection, self.stream, *more]


def _place(cursor: str | None) -> str:
    return "the beginning" if cursor is None else f"`{cursor}`"
