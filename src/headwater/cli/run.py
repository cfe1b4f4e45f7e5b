"""`headwater run`: one run of a stream, now; or what it would come to."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headwater.cli import output
from headwater.cli.main import FAILED, PARTIAL
from headwater.cli.session import Options, instant, platform_options, with_platform

if TYPE_CHECKING:
    from headwater.app import Platform, Through
    from headwater.cassette import Recorder
    from headwater.record import Emission
    from headwater.run import Run, StreamState, Window
    from headwater.runtime import DryPage

LOOK_SECONDS = 0.2
DRY_ROWS_SHOWN = 50


@click.command("run")
@platform_options
@click.argument("words", nargs=-1, required=True, metavar="[CONNECTION] STREAM")
@click.option("--dry-run", is_flag=True, help="Show what would change, and write nothing.")
@click.option("--limit", type=click.IntRange(1), help="Stop after about so many records, at the end of a page.")
@click.option("--pages", type=click.IntRange(1), help="Stop after so many pages.")
@click.option("--from", "start_at", type=instant, help="Ask for a span instead of what is new; the checkpoint stays.")
@click.option("--to", "end_at", type=instant, help="End of that span (default: now).")
@click.option("--partition", default="", help="Of a stream with partitions.")
@click.option("--allow-deletes", is_flag=True, help="Let pass what the mass-delete brake holds.")
@click.option("--record", type=click.Path(path_type=Path), help="Keep what the provider answered in this cassette.")
@click.option("--replay", type=click.Path(path_type=Path), help="Answer from this cassette, without a network.")
def run(
    options: Options,
    words: tuple[str, ...],
    dry_run: bool,
    limit: int | None,
    pages: int | None,
    start_at: datetime | None,
    end_at: datetime | None,
    partition: str,
    allow_deletes: bool,
    record: Path | None,
    replay: Path | None,
) -> int:
    """Carry out one run of STREAM now, in the foreground. CONNECTION may be left out where only one has the stream.

    Exit code 4 when the run succeeded and records of it were quarantined.
    """
    if len(words) > 2:
        raise click.UsageError(f"Got unexpected extra argument ({words[2]}).")
    if limit and pages:
        raise click.UsageError("--limit and --pages do not go together.")
    if end_at and not start_at:
        raise click.UsageError("--to needs --from.")
    connection, stream = words if len(words) == 2 else (None, words[0])
    recorder, through = _cassettes(record, replay)

    async def act(platform: Platform) -> int:
        state = await platform.find_stream(connection, stream, partition)
        window = _window(platform, start_at, end_at)
        pages_limit = pages or _pages_limit(platform, state, limit)
        try:
            if dry_run:
                return await _dry(platform, options, state, window, pages_limit)
            return await _run(platform, options, state, window, pages_limit, allow_deletes=allow_deletes)
        finally:
            if recorder is not None:
                recorder.save()
                output.note(f"Recorded in {record}: look at it before you share it.")

    return with_platform(options, act, projects=True, through=through)


def _cassettes(record: Path | None, replay: Path | None) -> tuple[Recorder | None, Through | None]:
    from headwater import cassette

    if record and replay:
        raise click.UsageError("--record and --replay do not go together.")
    if replay:
        return None, cassette.replay_through(replay)
    recorder = cassette.Recorder(record) if record else None
    return recorder, recorder.through if recorder else None


def _window(platform: Platform, start_at: datetime | None, end_at: datetime | None) -> Window | None:
    from headwater.run import Window

    return Window(start_at, end_at or platform.clock.now()) if start_at else None


def _pages_limit(platform: Platform, state: StreamState, limit: int | None) -> int | None:
    declared = platform.project(state.connector).connector.stream(state.stream)
    assert declared is not None, "stored streams are declared"
    return None if limit is None else -(-limit // declared.page_records)


async def _run(
    platform: Platform,
    options: Options,
    state: StreamState,
    window: Window | None,
    pages: int | None,
    *,
    allow_deletes: bool,
) -> int:
    platform.live.prepare()
    run_id = await platform.store.trigger_run(
        state.id, at=platform.clock.now(), window=window, pages_limit=pages, allow_deletes=allow_deletes
    )
    await platform.audit("runs.trigger", f"{state.connection} {state.stream}", {"run": run_id})
    ended = await _carried_out(platform, run_id)
    if options.json:
        output.print_json(ended)
    else:
        _tell(ended)
    if ended.state != "succeeded":
        return FAILED
    return PARTIAL if ended.counts.quarantined else 0


async def _carried_out(platform: Platform, run_id: int) -> Run:
    """The run after its attempt here, or after the server's where that was faster."""
    from headwater.errors import RequestError, RunEndedError
    from headwater.run import LEASE_SECONDS

    try:
        ref = await platform.store.admit_run(run_id, at=platform.clock.now(), lease_seconds=LEASE_SECONDS)
    except (RequestError, RunEndedError):
        work = None
    else:
        work = asyncio.create_task(platform.live.runner.carry_out(ref))
    try:
        with output.progress(f"run {run_id}") as shown:
            while True:
                found = await _stored(platform, run_id)
                pages, records = output.counted(found.pages, "page"), output.counted(found.counts.total, "record")
                shown.update(found.pages, None, f"{found.stream}: {pages}, {records}")
                if work is None and found.state not in ("scheduled", "running"):
                    return found
                if work is not None and work.done():
                    work.result()
                    return await _stored(platform, run_id)
                await platform.clock.sleep(LOOK_SECONDS)
    finally:
        if work is not None:
            # Interrupted, the run ends cancelled, which it writes down before the store is closed.
            work.cancel()
            await asyncio.wait([work])


async def _stored(platform: Platform, run_id: int) -> Run:
    found = await platform.store.run(run_id)
    assert found is not None, "a run that was made is there"
    return found


def _tell(ended: Run) -> None:
    seconds = (ended.finished_at - ended.started_at).total_seconds() if ended.finished_at and ended.started_at else 0.0
    name = f"{ended.stream}[{ended.partition}]" if ended.partition else ended.stream
    head = f"run {ended.id} of {ended.connection} {name} {ended.state.value}"
    output.say(f"{head}: {output.counted(ended.pages, 'page')}, {output.counts(ended.counts)} in {seconds:.1f} s")
    if ended.error:
        output.note(f"{ended.error_code}: {ended.error}")
    if ended.state == "retrying":
        output.note(f"The next attempt is due at {output.instant(ended.due_at)}; `headwater serve` makes it.")
    if ended.state == "failed":
        output.note(f"`headwater runs show {ended.id}` shows its requests and its traceback.")
    if ended.counts.quarantined:
        output.note("`headwater quarantine` shows the records that did not fit.")


async def _dry(
    platform: Platform, options: Options, state: StreamState, window: Window | None, pages_limit: int | None
) -> int:
    live = await platform.live.connections.get(state.connection_id)
    pages: list[DryPage] = []
    with output.progress(f"dry run of {state.stream}") as shown:
        async for page in platform.live.runner.dry_run(
            live, state.stream, window=window, pages_limit=pages_limit, partition=state.partition
        ):
            pages.append(page)
            shown.update(page.number, None, f"{state.stream}: {output.counted(page.number, 'page')}")
    if options.json:
        output.print_json(_dry_json(state, pages))
    else:
        _print_dry(state, pages)
    return PARTIAL if any(page.quarantined for page in pages) else 0


def _changes(pages: list[DryPage]) -> list[tuple[Emission, str]]:
    return [
        (emission, outcome.value)
        for page in pages
        for emission, outcome in zip(page.emissions, page.outcomes, strict=True)
    ]


def _dry_json(state: StreamState, pages: list[DryPage]) -> dict[str, object]:
    import msgspec

    return {
        "connection": state.connection,
        "stream": state.stream,
        "pages": len(pages),
        "changes": [
            {"outcome": outcome, "type": one.type, "id": one.source_id, "payload": msgspec.Raw(one.payload)}
            for one, outcome in _changes(pages)
        ],
        "quarantined": [
            {"type": one.type, "id": one.source_id, "reason": one.reason} for page in pages for one in page.quarantined
        ],
        "log": [line for page in pages for line in page.log],
        "checkpoint": {"before": state.cursor, "after": pages[-1].checkpoint if pages else state.cursor},
    }


def _print_dry(state: StreamState, pages: list[DryPage]) -> None:
    from headwater.record import Counts

    total = Counts()
    for page in pages:
        total.add(page.counts)
    changes = [(one, outcome) for one, outcome in _changes(pages) if outcome not in ("unchanged", "duplicate")]
    output.print_table(
        ("would be", "type", "id", "payload"),
        [(outcome, one.type, one.source_id, one.payload.decode()) for one, outcome in changes[:DRY_ROWS_SHOWN]],
        empty="Nothing would change.",
    )
    if len(changes) > DRY_ROWS_SHOWN:
        output.say(f"… and {len(changes) - DRY_ROWS_SHOWN} more")
    for page in pages:
        for record in page.quarantined:
            output.say(f"quarantined  {record.type} {record.source_id or ''}  {record.reason}")
        for line in page.log:
            output.say(f"{line.level}  {line.message}")
    after = pages[-1].checkpoint if pages else state.cursor
    output.say(f"\n{output.counted(len(pages), 'page')}: {output.counts(total)}. Nothing was written.")
    output.say(f"checkpoint  {state.cursor} → {after}")
