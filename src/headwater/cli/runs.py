"""`headwater runs`: what ran, page by page, and how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from headwater.cli import output
from headwater.cli.main import ListGroup
from headwater.cli.session import Options, platform_options, with_platform

if TYPE_CHECKING:
    from headwater.app import Platform
    from headwater.run import PageRow, RequestLog, Run

STATES = ("scheduled", "running", "retrying", "succeeded", "failed", "cancelled")


@click.group(cls=ListGroup)
def runs() -> None:
    """List, show and cancel runs."""


@runs.command("list")
@platform_options
@click.option("--connection", help="Connection key.")
@click.option("--stream", help="Stream key.")
@click.option("--state", type=click.Choice(STATES))
@click.option("--limit", type=click.IntRange(1, 1000), default=30, show_default=True)
@click.option("--after", type=int, help="Go on after this run id (smaller ones).")
def list_(
    options: Options, connection: str | None, stream: str | None, state: str | None, limit: int, after: int | None
) -> None:
    """Runs, newest first."""
    from headwater.run import RunState

    async def act(platform: Platform) -> None:
        found = await platform.store.runs(
            connection=connection,
            stream=stream,
            state=RunState(state) if state else None,
            after=after,
            limit=limit,
        )
        if options.json:
            output.print_json(found)
            return
        now = platform.clock.now()
        output.print_table(
            ("run", "connection", "stream", "trigger", "state", "when", "pages", "records", "error"),
            [
                (
                    run.id, run.connection, stream_name(run.stream, run.partition), run.trigger, run.state.value,
                    output.ago(run.started_at or run.scheduled_at, now), run.pages, output.counts(run.counts),
                    run.error,
                )
                for run in found
            ],
            empty="No runs yet. `headwater run CONNECTION STREAM` makes one now.",
        )  # fmt: skip

    with_platform(options, act)


@runs.command("show")
@platform_options
@click.argument("run_id", type=int)
def show(options: Options, run_id: int) -> None:
    """One run: its pages, its requests, its error, what it logged."""

    async def act(platform: Platform) -> None:
        from headwater.log_line import LINES_KEPT, LogFilter

        run = await _found(platform, run_id)
        pages = await platform.store.pages(run_id)
        requests = await platform.store.requests(run_id)
        log = list(reversed(await platform.store.log_lines(LogFilter(run_id=run_id), limit=LINES_KEPT)))
        if options.json:
            output.print_json({"run": run, "pages": pages, "requests": requests, "log": log})
        else:
            _print_run(run, pages, requests)
            if log:
                output.say()
                output.print_table(
                    ("logged", "level", "line"), [(one.at, one.level, one.message) for one in log], widest="line"
                )

    with_platform(options, act)


@runs.command("cancel")
@platform_options
@click.argument("run_id", type=int)
def cancel(options: Options, run_id: int) -> int:
    """Cancel a run that waits or runs: nothing more of it is committed."""

    async def act(platform: Platform) -> int:
        from headwater.acts.streams import CancelRun

        done = await platform.perform(CancelRun(run=run_id))
        if options.json:
            output.print_json({"run": run_id, **done.value})
        else:
            output.say(done.sentence)
        return 0 if done.ok else 1

    return with_platform(options, act)


async def _found(platform: Platform, run_id: int) -> Run:
    from headwater.errors import NotFoundError

    run = await platform.store.run(run_id)
    if run is None:
        raise NotFoundError(f"There is no run {run_id}.", hint="`headwater runs` lists them.")
    return run


def stream_name(stream: str, partition: str) -> str:
    """The stream, with its partition where it has one."""
    return f"{stream}[{partition}]" if partition else stream


def _print_run(run: Run, pages: Sequence[PageRow], requests: Sequence[RequestLog]) -> None:
    window = f"{output.instant(run.window.start)} to {output.instant(run.window.end)}" if run.window else None
    output.print_facts(
        [
            ("run", run.id),
            ("stream", f"{run.connection} {stream_name(run.stream, run.partition)}"),
            ("state", run.state.value),
            ("trigger", run.trigger if run.backfill_id is None else f"backfill {run.backfill_id}"),
            ("attempt", run.attempt),
            ("window", window),
            ("scheduled", run.scheduled_at),
            ("started", run.started_at),
            ("finished", run.finished_at),
            ("next attempt", run.due_at if run.state == "retrying" else None),
            ("records", output.counts(run.counts)),
            ("checkpoint", _moved(run)),
            ("connector", run.connector_version),
            ("error", f"{run.error_code}: {run.error}" if run.error else None),
        ]
    )
    _print_details(pages, requests)
    if run.traceback:
        output.say("\n" + run.traceback.rstrip())


def _moved(run: Run) -> str:
    before = run.cursor_before or "the beginning"
    return f"{before} → {run.cursor_after or 'none'}" if run.pages else f"{before}: no page was committed"


def _print_details(pages: Sequence[PageRow], requests: Sequence[RequestLog]) -> None:
    if pages:
        output.say()
        output.print_table(
            ("page", "committed", "records", "cursor"),
            [(page.number, page.committed_at, output.counts(page.counts), page.cursor) for page in pages],
        )
    if requests:
        output.say()
        output.print_table(
            ("method", "url", "status", "ms", "retries", "note"),
            [(one.method, one.url, one.status, one.milliseconds, one.retries, one.note) for one in requests],
        )
