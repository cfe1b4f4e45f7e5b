"""`headwater backfill`: a span of history, beside the live stream.

`headwater backfill CONNECTION STREAM --from … --to …` begins one; the other acts are named: list, show, pause, resume,
cancel, retry-window.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import datetime
from typing import TYPE_CHECKING

import click

from headwater.cli import output
from headwater.cli.main import PARTIAL, ListGroup
from headwater.cli.runs import stream_name
from headwater.cli.session import Options, confirm, instant, is_served, platform_options, with_platform

if TYPE_CHECKING:
    from headwater.acts.backfills import BackfillAct
    from headwater.app import Platform
    from headwater.run import Backfill, BackfillWindow

LOOK_SECONDS = 0.5


class _BackfillGroup(ListGroup):
    """Takes CONNECTION STREAM as the command `start`, which nobody has to type; alone it lists."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See `click.Group`."""
        words = [arg for arg in args if not arg.startswith("-")]
        if words and words[0] not in self.commands and len(words) > 1:
            args = ["start", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_BackfillGroup)
def backfill() -> None:
    """Ingest a span of history beside the live stream.

    headwater backfill CONNECTION STREAM --from 2024-01-01 --to 2025-01-01
    """


@backfill.command("start")
@platform_options
@click.argument("connection")
@click.argument("stream")
@click.option("--from", "start_at", type=instant, required=True, help="Beginning of the span.")
@click.option("--to", "end_at", type=instant, help="Its end, excluded (default: now).")
@click.option("--window", "days", type=click.IntRange(1), help="Days in a window (default: the stream's own).")
@click.option("--partition", default="", help="Of a stream with partitions.")
@click.option("--wait", is_flag=True, help="Carry it out here, or watch the server do it, until it ends.")
def start(
    options: Options,
    connection: str,
    stream: str,
    start_at: datetime,
    end_at: datetime | None,
    days: int | None,
    partition: str,
    wait: bool,
) -> int:
    """Begin a backfill of STREAM of CONNECTION."""

    async def act(platform: Platform) -> int:
        from headwater.acts.backfills import StartBackfill

        state = await platform.find_stream(connection, stream, partition)
        done = await platform.perform(
            StartBackfill(
                connection=state.connection, stream=stream, partition=partition, start=start_at, end=end_at, days=days
            )
        )
        made = await _existing(platform, done.value["backfill_id"])
        if not wait:
            _tell_begun(options, made)
            return 0
        ended = await _wait(platform, made.id)
        await _show(platform, options, ended)
        return _code(ended)

    return with_platform(options, act, projects=True)


@backfill.command("list")
@platform_options
@click.option("--connection", help="Connection key.")
@click.option("--stream", help="Stream key.")
def list_(options: Options, connection: str | None, stream: str | None) -> None:
    """Backfills, newest first."""

    async def act(platform: Platform) -> None:
        found = await platform.store.backfills(connection=connection, stream=stream)
        if options.json:
            output.print_json(found)
            return
        output.print_table(
            ("backfill", "connection", "stream", "from", "to", "state", "windows", "records"),
            [
                (
                    one.id, one.connection, stream_name(one.stream, one.partition), one.span.start, one.span.end,
                    one.state, f"{one.windows.get('done', 0)}/{sum(one.windows.values())}", output.counts(one.counts),
                )
                for one in found
            ],
            empty="No backfills yet. `headwater backfill CONNECTION STREAM --from …` begins one.",
        )  # fmt: skip

    with_platform(options, act)


@backfill.command("show")
@platform_options
@click.argument("backfill_id", type=int)
@click.option("--wait", is_flag=True, help="Carry it out here, or watch the server do it, until it ends.")
def show(options: Options, backfill_id: int, wait: bool) -> int:
    """One backfill with its interval map, and the windows that failed."""

    async def act(platform: Platform) -> int:
        found = await _existing(platform, backfill_id)
        if wait:
            found = await _wait(platform, backfill_id)
        await _show(platform, options, found)
        return _code(found) if wait else 0

    return with_platform(options, act, projects=wait)


@backfill.command("pause")
@platform_options
@click.argument("backfill_id", type=int)
def pause(options: Options, backfill_id: int) -> None:
    """Begin no further window; those under way finish."""
    from headwater.acts.backfills import PauseBackfill

    _change(options, PauseBackfill(backfill=backfill_id))


@backfill.command("resume")
@platform_options
@click.argument("backfill_id", type=int)
def resume(options: Options, backfill_id: int) -> None:
    """Go on after a pause."""
    from headwater.acts.backfills import ResumeBackfill

    _change(options, ResumeBackfill(backfill=backfill_id))


@backfill.command("cancel")
@platform_options
@click.argument("backfill_id", type=int)
@click.option("--yes", is_flag=True, help="Do not ask.")
def cancel(options: Options, backfill_id: int, yes: bool) -> None:
    """End it; what was ingested stays."""
    from headwater.acts.backfills import CancelBackfill

    confirm(f"Cancel the backfill {backfill_id}? It cannot be resumed.", yes=yes)
    _change(options, CancelBackfill(backfill=backfill_id))


@backfill.command("retry-window")
@platform_options
@click.argument("backfill_id", type=int)
@click.argument("number", type=int, required=False)
@click.option("--failed", is_flag=True, help="All windows that failed.")
def retry_window(options: Options, backfill_id: int, number: int | None, failed: bool) -> None:
    """Do the window of that NUMBER (1 is the oldest) again from its beginning, or all that failed."""
    from headwater.acts.backfills import RetryWindows

    if (number is None) != failed:
        raise click.UsageError("Name a window, or say --failed.")
    _change(options, RetryWindows(backfill=backfill_id, number=number))


def _change(options: Options, act_: BackfillAct) -> None:
    async def act(platform: Platform) -> None:
        done = await platform.perform(act_)
        if options.json:
            output.print_json(await platform.store.backfill(act_.backfill))
        else:
            output.say(done.sentence)

    with_platform(options, act)


def _tell_begun(options: Options, made: Backfill) -> None:
    if options.json:
        output.print_json(made)
        return
    output.say(f"Backfill {made.id} has begun: {sum(made.windows.values())} windows.")
    output.note(f"`headwater serve` carries it out; `headwater backfill show {made.id} --wait` watches it.")


async def _wait(platform: Platform, backfill_id: int) -> Backfill:
    """Watch a backfill to its end; where no server works on the database, its windows are carried out here."""
    from headwater import backfill as backfills

    with output.progress(f"backfill {backfill_id}") as shown:
        async with await _at_work(platform):
            while True:
                found = await _existing(platform, backfill_id)
                windows = await platform.store.windows(backfill_id)
                how = backfills.progress(found, windows, platform.clock.now())
                eta = f", {output.duration(how.eta_seconds)} to go" if how.eta_seconds is not None else ""
                text = f"{how.done}/{how.total} windows, {how.records} records, {how.records_per_second:.0f}/s{eta}"
                shown.update(how.done, how.total, f"{found.stream}: {text}")
                if found.state in ("succeeded", "failed", "cancelled", "paused"):
                    return found
                await platform.clock.sleep(LOOK_SECONDS)


async def _at_work(platform: Platform) -> AbstractAsyncContextManager[None]:
    from headwater.application import working

    return nullcontext() if await is_served(platform) else working(platform)


async def _show(platform: Platform, options: Options, found: Backfill) -> None:
    from headwater import backfill as backfills

    windows = await platform.store.windows(found.id)
    how = backfills.progress(found, windows, platform.clock.now())
    if options.json:
        output.print_json({"backfill": found, "progress": how, "windows": windows})
        return
    eta = output.duration(how.eta_seconds) if how.eta_seconds is not None else None
    output.print_facts(
        [
            ("backfill", found.id),
            ("stream", f"{found.connection} {stream_name(found.stream, found.partition)}"),
            ("span", f"{output.instant(found.span.start)} to {output.instant(found.span.end)}"),
            ("state", found.state),
            ("windows", f"{how.done} of {how.total} done"),
            ("records", output.counts(found.counts)),
            ("rate", f"{how.records_per_second:.0f} records/s"),
            ("to go", eta),
        ]
    )
    output.say(f"\n{backfills.interval_map(windows)}\n{backfills.LEGEND}")
    _print_failed(windows)


def _print_failed(windows: Sequence[BackfillWindow]) -> None:
    failed = [(number, one) for number, one in enumerate(windows, 1) if one.state == "failed"]
    if failed:
        output.say()
        output.print_table(
            ("window", "from", "to", "attempts", "error"),
            [(number, one.window.start, one.window.end, one.attempts, one.error) for number, one in failed],
        )


async def _existing(platform: Platform, backfill_id: int) -> Backfill:
    from headwater.errors import NotFoundError

    found = await platform.store.backfill(backfill_id)
    if found is None:
        raise NotFoundError(f"There is no backfill {backfill_id}.", hint="`headwater backfill list` shows them.")
    return found


def _code(found: Backfill) -> int:
    if found.state in ("succeeded", "paused"):
        return 0
    return PARTIAL if found.windows.get("done") else 1
