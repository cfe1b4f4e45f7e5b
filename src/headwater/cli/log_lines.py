"""`headwater logs`: what the routes of connectors logged, and what they log from now on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from headwater.cli import output
from headwater.cli.session import Options, platform_options, with_platform

if TYPE_CHECKING:
    from headwater.app import Platform
    from headwater.log_line import LogFilter, LogLine

LEVELS = ("debug", "info", "warning", "error")
FOLLOW_SECONDS = 1.0  # between two looks
FOLLOW_LINES_MAX = 1_000  # of one look; more than these within a second are told of, not shown


@click.command("logs")
@platform_options
@click.argument("connection", required=False)
@click.option("--stream", help="Stream key.")
@click.option("--run", "run_id", type=int, help="Of this run.")
@click.option("--delivery", "delivery_id", type=int, help="Of this delivery.")
@click.option("--level", type=click.Choice(LEVELS), help="This level and those above it.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True)
@click.option("--after", type=int, help="Go on after this line's id (smaller ones).")
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes, until interrupted.")
def logs(options: Options, limit: int, after: int | None, follow: bool, **words: str | int | None) -> None:
    """Lines that routes logged, first to last; the newest where there are more than `--limit`."""
    if follow and after is not None:
        raise click.UsageError("--follow goes on with what comes, and --after with what was before: give one of them.")

    async def act(platform: Platform) -> None:
        from headwater.log_line import LogFilter

        which = LogFilter(**words)  # type: ignore[arg-type]  # the options are its fields
        found = list(reversed(await platform.store.log_lines(which, after=after, limit=limit)))
        if options.json and not follow:
            output.print_json(found)
            return
        _print(options, found)
        if follow:
            await follow_lines(platform, options, which, newest=found[-1].id if found else 0)
        elif not found:
            output.say("No line matches.")

    with_platform(options, act)


async def follow_lines(platform: Platform, options: Options, which: LogFilter, *, newest: int) -> None:
    """Print the lines above the id `newest` as they come, until cancelled."""
    while True:
        await platform.clock.sleep(FOLLOW_SECONDS)
        found = await platform.store.log_lines(which, limit=FOLLOW_LINES_MAX)
        fresh = [line for line in reversed(found) if line.id > newest]
        if len(fresh) == FOLLOW_LINES_MAX:
            output.note(f"There were more than {FOLLOW_LINES_MAX} lines at once: the earlier ones are left out.")
        _print(options, fresh)
        newest = max([newest, *(line.id for line in fresh)])


def _print(options: Options, lines: list[LogLine]) -> None:
    for line in lines:
        if options.json:
            output.print_json_line(line)
            continue
        stream = f" {line.stream}" + (f"[{line.partition}]" if line.partition else "") if line.stream else ""
        owner = f"run {line.run_id}" if line.run_id is not None else f"delivery {line.delivery_id}"
        where = f"{line.connection}{stream} {owner}"
        output.say(f"{output.instant(line.at)} {line.level.upper():7} {where}  {line.message}")
